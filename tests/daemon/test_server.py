"""The server: starting, the last sync, and what it says of replicas that lack something."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

from litestream.core.position import Pos
from litestream.daemon import server as server_module
from litestream.daemon.server import Entry, Outcome, Server
from litestream.errors import (
    DatabaseAbsentError,
    DatabaseBusyError,
    LitestreamError,
    NoGenerationError,
    NotADatabaseError,
    StorageError,
)

T = TypeVar("T")
END = Pos("0123456789abcdef", 1, 4152)


class FakeDB:
    """A database whose last sync fails as often as `errors` says."""

    def __init__(self, path: str = "/app.db", *, pos: Pos = END, errors: list[Exception] | None = None) -> None:
        self.path = path
        self.closed = False
        self._pos = pos
        self._errors = errors or []

    def pos(self) -> Pos:
        return self._pos

    def sync_now(self) -> bool:
        if self._errors:
            raise self._errors.pop(0)
        return False

    async def sync(self) -> None:
        self.sync_now()

    def close(self) -> None:
        self.closed = True

    async def call(self, fn: Callable[..., T], *args: object) -> T:
        return fn(*args)


class FakeReplica:
    """A replica that reaches the database's position once `errors` is used up."""

    def __init__(
        self, name: str = "file", *, reaches: Pos = END, errors: list[Exception] | None = None, hangs: bool = False
    ) -> None:
        self.name = name
        self.pos = Pos()
        self.stopped = self.closed = False
        self._reaches = reaches
        self._errors = errors or []
        self._hangs = hangs

    @property
    def up_to_date(self) -> bool:
        return self.pos == END

    async def sync(self) -> None:
        assert self.stopped, "the loop must not sync at the same time"
        if self._hangs:
            await asyncio.sleep(3600)
        if self._errors:
            raise self._errors.pop(0)
        self.pos = self._reaches

    async def stop(self) -> None:
        self.stopped = True

    async def close(self, patience: float = 3.0) -> None:
        self.closed = True


async def for_ever() -> None:
    await asyncio.sleep(3600)


async def run(*entries: Entry, timeout: float = 5.0) -> Outcome:
    """Start a server, stop it at once."""
    stop = asyncio.Event()
    server = Server(entries, shutdown_timeout=timeout, shutdown_interval=0.001)
    return await server.run(stop, stop.set)


async def test_everything_durable_is_a_clean_end() -> None:
    """After the last sync nothing is missing, and everything has been stopped and closed."""
    db, replica = FakeDB(), FakeReplica()
    outcome = await run(Entry(db, [replica], for_ever))
    assert outcome == Outcome()
    assert db.closed
    assert replica.closed


async def test_errors_that_pass_are_tried_again() -> None:
    """A busy database and a store that answers late cost time, not commits."""
    db = FakeDB(errors=[DatabaseBusyError("busy"), DatabaseBusyError("busy")])
    replica = FakeReplica(errors=[StorageError("503"), StorageError("503")])
    assert (await run(Entry(db, [replica], for_ever))).missing == {}


@pytest.mark.parametrize("error", [StorageError("access denied", permanent=True), ValueError("surprise")])
async def test_an_error_that_stays_is_named_at_once(error: Exception) -> None:
    """A refusal is not repeated for 30 s; the other replica is brought up to date all the same."""
    bad, good = FakeReplica("bad", errors=[error] * 99), FakeReplica("good")
    outcome = await run(Entry(FakeDB(), [bad, good], for_ever), timeout=60)
    assert list(outcome.missing) == ["/app.db(bad)"]
    assert str(error) in outcome.missing["/app.db(bad)"]
    assert good.pos == END


async def test_a_database_that_cannot_be_read_leaves_its_replicas_behind() -> None:
    """What was committed there is nowhere: every replica of it is named."""
    db = FakeDB(errors=[NotADatabaseError("not a database: /app.db")] * 99)
    outcome = await run(Entry(db, [FakeReplica("a"), FakeReplica("b")], for_ever))
    assert outcome.missing == dict.fromkeys(("/app.db(a)", "/app.db(b)"), "not a database: /app.db")


async def test_a_database_that_never_appeared_lacks_nothing() -> None:
    """No file, no generation, no position: there is nothing to lose."""
    db = FakeDB(pos=Pos(), errors=[DatabaseAbsentError("absent")])
    replica = FakeReplica(reaches=Pos(), errors=[NoGenerationError()])
    assert (await run(Entry(db, [replica], for_ever))).missing == {}


async def test_a_replica_that_stays_behind_is_named() -> None:
    """A sync without an error is not taken for success: the positions are compared."""
    behind = Pos(END.generation, 1, 32)
    outcome = await run(Entry(FakeDB(), [FakeReplica(reaches=behind)], for_ever), timeout=0.05)
    assert f"the replica is at {behind}, the database at {END}" in outcome.missing["/app.db(file)"]


async def test_the_time_is_bounded_and_the_slow_one_named() -> None:
    """A store that does not answer ends the wait after the timeout; others have arrived by then."""
    slow, quick = FakeReplica("slow", hangs=True), FakeReplica("quick")
    outcome = await run(Entry(FakeDB(), [slow, quick], for_ever), timeout=0.05)
    assert outcome.stuck
    assert outcome.missing == {"/app.db(slow)": "no time was left (gave up after 50ms)"}


async def test_what_is_settled_is_never_said_to_lack_anything() -> None:
    """Databases at rest need neither a turn nor a thread: a disk and a store that hang hold up only what is on them."""
    hanging = Entry(FakeDB("/hangs.db"), [FakeReplica(hangs=True)], for_ever)
    at_rest = []
    for number in range(1000):
        db = FakeDB(f"/{number}.db", errors=[DatabaseBusyError("busy")] * 999)
        at_rest.append(Entry(db, [FakeReplica(hangs=True)], for_ever, settled=lambda: True))
    outcome = await run(hanging, *at_rest, timeout=0.3)
    assert list(outcome.missing) == ["/hangs.db(file)"]


async def test_a_replica_that_has_everything_is_not_asked_again() -> None:
    """Where another one of the same database lacks something, and its store hangs."""
    complete, hanging = FakeReplica("complete", hangs=True), FakeReplica("hanging", hangs=True)
    complete.pos = END
    outcome = await run(Entry(FakeDB(), [complete, hanging], for_ever), timeout=0.05)
    assert list(outcome.missing) == ["/app.db(hanging)"]


async def test_a_look_that_fails_means_work() -> None:
    """What cannot be looked at is copied and uploaded as if it lacked something."""

    def fail() -> bool:
        raise DatabaseBusyError("busy")

    replica = FakeReplica()
    assert (await run(Entry(FakeDB(), [replica], for_ever, settled=fail))).missing == {}
    assert replica.pos == END


async def test_closing_many_is_bounded_in_time_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of a store that is away cost the time once, not once a replica; everything is closed all the same."""
    monkeypatch.setattr(server_module, "_LEASES", 0.1)
    now = most = 0

    class Away(FakeReplica):
        async def close(self, patience: float = 3.0) -> None:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(min(patience, 1.0))  # 32 at a time: 16 s if each may take its time
            now -= 1
            self.closed = True

    entries = [Entry(FakeDB(f"/{number}.db"), [Away()], for_ever) for number in range(500)]
    began = time.monotonic()
    await server_module.close_entries(entries, logging.getLogger("litestream"))
    assert time.monotonic() - began < 4
    assert 1 < most <= 32
    assert all(entry.replicas[0].closed and entry.db.closed for entry in entries)  # type: ignore[attr-defined]


async def test_a_database_that_hangs_in_closing_does_not_keep_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is durable by then: the end is a clean one, and whoever ends the process need not wait."""
    monkeypatch.setattr(server_module, "_CLOSING", 0.05)

    class Hanging(FakeReplica):
        async def close(self, patience: float = 3.0) -> None:
            await asyncio.sleep(3600)

    assert await run(Entry(FakeDB(), [Hanging()], for_ever)) == Outcome(stuck=True)


async def test_a_timeout_of_zero_means_one_attempt() -> None:
    """`shutdown-sync-timeout: 0s`: tried once, not again."""
    outcome = await run(Entry(FakeDB(), [FakeReplica(errors=[StorageError("503")])], for_ever), timeout=0)
    assert outcome == Outcome(missing={"/app.db(file)": "503"})


async def test_a_task_that_dies_is_told_and_begun_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected error in one database's work neither stops the server nor goes unnoticed."""
    monkeypatch.setattr(server_module, "_FIRST_PAUSE", 0.001)
    stop, runs = asyncio.Event(), 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ValueError("surprise")
        if runs == 2:
            return
        stop.set()
        await for_ever()

    with caplog.at_level(logging.INFO, "litestream"):
        outcome = await Server([Entry(FakeDB(), [FakeReplica()], work)]).run(stop)
    assert outcome.missing == {}
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == [
        "/app.db: replication failed, starting it again in 0.001s",
        "/app.db: replication ended by itself, starting it again",
    ]


async def test_start_and_end_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The official lines: each database, each replica, the end of the start."""
    with caplog.at_level(logging.INFO, "litestream"):
        await run(Entry(FakeDB(), [FakeReplica()], for_ever, ["name=file type=file path=/r"]))
    assert [record.getMessage() for record in caplog.records] == [
        "initialized db: /app.db",
        "replicating to: name=file type=file path=/r",
        "litestream initialization complete",
        "signal received, litestream shutting down",
        "litestream shut down",
    ]


async def test_what_cannot_be_closed_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Everything is durable by then: an error in closing a replica does not make the end a failure."""

    class Unclosable(FakeReplica):
        async def close(self, patience: float = 3.0) -> None:
            raise LitestreamError("no")

    db = FakeDB()
    assert (await run(Entry(db, [Unclosable()], for_ever))).missing == {}
    assert db.closed
    assert "cannot close the replica: no" in caplog.text


async def test_a_database_that_cannot_be_closed_keeps_no_other_open(caplog: pytest.LogCaptureFixture) -> None:
    """A failure at the very end is told, and the other databases are closed all the same."""
    first, second = FakeDB("/first.db"), FakeDB("/second.db")

    def fail() -> None:
        raise LitestreamError("for the test")

    first.close = fail  # type: ignore[method-assign]
    server = Server([Entry(db, [FakeReplica()], for_ever) for db in (first, second)])
    stop = asyncio.Event()
    stop.set()
    outcome = await server.run(stop)

    assert not outcome.missing
    assert second.closed
    assert "/first.db: cannot close the database: for the test" in caplog.text
