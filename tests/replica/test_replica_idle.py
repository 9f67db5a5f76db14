"""What a replica costs at rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from helpers.fakedb import FakeDB
from helpers.faultstore import FaultStore
from helpers.jump import run_jumping
from litestream.client import ReplicaClient
from litestream.metrics import Metrics
from litestream.replica import Replica
from litestream.storage.memory import MemoryStore
from litestream.storage.wrappers.wrap import Limits, wrap


def test_ten_idle_minutes_are_no_request() -> None:
    """Running for ten minutes without a commit (on a clock that jumps) asks nothing of the store; a commit, one put."""

    async def live(pass_time: Callable[[float], Awaitable[None]]) -> None:
        store, db = FaultStore(MemoryStore()), FakeDB()
        client = ReplicaClient(wrap(store, Limits(attempts=3)))
        replica = Replica(db, client, metrics=Metrics(), snapshot_interval=86400, sync_interval=0.2)
        db.begin()
        db.commit()
        await replica.start()
        while not replica.pos.offset:  # noqa: ASYNC110 - nothing tells when it has uploaded
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)  # what a start does has been done
        store.calls.clear()
        began = time.monotonic()
        await pass_time(600)
        assert time.monotonic() - began < 60
        assert store.calls == []
        db.commit()
        await asyncio.sleep(0.5)
        assert [operation for operation, _ in store.calls] == ["put"]
        await replica.stop()
        db.close()

    run_jumping(live)
