"""Which generation of which replica, and which of its objects: from names, times and a few stamps."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from litestream.core.layout import Layout, is_ltx_key
from litestream.core.plan import RestorePlan, order_segments
from litestream.core.position import Pos, SnapshotInfo, WALSegmentInfo
from litestream.core.stamp import STAMP_SIZE, Stamp
from litestream.core.timestamps import format_rfc3339
from litestream.errors import (
    CorruptObjectError,
    LitestreamError,
    LTXReplicaError,
    NoBackupError,
    NoSnapshotsError,
    ObjectNotFoundError,
    RestoreError,
)
from litestream.restore.links import check_stamp
from litestream.restore.model import Plan, RestoreOptions, with_hint
from litestream.storage.reading import read_tail
from litestream.streams import read_stamp

if TYPE_CHECKING:
    from litestream.client import ReplicaClient
    from litestream.storage.protocol import Store

Info = SnapshotInfo | WALSegmentInfo
Replicas = Sequence[tuple[str, "ReplicaClient"]]

_LTX = (
    "is in the LTX format of the official Litestream 0.5, which this version cannot read: restore it with that program"
)


@dataclass(slots=True)
class Candidate:
    """One generation on one replica that has a snapshot."""

    replica: str
    store: Store
    generation: str
    layout: Layout
    snapshots: list[SnapshotInfo]
    segments: list[WALSegmentInfo]
    time_ns: int = 0
    """Last commit, as far as the newest object tells."""
    stamped: bool = False
    """Whether its first object, so every one, has a stamp."""
    predecessor: str = ""
    """The generation before it, if its first snapshot names one."""
    _stamps: dict[Info, Stamp | None] = field(default_factory=dict)

    @property
    def newest(self) -> Info:
        return self.segments[-1] if self.segments else self.snapshots[-1]

    @property
    def end(self) -> tuple[int, int]:
        info = self.newest
        return info.index, info.offset if isinstance(info, WALSegmentInfo) else -1

    @property
    def last_index(self) -> int:
        return max(self.newest.index, self.snapshots[-1].index)

    def key(self, info: Info) -> str:
        if isinstance(info, SnapshotInfo):
            return self.layout.snapshot_key(info.generation, info.index)
        return self.layout.wal_key(info.generation, info.index, info.offset)

    async def stamp(self, info: Info) -> Stamp | None:
        """The object's stamp, from its last bytes. Raises `CorruptObjectError` for a damaged one."""
        if info not in self._stamps:
            self._stamps[info] = await fetch_stamp(self.store, self.key(info), info.size)
        return self._stamps[info]

    async def commit_time(self, info: Info) -> int:
        """When the last commit in an object was made, Unix nanoseconds; without stamps, the object's own time."""
        if not self.stamped:
            return int(info.created_at * 1e9)
        stamp = await self.stamp(info)
        check_stamp(info, stamp, self.key(info), stamped=True)
        return stamp.last_commit_ns if stamp is not None else 0

    async def look(self) -> None:
        """Find out about age, stamps and predecessor. Damage is no error yet: this may not be the one to restore."""
        infos: list[Info] = [*self.snapshots, *self.segments]
        self.time_ns = max(int(info.created_at * 1e9) for info in infos)
        try:
            first = await self.stamp(self.snapshots[0])
            self.stamped = first is not None
            if first is not None and first.prev.generation != self.generation:
                self.predecessor = first.prev.generation
        except CorruptObjectError:
            self.stamped = True  # a damaged stamp is one
        try:
            newest = await self.stamp(self.newest)
        except CorruptObjectError:
            return
        if newest is not None:
            self.time_ns = newest.last_commit_ns
            if not self.stamped:
                self.stamped = await self._outvoted()

    async def _outvoted(self) -> bool:
        """Whether the first object has lost its stamp: the last one has one, and so has a third, if there is one."""
        infos: list[Info] = [*self.snapshots[:0:-1], *self.segments[:-1]]
        try:
            return not infos or await self.stamp(infos[0]) is not None
        except CorruptObjectError:
            return True


async def fetch_stamp(store: Store, key: str, size: int) -> Stamp | None:
    """The stamp of an object of `size` bytes, by a ranged read where the store has that; None if it has none."""
    return read_stamp(await read_tail(store, key, size, STAMP_SIZE), key)


async def make_plan(replicas: Replicas, options: RestoreOptions) -> Plan:
    """Decide what to restore. Reads one listing per replica and some stamps.

    Raises `NoBackupError` if every replica was read and has nothing that matches; `RestoreError` naming a replica
    that could not be read, since the latest data may be there; `CorruptObjectError` for a missing or foreign object.
    """
    candidates: list[Candidate] = []
    warnings: list[str] = []
    for name, client in replicas:
        try:
            candidates += await _survey(name, client, options, warnings)
        except (LTXReplicaError, ObjectNotFoundError):
            raise
        except LitestreamError as error:
            if len(replicas) == 1:
                raise
            other = next(label for label, _ in replicas if label != name)
            raise RestoreError(
                f"replica {name} cannot be read, and may have the latest data: {error}; -replica {other} restores "
                "what another one has"
            ) from error
    if not candidates:
        if warnings:
            raise NoSnapshotsError(f"no snapshots available: {'; '.join(warnings)}")
        raise NoBackupError
    ordered = newest_first(candidates)
    for candidate in ordered:
        plan = await plan_generation(candidate, options, others=ordered, warnings=tuple(warnings))
        if plan is not None:
            return plan
    moment = format_rfc3339(options.timestamp_ns or 0, fraction=True)
    raise RestoreError(f"no state of {moment} or before can be restored: the first snapshot is later")


async def _survey(name: str, client: ReplicaClient, options: RestoreOptions, warnings: list[str]) -> list[Candidate]:
    """The generations of one replica that may be restored."""
    overview = await client.overview()
    found = [
        Candidate(name, client.store, generation, view.layout, view.snapshots, view.segments)
        for generation, view in overview.items()
        if options.only_generation in ("", generation)
    ]
    restorable = [candidate for candidate in found if candidate.snapshots]
    warnings += [f"generation {c.generation} on {name} has WAL but no snapshot (yet)" for c in found if not c.snapshots]
    limit = asyncio.Semaphore(options.parallelism)

    async def look(candidate: Candidate) -> None:
        async with limit:
            await candidate.look()

    for outcome in await asyncio.gather(*map(look, restorable), return_exceptions=True):
        if outcome is not None:
            raise outcome
    if overview.has_ltx and not options.only_generation:
        newest = max((c.time_ns for c in restorable), default=-1)
        if newest < await _ltx_time(client.store):
            raise LTXReplicaError(
                f"replica {name} {_LTX}" + ("; -generation restores the older data beside it" if restorable else "")
            )
    return restorable


async def _ltx_time(store: Store) -> int:
    """When the newest LTX file was made, Unix nanoseconds. Every new one is in level 0 first."""
    infos = [info for prefix in ("ltx/", "0000/", "0009/") for info in await store.list(prefix)]
    return max((int(info.modified * 1e9) for info in infos if is_ltx_key(info.key)), default=0)


def newest_first(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Generations in the order in which they are preferred.

    By the time of the last commit; but what another one names as its predecessor is older than that, whatever the
    clocks said. The same generation on two replicas: the one that goes further first.
    """
    left = sorted(candidates, key=lambda c: (c.time_ns, c.end), reverse=True)
    ordered: list[Candidate] = []
    while left:
        superseded = {c.predecessor for c in left if c.predecessor}
        best = next((c for c in left if c.generation not in superseded), left[0])
        same = sorted((c for c in left if c.generation == best.generation), key=lambda c: c.end, reverse=True)
        ordered += same
        left = [c for c in left if c.generation != best.generation]
    return ordered


async def plan_generation(
    candidate: Candidate,
    options: RestoreOptions,
    *,
    others: Sequence[Candidate] = (),
    warnings: tuple[str, ...] = (),
) -> Plan | None:
    """The plan within one generation; None if it has no state as early as the timestamp.

    The newest snapshot whose stamp's requirement lies within the limits is taken; one that needs WAL which should be
    there and is not is an error, never a reason to fall back to an older state. `others` is what there is besides,
    for the error's text.
    """
    generation, index, until = candidate.generation, options.index, options.timestamp_ns
    if index is not None and index > candidate.last_index:
        raise RestoreError(f"index {index:08x} is beyond the last one, {generation}/{candidate.last_index:08x}")
    segments = [s for s in candidate.segments if index is None or s.index <= index]
    cut = len(segments) < len(candidate.segments)
    if until is not None:
        early = await _until(candidate, segments, until)
        cut = len(early) < len(segments)
        segments = early
    if options.position is not None:
        position = (options.position.index, options.position.offset)
        index, cut = position[0], True
        segments = [s for s in segments if (s.index, s.offset) < position]
    for snapshot in reversed(candidate.snapshots):
        if index is not None and snapshot.index > index:
            continue
        hint = _hint(candidate, snapshot.index, others)
        try:
            plan = await _plan_from(candidate, snapshot, segments, options, cut=cut)
        except CorruptObjectError as error:
            raise with_hint(error, hint) from error
        if plan is not None:
            return dataclasses.replace(plan, hint=hint, warnings=warnings)
    if until is not None:
        return None
    if options.position is not None:
        raise RestoreError(f"no snapshot is early enough to restore {options.position} (any more)")
    raise NoSnapshotsError(f"no snapshots available at or before index {index or 0:08x}")


async def _plan_from(
    candidate: Candidate,
    snapshot: SnapshotInfo,
    segments: Sequence[WALSegmentInfo],
    options: RestoreOptions,
    *,
    cut: bool,
) -> Plan | None:
    """The plan with this snapshot; None if it is too late for the limits. `cut`: they leave out segments."""
    index, until, position = options.index, options.timestamp_ns, options.position
    key = candidate.key(snapshot)
    stamp = await candidate.stamp(snapshot)
    check_stamp(snapshot, stamp, key, stamped=candidate.stamped)
    if until is not None and await candidate.commit_time(snapshot) > until:
        return None
    chosen = [s for s in segments if s.index >= snapshot.index]
    end = await _end(candidate, snapshot, chosen)
    if stamp is not None and position is not None:
        if stamp.required > (position.index, position.offset):
            return None
        if end < (position.index, position.offset):
            last = candidate.layout.wal_key(candidate.generation, *end)
            raise CorruptObjectError(f"missing WAL segment: no object goes up to {position}", key=last)
    if stamp is not None and stamp.required > end:
        if cut and (until is not None or stamp.required[0] > (index or 0)):
            return None
        needed = Pos(candidate.generation, *stamp.required)
        raise CorruptObjectError(
            f"missing WAL segment: the snapshot {key} needs the WAL up to {needed}",
            key=candidate.layout.wal_key(candidate.generation, *end),
        )
    ordered = order_segments(snapshot, chosen, layout=candidate.layout)
    return Plan(
        candidate.replica,
        candidate.store,
        candidate.layout,
        RestorePlan(snapshot, tuple(ordered)),
        stamp,
        until_ns=until,
        position=position,
        earlier=tuple(s for s in segments if s.index < snapshot.index),
    )


async def _end(candidate: Candidate, snapshot: SnapshotInfo, chosen: Sequence[WALSegmentInfo]) -> tuple[int, int]:
    """Where the last of the segments ends by its stamp; where it begins if it has none."""
    if not chosen:
        return snapshot.index, 0
    if not candidate.stamped:
        return chosen[-1].index, chosen[-1].offset
    stamp = await candidate.stamp(chosen[-1])
    check_stamp(chosen[-1], stamp, candidate.key(chosen[-1]), stamped=True)
    assert stamp is not None  # check_stamp has seen to it
    return stamp.required


async def _until(candidate: Candidate, segments: list[WALSegmentInfo], until: int) -> list[WALSegmentInfo]:
    """The segments before the first that has a later commit.

    Stamps are read by binary search: the writer keeps their times in order. (That none of the objects that are then
    read is later is checked when they are.) Store times need not be in order, and cost nothing to look at.
    """
    if not candidate.stamped:
        late = (n for n, s in enumerate(segments) if int(s.created_at * 1e9) > until)
        return segments[: next(late, len(segments))]
    low, high = 0, len(segments)
    if segments and await candidate.commit_time(segments[-1]) <= until:
        return segments
    while low < high:
        middle = (low + high) // 2
        if await candidate.commit_time(segments[middle]) <= until:
            low = middle + 1
        else:
            high = middle
    return segments[:low]


def _hint(candidate: Candidate, index: int, others: Sequence[Candidate]) -> str:
    """What to say when something from the snapshot at `index` on is damaged: where else to look."""
    replica = next((c.replica for c in others if c.replica != candidate.replica), "")
    if replica:
        return f"another replica may be whole: -replica {replica}"
    if candidate.snapshots[0].index < index:
        return f"an older state can be restored with -generation {candidate.generation} -index {index - 1:08x}"
    older = next((c.generation for c in others if c.generation != candidate.generation), "")
    return f"an older state may be restored with -generation {older}" if older else ""
