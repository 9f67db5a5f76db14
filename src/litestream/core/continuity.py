"""Does what stands in the WAL now follow what was copied? One verdict for each observation.

================================================  ========================  ==============================
observed                                          verdict                   the caller then
================================================  ========================  ==============================
nothing was copied yet                            `Fresh`                   begins a generation
the same header, our last frame, and more         `Same`                    appends at the known offset
no committed frame beyond the known ones          `NothingNew`              waits; all there is, is copied
committed frames under another header, anchored   `Restarted`               goes to the next index, offset 0
a reading that does not fit together              `Unclear`                 reads again
anything else                                     `Lost`                    catches up, or new generation
================================================  ========================  ==============================

*Anchored* means: one of our read transactions was held all the time since a copy to the very end succeeded, so that
SQLite can have reset the WAL only after everything in it was copied, and only once. Without it any change of the
header means that commits may have been missed, since a header never tells how many resets there were.

Nothing is taken from sizes or times: after a reset the file may have the same size to the byte. Committed is what the
wal-index says, and only while its salts are those of the WAL's header.
"""

from __future__ import annotations

from dataclasses import dataclass

from litestream.core.checksum import Checksum
from litestream.core.wal import WAL_HEADER_SIZE, WALHeader, frame_count, frame_offset
from litestream.core.walindex import WalIndexHeader
from litestream.errors import CorruptObjectError

WAL_TRUNCATED = "wal truncated by another process"
WAL_OVERWRITTEN = "wal overwritten by another process"
WAL_REMOVED = "wal removed"
WAL_RESTARTED = "wal restarted while not watching"
PAGE_SIZE_CHANGED = "page size changed"
INDEX_UNREADABLE = "wal-index not readable"
INDEX_DISAGREES = "wal and wal-index disagree"


@dataclass(frozen=True, slots=True)
class Known:
    """How far the WAL of the current index is copied."""

    page_size: int
    wal_header: bytes
    """32 bytes; empty while no WAL of this index has been read (then `offset` is 0)."""
    offset: int
    """Copied bytes of the WAL file: 0, or 32 and whole frames of committed transactions."""
    checksum: Checksum
    """Running checksum at `offset`."""
    last_frame: bytes
    """Header (24 bytes) of the frame that ends at `offset`; empty at offset 0 or 32."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at the WAL and its wal-index.

    To be a look at one moment it must be read like this: the wal-index header, the file's size, the WAL's header, the
    frame header, and the wal-index header once more. `index` is the first of the two; None if either could not be
    parsed or their salts differ. (A reset changes the salts in the wal-index before it touches the file, and salts
    never come back: with equal salts at both ends, no reset fell in between.)
    """

    wal_size: int | None
    """Bytes of the WAL file; None: there is no such file."""
    header: bytes
    """Its first 32 bytes, or as many as there are."""
    index: WalIndexHeader | None
    frame_at_known: bytes
    """The 24 bytes of the frame header that ends with its page at `Known.offset`; empty if there is none."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """Nothing was copied before. The WAL has committed frames up to `end`; 0: none, and `header` is None."""

    header: WALHeader | None
    end: int
    checksum: Checksum


@dataclass(frozen=True, slots=True)
class Same:
    """The WAL goes on: copy from `offset` to `end` into the same index.

    The frames must chain from the known checksum (the header's, at offset 0 and 32) and come out at `checksum` at
    `end`, which ends a transaction. If they do not, continuity is lost: `WAL_OVERWRITTEN`.
    """

    header: WALHeader
    offset: int
    end: int
    checksum: Checksum


@dataclass(frozen=True, slots=True)
class Restarted:
    """The WAL was reset once, all before was copied: copy from offset 0 to `end` into the next index.

    The frames must chain from the header's checksum and come out at `checksum` at `end`, as for `Same`.
    """

    header: WALHeader
    end: int
    checksum: Checksum


@dataclass(frozen=True, slots=True)
class NothingNew:
    """Every committed frame is copied."""


@dataclass(frozen=True, slots=True)
class Unclear:
    """The reading does not fit together, mostly because somebody is writing: nothing is proved, read again.

    Never stand for a copy to the end. If it stays so over several readings, take it for `Lost(reason)`.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """What was copied cannot be proved to go on here.

    `passed`: another WAL stands there, or none, so the database may have gone on unseen. Otherwise what was copied was
    taken back (a power cut under `synchronous=NORMAL` does that), or cannot be compared.
    """

    reason: str
    passed: bool = False


Verdict = Fresh | Same | Restarted | NothingNew | Unclear | Lost


def judge(known: Known | None, anchored: bool, observed: Observed) -> Verdict:
    """The verdict on one observation; see the table above. `anchored` is whether R was held throughout."""
    if known is None:
        return _judge_first(observed)
    if observed.wal_size is None:
        return Lost(WAL_REMOVED, passed=not anchored)
    header = _header(observed)
    index = observed.index
    if _page_size_changed(known, header, index):
        return Lost(PAGE_SIZE_CHANGED)
    if header is not None and header.raw == known.wal_header:
        return _judge_same_header(known, anchored, header, observed)
    if not anchored:
        return Lost(_unwatched(known, header, observed.wal_size), passed=True)
    if index is not None and index.max_frame == 0:
        return NothingNew()
    end = _committed(header, observed)
    if isinstance(end, Unclear):
        return end
    assert header is not None
    assert index is not None
    if known.offset == 0:
        # Nothing of this index was read yet: its first WAL, not a second one.
        return Same(header, 0, end, index.checksum)
    return Restarted(header, end, index.checksum)


def _judge_first(observed: Observed) -> Fresh | Unclear:
    """No position yet: whatever is committed is the beginning."""
    index = observed.index
    if index is not None and index.max_frame == 0:
        return Fresh(None, 0, (0, 0))
    header = _header(observed)
    end = _committed(header, observed)
    if isinstance(end, Unclear):
        return end
    assert index is not None
    return Fresh(header, end, index.checksum)


def _judge_same_header(known: Known, anchored: bool, header: WALHeader, observed: Observed) -> Verdict:
    """The file's header is the known one. The wal-index may have moved on to the next WAL already."""
    index = observed.index
    if index is not None and index.max_frame == 0 and index.salts != header.salts:
        # A reset that has not reached the file yet.
        return NothingNew() if anchored else Lost(WAL_RESTARTED, passed=True)
    if index is None or (index.salts != header.salts and index.max_frame):
        return Unclear(INDEX_UNREADABLE if index is None else INDEX_DISAGREES)
    if index.max_frame < frame_count(known.offset, known.page_size):
        return Lost(WAL_TRUNCATED)
    if (observed.wal_size or 0) < known.offset:
        return Lost(WAL_TRUNCATED)
    if known.last_frame and observed.frame_at_known != known.last_frame:
        return Lost(WAL_OVERWRITTEN)
    if index.max_frame == 0:
        return NothingNew()
    end = _committed(header, observed)
    if isinstance(end, Unclear):
        return end
    if end > known.offset:
        return Same(header, known.offset, end, index.checksum)
    return NothingNew() if index.checksum == known.checksum else Lost(WAL_OVERWRITTEN)


def _header(observed: Observed) -> WALHeader | None:
    """The WAL's header; None where there is none that SQLite would accept."""
    if (observed.wal_size or 0) < WAL_HEADER_SIZE:
        return None
    try:
        return WALHeader.parse(observed.header)
    except CorruptObjectError:
        return None


def _committed(header: WALHeader | None, observed: Observed) -> int | Unclear:
    """Where the committed frames end in the file, for a wal-index that has some and must fit this header."""
    index = observed.index
    if index is None:
        return Unclear(INDEX_UNREADABLE)
    if header is None:
        return Unclear(WAL_TRUNCATED if (observed.wal_size or 0) < WAL_HEADER_SIZE else WAL_OVERWRITTEN)
    if (index.salts, index.page_size, index.big) != (header.salts, header.page_size, header.big):
        return Unclear(INDEX_DISAGREES)
    end = frame_offset(index.max_frame, header.page_size)
    return end if end <= (observed.wal_size or 0) else Unclear(WAL_TRUNCATED)


def _page_size_changed(known: Known, header: WALHeader | None, index: WalIndexHeader | None) -> bool:
    """Whether the WAL is one of another page size. An empty wal-index does not know its page size yet."""
    in_header = header is not None and header.page_size != known.page_size
    return in_header or (index is not None and index.max_frame > 0 and index.page_size != known.page_size)


def _unwatched(known: Known, header: WALHeader | None, wal_size: int) -> str:
    """Why continuity is lost where the header is not the known one and R was not held."""
    if header is None and wal_size < known.offset:
        return WAL_TRUNCATED
    if header is None and known.wal_header:
        return WAL_OVERWRITTEN
    return WAL_RESTARTED
