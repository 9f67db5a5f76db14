"""What may be deleted from a replica.

A snapshot that is not older than the retention is *kept*; so is everything needed to restore from it to any later
point: the WAL of its generation from its index on. In a generation with a kept snapshot, what stands before the
earliest kept one is deleted, a generation without one as a whole. If no snapshot is kept anywhere, one must be taken
first, and nothing is deleted before it is stored: the rules of the official program, and three more:

* the generation in use is never deleted as a whole; if none of its snapshots is young enough, its newest one is kept;
* a generation without any snapshot goes only when all of its WAL is older than the retention (its first snapshot may
  be on the way: WAL is uploaded before it);
* a snapshot taken just now is kept whatever the clocks of this host and of the store say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from litestream.core.position import SnapshotInfo, WALSegmentInfo


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """What to do. Delete in this order: then whatever is left after a crash can be restored.

    Attributes:
        need_snapshot: no snapshot is young enough: take one, list again, and plan with it as `fresh`.
        delete_generations: names of generations to delete as a whole, snapshots first.
        delete_snapshots: of generations that stay, sorted by generation and index.
        delete_segments: likewise, sorted by position.
    """

    need_snapshot: bool = False
    delete_generations: tuple[str, ...] = ()
    delete_snapshots: tuple[SnapshotInfo, ...] = ()
    delete_segments: tuple[WALSegmentInfo, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to delete."""
        return not (self.delete_generations or self.delete_snapshots or self.delete_segments)


def next_expiry(
    snapshots: Iterable[SnapshotInfo], segments: Iterable[WALSegmentInfo], now: float, retention: float
) -> float:
    """When the next of these is as old as `retention` (Unix seconds), after `now` and at the latest `retention` later:
    as long as nothing is stored, `plan` has nothing to do before."""
    snapshots = list(snapshots)
    complete = {snapshot.generation for snapshot in snapshots}
    times = [snapshot.created_at for snapshot in snapshots]
    times += [segment.created_at for segment in segments if segment.generation not in complete]
    return min((at + retention for at in times if now < at + retention), default=now + retention)


def plan(
    snapshots: Iterable[SnapshotInfo],
    segments: Iterable[WALSegmentInfo],
    now: float,
    retention: float,
    *,
    current: str = "",
    fresh: Collection[tuple[str, int]] = (),
) -> RetentionPlan:
    """Decide over everything in a replica, all generations.

    Args:
        now: Unix seconds.
        retention: seconds.
        current: the generation in use, empty if there is none.
        fresh: (generation, index) of snapshots just taken.
    """
    limit = now - retention
    by_generation: dict[str, list[SnapshotInfo]] = {}
    for snapshot in snapshots:
        by_generation.setdefault(snapshot.generation, []).append(snapshot)
    wal: dict[str, list[WALSegmentInfo]] = {}
    for segment in segments:
        wal.setdefault(segment.generation, []).append(segment)

    kept = {
        generation: [s.index for s in infos if s.created_at >= limit or (generation, s.index) in fresh]
        for generation, infos in by_generation.items()
    }
    if not any(kept.values()):
        return RetentionPlan(need_snapshot=True)

    if current in kept and not kept[current]:
        kept[current] = [max(s.index for s in by_generation[current])]
    gone: list[str] = []
    old_snapshots: list[SnapshotInfo] = []
    old_segments: list[WALSegmentInfo] = []
    for generation in sorted(by_generation.keys() | wal.keys()):
        if generation not in by_generation:
            young = any(s.created_at >= limit for s in wal[generation])
            if not young and generation != current:
                gone.append(generation)
        elif not kept[generation]:
            gone.append(generation)
        else:
            first = min(kept[generation])
            old_snapshots += (s for s in by_generation[generation] if s.index < first)
            old_segments += (s for s in wal.get(generation, ()) if s.index < first)
    return RetentionPlan(
        delete_generations=tuple(gone),
        delete_snapshots=tuple(sorted(old_snapshots, key=lambda s: (s.generation, s.index))),
        delete_segments=tuple(sorted(old_segments, key=lambda s: (s.generation, s.index, s.offset))),
    )
