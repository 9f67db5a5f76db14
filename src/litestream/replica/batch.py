"""Which pending segments go up as one object, and the proof that they continue what the replica has."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from litestream.core.position import Pos, WALSegmentInfo
from litestream.core.stamp import STAMP_SIZE, Kind, Stamp
from litestream.errors import CorruptObjectError, PositionError
from litestream.streams import read_stamp

BATCH_LIMIT = 4 << 20
"""Compressed bytes that are joined into one object. It is held in memory; a larger backlog makes several objects."""

BATCH_SPAN = 4 << 20
"""Bytes of WAL that are joined into one object. Joining unpacks and packs again: what fills an object alone goes up as
it is, and an object stays small enough to be joined and restored in memory, however well it is compressed."""

BATCH_SEGMENTS = 64
"""Segments that are joined into one object."""


def pending(segments: Sequence[WALSegmentInfo], pos: Pos) -> Sequence[WALSegmentInfo]:
    """Those of one generation's `segments` (in order) that begin at `pos` or later."""
    start = bisect_left(segments, (pos.index, pos.offset), key=lambda s: (s.index, s.offset))
    return segments[start:]


def batches(segments: Sequence[WALSegmentInfo], limit: int = BATCH_LIMIT) -> Iterator[list[WALSegmentInfo]]:
    """Groups of neighbours of one index, each within these limits (`limit`: compressed bytes) or a single segment."""
    batch: list[WALSegmentInfo] = []
    size = 0
    for number, segment in enumerate(segments):
        full = size + segment.size > limit or len(batch) >= BATCH_SEGMENTS
        after = segments[number + 1] if number + 1 < len(segments) else None
        # The last one's length is not told: it is that of what is stored, at least.
        end = after.offset if after is not None and after.index == segment.index else segment.offset + segment.size
        if batch and (full or segment.index != batch[0].index or end - batch[0].offset > BATCH_SPAN):
            yield batch
            batch, size = [], 0
        batch.append(segment)
        size += segment.size
    if batch:
        yield batch


def skipped(replica: Pos, initial: Pos) -> PositionError:
    """What the database has does not begin where the replica ends."""
    return PositionError(f"replica skipped position: replica={replica} initial={initial}")


def check_first(replica: Pos, tail: Stamp | None, first: Stamp) -> None:
    """Whether a segment may follow what the replica has: at its position, or first of the next index.

    Where the last object there is known (`tail`), the segment must name its end and its checksum as what came before:
    names that fit are no proof, since another history may have the same. Raises `PositionError`.
    """
    pos = first.pos
    next_index = pos.index == replica.index + 1 and pos.offset == 0
    if pos != replica and not next_index:
        raise skipped(replica, pos)
    if next_index and first.prev != replica:
        raise skipped(replica, first.prev)
    if tail is not None and first.prev_checksum != tail.end_checksum:
        raise PositionError(f"replica has another history: replica={replica} initial={pos}")


def check_object(body: bytes, pos: Pos) -> Stamp:
    """The stamp of a shadow object that is about to be stored. Raises `CorruptObjectError`."""
    stamp = read_stamp(body[-STAMP_SIZE:], str(pos))
    if stamp is None:
        raise CorruptObjectError("shadow segment is cut short", key=str(pos))
    if (stamp.kind, stamp.pos) != (Kind.WAL, pos):
        raise CorruptObjectError(f"shadow segment is that of {stamp.pos}", key=str(pos))
    if hashlib.sha256(memoryview(body)[:-STAMP_SIZE]).digest() != stamp.frame_hash:
        raise CorruptObjectError("shadow segment is damaged", key=str(pos))
    return stamp


def end_of(stamp: Stamp) -> Pos:
    """The position behind the last byte of a segment."""
    return Pos(stamp.pos.generation, stamp.pos.index, stamp.pos.offset + stamp.length)
