"""What `enforce_retention` deletes, and what never."""

from __future__ import annotations

import time

import pytest

from helpers.fakedb import FakeDB, Restored
from helpers.faultstore import Fault, FaultStore
from litestream.client import ReplicaClient
from litestream.errors import PositionError, ReplicaError, StorageError
from litestream.metrics import Metrics
from litestream.replica import Replica

DAY = 86400.0


async def test_new_snapshot_when_none_is_young(
    db: FakeDB, replica: Replica, client: ReplicaClient, restored: Restored, metrics: Metrics
) -> None:
    """With no snapshot inside the window one is taken, and what stands before it is deleted."""
    generation = db.begin()
    db.commit()
    await replica.sync()
    for _ in range(2):
        db.checkpoint()
        db.commit()
        await replica.sync()
    await replica.enforce_retention(time.time() + 2 * DAY)
    assert [s.index for s in await client.snapshots(generation)] == [2]
    assert {s.index for s in await client.wal_segments(generation)} == {2}
    assert await restored() == db.state()
    assert metrics.replica_snapshot_total.labels(db=db.path, name="memory").value == 1


async def test_nothing_to_do(db: FakeDB, replica: Replica, store: FaultStore) -> None:
    """With everything young nothing is written or deleted."""
    db.begin()
    db.commit()
    await replica.sync()
    store.calls.clear()
    await replica.enforce_retention()
    assert {operation for operation, _ in store.calls} == {"list"}


async def test_old_generation_goes_whole(db: FakeDB, replica: Replica, client: ReplicaClient) -> None:
    """A generation without a young snapshot is deleted, the one in use never."""
    db.begin()
    db.commit()
    await replica.sync()
    db.checkpoint()
    current = db.begin()
    db.commit()
    await replica.sync()
    await replica.enforce_retention(time.time() + 2 * DAY)
    assert await client.generations() == [current]


async def test_generation_whose_first_snapshot_is_on_its_way(
    db: FakeDB, replica: Replica, client: ReplicaClient, store: FaultStore
) -> None:
    """The WAL of a generation that has no snapshot yet is not deleted under it."""
    db.begin()
    await replica.sync()
    current = db.begin()
    db.commit()
    store.add(Fault("put", match="snapshots/"))
    with pytest.raises(StorageError):
        await replica.sync()
    await replica.enforce_retention()
    assert len(await client.wal_segments(current)) == 1


async def test_nothing_is_deleted_without_the_new_snapshot(
    db: FakeDB, replica: Replica, client: ReplicaClient, store: FaultStore
) -> None:
    """If the snapshot that is needed fails, everything old stays."""
    generation = db.begin()
    await replica.sync()
    store.add(Fault("put", match="snapshots/"))
    with pytest.raises(StorageError, match=r"^snapshot: "):
        await replica.enforce_retention(time.time() + 2 * DAY)
    assert len(await client.snapshots(generation)) == 1
    with pytest.raises(ReplicaError, match=r"^snapshot: no database available$"):
        await Replica(None, client).enforce_retention(time.time() + 2 * DAY)
    assert len(await client.snapshots(generation)) == 1


async def test_without_a_database(db: FakeDB, replica: Replica, client: ReplicaClient) -> None:
    """With a young snapshot somewhere, retention needs no database."""
    db.begin()
    await replica.sync()
    await Replica(None, client).enforce_retention()
    assert len(await client.generations()) == 1


@pytest.mark.parametrize("what", ["snapshots/", "wal/", "generations/"])
async def test_replica_deleted_by_somebody(
    db: FakeDB, replica: Replica, store: FaultStore, what: str, restored: Restored
) -> None:
    """Objects that vanished are noticed, and a snapshot makes the replica whole, in a new generation if WAL is gone."""
    db.begin()
    db.commit()
    await replica.sync()
    db.commit()
    await replica.sync()
    gone = [info.key for info in await store.inner.list("") if what in info.key]
    await store.inner.delete(gone)
    if what == "snapshots/":
        await replica.enforce_retention()
        db.commit()
    else:
        with pytest.raises(PositionError, match="lacks WAL"):
            await replica.enforce_retention()
        assert db.reasons
        db.commit()
        db.checkpoint()
        db.begin()
    await replica.sync()
    assert await restored() == db.state()
