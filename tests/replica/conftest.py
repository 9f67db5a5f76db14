"""A database in memory, a store with faults, and a replica of the one in the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.fakedb import FakeDB, Restored
from helpers.faultstore import FaultStore
from litestream.client import ReplicaClient
from litestream.metrics import Metrics
from litestream.replica import Replica
from litestream.restore import RestoreOptions, restore
from litestream.storage.memory import MemoryStore


@pytest.fixture
def db() -> Iterator[FakeDB]:
    """A database without a generation yet."""
    db = FakeDB()
    yield db
    db.close()


@pytest.fixture
def store() -> FaultStore:
    """An empty store."""
    return FaultStore(MemoryStore())


@pytest.fixture
def client(store: FaultStore) -> ReplicaClient:
    """The replica's objects."""
    return ReplicaClient(store)


@pytest.fixture
def metrics() -> Metrics:
    """Nothing counted yet."""
    return Metrics()


@pytest.fixture
def replica(db: FakeDB, client: ReplicaClient, metrics: Metrics) -> Replica:
    """Not started."""
    return Replica(db, client, metrics=metrics, sync_interval=0.1)


@pytest.fixture
def restored(client: ReplicaClient, tmp_path: Path) -> Restored:
    """Restores the latest state of the replica."""

    async def latest() -> bytes:
        output = tmp_path / "restored.db"
        await restore([("test", client)], str(output), options=RestoreOptions(integrity_check="none", force=True))
        return output.read_bytes()

    return latest
