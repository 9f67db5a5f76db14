"""Retention from elsewhere: what `plan_prune` picks, and what `prune` really deletes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.test_retention import NOW, Objects, replicas, states
from helpers.fakedb import FakeDB, Restored
from helpers.faultstore import FOREVER, Fault, FaultStore
from litestream.client import GenerationView, Overview, ReplicaClient
from litestream.core.layout import SEED, V03, Layout
from litestream.core.position import SnapshotInfo, WALSegmentInfo
from litestream.errors import StorageError
from litestream.replica import Replica
from litestream.replica.prune import BATCH, PrunePlan, plan_prune, prune
from litestream.restore import RestoreOptions, restore
from litestream.storage.file import FileStore
from litestream.storage.memory import MemoryStore

A, B, C = "a" * 16, "b" * 16, "c" * 16
HOUR, DAY = 3600.0, 86400.0


Info = SnapshotInfo | WALSegmentInfo


def everything(objects: Objects) -> list[Info]:
    """Snapshots and segments."""
    return [*objects[0], *objects[1]]


def overview_of(objects: Objects, layout: Layout = V03) -> Overview:
    """What a listing of these objects gives."""
    overview = Overview()
    snapshots, segments = objects
    for name in sorted({info.generation for info in everything(objects)}):
        overview[name] = GenerationView(
            layout,
            sorted((s for s in snapshots if s.generation == name), key=lambda s: s.index),
            sorted((s for s in segments if s.generation == name), key=lambda s: (s.index, s.offset)),
        )
    return overview


def left(objects: Objects, todo: PrunePlan) -> Objects:
    """What is there afterwards."""
    gone = {doomed.info for doomed in todo.objects}
    return [s for s in objects[0] if s not in gone], [s for s in objects[1] if s not in gone]


def infos(objects: Objects, generation: str) -> list[Info]:
    return [info for info in everything(objects) if info.generation == generation]


@given(replicas(), st.floats(0, 100), st.floats(0, 100))
def test_never_what_a_kept_point_needs(objects: Objects, retention: float, grace: float) -> None:
    """Whatever is there: each snapshot that stays keeps all its WAL, each one inside the window stays, no young object
    goes, and something restorable is left wherever there was something."""
    todo = plan_prune(overview_of(objects), NOW, retention, grace=grace)
    snapshots, segments = objects
    kept, kept_segments = left(objects, todo)
    window = max(retention, grace)
    assert {s for s in snapshots if s.created_at >= NOW - window} <= set(kept)
    for snapshot in kept:
        assert states(snapshot, kept_segments) == states(snapshot, segments)
    assert all(doomed.info.created_at <= NOW - grace for doomed in todo.objects)
    assert bool(kept) == bool(snapshots)
    assert todo.need_snapshot == all(s.created_at < NOW - window for s in snapshots)
    if todo.need_snapshot:
        assert not todo.objects


def newest_of(objects: Objects) -> set[str]:
    """The generations that have an object of the newest time of all."""
    there = everything(objects)
    return {info.generation for info in there if info.created_at == max(i.created_at for i in there)}


@given(replicas(), st.floats(0, 100))
def test_the_generation_in_use_stays(objects: Objects, retention: float) -> None:
    """The generation with the newest object keeps it, and a snapshot if it has one."""
    todo = plan_prune(overview_of(objects), NOW, retention, grace=0.0)
    in_use = newest_of(objects)
    if len(in_use) != 1:
        return  # there is nothing, or a tie: either may be it
    (name,) = in_use
    remaining = left(objects, todo)
    assert name not in todo.generations
    assert bool([s for s in remaining[0] if s.generation == name]) == bool(
        [s for s in objects[0] if s.generation == name]
    )


@given(replicas(), st.floats(0, 100), st.floats(0, 100), st.data())
def test_interrupted_anywhere(objects: Objects, retention: float, grace: float, data: st.DataObject) -> None:
    """Deleted in the order of the plan and interrupted, no snapshot is left without its WAL; a second run ends it."""
    todo = plan_prune(overview_of(objects), NOW, retention, grace=grace)
    done = {doomed.info for doomed in todo.objects[: data.draw(st.integers(0, len(todo.objects)))]}
    for snapshot in objects[0]:
        if snapshot not in done:
            assert not states(snapshot, objects[1]) & done
    rest = left(objects, todo)
    if newest_of(rest) == newest_of(objects):  # else another generation is now the one in use
        assert plan_prune(overview_of(rest), NOW, retention, grace=grace).objects == ()


@given(replicas(), st.floats(-1e6, 1e6), st.floats(0, 100))
def test_clocks(objects: Objects, jump: float, retention: float) -> None:
    """However wrong this machine's clock is, something restorable is left."""
    todo = plan_prune(overview_of(objects), NOW + jump, retention, grace=10.0)
    assert bool(left(objects, todo)[0]) == bool(objects[0])


@given(replicas(), st.floats(0, 100), st.floats(0, 100))
def test_a_generation_goes_as_a_whole_or_by_its_beginning(objects: Objects, retention: float, grace: float) -> None:
    """A generation named as gone loses everything; of another one only what stands before its first kept snapshot."""
    todo = plan_prune(overview_of(objects), NOW, retention, grace=grace)
    remaining = left(objects, todo)
    for name in (A, B, C):
        if name in todo.generations:
            assert infos(remaining, name) == []
        elif len(infos(remaining, name)) < len(infos(objects, name)):
            first = min(s.index for s in remaining[0] if s.generation == name)
            gone = {doomed.info.index for doomed in todo.objects if doomed.info.generation == name}
            assert max(gone) < first


def snap(generation: str, index: int, age: float) -> SnapshotInfo:
    return SnapshotInfo(generation, index, 1, NOW - age)


def seg(generation: str, index: int, age: float, offset: int = 0) -> WALSegmentInfo:
    return WALSegmentInfo(generation, index, offset, 1, NOW - age)


def test_a_first_snapshot_on_its_way() -> None:
    """A new generation's WAL comes before its snapshot: neither it nor the old generation goes meanwhile."""
    objects = [snap(A, 0, 30 * HOUR)], [seg(A, 0, 29 * HOUR), seg(A, 1, 2 * HOUR), seg(B, 0, 0.1 * HOUR)]
    todo = plan_prune(overview_of(objects), NOW, DAY)
    assert todo.need_snapshot and not todo.objects
    # Then the snapshot is there; the old generation still waits until its last object is older than an hour.
    objects[0].append(snap(B, 0, 10.0))
    todo = plan_prune(overview_of(objects), NOW, DAY)
    assert todo.generations == (A,)
    objects[1].append(seg(A, 2, 0.9 * HOUR))
    todo = plan_prune(overview_of(objects), NOW, DAY)
    assert (todo.objects, todo.recent) == ((), 4)


def test_young_segments_before_a_kept_snapshot_stay_for_now() -> None:
    """What is younger than the grace is left to the next run."""
    objects = (
        [snap(A, 0, 30 * HOUR), snap(A, 2, 0.5 * HOUR)],
        [seg(A, 0, 2 * HOUR), seg(A, 1, 0.6 * HOUR), seg(A, 2, 1)],
    )
    todo = plan_prune(overview_of(objects), NOW, DAY)
    assert [doomed.info for doomed in todo.objects] == [objects[0][0], objects[1][0]]
    assert todo.recent == 1


def test_a_short_retention_counts_as_the_grace() -> None:
    """With a retention of seconds, an hour is kept all the same."""
    objects = [snap(A, 0, 50 * 60), snap(A, 1, 30 * 60), snap(A, 2, 5.0)], [seg(A, 0, 45 * 60)]
    assert plan_prune(overview_of(objects), NOW, 10.0).objects == ()
    assert len(plan_prune(overview_of(objects), NOW, 10.0, grace=60.0).objects) == 3


@pytest.mark.parametrize("layout", [V03, SEED])
def test_keys_are_those_of_the_layout(layout: Layout) -> None:
    """Objects of replicas that other programs began are deleted under their own names."""
    objects = [snap(A, 0, 30 * HOUR), snap(A, 2, HOUR)], [seg(A, 0, 20 * HOUR, 4096)]
    todo = plan_prune(overview_of(objects, layout), NOW, DAY)
    assert [doomed.key for doomed in todo.objects] == [layout.snapshot_key(A, 0), layout.wal_key(A, 0, 4096)]


# -- doing it


async def fill(store: MemoryStore, snapshots: list[SnapshotInfo], segments: list[WALSegmentInfo]) -> None:
    """The objects, each as old as it says; now is now."""
    shift = time.time() - NOW
    for info in everything((snapshots, segments)):
        if isinstance(info, SnapshotInfo):
            key = V03.snapshot_key(info.generation, info.index)
        else:
            key = V03.wal_key(info.generation, info.index, info.offset)
        store._objects[key] = (b"x", info.created_at + shift)


@pytest.fixture
def memory() -> MemoryStore:
    """Empty."""
    return MemoryStore()


@pytest.fixture
def faults(memory: MemoryStore) -> FaultStore:
    """The same store, with faults."""
    return FaultStore(memory)


async def keys(store: MemoryStore) -> list[str]:
    return [info.key for info in await store.list("")]


async def planned(store: MemoryStore) -> PrunePlan:
    return plan_prune(await ReplicaClient(store).overview(), time.time(), DAY)


def locked(match: str, times: int = FOREVER) -> Fault:
    error = StorageError("cannot delete it: AccessDenied", permanent=True, code="AccessDenied")
    return Fault("delete", match=match, times=times, error=error)


async def test_exactly_the_plan_is_deleted(memory: MemoryStore, faults: FaultStore) -> None:
    """All that is planned goes, snapshots first; what is kept and what is foreign stays."""
    await fill(memory, [snap(A, 0, 50 * HOUR), snap(B, 0, 40 * HOUR), snap(B, 2, HOUR)], [seg(A, 0, 49 * HOUR)])
    await fill(memory, [], [seg(B, 0, 39 * HOUR), seg(B, 1, 30 * HOUR), seg(B, 2, HOUR)])
    foreign = f"generations/{A}/notes.txt"
    await memory.put(foreign, b"mine")
    todo = await planned(memory)
    done = await prune(ReplicaClient(faults), todo)
    assert done.deleted == list(todo.objects)
    assert (done.refused, done.kept, done.error) == ([], [], None)
    assert await keys(memory) == [foreign, V03.snapshot_key(B, 2), V03.wal_key(B, 2, 0)]
    deleted = [key for operation, key in faults.calls if operation == "delete"]
    assert [("/snapshots/" in key) for key in deleted] == [True, True, False, False, False]


async def test_a_locked_object_does_not_stop_the_rest(memory: MemoryStore, faults: FaultStore) -> None:
    """Every object but the locked one goes, however many share a request with it."""
    segments = [seg(A, i, 30 * HOUR) for i in range(BATCH + 30)]
    await fill(memory, [snap(A, 0, 40 * HOUR), snap(A, BATCH + 40, HOUR)], segments)
    key = V03.wal_key(A, 700, 0)
    faults.add(locked(key))
    done = await prune(ReplicaClient(faults), await planned(memory))
    assert [doomed.key for doomed, _ in done.refused] == [key]
    assert len(done.deleted) == BATCH + 30
    assert await keys(memory) == [V03.snapshot_key(A, BATCH + 40), key]


async def test_a_locked_snapshot_keeps_what_it_needs(memory: MemoryStore, faults: FaultStore) -> None:
    """The WAL behind a snapshot that cannot be deleted stays, so that it can still be restored from."""
    snapshots = [snap(A, 0, 90 * HOUR), snap(A, 2, 80 * HOUR), snap(A, 4, HOUR)]
    await fill(memory, snapshots, [seg(A, i, 85 * HOUR - i) for i in range(5)])
    faults.add(locked(V03.snapshot_key(A, 2)))
    done = await prune(ReplicaClient(faults), await planned(memory))
    assert [doomed.info.index for doomed, _ in done.refused] == [2]
    assert [doomed.info.index for doomed in done.kept] == [2, 3]
    left_over = await ReplicaClient(memory).overview()
    assert [s.index for s in left_over[A].snapshots] == [2, 4]
    assert [s.index for s in left_over[A].segments] == [2, 3, 4]


async def test_credentials_that_may_not_delete(memory: MemoryStore, faults: FaultStore) -> None:
    """Everything is refused, nothing is gone, and it ends."""
    await fill(memory, [snap(A, 0, 40 * HOUR), snap(B, 0, HOUR)], [seg(A, i, 30 * HOUR) for i in range(100)])
    before = await keys(memory)
    faults.add(locked(""))
    done = await prune(ReplicaClient(faults), await planned(memory))
    assert (len(done.deleted), len(done.refused), len(done.kept)) == (0, 1, 100)
    assert await keys(memory) == before


async def test_a_store_that_fails_ends_it(memory: MemoryStore, faults: FaultStore) -> None:
    """What may pass is an error of the run and not of each object; what was deleted before is told."""
    await fill(memory, [snap(A, 0, 40 * HOUR), snap(B, 0, HOUR)], [seg(A, i, 30 * HOUR) for i in range(10)])
    faults.add(Fault("delete", match="/wal/", times=FOREVER))
    done = await prune(ReplicaClient(faults), await planned(memory))
    assert isinstance(done.error, StorageError)
    assert [doomed.key for doomed in done.deleted] == [V03.snapshot_key(A, 0)]
    assert not done.refused


async def test_a_generation_that_is_in_use_again_stays(memory: MemoryStore, faults: FaultStore) -> None:
    """What came after the listing keeps its whole generation."""
    await fill(memory, [snap(A, 0, 40 * HOUR), snap(B, 0, HOUR)], [seg(A, 0, 30 * HOUR)])
    todo = await planned(memory)
    assert todo.generations == (A,)
    await memory.put(V03.wal_key(A, 1, 0), b"new")
    done = await prune(ReplicaClient(faults), todo)
    assert (done.deleted, len(done.kept)) == ([], 2)
    assert len(await keys(memory)) == 4


async def test_objects_that_are_gone_already(memory: MemoryStore) -> None:
    """Somebody else was faster: no error."""
    await fill(memory, [snap(A, 0, 40 * HOUR), snap(B, 0, HOUR)], [seg(A, 0, 30 * HOUR)])
    todo = await planned(memory)
    await memory.delete([V03.snapshot_key(A, 0), V03.wal_key(A, 0, 0)])
    done = await prune(ReplicaClient(memory), todo)
    assert (len(done.deleted), done.refused, done.error) == (2, [], None)


async def test_beside_a_running_replicator(tmp_path: Path, db: FakeDB) -> None:
    """Between any two steps of a replicator, pruning leaves what it restores from, and never disturbs it."""
    store = FileStore(tmp_path / "replica")
    client = ReplicaClient(store)
    replica = Replica(db, client, retention=0.0)

    def age(hours: float) -> None:
        for path in (tmp_path / "replica").rglob("*.lz4"):
            at = path.stat().st_mtime - hours * HOUR
            os.utime(path, (at, at))

    async def prune_now() -> int:
        done = await prune(client, plan_prune(await client.overview(), time.time(), DAY))
        assert done.error is None and not done.refused
        return len(done.deleted)

    deleted = 0
    for step in range(12):
        if step % 5 == 0:
            db.checkpoint()
            db.begin()
        db.commit()
        await replica.sync()
        deleted += await prune_now()
        db.checkpoint()
        db.commit()
        await replica.sync()
        if step % 3 == 1:
            await replica.snapshot()
        deleted += await prune_now()
        age(7.0)
        output = tmp_path / "out.db"
        await restore([("x", client)], str(output), options=RestoreOptions(integrity_check="none", force=True))
        assert output.read_bytes() == db.state()
    assert deleted > 5
    assert not db.reasons


async def test_restored_after_pruning(
    db: FakeDB, replica: Replica, client: ReplicaClient, store: FaultStore, restored: Restored
) -> None:
    """The latest state is restorable after everything old is gone."""
    for _ in range(3):
        db.begin()
        for _ in range(3):
            db.commit()
            await replica.sync()
            db.checkpoint()
            await replica.snapshot()
    inner = store.inner
    assert isinstance(inner, MemoryStore)
    newest = max(modified for _, modified in inner._objects.values())
    for key, (data, modified) in list(inner._objects.items()):
        inner._objects[key] = (data, modified - (newest - modified) * 1e9 - 2 * HOUR)
    todo = plan_prune(await client.overview(), time.time(), DAY)
    assert todo.objects
    await prune(client, todo)
    assert await restored() == db.state()
