"""The loop that uploads: when, how often, and what it does about errors."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

from helpers.fakedb import FakeDB
from helpers.faultstore import FOREVER, Fault, FaultStore
from litestream.core.position import SnapshotInfo
from litestream.errors import DatabaseBusyError, ReplicaError, StorageError
from litestream.replica import Replica
from litestream.replica.log import REPEAT_AFTER, ErrorLog
from litestream.replica.loops import first_delay
from litestream.replica.pacing import FIRST, LONGEST, Backoff


@pytest.fixture
async def running(replica: Replica, db: FakeDB) -> AsyncIterator[Replica]:
    """Started on a database that has a generation, and up to date."""
    db.begin()
    await replica.start()
    await until(lambda: db.closed == 1 and replica.pos == db.pos())
    yield replica
    await replica.stop()


async def until(condition: Callable[[], bool], timeout: float = 5.0) -> float:
    """Wait for `condition`; seconds that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout
        await asyncio.sleep(0.001)
    return time.monotonic() - started


async def test_first_change_goes_up_at_once(running: Replica, db: FakeDB) -> None:
    """After a quiet time a commit does not wait for the sync interval."""
    running.sync_interval = 30
    db.commit()
    await until(lambda: running.pos == db.pos(), 1)
    assert db.syncs == 0


async def test_then_once_per_interval(running: Replica, db: FakeDB, store: FaultStore) -> None:
    """Many commits in a row are at most one upload per sync interval, and the last one gets there."""
    running.sync_interval = 0.2
    puts = store.count("put", "wal/")
    started = time.monotonic()
    while time.monotonic() - started < 0.7:
        db.commit()
        await asyncio.sleep(0.005)
    await until(lambda: running.pos == db.pos())
    assert 3 <= store.count("put", "wal/") - puts <= 5


async def test_newest_commits_ride_along(running: Replica, db: FakeDB) -> None:
    """An upload that had to wait takes along what was committed meanwhile and not copied yet."""
    running.sync_interval = 0.15
    db.commit()
    await until(lambda: running.pos == db.pos())
    db.commit()
    db.commit(2, copied=False)
    await until(lambda: db.syncs == 1)
    await until(lambda: running.pos == db.pos())
    assert db.pos().offset == 32 + 4 * 536


async def test_database_trouble_does_not_stop_the_upload(running: Replica, db: FakeDB) -> None:
    """What is copied goes up though the database cannot be read just now."""
    db.sync_error = DatabaseBusyError("locked")
    for _ in range(2):
        db.commit()
        await until(lambda: running.pos == db.pos())
    assert db.syncs == 1
    assert running.error is None


async def test_nothing_while_idle(running: Replica, db: FakeDB, store: FaultStore) -> None:
    """Without a change nothing is asked, of the database or of the store."""
    running.sync_interval = 0.01
    store.calls.clear()
    await asyncio.sleep(0.2)
    assert (store.calls, db.syncs) == ([], 0)


async def test_waits_for_a_generation_in_silence(
    replica: Replica, db: FakeDB, store: FaultStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A database without a generation is no error and is not polled; its first one is seen."""
    await replica.start()
    await asyncio.sleep(0.05)
    assert store.calls == []
    assert caplog.records == []
    db.begin()
    await until(lambda: replica.pos == db.pos())
    await replica.stop()


async def test_change_told_by_another_thread(running: Replica, db: FakeDB) -> None:
    """The database may tell of a change in any of its threads."""
    thread = threading.Thread(target=db.commit)
    thread.start()
    thread.join()
    await until(lambda: running.pos == db.pos())


async def test_recovers_by_itself(
    running: Replica, db: FakeDB, store: FaultStore, caplog: pytest.LogCaptureFixture
) -> None:
    """While the store is down the same error is logged once, and soon after it is back everything is there."""
    store.add(Fault("*", times=FOREVER))
    db.commit()
    await until(lambda: running.error is not None)
    assert running.due_at() > time.monotonic()
    await until(lambda: store.struck >= 4)
    store.heal()
    await until(lambda: running.pos == db.pos() and running.error is None, 3)
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    prefix, keys = "/data/app.db(memory): monitor error: ", f"generations/{db.pos().generation}"
    assert lines == [
        f"{prefix}write index segments: index=0 err={keys}/wal/00000000_00000000.wal.lz4: injected fault: fail",
        f"{prefix}{keys}/snapshots/: injected fault: fail",
    ]


async def test_surprises_do_not_end_it(running: Replica, db: FakeDB, store: FaultStore) -> None:
    """Not even an error that nobody foresaw ends the loop."""
    store.add(Fault("put", error=ZeroDivisionError("surprise")))
    db.commit()
    await until(lambda: running.error is not None)
    await until(lambda: running.pos == db.pos())


async def test_stop_and_start_again(running: Replica, db: FakeDB, store: FaultStore) -> None:
    """A stop ends the loop in the middle of an upload; a start finds out where the replica is."""
    store.add(Fault("put", "hang"))
    db.commit()
    await until(lambda: store.struck == 1)
    await asyncio.wait_for(running.stop(), 1)
    assert db.subscribers == []
    assert running.due_at() == math.inf
    await running.start()
    await until(lambda: running.pos == db.pos())


async def test_start_needs_a_database(replica: Replica) -> None:
    """Without a database there is nothing to follow."""
    with pytest.raises(ReplicaError, match=r"^no database available$"):
        await Replica(None, replica.client).start()


def test_first_snapshot_is_aligned_to_the_newest() -> None:
    """The snapshotter's first tick is when the newest snapshot has the interval's age, whatever the clocks say."""
    snapshots = [SnapshotInfo("0" * 16, 0, 1, 1000.0), SnapshotInfo("1" * 16, 3, 1, 900.0)]
    assert first_delay([], 5000, 60) == 60
    assert first_delay(snapshots, 1010, 60) == 50
    assert first_delay(snapshots, 1061, 60) == 0
    assert first_delay(snapshots, 10, 60) == 60


def test_backoff_doubles_up_to_a_bound() -> None:
    """Waiting times double, up to a bound that is short, and begin anew after a success."""
    backoff = Backoff()
    delays = [backoff.next() for _ in range(12)]
    assert all(0.75 * min(FIRST * 2**n, LONGEST) <= d <= min(FIRST * 2**n, LONGEST) for n, d in enumerate(delays))
    assert delays[-1] >= 0.75 * LONGEST
    backoff.reset()
    assert backoff.next() <= FIRST


def test_repeated_errors_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """The same error is logged again after 30 s with a count, another one at once."""
    now = [0.0]
    log = ErrorLog(logging.LoggerAdapter(logging.getLogger("test"), {}), "monitor", lambda: now[0])
    log._logger.process = lambda msg, kwargs: (msg, kwargs)  # type: ignore[method-assign]
    for now[0] in (0.0, 1.0, 2.0, REPEAT_AFTER, REPEAT_AFTER + 1):
        log.failed(StorageError("down"))
    log.failed(StorageError("still down"))
    log.succeeded()
    log.failed(StorageError("still down"))
    seen = [(r.getMessage(), r.__dict__["fields"]) for r in caplog.records]
    assert seen == [
        ("monitor error: down", {}),
        ("monitor error: down", {"repeated": 2}),
        ("monitor error: still down", {}),
        ("monitor error: still down", {}),
    ]
