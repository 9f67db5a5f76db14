"""Do the objects of a restore fit each other? Their stamps, names, lengths, salts and checksums, pair by pair."""

from __future__ import annotations

from litestream.core.checksum import Checksum
from litestream.core.layout import Layout
from litestream.core.plan import check_follows, check_identity
from litestream.core.position import SnapshotInfo, WALSegmentInfo
from litestream.core.stamp import Stamp
from litestream.core.wal import WALHeader
from litestream.errors import CorruptObjectError
from litestream.restore.segment import Segment


def check_stamp(
    info: SnapshotInfo | WALSegmentInfo, stamp: Stamp | None, key: str, *, stamped: bool, page_size: int = 0
) -> None:
    """An object's stamp is there exactly if those of its generation are, and says what the object's name says."""
    if stamp is None:
        if stamped:
            raise CorruptObjectError(
                "has no stamp, but other objects of its generation do: cut short, or foreign", key=key
            )
        return
    if not stamped:
        raise CorruptObjectError("has a stamp, but the first object of its generation has none", key=key)
    check_identity(info, stamp, key)
    if page_size and stamp.page_size != page_size:
        raise CorruptObjectError(f"page size {stamp.page_size}, the snapshot has {page_size}", key=key)


def stamp_header(stamp: Stamp, key: str) -> WALHeader:
    """The WAL header that a segment's stamp carries."""
    try:
        header = WALHeader.parse(stamp.wal_header)
    except CorruptObjectError as error:
        raise CorruptObjectError(f"its stamp: {error.reason}", key=key) from error
    if header.page_size != stamp.page_size:
        raise CorruptObjectError("its stamp contradicts itself", key=key)
    return header


def check_content(segment: Segment) -> None:
    """A segment's content is what its stamp says of it."""
    stamp = segment.stamp
    if stamp is None:
        return
    start = stamp.prev_checksum if segment.info.offset else _pack(segment.start)
    header = segment.header.raw if segment.header is not None else b""
    commits = segment.committed()
    pages = segment.frame(commits - 1).commit if commits else stamp.db_pages
    said = (stamp.wal_header, start, stamp.end_checksum, stamp.db_pages)
    if said != (header, _pack(segment.start), _pack(segment.end), pages):
        raise segment.corrupt("the content is not the one that its stamp describes")


def check_neighbours(before: Segment, after: Segment, layout: Layout) -> None:
    """`after` begins where `before` ends; whichever is wrong or missing is named."""
    if after.info.offset and before.end_offset != after.info.offset:
        if before.end_offset < after.info.offset:
            raise missing_behind(before, layout)
        raise after.corrupt(f"overlaps the segment before it, which ends at offset {before.end_offset:08x}")
    if before.stamp is not None and after.stamp is not None:
        check_follows(before.stamp, after.stamp, after.key, layout)
    if after.info.offset == 0:
        if before.stamp is None and not (before.frames and before.frame(before.frames - 1).commit):
            raise missing_behind(before, layout)
    elif before.end != after.start or _salts(before) != _salts(after):
        raise after.corrupt("does not continue the segment before it (salt or checksum): one of the two is foreign")


def missing_behind(before: Segment, layout: Layout) -> CorruptObjectError:
    """The segment that must follow `before` is not there."""
    info = before.info
    key = layout.wal_key(info.generation, info.index, before.end_offset)
    return CorruptObjectError(
        f"missing WAL segment: {info.generation}/{info.index:08x}:{before.end_offset:08x}", key=key
    )


def check_snapshot_point(snapshot: Stamp, key: str, segment: Segment) -> None:
    """The WAL that a snapshot was taken over is the one in the plan: same header, same checksum at that point."""
    if segment.info.index != snapshot.required[0] or not any(snapshot.wal_header):
        return
    header = segment.header.raw if segment.header is not None else b""
    at_point = segment.end_offset == snapshot.required[1]
    if header != snapshot.wal_header or (at_point and _pack(segment.end) != snapshot.end_checksum):
        raise CorruptObjectError(f"was taken over another WAL than {segment.key}: one of the two is foreign", key=key)


def _salts(segment: Segment) -> bytes:
    return segment.header.salts if segment.header is not None else b""


def _pack(checksum: Checksum) -> bytes:
    return checksum[0].to_bytes(4, "big") + checksum[1].to_bytes(4, "big")
