"""Snapshots: sound whatever happens while they are copied."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.fakedb import FakeDB, Restored
from helpers.faultstore import FOREVER, Fault, FaultStore
from litestream.client import ReplicaClient
from litestream.core.stamp import Kind
from litestream.errors import GenerationChangedError, NoGenerationError, PositionError, StorageError
from litestream.metrics import Metrics
from litestream.replica import Replica
from litestream.restore import RestoreOptions, restore


def once(action: Callable[[], object], skip: int = 1) -> Callable[[], object]:
    """A callback that acts at its call number `skip` (from 0) only."""
    calls = iter(range(1 << 30))
    return lambda: action() if next(calls) == skip else None


async def test_published_after_all_of_its_wal(
    db: FakeDB, replica: Replica, client: ReplicaClient, store: FaultStore, restored: Restored
) -> None:
    """What is committed while it is copied is uploaded before the snapshot exists, and its stamp says so."""
    generation = db.begin()
    await replica.sync()
    db.commit()
    db.checkpoint()
    db.commit()
    db.on_chunk = once(lambda: (db.commit(2), db.commit(copied=False)))
    store.calls.clear()
    info = await replica.snapshot()
    assert [operation + key[29:32] for operation, key in store.calls] == ["putwal", "putwal", "putsna", "putwal"]
    stamp = await client.stamp_of(info)
    assert stamp is not None
    assert (stamp.kind, stamp.pos.index, stamp.required) == (Kind.SNAPSHOT, 1, (1, db.pos().offset))
    assert replica.pos == db.pos()
    assert [s.index for s in await client.snapshots(generation)] == [0, 1]
    assert await restored() == db.state()


async def test_not_published_without_its_wal(
    db: FakeDB, replica: Replica, client: ReplicaClient, store: FaultStore
) -> None:
    """A snapshot whose WAL cannot be uploaded is not published."""
    generation = db.begin()
    store.add(Fault("put", match="wal/", times=FOREVER))
    db.on_chunk = once(db.commit)
    with pytest.raises(StorageError):
        await replica.snapshot()
    assert await client.snapshots(generation) == []
    assert db.opened == db.closed == 1


async def test_wal_goes_up_while_it_is_copied(
    db: FakeDB, replica: Replica, client: ReplicaClient, store: FaultStore
) -> None:
    """During a long copy commits are uploaded as at any other time; a failure of that alone does not end it."""
    generation = db.begin()
    await replica.sync()
    replica.sync_interval = 0.0
    store.add(Fault("put", match="wal/"))
    seen: list[int] = []

    def commit() -> None:
        db.commit()
        seen.append(store.count("put", "wal/"))

    db.on_chunk = commit
    db.chunk_size = 256
    await replica.snapshot()
    assert seen == sorted(seen)
    assert seen[-1] >= 3
    assert replica.pos == db.pos()
    assert len(await client.snapshots(generation)) == 1


async def test_generation_changes(db: FakeDB, replica: Replica, client: ReplicaClient) -> None:
    """A snapshot ends with its generation, and nothing of it is published."""
    generation = db.begin()
    db.on_chunk = once(db.begin)
    with pytest.raises(GenerationChangedError):
        await replica.snapshot()
    assert await client.snapshots(generation) == []
    assert db.opened == db.closed == 1


async def test_generation_changes_while_its_wal_goes_up(
    db: FakeDB, replica: Replica, client: ReplicaClient, store: FaultStore
) -> None:
    """Not even its last wait for WAL lets a snapshot of an ended generation through."""
    generation = db.begin()
    await replica.sync()
    db.checkpoint()
    db.commit()

    def work() -> None:
        db.commit()
        db.checkpoint()
        db.commit()

    db.on_chunk = once(work)
    store.add(Fault("put", "slow", match="wal/", skip=1, seconds=0.2))
    taking = asyncio.create_task(replica.snapshot())
    await asyncio.sleep(0.1)
    assert store.struck == 1
    db.begin()
    with pytest.raises((GenerationChangedError, PositionError)):
        await taking
    assert [s.index for s in await client.snapshots(generation)] == [0]


async def test_cancelled(db: FakeDB, replica: Replica, store: FaultStore) -> None:
    """A cancelled snapshot lets its transaction go, at whatever step it was."""
    db.begin()
    db.commit()
    for turns in (1, 2, 3, 5, 8, 13, 21):
        taking = asyncio.create_task(replica.snapshot())
        for _ in range(turns):
            await asyncio.sleep(0)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        await asyncio.sleep(0.01)
        assert db.opened == db.closed
    await replica.snapshot()


async def test_only_when_it_is_new(db: FakeDB, replica: Replica, metrics: Metrics) -> None:
    """The snapshotter takes none of an index that has one: it would save nothing and cost the states before it."""
    total = metrics.replica_snapshot_total.labels(db=db.path, name="memory")
    with pytest.raises(NoGenerationError):
        await replica.snapshot_if_new()
    db.begin()
    await replica.sync()
    db.commit()
    assert await replica.snapshot_if_new() is None
    db.checkpoint()
    db.commit()
    info = await replica.snapshot_if_new()
    assert info is not None
    assert (info.index, total.value) == (1, 2)


async def test_stamp_names_the_generation_before(db: FakeDB, replica: Replica, client: ReplicaClient) -> None:
    """The first snapshot of a generation says where the one before ended."""
    db.begin()
    db.commit()
    await replica.sync()
    before = db.pos()
    db.checkpoint()
    db.begin()
    info = await replica.snapshot()
    stamp = await client.stamp_of(info)
    assert stamp is not None
    assert stamp.prev == before


async def test_every_published_position_restores(
    db: FakeDB, replica: Replica, client: ReplicaClient, tmp_path: Path
) -> None:
    """With commits between all chunks and checkpoints between snapshots, the latest state is always right."""
    db.chunk_size = 300
    db.begin()
    replica.sync_interval = 0.0
    for round_ in range(6):
        db.on_chunk = lambda: db.commit(2)
        await replica.snapshot()
        db.on_chunk = lambda: None
        db.commit(copied=False)
        await db.sync()
        await replica.sync()
        output = tmp_path / f"{round_}.db"
        await restore([("test", client)], str(output), options=RestoreOptions(integrity_check="none"))
        assert output.read_bytes() == db.state()
        if round_ % 2:
            db.checkpoint()
            db.commit()
