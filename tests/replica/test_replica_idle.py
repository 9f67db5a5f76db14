"""What a replica costs at rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from helpers.fakedb import FakeDB
from helpers.faultstore import FaultStore
from helpers.jump import run_jumping
from litestream.client import ReplicaClient
from litestream.metrics import Metrics
from litestream.replica import Replica
from litestream.storage.memory import MemoryStore
from litestream.storage.wrap import Limits, wrap


def _until(condition: Callable[[], bool]) -> None:
    """Wait in real time, as threads do."""
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def test_ten_idle_minutes_are_no_request() -> None:
    """Running for ten minutes without a commit (on a clock that jumps) asks nothing of the store; a commit, one put."""

    async def live() -> None:
        store, db = FaultStore(MemoryStore()), FakeDB()
        replica = Replica(
            db, ReplicaClient(wrap(store, Limits(attempts=3))), metrics=Metrics(), snapshot_interval=86400
        )
        db.begin()
        db.commit()
        await replica.start()
        await asyncio.to_thread(_until, lambda: replica.pos.offset > 0)
        await asyncio.to_thread(time.sleep, 0.3)  # what a start does has been done
        store.calls.clear()
        loop = asyncio.get_running_loop()
        before, real = loop.time(), time.monotonic()
        await asyncio.sleep(600)
        assert loop.time() - before >= 600
        assert time.monotonic() - real < 60
        assert store.calls == []
        db.commit()
        await asyncio.to_thread(_until, lambda: bool(store.calls))
        await asyncio.sleep(5)
        assert [operation for operation, _ in store.calls] == ["put"]
        await replica.stop()
        db.close()

    run_jumping(live())
