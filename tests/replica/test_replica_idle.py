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


def test_an_idle_day_looks_for_what_is_old_once() -> None:
    """A day without a commit, with the default check every hour (on a clock that jumps): after the first look, which
    is how the replica learns what is there, the store is not asked, since nothing can have come of age."""

    async def live(pass_time: Callable[[float], Awaitable[None]]) -> None:
        store, db = FaultStore(MemoryStore()), FakeDB()
        replica = Replica(db, ReplicaClient(store), metrics=Metrics(), sync_interval=0.2)
        db.begin()
        db.commit()
        await replica.start()
        while not replica.pos.offset:  # noqa: ASYNC110 - nothing tells when it has uploaded
            await asyncio.sleep(0.01)
        await pass_time(3700)
        assert {operation for operation, _ in store.calls} == {"list", "put"}
        store.calls.clear()
        await pass_time(20 * 3600)
        assert store.calls == []
        db.commit()
        while not store.calls:  # noqa: ASYNC110 - the upload has threads, for which no time jumps
            await asyncio.sleep(0.01)
        await pass_time(3700)
        operations = [operation for operation, _ in store.calls]
        assert operations[0] == "put"
        assert "list" in operations  # something was stored: it is looked at again
        await replica.stop()
        db.close()

    run_jumping(live)


async def test_what_comes_of_age_goes_although_nothing_happens() -> None:
    """A database at rest: its snapshots are replaced when they are as old as the retention, and then deleted."""
    store, db = FaultStore(MemoryStore()), FakeDB()
    client = ReplicaClient(store)
    replica = Replica(db, client, metrics=Metrics(), sync_interval=0.01, retention=1.0, retention_check_interval=0.05)
    db.begin()
    db.commit()
    await replica.sync()
    db.checkpoint()
    db.commit()
    await replica.sync()
    first = await client.snapshots(db.pos().generation)
    assert len(first) == 1
    store.calls.clear()
    await replica.start()
    async with asyncio.timeout(30):
        while first[0].index in {  # noqa: ASYNC110 - a replica tells of what is stored, not of what goes
            info.index for info in await client.snapshots(db.pos().generation)
        }:
            await asyncio.sleep(0.02)
    await replica.stop()
    assert len(await client.snapshots(db.pos().generation)) == 1
    db.close()


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


async def test_a_restart_without_a_change_only_looks_where_it_stands() -> None:
    """A process that begins anew over a replica that has everything stores nothing, and asks only for its position."""
    store, db = FaultStore(MemoryStore()), FakeDB()
    db.begin()
    db.commit()
    await Replica(db, ReplicaClient(store), metrics=Metrics()).sync()
    store.calls.clear()
    again = Replica(db, ReplicaClient(store), metrics=Metrics(), sync_interval=0.01)
    await again.start()
    async with asyncio.timeout(10):
        while not again.up_to_date:  # noqa: ASYNC110 - nothing is stored, so nothing tells
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert 0 < len(store.calls) <= 4, store.calls
    assert {operation for operation, _ in store.calls} <= {"list", "get"}
    await again.stop()
    db.close()
