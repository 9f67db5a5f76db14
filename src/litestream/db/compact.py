"""Copying in compact mode: a WAL of our own in which each page of a batch stands once, in its newest version.

A batch is a run of whole transactions of the live WAL. It is read once to prove that the checksum chain goes on and to
note where the newest version of each page stands; those frames then become one transaction of our own WAL, with its
own salts and checksums, in the order in which they stand in the live one. Each own index belongs to one live WAL and
holds the newest version of all that it holds, from its first frame on; `Cursor.base` says how far that one was copied.
The position moves when a whole batch is stored: nobody sees a part of one (docs/compact.md).
"""

from __future__ import annotations

import json
import secrets
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from litestream import fsutil
from litestream.core.checksum import Checksum, chain_frames
from litestream.core.continuity import WAL_OVERWRITTEN, WAL_TRUNCATED
from litestream.core.position import Pos
from litestream.core.stamp import Stamp
from litestream.core.wal import FRAME_HEADER_SIZE, WAL_HEADER_SIZE, FrameRun, WALHeader, frame_size, scan_frames
from litestream.db.capture import SEGMENT_LIMIT, Base, Capture, Cursor, changes, last_frame_of, pack_checksum
from litestream.db.notes import Notes
from litestream.db.shadow import ShadowWAL
from litestream.errors import ContinuityLostError, InvalidNameError
from litestream.sqlite.source import Source
from litestream.streams import compress

BATCH_LIMIT = 64 * 1024 * 1024
"""Bytes of different pages in a batch. A transaction that is larger is a batch by itself, with all its frames."""

_NOTE = "compact"


@dataclass(slots=True)
class Batch:
    """A proved run of whole transactions of the live WAL, and which of its frames are to be stored."""

    start: int
    """Offset of its first frame in the live WAL."""
    start_checksum: Checksum
    end: int = 0
    """Offset behind its last frame."""
    checksum: Checksum = (0, 0)
    db_pages: int = 0
    """Pages of the database behind it."""
    shortest: int = 0
    """The fewest pages that the database had behind one of its transactions."""
    last_frame: bytes = b""
    frames: Sequence[int] = ()
    """Offsets of the frames to store, in order; the last one ends the last transaction."""
    pages: Iterable[int] = ()
    """The numbers of the pages that it changes; empty if they are not known."""
    held: tuple[int, bytes, FrameRun] | None = None
    """All of it as it was read, if that was little."""


class Compact:
    """The copier of one capture in compact mode. Blocking; the caller serialises and holds a reader.

    Args:
        wanted: asked whether a live WAL is to be stored in this way; if it is not yet, it is taken once more.

    Attributes:
        cut: salts and offset of a state at which a batch is to end, so that it has a position; None: nowhere.
        at_cut: the cursor there, once it was reached.
    """

    def __init__(self, capture: Capture, meta: str, access: fsutil.Access, wanted: Callable[[], bool]) -> None:
        self.cut: tuple[bytes, int] | None = None
        self.at_cut: Cursor | None = None
        self._wanted = wanted
        self._capture = capture
        self._notes = Notes(meta)
        self._access = access

    def takes(self, header: WALHeader) -> bool:
        """Whether a live WAL of this header is stored here. One that was begun here is, to its end."""
        return self._wanted() or _goes_on(self._capture.cursor, header)

    def copy_to(self, header: WALHeader, end: int, checksum: Checksum, now: int, *, whole: bool = False) -> bool:
        """Copy up to `end`, where the live WAL's running checksum is `checksum`. True if the end was reached.

        `whole`: not before it is enough for a large batch; what is left later is more by then.

        Raises `ContinuityLostError` and `OSError`; the cursor is then where the last whole batch ended.
        """
        while True:
            at, start, least = self._begin(header)
            if at >= end:
                break
            if whole and end - at < BATCH_LIMIT:
                return False
            cut = self.cut is not None and self.cut[0] == header.salts and at < self.cut[1] < end
            stop = self.cut[1] if self.cut is not None and cut else end
            batch = scan(self._capture.source, header, Batch(at, start), stop, least)
            self._store(header, batch, now)
            if cut and batch.end == stop:
                self.at_cut = self._capture.cursor
        if start != checksum:
            raise ContinuityLostError(WAL_OVERWRITTEN)
        return True

    # -- inside

    def _begin(self, header: WALHeader) -> tuple[int, Checksum, int]:
        """Where in the live WAL the next batch begins, the checksum there, and how far it must go at least.

        States before that would mix with the newer one that is stored already: nobody may restore them.
        """
        cursor = self._capture.cursor
        base = cursor.base
        if base is not None and _goes_on(cursor, header):
            return base.end, base.checksum, 0
        least = 0
        if base is not None:
            least = base.end if base.header == header.raw else 0
        elif cursor.header == header.raw:
            least = cursor.pos.offset
        return WAL_HEADER_SIZE, header.checksum, least

    def _store(self, header: WALHeader, batch: Batch, now: int) -> None:
        """Store a batch, and move the cursor behind it."""
        capture = self._capture
        before = capture.cursor
        size = frame_size(before.page_size)
        if before.base is not None and _goes_on(before, header):
            cursor, copied = before, before.base.end
        else:
            own = WALHeader.build(before.page_size, secrets.token_bytes(8), big=sys.byteorder == "big")
            cursor, copied = capture.next_index(own), 0
        head = WAL_HEADER_SIZE if cursor.pos.offset == 0 else 0
        end = cursor.pos.offset + head + len(batch.frames) * size
        there = Pos(cursor.pos.generation, cursor.pos.index, end)
        base = Base(header.raw, batch.end, batch.checksum, batch.last_frame, in_file=True, compact=True)
        capture.hashes.forget(_changed(capture.source, header, batch), before.pos, there)
        with capture.shadow.batch() as stored:
            for data, after in self._segments(header, batch, cursor):
                if after.pos == there:
                    after.base = base
                if after.pos == there or not stored.count:
                    self._remember(before, after, there)
                stored.append(compress(data), capture.segment_stamp(cursor, after, len(data), now))
                cursor = after
            stored.publish()
        capture.cursor = cursor
        capture.last_commit_ns = now
        capture.copied_bytes += batch.end - copied

    def _segments(self, header: WALHeader, batch: Batch, cursor: Cursor) -> Iterator[tuple[bytearray, Cursor]]:
        """The segments of our own WAL that hold a batch, each with the cursor behind it."""
        own, size = WALHeader.parse(cursor.header), frame_size(cursor.page_size)
        left = len(batch.frames)
        for piece in _chosen(self._capture.source, header, batch):
            left -= len(piece) // size
            _join(piece, size, last=not left)
            checksum = chain_frames(
                piece, page_size=cursor.page_size, start=cursor.checksum, salts=own.salts, big=own.big
            )
            data = piece if cursor.pos.offset else bytearray(own.raw) + piece
            cursor = replace(
                cursor,
                pos=Pos(cursor.pos.generation, cursor.pos.index, cursor.pos.offset + len(data)),
                db_pages=cursor.db_pages if left else batch.db_pages,
                checksum=checksum,
                last_frame=bytes(piece[-size : FRAME_HEADER_SIZE - size]),
            )
            yield data, cursor

    def _remember(self, before: Cursor, after: Cursor, there: Pos) -> None:
        """Note where the live WAL stands before a batch and, once that is known, behind it."""
        text = json.dumps(
            {"from": _packed(before), "to": _packed(after if after.pos == there else Cursor(there, 0))},
            separators=(",", ":"),
        )
        self._notes.write(_NOTE, text, self._access)


def scan(source: Source, header: WALHeader, batch: Batch, end: int, least: int) -> Batch:
    """Prove the live WAL from the batch's start towards `end`, a commit, and find the frames to store.

    At least to `least`, and no more different pages than `BATCH_LIMIT` where a transaction ends before. Raises
    `ContinuityLostError`.
    """
    size = frame_size(header.page_size)
    most = max(1, BATCH_LIMIT // size)
    newest: dict[int, int] | None = {}
    later: dict[int, int] = {}  # of the transaction that has not ended yet
    for at, data, run in _pieces(source, header, batch.start, batch.start_checksum, end):
        numbers, commits = zip(*changes(data, size, 0), strict=True)
        done = run.committed
        if done:
            batch.end, batch.checksum, batch.db_pages = at + done * size, run.committed_checksum, run.db_pages
            batch.last_frame = last_frame_of(data[: done * size], header.page_size)
            batch.shortest = min(commit for commit in (batch.shortest, *commits[:done]) if commit)
            if newest is not None:
                newest.update(later)
                newest.update(zip(numbers[:done], range(at, batch.end, size), strict=True))
                later = {}
        if newest is not None:
            later.update(zip(numbers[done:], range(at + done * size, at + len(data), size), strict=True))
        enough = bool(batch.end) and batch.end >= least
        if newest is None or len(newest) + len(later) > most:
            if enough:
                break
            newest, later = None, {}
        elif at == batch.start and batch.end == end:
            batch.held = at, data, run
    if not batch.end or batch.end < min(least, end):
        raise ContinuityLostError(WAL_OVERWRITTEN)
    batch.frames = range(batch.start, batch.end, size) if newest is None else sorted(newest.values())
    batch.pages = newest or ()
    return batch


def settle(meta: str, shadow: ShadowWAL) -> tuple[tuple[Stamp, bytes] | None, Base | None]:
    """Load a shadow WAL; its last segment as `ShadowWAL.load` has it, and where the live WAL stands there if a batch
    has ended there.

    What a killed process left of a batch, which nobody has seen, is removed.
    """
    last = shadow.load()
    note = _Note.read(meta)
    if note is None or note.before.pos.generation != shadow.generation:
        return last, None
    end, checksum = _end(shadow, last)
    if note.before.pos < end < note.after.pos:
        last = shadow.cut(note.before.pos)
        end, checksum = _end(shadow, last)
    for place in (note.before, note.after):
        if (place.pos, place.checksum) == (end, checksum):
            return last, place.base
    return last, None


# -- the note


class _Place(TypedDict):
    pos: str
    sum: str
    base: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Where:
    pos: Pos
    checksum: bytes = b""
    base: Base | None = None

    @classmethod
    def parse(cls, text: _Place) -> _Where:
        pos = Pos.parse(text["pos"])
        return cls(pos, bytes.fromhex(text["sum"]), Base.unpack(text["base"], pos))


@dataclass(frozen=True, slots=True)
class _Note:
    before: _Where
    after: _Where

    @classmethod
    def read(cls, meta: str) -> _Note | None:
        try:
            text = json.loads(Notes(meta).read(_NOTE) or "null")
            return cls(_Where.parse(text["from"]), _Where.parse(text["to"]))
        except (KeyError, TypeError, ValueError, InvalidNameError):
            return None


def _packed(cursor: Cursor) -> _Place:
    """A cursor as text; one without a page size is not reached yet."""
    checksum = pack_checksum(cursor.checksum).hex() if cursor.page_size else ""
    base = cursor.base if cursor.base is not None and cursor.base.compact else None
    return {"pos": str(cursor.pos), "sum": checksum, "base": base.pack(cursor.pos) if base is not None else {}}


def _end(shadow: ShadowWAL, last: tuple[Stamp, bytes] | None) -> tuple[Pos, bytes]:
    if last is None:
        return Pos(shadow.generation, 0, 0), bytes(8)
    return Pos(shadow.generation, *last[0].required), last[0].end_checksum


# -- frames


def _goes_on(cursor: Cursor, header: WALHeader) -> bool:
    """Whether the present index of our own is of this live WAL."""
    return cursor.base is not None and cursor.base.compact and cursor.base.header == header.raw


def _pieces(
    source: Source, header: WALHeader, at: int, checksum: Checksum, end: int
) -> Iterator[tuple[int, bytes, FrameRun]]:
    """The live WAL in pieces of whole frames, each proved to continue the one before. Raises `ContinuityLostError`."""
    size = frame_size(header.page_size)
    while at < end:
        count = min((end - at) // size, max(1, SEGMENT_LIMIT // size))
        data = source.read_wal(at, count * size)
        if len(data) < count * size:
            raise ContinuityLostError(WAL_TRUNCATED)
        run = scan_frames(data, header, start=checksum)
        if run.count != count:
            raise ContinuityLostError(WAL_OVERWRITTEN)
        yield at, data, run
        at, checksum = at + len(data), run.checksum


def _again(source: Source, header: WALHeader, batch: Batch) -> Iterator[tuple[int, bytes, FrameRun]]:
    """The pieces of a batch once more, proved as before."""
    if batch.held is not None:
        return iter([batch.held])
    return _pieces(source, header, batch.start, batch.start_checksum, batch.end)


def _chosen(source: Source, header: WALHeader, batch: Batch) -> Iterator[bytearray]:
    """The frames to store, at most a segment in each piece."""
    size = frame_size(header.page_size)
    full = max(1, (SEGMENT_LIMIT - WAL_HEADER_SIZE) // size) * size
    piece = bytearray()
    for at, data, _ in _again(source, header, batch):
        view = memoryview(data)
        first, behind = (bisect_left(batch.frames, offset) for offset in (at, at + len(data)))
        for offset in batch.frames[first:behind]:
            piece += view[offset - at : offset - at + size]
            if len(piece) >= full:
                yield piece
                piece = bytearray()
    if piece:
        yield piece


def _join(piece: bytearray, size: int, *, last: bool) -> None:
    """Make frames one transaction with what follows, unless the last one ends it."""
    for at in range(4, len(piece) - (size if last else 0), size):
        piece[at : at + 4] = bytes(4)


def _changed(source: Source, header: WALHeader, batch: Batch) -> Iterator[tuple[int, int]]:
    """What the hashes of pages have to forget."""
    for number in batch.pages:
        yield number, 0
    if not batch.pages:
        for _, data, _ in _again(source, header, batch):
            yield from changes(data, frame_size(header.page_size), 0)
    yield 1, batch.shortest
