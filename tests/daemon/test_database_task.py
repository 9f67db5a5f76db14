"""The task of one database when the database or its files misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from helpers.app import App
from litestream.client import open_client
from litestream.daemon import database as module
from litestream.daemon.database import DatabaseTask
from litestream.daemon.watcher import Watcher
from litestream.db.capture import Capture
from litestream.db.db import DB
from litestream.errors import DatabaseBusyError
from litestream.replica import Replica
from litestream.sqlite.source import Source


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with App() as one:
        one.create(tmp_path / "app.db")
        one.ledger(3)
        yield one


@contextlib.asynccontextmanager
async def replicating(tmp_path: Path) -> AsyncIterator[tuple[DatabaseTask, DB, Replica]]:
    """A running task with one replica that may upload at any time."""
    watcher = Watcher()
    watcher.start()
    db = DB(str(tmp_path / "app.db"))
    replica = Replica(db, open_client(str(tmp_path / "replica")), sync_interval=0.01)
    task = DatabaseTask(db, [replica], watcher)
    running = asyncio.create_task(task.run(), name="database")
    try:
        await task.tried()
        await until(lambda: replica.pos == db.pos() and not db.pos().is_zero)
        yield task, db, replica
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await replica.close()
        await db.call(db.close)
        watcher.close()


async def until(condition: object, seconds: float = 10, *, step: float = 0.01) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        await asyncio.sleep(step)


async def test_a_wal_index_left_half_written_is_repaired_by_the_overlap(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the wal-index cannot be read, a copy fails, and still readers overlap: the new one repairs it."""
    async with replicating(tmp_path) as (_, db, replica):
        broken = True
        real_copy, real_begin = Capture.copy, Source.begin_reader

        def copy(self: Capture, *, whole: bool = False) -> bool:
            if broken:
                raise DatabaseBusyError("the WAL cannot be read at one moment")
            return real_copy(self, whole=whole)

        def begin(self: Source) -> object:
            nonlocal broken
            broken = False
            return real_begin(self)

        monkeypatch.setattr(Capture, "copy", copy)
        monkeypatch.setattr(Source, "begin_reader", begin)
        before = db.pos()
        started = time.monotonic()
        app.ledger(1)
        await until(lambda: replica.pos == db.pos() != before)
        assert time.monotonic() - started < 1.5


async def test_overlaps_that_are_put_off_for_long_are_told(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A database that stays busy is not silent: the task has an error, and loses it when it is over."""
    monkeypatch.setattr(module, "_BUSY_FOR_LONG", 0.3)
    async with replicating(tmp_path) as (task, db, _):
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):

            def busy() -> None:
                raise DatabaseBusyError("for the test")

            patch.setattr(db, "maintain", busy)
            app.ledger(1)
            await until(lambda: task.error is None and db.pos().offset > 0)
            for _ in range(4):
                app.ledger(1)
                await asyncio.sleep(0.15)
            await until(lambda: task.error is not None)
            assert "waiting for database" in caplog.text
        await until(lambda: task.error is None)


@pytest.mark.parametrize("late", [0.05, 0.3])
async def test_a_commit_published_long_after_its_frames_is_found(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: float
) -> None:
    """A slow fsync lies between the last write to a file and the commit: it is uploaded soon all the same."""
    async with replicating(tmp_path) as (_, db, replica):
        assert db._attached is not None
        real, old = Source.wal_index_raw, db._attached.source.wal_index_raw()
        hidden_until = [time.monotonic() + 60]
        monkeypatch.setattr(
            Source, "wal_index_raw", lambda self: old if time.monotonic() < hidden_until[0] else real(self)
        )
        before = db.pos()
        app.ledger(1)
        hidden_until[0] = time.monotonic() + late
        await until(lambda: replica.pos == db.pos() != before, 5)
        assert time.monotonic() - hidden_until[0] < 1.5


async def test_a_replica_outlives_any_surprise_of_its_database(app: App, tmp_path: Path) -> None:
    """An error that nobody expected, while a change waits for its turn, does not end the upload for ever."""
    async with replicating(tmp_path) as (_, db, replica):
        replica.sync_interval = 0.5
        with pytest.MonkeyPatch.context() as patch:
            surprised, real = 0, db.sync

            async def surprise(*, whole: bool = False) -> None:
                nonlocal surprised
                current = asyncio.current_task()
                if current is not None and current.get_name() == "database":
                    await real(whole=whole)
                    return
                surprised += 1
                raise ValueError("for the test")

            patch.setattr(db, "sync", surprise)
            for _ in range(20):
                if surprised:
                    break
                app.ledger(1)
                await asyncio.sleep(0.2)
            assert surprised
        app.ledger(1)
        await until(lambda: replica.pos == db.pos() and db.pos().offset > 0)
        before = db.pos()
        app.ledger(1)
        await until(lambda: replica.pos == db.pos() != before)


async def test_followers_do_not_wait_for_a_replica(app: App, tmp_path: Path) -> None:
    """While the replica may not upload yet, a followed database is copied at each commit, not with the next overlap."""
    async with replicating(tmp_path) as (_, db, replica):
        replica.sync_interval = 60.0
        app.ledger(1)
        await until(lambda: replica.pos == db.pos())
        db.followers = 1
        took = []
        for _ in range(12):
            before = db.pos()
            await asyncio.to_thread(app.ledger, 1)
            began = time.monotonic()
            await until(lambda before=before: db.pos() != before, step=0.001)
            took.append(time.monotonic() - began)
            await asyncio.sleep(0.015)
        assert sorted(took)[6] < 0.03, took
