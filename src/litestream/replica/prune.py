"""Retention from elsewhere: on another machine, with credentials that may delete, while the replicator only appends.

What goes is what `litestream.core.retention` says, with these additions, since the replicator may be at work and
cannot be asked:

* no snapshot is taken: while none is young enough, nothing is deleted;
* the generation with the newest object counts as the one in use;
* objects younger than `GRACE` stay, and so does a generation that holds one: it may be on its way. A retention shorter
  than that counts as `GRACE`;
* only objects that were looked at are deleted. A generation that holds others by now stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from litestream.client import GenerationView, Overview, ReplicaClient
from litestream.core.layout import LAYOUTS
from litestream.core.lease import PREFIX, read_keys
from litestream.core.position import SnapshotInfo, WALSegmentInfo
from litestream.core.retention import plan
from litestream.errors import LitestreamError, StorageError

GRACE = 3600.0
"""Seconds: much longer than any upload that is still of use, and than clocks differ."""
BATCH = 1000
"""Objects in one request, where the store can."""


@dataclass(frozen=True, slots=True)
class Doomed:
    """An object that retention deletes: its key, and what it is."""

    key: str
    info: SnapshotInfo | WALSegmentInfo


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What to delete, in this order: snapshots, then segments.

    Attributes:
        need_snapshot: nothing may be deleted, because no snapshot is young enough.
        generations: of those objects, the generations that go as a whole.
        recent: how many objects retention would delete and stay because they, or their generation, are too young.
    """

    snapshots: tuple[Doomed, ...] = ()
    segments: tuple[Doomed, ...] = ()
    generations: tuple[str, ...] = ()
    recent: int = 0
    need_snapshot: bool = False

    @property
    def objects(self) -> tuple[Doomed, ...]:
        """All of them."""
        return self.snapshots + self.segments


@dataclass(slots=True)
class Pruned:
    """What became of a plan.

    Attributes:
        refused: objects that the store did not let go (locked, or no right to delete), and its words.
        kept: objects that were not tried: a refused snapshot needs them, or the generation is in use again.
        error: why it ended early, if it did.
    """

    deleted: list[Doomed] = field(default_factory=list)
    refused: list[tuple[Doomed, StorageError]] = field(default_factory=list)
    kept: list[Doomed] = field(default_factory=list)
    error: LitestreamError | None = None


def plan_prune(overview: Overview, now: float, retention: float, *, grace: float = GRACE) -> PrunePlan:
    """What may be deleted from a replica that holds this. `now` in Unix seconds, the others in seconds."""
    snapshots = [snapshot for view in overview.values() for snapshot in view.snapshots]
    segments = [segment for view in overview.values() for segment in view.segments]
    decided = plan(snapshots, segments, now, max(retention, grace), current=_in_use(overview))
    recent = 0
    old_snapshots = _doomed(overview, decided.delete_snapshots)
    old_segments: list[Doomed] = []
    generations: list[str] = []
    for generation in decided.delete_generations:
        view = overview[generation]
        if any(_is_recent(info, now, grace) for info in _infos(view)):
            recent += len(_infos(view))
            continue
        generations.append(generation)
        old_snapshots += _doomed(overview, view.snapshots)
        old_segments += _doomed(overview, view.segments)
    for doomed in _doomed(overview, decided.delete_segments):
        if _is_recent(doomed.info, now, grace):
            recent += 1
        else:
            old_segments.append(doomed)
    return PrunePlan(
        snapshots=tuple(sorted(old_snapshots, key=lambda doomed: doomed.key)),
        segments=tuple(sorted(old_segments, key=lambda doomed: doomed.key)),
        generations=tuple(generations),
        recent=recent,
        need_snapshot=decided.need_snapshot,
    )


async def prune(client: ReplicaClient, todo: PrunePlan) -> Pruned:
    """Delete what the plan says. An object that is refused does not stop the others; the segments that a refused
    snapshot needs stay with it.

    Raises nothing but cancellation: `Pruned.error` says what went wrong.
    """
    done = Pruned()
    try:
        busy = [name for name in todo.generations if await _is_in_use(client, name, todo)]
        done.kept += [doomed for doomed in todo.objects if doomed.info.generation in busy]
        await _delete_all(client, [d for d in todo.snapshots if d.info.generation not in busy], done)
        needed = _first_refused(done)
        segments = []
        for doomed in todo.segments:
            generation = doomed.info.generation
            if generation in busy:
                continue
            if doomed.info.index >= needed.get(generation, doomed.info.index + 1):
                done.kept.append(doomed)
            else:
                segments.append(doomed)
        await _delete_all(client, segments, done)
    except LitestreamError as error:
        done.error = error
    return done


async def remove_old_leases(client: ReplicaClient) -> int:
    """Delete what is left of earlier epochs, and never anything of the highest one; how many objects that were.

    A holder does it itself with its claim, unless it must not delete. Raises `StorageError`.
    """
    older = read_keys([info.key for info in await client.store.list(PREFIX)]).older
    if older:
        await client.store.delete(older)
    return len(older)


def _in_use(overview: Overview) -> str:
    """The generation with the newest object; empty if there is none."""
    return max(overview, key=lambda name: max(info.created_at for info in _infos(overview[name])), default="")


def _infos(view: GenerationView) -> list[SnapshotInfo | WALSegmentInfo]:
    return [*view.snapshots, *view.segments]


def _is_recent(info: SnapshotInfo | WALSegmentInfo, now: float, grace: float) -> bool:
    return info.created_at > now - grace


def _doomed(overview: Overview, infos: Iterable[SnapshotInfo | WALSegmentInfo]) -> list[Doomed]:
    found = []
    for info in infos:
        layout = overview[info.generation].layout
        if isinstance(info, SnapshotInfo):
            key = layout.snapshot_key(info.generation, info.index)
        else:
            key = layout.wal_key(info.generation, info.index, info.offset)
        found.append(Doomed(key, info))
    return found


async def _is_in_use(client: ReplicaClient, generation: str, todo: PrunePlan) -> bool:
    """Whether something was added to a generation since the plan was made."""
    planned = {doomed.key for doomed in todo.objects if doomed.info.generation == generation}
    found = await client.store.list(client.layout.generation_prefix(generation))
    return any(info.key not in planned and any(layout.parse(info.key) for layout in LAYOUTS) for info in found)


def _first_refused(done: Pruned) -> dict[str, int]:
    """By generation, the index of its first snapshot that could not be deleted."""
    first: dict[str, int] = {}
    for doomed, _ in done.refused:
        generation, index = doomed.info.generation, doomed.info.index
        first[generation] = min(index, first.get(generation, index))
    return first


async def _delete_all(client: ReplicaClient, objects: Sequence[Doomed], done: Pruned) -> None:
    for batch in _batches(objects):
        await _delete(client, batch, done)


async def _delete(client: ReplicaClient, batch: Sequence[Doomed], done: Pruned) -> None:
    """Delete; where something is refused, by halves, so that all that can go goes."""
    try:
        await client.store.delete([doomed.key for doomed in batch])
    except StorageError as error:
        if not error.permanent:
            raise
        if len(batch) == 1:
            done.refused.append((batch[0], error))
            return
        half = len(batch) // 2
        halves = (_delete(client, batch[:half], done), _delete(client, batch[half:], done))
        for result in await asyncio.gather(*halves, return_exceptions=True):
            if result is not None:
                raise result from None
    else:
        done.deleted += batch


def _batches(objects: Sequence[Doomed]) -> Iterator[Sequence[Doomed]]:
    for at in range(0, len(objects), BATCH):
        yield objects[at : at + BATCH]


def total_size(objects: Collection[Doomed]) -> int:
    """Bytes as stored."""
    return sum(doomed.info.size for doomed in objects)
