"""Which objects of one generation make up a state, and whether none of them is missing.

A restore takes one snapshot and the WAL from the beginning of the snapshot's index on. Names alone prove that every
index is there from its offset 0; stamps prove the rest (`check_chain`): that nothing between two objects is missing,
the last segment of an index included, and that each is the object its name says. Where there are no stamps the
contents have to prove it when they are unpacked.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from litestream.core.layout import V03, Layout
from litestream.core.position import Pos, SnapshotInfo, WALSegmentInfo
from litestream.core.stamp import Kind, Stamp
from litestream.core.timestamps import format_rfc3339
from litestream.errors import CorruptObjectError, NoSnapshotsError, RestoreError

Info = SnapshotInfo | WALSegmentInfo

Stamps = Mapping[Info, Stamp | None]
"""What is known of stamps: None is an object without one; an object that is not in it was not looked at."""


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """One snapshot, and the segments to apply on it, in order."""

    snapshot: SnapshotInfo
    segments: tuple[WALSegmentInfo, ...]

    @property
    def generation(self) -> str:
        return self.snapshot.generation

    @property
    def target(self) -> Pos:
        """Where the last object begins."""
        return self.segments[-1].pos if self.segments else Pos(self.generation, self.snapshot.index, 0)


def choose_snapshot(snapshots: Iterable[SnapshotInfo], *, max_index: int | None = None) -> SnapshotInfo:
    """The snapshot with the greatest index (at most `max_index`). Raises `NoSnapshotsError`."""
    fitting = [s for s in snapshots if max_index is None or s.index <= max_index]
    if not fitting:
        raise _no_snapshots(max_index, None)
    return max(fitting, key=lambda s: s.index)


def order_segments(
    snapshot: SnapshotInfo,
    segments: Iterable[WALSegmentInfo],
    *,
    max_index: int | None = None,
    layout: Layout = V03,
) -> list[WALSegmentInfo]:
    """The segments that follow `snapshot` up to the end of `max_index`, in order of application.

    Segments of other generations or before the snapshot do not count. Raises `CorruptObjectError`, with the key of
    the object that is missing, if an index between is absent or does not begin at offset 0, and `RestoreError` if
    `max_index` is beyond the last index there is.
    """
    ordered = sorted(
        (s for s in segments if s.generation == snapshot.generation and snapshot.index <= s.index),
        key=lambda s: (s.index, s.offset),
    )
    last = ordered[-1].index if ordered else snapshot.index
    if max_index is not None:
        if max_index > last:
            raise RestoreError(f"index {max_index:08x} is beyond the last one, {snapshot.generation}/{last:08x}")
        ordered = [s for s in ordered if s.index <= max_index]
    before = Pos(snapshot.generation, snapshot.index - 1, 0)
    for segment in ordered:
        pos = segment.pos
        if pos == before:
            raise CorruptObjectError("two segments at one position", key=layout.wal_key(*_parts(pos)))
        if pos.index > before.index:
            _check_index_start(pos, Pos(pos.generation, before.index + 1, 0), layout)
        before = pos
    return ordered


def _check_index_start(found: Pos, needed: Pos, layout: Layout) -> None:
    if found == needed:
        return
    key = layout.wal_key(*_parts(needed))
    if found.index > needed.index:
        raise CorruptObjectError(f"missing WAL index: {needed.generation}/{needed.index:08x}", key=key)
    raise CorruptObjectError(f"missing initial wal segment: {needed}", key=key)


def plan_restore(
    snapshots: Sequence[SnapshotInfo],
    segments: Iterable[WALSegmentInfo],
    *,
    index: int | None = None,
    timestamp_ns: int | None = None,
    stamps: Stamps | None = None,
    layout: Layout = V03,
) -> RestorePlan:
    """Plan a restore from one generation: of everything, up to the end of an index, or up to a time.

    Up to a time: the latest state all of whose objects have their last commit at or before it, by the stamp, or by
    the object's own time where `stamps` has none. A later time than all is the latest state. Index and time together
    mean both limits. A snapshot whose stamp needs WAL past the limit is passed over for an earlier one.

    Raises `NoSnapshotsError` if no snapshot is early enough, and what `order_segments` raises. `check_chain` is to be
    called afterwards.
    """
    known = stamps or {}
    wal = sorted(segments, key=lambda s: (s.index, s.offset))
    for snapshot in sorted(snapshots, key=lambda s: s.index, reverse=True):
        if index is not None and (snapshot.index > index or _required(snapshot, known)[0] > index):
            continue
        following = [s for s in wal if s.generation == snapshot.generation and s.index >= snapshot.index]
        if timestamp_ns is not None:
            early = list(itertools.takewhile(lambda s: commit_time(s, known) <= timestamp_ns, following))
            cut = len(early) < len(following)
            if commit_time(snapshot, known) > timestamp_ns or (cut and not _reach(early, snapshot, known)):
                continue
            following = early
        return RestorePlan(snapshot, tuple(order_segments(snapshot, following, max_index=index, layout=layout)))
    raise _no_snapshots(index, timestamp_ns)


def commit_time(info: Info, stamps: Stamps) -> int:
    """When the last commit in an object was made, Unix nanoseconds; the object's own time where no stamp tells."""
    stamp = stamps.get(info)
    return (stamp.last_commit_ns if stamp is not None else 0) or int(info.created_at * 1e9)


def _required(snapshot: SnapshotInfo, stamps: Stamps) -> tuple[int, int]:
    """(index, offset) up to which the snapshot needs WAL, as far as its stamp is known."""
    stamp = stamps.get(snapshot)
    return stamp.required if stamp is not None else (snapshot.index, 0)


def _reach(segments: Sequence[WALSegmentInfo], snapshot: SnapshotInfo, stamps: Stamps) -> bool:
    """Whether the segments go as far as the snapshot needs; True where stamps do not tell."""
    end = (snapshot.index, 0)
    if segments:
        last = stamps.get(segments[-1])
        if last is None:
            return True
        end = last.required
    return end >= _required(snapshot, stamps)


def _no_snapshots(index: int | None, timestamp_ns: int | None) -> NoSnapshotsError:
    if timestamp_ns is not None:
        moment = format_rfc3339(timestamp_ns, fraction=True)
        return NoSnapshotsError(f"no snapshots available at or before {moment}")
    return NoSnapshotsError(
        "no snapshots available" if index is None else f"no snapshots available at or before index {index:08x}"
    )


def check_chain(plan: RestorePlan, stamps: Stamps, *, layout: Layout = V03) -> None:
    """Prove from the stamps that the plan's objects are whole and follow each other.

    `stamps` has every object of the plan. An entirely unstamped plan passes: its contents have to prove it.
    Raises `CorruptObjectError` with the key of the object that is missing, foreign or without its stamp.
    """
    snapshot = stamps[plan.snapshot]
    if snapshot is None and all(stamps[segment] is None for segment in plan.segments):
        return
    head = check_identity(plan.snapshot, snapshot, layout.snapshot_key(plan.generation, plan.snapshot.index))
    before = head
    for segment in plan.segments:
        key = layout.wal_key(*_parts(segment.pos))
        stamp = check_identity(segment, stamps[segment], key)
        if stamp.page_size != head.page_size:
            raise CorruptObjectError(f"page size {stamp.page_size}, the snapshot has {head.page_size}", key=key)
        check_follows(before, stamp, key, layout)
        before = stamp
    end = before.required if plan.segments else (plan.snapshot.index, 0)
    if end < head.required:
        needed = Pos(plan.generation, *head.required)
        key = layout.wal_key(plan.generation, *end)
        raise CorruptObjectError(f"missing WAL segment: the snapshot needs the WAL up to {needed}", key=key)


def check_identity(info: Info, stamp: Stamp | None, key: str) -> Stamp:
    """The stamp, which is there and says the same as the name."""
    if stamp is None:
        raise CorruptObjectError("has no stamp, but other objects of its generation do", key=key)
    kind = Kind.WAL if isinstance(info, WALSegmentInfo) else Kind.SNAPSHOT
    pos = info.pos if isinstance(info, WALSegmentInfo) else Pos(info.generation, info.index, 0)
    if (stamp.kind, stamp.pos) != (kind, pos):
        raise CorruptObjectError(f"another object stands under this name: {stamp.kind.name} {stamp.pos}", key=key)
    if kind is Kind.WAL and stamp.required != (pos.index, pos.offset + stamp.length):
        raise CorruptObjectError("its stamp contradicts itself", key=key)
    return stamp


def check_follows(before: Stamp, stamp: Stamp, key: str, layout: Layout) -> None:
    """`stamp`'s segment begins where the object before it ends, with the same checksum."""
    if before.kind is Kind.SNAPSHOT:
        # The first segment of the plan; what it follows is not in it, but it must begin the snapshot's index.
        if stamp.pos != before.pos:
            raise CorruptObjectError(
                f"missing initial wal segment: {before.pos}", key=layout.wal_key(*_parts(before.pos))
            )
        return
    end = Pos(before.pos.generation, *before.required)
    if stamp.prev != end:
        if not stamp.prev.is_zero and stamp.prev.generation == end.generation and stamp.prev > end:
            raise CorruptObjectError(f"missing WAL segment: {end}", key=layout.wal_key(*_parts(end)))
        raise CorruptObjectError(f"does not follow the object before it, which ends at {end}", key=key)
    same_wal = stamp.pos.index == before.pos.index
    if stamp.prev_checksum != before.end_checksum or (same_wal and stamp.wal_header != before.wal_header):
        raise CorruptObjectError("does not follow the object before it: another history", key=key)


def _parts(pos: Pos) -> tuple[str, int, int]:
    return pos.generation, pos.index, pos.offset
