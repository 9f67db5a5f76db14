"""Copying committed frames from the WAL into the shadow WAL.

What is committed is what the wal-index says, not what bytes stand in the WAL (capture.md, F7). Every frame is proved
to continue the checksum chain before it is kept; a chain that does not continue is lost continuity, never a guess.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from litestream.core.checksum import Checksum
from litestream.core.continuity import (
    WAL_OVERWRITTEN,
    WAL_TRUNCATED,
    Fresh,
    Known,
    Lost,
    NothingNew,
    Observed,
    Restarted,
    Same,
    Unclear,
    Verdict,
    judge,
)
from litestream.core.position import MAX_INDEX, Pos
from litestream.core.stamp import Kind, Stamp
from litestream.core.wal import (
    FRAME_HEADER_SIZE,
    WAL_HEADER_SIZE,
    WALHeader,
    frame_offset,
    frame_size,
    scan_frames,
)
from litestream.db.hashes import PageHashes
from litestream.db.shadow import ShadowWAL
from litestream.errors import ContinuityLostError, CorruptObjectError, DatabaseBusyError
from litestream.priority import lower_priority
from litestream.sqlite.source import Source
from litestream.streams import compress

if TYPE_CHECKING:
    from litestream.db.compact import Compact

SEGMENT_LIMIT = 4 * 1024 * 1024
"""Bytes of WAL in one shadow segment: one LZ4 block, so memory is bounded and a restore can run in parallel."""

_AHEAD = 2
"""Segments that are read while one is compressed."""
_NICE = 5
"""How much less than others the thread that compresses a backlog is given."""

_READINGS = 20
_READING_PAUSE = 0.0002  # seconds, times the attempt: a writer needs microseconds between two reads of ours


_NOWHERE = Pos()


@dataclass(frozen=True, slots=True)
class Base:
    """The live WAL as it stands where what was published ends, if that is a WAL of our own: the state that a catch-up
    has read, or what was copied in compact mode. What follows is told from it."""

    header: bytes
    """32 bytes; empty if the WAL held no frame."""
    end: int
    """Offset behind the last frame that is part of that state."""
    checksum: Checksum
    """Running checksum at `end`."""
    last_frame: bytes
    """Header of the frame that ends there."""
    in_file: bool
    """Whether all of it was in the database file. Otherwise the frames up to `end` are published once more at once: a
    snapshot reads the file, and needs the WAL that the file lacks."""
    compact: bool = False
    """Whether the present index holds the newest versions of all up to `end` (`litestream.db.compact`), and goes on."""

    def known(self, page_size: int) -> Known:
        """What a copy goes on from."""
        if self.in_file or not self.header:
            return Known(page_size, self.header, self.end, self.checksum, self.last_frame)
        return Known(page_size, self.header, WAL_HEADER_SIZE, WALHeader.parse(self.header).checksum, b"")

    def pack(self, pos: Pos) -> dict[str, str]:
        """As text, with the position it belongs to."""
        return {
            "pos": str(pos),
            "header": self.header.hex(),
            "end": str(self.end),
            "checksum": pack_checksum(self.checksum).hex(),
            "last_frame": self.last_frame.hex(),
            "in_file": str(int(self.in_file)),
            **({"compact": "1"} if self.compact else {}),
        }

    @classmethod
    def unpack(cls, text: dict[str, str], pos: Pos) -> Base | None:
        """The inverse; None if it belongs to another position, or is damaged."""
        if text.get("pos") != str(pos):
            return None
        try:
            header, frame = bytes.fromhex(text["header"]), bytes.fromhex(text["last_frame"])
            checksum = unpack_checksum(bytes.fromhex(text["checksum"]))
            if header:
                WALHeader.parse(header)
            in_file, compact = text["in_file"] == "1", text.get("compact") == "1"
            return cls(header, int(text["end"]), checksum, frame, in_file, compact)
        except (KeyError, TypeError, ValueError, CorruptObjectError):
            return None


@dataclass(slots=True)
class Cursor:
    """How far the WAL has been copied, with what proves that the next bytes continue it."""

    pos: Pos
    page_size: int
    db_pages: int = 0
    header: bytes = b""
    """The 32 bytes that begin the WAL of `pos.index`; empty before its first committed frame was read."""
    checksum: Checksum = (0, 0)
    """Running WAL checksum at `pos`."""
    last_frame: bytes = b""
    """Header of the last frame copied."""
    ended: Pos = _NOWHERE
    """Where the index before ended."""
    ended_checksum: Checksum = (0, 0)
    base: Base | None = None
    """After a catch-up, until the live WAL is copied again, and in compact mode: where that WAL is."""

    @property
    def salts(self) -> bytes:
        """Those of the live WAL."""
        return (self.header if self.base is None else self.base.header)[16:24]

    def is_at(self, salts: bytes, end: int) -> bool:
        """Whether the live WAL of these salts is copied to just there."""
        if self.base is not None and not self.base.compact:
            return False  # it is copied once more, as the next index
        return self.salts == salts and (self.pos.offset if self.base is None else self.base.end) == end

    def known(self) -> Known:
        """The same for the verdict on continuity."""
        if self.base is not None:
            return self.base.known(self.page_size)
        return Known(self.page_size, self.header, self.pos.offset, self.checksum, self.last_frame)


def pack_checksum(checksum: Checksum) -> bytes:
    """A checksum as a stamp carries it."""
    return checksum[0].to_bytes(4, "big") + checksum[1].to_bytes(4, "big")


def unpack_checksum(raw: bytes) -> Checksum:
    return int.from_bytes(raw[:4], "big"), int.from_bytes(raw[4:8], "big")


class Capture:
    """The copier of one generation. Blocking; the caller serialises and holds a reader."""

    def __init__(
        self,
        source: Source,
        shadow: ShadowWAL,
        hashes: PageHashes,
        cursor: Cursor,
        *,
        writer: bytes,
        clock: Callable[[], int],
        last_commit_ns: int,
    ) -> None:
        self.source = source
        self.shadow = shadow
        self.hashes = hashes
        self.cursor = cursor
        self.last_commit_ns = last_commit_ns
        self.noticed_ns = 0
        """When the change that the next copy takes was first seen; 0: at the copy itself."""
        self.quiet: Callable[[], bool] = lambda: True
        """Whether the application's writer is still: a second processor is for a backlog only then."""
        self.compact: Compact
        """What copies instead while it is wanted to; set by the attachment."""
        self.copied_bytes = 0
        """Bytes of WAL copied since the attach."""
        self._writer = writer
        self._clock = clock
        self._seen = b""

    # -- asking

    def pending(self) -> int:
        """Bytes that a copy would read now; 0 if there is nothing new or it cannot be told."""
        parsed = self.source.wal_index()
        if parsed is None or parsed[0].max_frame == 0:
            return 0
        end, known = frame_offset(parsed[0].max_frame, self.cursor.page_size), self.cursor.known()
        return max(0, end - known.offset) if parsed[0].salts == self.cursor.salts else end

    def now(self) -> int:
        """The wall clock in nanoseconds, never before an earlier commit's time."""
        return max(self._clock(), self.last_commit_ns)

    # -- copying

    def copy(self, *, whole: bool = False) -> bool:
        """Copy every frame that is committed when this begins. True if the position moved.

        `whole`: only segments that are full, and what is left later: it will be more by then.

        Raises `ContinuityLostError` if what stands there does not follow, `DatabaseBusyError` to try again, and
        `OSError` if the shadow cannot be written; the cursor is then where the last whole segment ended.
        """
        raw = self.source.wal_index_raw()
        if raw and raw == self._seen:
            return False
        verdict = self.judge(anchored=True)
        now = self.now()
        if isinstance(verdict, Lost):
            raise ContinuityLostError(verdict.reason)
        if isinstance(verdict, Same | Restarted | Fresh) and verdict.header is not None:
            before = self.cursor
            if not self._copy_to(verdict.header, verdict.end, verdict.checksum, now, whole=whole):
                return self.cursor is not before
        self._seen = raw
        self.noticed_ns = 0
        return not isinstance(verdict, NothingNew)

    def judge(self, *, anchored: bool) -> Verdict:
        """Whether what stands in the WAL follows what was copied. Raises `DatabaseBusyError` if it stays unclear."""
        reason = ""
        for attempt in range(_READINGS):
            verdict = judge(self.cursor.known(), anchored, self._observe())
            if not isinstance(verdict, Unclear):
                return verdict
            reason = verdict.reason
            time.sleep(attempt * _READING_PAUSE)
        raise DatabaseBusyError(f"the WAL cannot be read at one moment: {reason}")

    def _observe(self) -> Observed:
        """One look at the WAL, between two equal looks at the wal-index."""
        before = self.source.wal_index()
        size, header, frame = self.source.wal_size(), self.source.wal_header(), b""
        cursor, known = self.cursor, self.cursor.known()
        if known.last_frame:
            frame = self.source.read_wal(known.offset - frame_size(cursor.page_size), FRAME_HEADER_SIZE)
        after = self.source.wal_index()
        steady = before is not None and after is not None and before[0].salts == after[0].salts
        return Observed(size, header, before[0] if before is not None and steady else None, frame)

    def _copy_to(self, header: WALHeader, end: int, checksum: Checksum, now: int, *, whole: bool) -> bool:
        """Copy up to `end`, or with `whole` as far as full segments go. True if the end was reached."""
        if self.compact.takes(header):
            return self.compact.copy_to(header, end, checksum, now, whole=whole)
        cursor, least = self.cursor, 0
        if cursor.base is not None:
            # States before the base's end would mix with the newer one that was published: nobody may restore them.
            least = cursor.base.end if cursor.base.header == header.raw else 0
            cursor = self.next_index(header)
        elif cursor.header != header.raw:
            cursor = self.next_index(header)
        reached = True
        waiting: deque[tuple[Cursor, Cursor, bytes, Future[bytes] | None]] = deque()
        several = end - cursor.pos.offset >= 2 * SEGMENT_LIMIT
        while cursor.pos.offset < end:
            if whole and end - cursor.pos.offset < SEGMENT_LIMIT:
                reached = False
                break
            data, after = self._read_segment(cursor, end, least)
            beside = _packer().submit(compress, data) if several and self.quiet() else None
            waiting.append((cursor, after, data, beside))
            cursor = after
            if len(waiting) > _AHEAD:
                self._keep(*waiting.popleft(), now)
        while waiting:
            self._keep(*waiting.popleft(), now)
        if reached and cursor.checksum != checksum:
            raise ContinuityLostError(WAL_OVERWRITTEN)
        return reached

    def next_index(self, header: WALHeader) -> Cursor:
        """The cursor at the beginning of a WAL whose first committed frame is about to be read."""
        old = self.cursor
        index = old.pos.index + 1 if old.header else old.pos.index
        if index >= MAX_INDEX:
            raise ContinuityLostError("max index exceeded")
        return Cursor(
            Pos(old.pos.generation, index, 0),
            old.page_size,
            old.db_pages,
            header.raw,
            header.checksum,
            ended=old.pos if old.header else Pos(),
            ended_checksum=old.checksum if old.header else (0, 0),
        )

    def _read_segment(self, cursor: Cursor, end: int, least: int) -> tuple[bytes, Cursor]:
        """The next segment from `cursor` towards `end`, proved, and the cursor behind it.

        Whole transactions where they fit, and at least to `least`.
        """
        head = WAL_HEADER_SIZE if cursor.pos.offset == 0 else 0
        size = frame_size(cursor.page_size)
        limit = max(SEGMENT_LIMIT, least - cursor.pos.offset)
        count = min((end - cursor.pos.offset - head) // size, max(1, limit // size))
        data = self.source.read_wal(cursor.pos.offset, head + count * size)
        if len(data) < head + count * size:
            raise ContinuityLostError(WAL_TRUNCATED)
        run = scan_frames(data, WALHeader.parse(cursor.header), start=cursor.checksum, offset=head)
        if run.count != count or data[:head] != cursor.header[:head]:
            raise ContinuityLostError(WAL_OVERWRITTEN)
        checksum = run.checksum
        if cursor.pos.offset + len(data) < end and run.committed:
            data = data[: head + run.committed * size]
            checksum = run.committed_checksum
        after = Cursor(
            Pos(cursor.pos.generation, cursor.pos.index, cursor.pos.offset + len(data)),
            cursor.page_size,
            run.db_pages or cursor.db_pages,
            cursor.header,
            checksum,
            data[-size : FRAME_HEADER_SIZE - size],
            cursor.ended,
            cursor.ended_checksum,
        )
        return data, after

    def _keep(self, before: Cursor, after: Cursor, data: bytes, packed: Future[bytes] | None, now: int) -> None:
        """Store a segment in the shadow, and move the cursor behind it."""
        head = WAL_HEADER_SIZE if before.pos.offset == 0 else 0
        self.hashes.forget(changes(data, frame_size(before.page_size), head), before.pos, after.pos)
        frame = packed.result() if packed is not None else compress(data)
        self.shadow.append(frame, self.segment_stamp(before, after, len(data), now))
        self.cursor = after
        self.last_commit_ns = now
        self.copied_bytes += len(data)

    def segment_stamp(self, before: Cursor, after: Cursor, length: int, now: int) -> Stamp:
        """The stamp of the segment of `length` bytes between two cursors, its hash not filled in."""
        first = before.pos.offset == 0
        return Stamp(
            kind=Kind.WAL,
            pos=before.pos,
            page_size=before.page_size,
            db_pages=after.db_pages,
            length=length,
            frame_hash=bytes(32),
            prev=before.ended if first else before.pos,
            prev_checksum=pack_checksum(before.ended_checksum if first else before.checksum),
            end_checksum=pack_checksum(after.checksum),
            wal_header=after.header,
            required=(after.pos.index, after.pos.offset),
            first_commit_ns=max(self.last_commit_ns, min(self.noticed_ns or now, now)),
            last_commit_ns=now,
            writer=self._writer,
        )

    def snapshot_stamp(self, index: int, previous: Pos, size: int) -> Stamp:
        """The stamp of a snapshot of `size` bytes begun at `index`, all read by now: copy first, then ask."""
        cursor = self.cursor
        return Stamp(
            kind=Kind.SNAPSHOT,
            pos=Pos(cursor.pos.generation, index, 0),
            page_size=cursor.page_size,
            db_pages=cursor.db_pages or size // cursor.page_size,
            length=0,
            frame_hash=bytes(32),
            prev=previous,
            prev_checksum=bytes(8),
            end_checksum=pack_checksum(cursor.checksum),
            wal_header=cursor.header or bytes(32),
            required=(cursor.pos.index, cursor.pos.offset),
            first_commit_ns=self.last_commit_ns,
            last_commit_ns=self.last_commit_ns,
            writer=self._writer,
        )


def changes(data: bytes | bytearray, size: int, head: int) -> Iterator[tuple[int, int]]:
    """Page number and commit value of each frame of `size` bytes that stands behind the first `head` bytes."""
    return struct.iter_unpack(f">II{size - 8}x", memoryview(data)[head:])


@lru_cache(maxsize=1)
def _packer() -> ThreadPoolExecutor:
    """The thread that compresses what a backlog holds, beside the one that reads and writes."""
    return ThreadPoolExecutor(1, thread_name_prefix="litestream-pack", initializer=lower_priority, initargs=(_NICE,))


def resumed_cursor(last: Stamp, last_frame: bytes) -> Cursor:
    """The cursor behind the last shadow segment."""
    return Cursor(
        Pos(last.pos.generation, *last.required),
        last.page_size,
        last.db_pages,
        last.wal_header,
        unpack_checksum(last.end_checksum),
        last_frame,
        last.prev if last.pos.offset == 0 else Pos(),
        unpack_checksum(last.prev_checksum) if last.pos.offset == 0 else (0, 0),
    )


def last_frame_of(data: bytes, page_size: int) -> bytes:
    """Header of the last frame of a segment's content."""
    size = frame_size(page_size)
    return data[-size : FRAME_HEADER_SIZE - size]
