"""A replicator whose credentials do not delete."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

import pytest

from helpers.fakedb import FakeDB, Restored
from helpers.faultstore import FaultStore
from litestream.client import ReplicaClient
from litestream.errors import StorageError
from litestream.replica import Replica
from litestream.storage.memory import MemoryStore
from litestream.storage.wrappers.wrapper import Wrapper


class AppendOnly(Wrapper):
    """A store whose service denies every delete."""

    async def delete(self, keys: Sequence[str]) -> None:
        message = "cannot delete: AccessDenied (allow s3:DeleteObject)"
        raise StorageError(message, key=keys[0], permanent=True, code="AccessDenied")


@pytest.fixture
def store() -> FaultStore:
    """An empty store that takes, and gives nothing away."""
    return FaultStore(AppendOnly(MemoryStore()))


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, at most 10 s."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(("retention", "check"), [(0.0, 3600.0), (86400.0, 0.0)])
async def test_without_retention_nothing_is_listed_or_deleted(
    retention: float, check: float, db: FakeDB, client: ReplicaClient, store: FaultStore, restored: Restored
) -> None:
    """After the start there are puts alone, of segments and of regular snapshots, whatever credentials could do."""
    replica = Replica(
        db, client, sync_interval=0.01, snapshot_interval=0.1, retention=retention, retention_check_interval=check
    )
    db.begin()
    db.commit()
    await replica.start()
    try:
        await until(lambda: replica.pos == db.pos() and store.count("list"))
        await asyncio.sleep(0.02)  # the snapshotter's look at the start
        store.calls.clear()
        for _ in range(10):
            db.commit()
            db.checkpoint()
            await until(lambda: replica.pos == db.pos())
        await until(lambda: store.count("put", "snapshots/"))
        assert store.count("put", "wal/") >= 10
        assert {operation for operation, _ in store.calls} == {"put"}
    finally:
        await replica.stop()
    assert await restored() == db.state()


async def test_a_denied_delete_is_logged_and_stops_nothing(
    db: FakeDB, client: ReplicaClient, store: FaultStore, restored: Restored, caplog: pytest.LogCaptureFixture
) -> None:
    """Retention that may not delete says so, once, and goes on trying; replication goes on as if nothing was."""
    replica = Replica(db, client, sync_interval=0.01, retention=0.1, retention_check_interval=0.05)
    db.begin()
    db.commit()
    with caplog.at_level(logging.ERROR, "litestream.replica"):
        await replica.start()
        try:
            await until(lambda: replica.pos == db.pos())
            db.checkpoint()
            db.begin()
            for _ in range(5):
                db.commit()
                await until(lambda: replica.pos == db.pos())
            await until(lambda: store.count("delete") >= 3)
            db.commit()
            await until(lambda: replica.pos == db.pos() and replica.error is None)
        finally:
            await replica.stop()
    retainer = [record.getMessage() for record in caplog.records if "retainer error" in record.getMessage()]
    assert len(retainer) == 1
    assert "allow s3:DeleteObject" in retainer[0]
    # A generation that changes under a snapshot is an error of its own, and passes.
    monitor = [record.getMessage() for record in caplog.records if "monitor error" in record.getMessage()]
    assert not [text for text in monitor if "delete" in text]
    assert not db.reasons
    assert await restored() == db.state()
