"""The daemon: starts a task for each database, waits for the signal to stop, and makes sure that everything arrived."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeVar

from litestream.core.durations import format_duration
from litestream.core.position import Pos
from litestream.daemon.child import Child
from litestream.daemon.logs import facts
from litestream.errors import (
    ConfigError,
    DatabaseAbsentError,
    DatabaseBusyError,
    DatabaseError,
    DatabaseHeldError,
    LeaseLostError,
    LitestreamError,
    NoGenerationError,
    StorageError,
)

if TYPE_CHECKING:
    from litestream.config import DatabaseConfig
    from litestream.daemon.observe import Observer
    from litestream.daemon.status import DatabaseStatus

T = TypeVar("T")

_FIRST_PAUSE = 1.0  # seconds until a task that died of an unexpected error is run again; doubled each time
_LONGEST_PAUSE = 60.0
_CLOSING = 12.0  # seconds that closing may take before others go on without it, or the process ends
_LEASES = 8.0  # seconds in which leases are given back, those of all replicas together
_TOGETHER = 32  # databases that are closed at the same time
_LOOK = 2.0  # seconds for the look at what is in the replicas already


class Database(Protocol):
    """What the server needs of a `litestream.db.DB`."""

    @property
    def path(self) -> str: ...
    def pos(self) -> Pos: ...
    def sync_now(self) -> bool: ...
    async def sync(self) -> None: ...
    def close(self) -> None: ...
    async def call(self, fn: Callable[..., T], *args: object) -> T: ...


class Destination(Protocol):
    """What the server needs of a `litestream.replica.Replica`."""

    @property
    def name(self) -> str: ...
    @property
    def pos(self) -> Pos: ...
    async def sync(self) -> None: ...
    @property
    def up_to_date(self) -> bool: ...
    async def stop(self) -> None: ...
    async def close(self, patience: float = ...) -> None: ...


async def _at_once() -> None:
    """For entries that have nothing to wait for."""


def _yes() -> bool:
    """For entries of which nobody knows better."""
    return True


def _not_known() -> bool:
    """For entries of which that can be found out only by doing it."""
    return False


def _by_nobody() -> DatabaseHeldError | None:
    """For entries of which nobody knows better."""
    return None


def _nothing() -> None:
    """For entries of which nobody keeps anything."""


@dataclass(slots=True)
class Entry:
    """One database with its replicas, and the work on them: `run` goes on until it is cancelled."""

    db: Database
    replicas: Sequence[Destination]
    run: Callable[[], Awaitable[None]]
    describe: Sequence[str] = ()
    """One text per replica for the log: `name="file" type="file" …`."""
    tried: Callable[[], Awaitable[None]] = _at_once
    """Returns once the database was looked for, found or not: the application may be started then."""
    config: DatabaseConfig | None = None
    """What it was made from: another one like it can be made."""
    observer: Observer | None = None
    """Who knows how safe the database is; None where nobody does."""
    all_durable: Callable[[], bool] = _yes
    """Whether every replica has all that was ever copied from the database, also when that is closed."""
    settled: Callable[[], bool] = _not_known
    """Whether everything that is committed is in every replica, as far as can be told at once; called in any thread."""
    forget: Callable[[], None] = _nothing
    """Called once the entry is no longer watched: what others keep of it goes."""
    held: Callable[[], DatabaseHeldError | None] = _by_nobody
    """The error that names another process of this host which replicates the database; None if there is none."""
    look: Callable[[], DatabaseStatus] | None = None
    """How a database is that nobody observes, since it is not replicated but follows another."""


class Last(Enum):
    """What is done before a database is let go."""

    SYNC = "sync"
    """Copy what is committed, and upload it."""
    COPIED = "copied"
    """The same for one whose file is gone: through what is still open, without looking at the file."""
    NOTHING = "nothing"
    """Only close it: it is opened again at once."""


@dataclass(slots=True)
class Outcome:
    """How the server ended."""

    missing: dict[str, str] = field(default_factory=dict)
    """`PATH(NAME)` of each replica that may lack commits, and why; empty: everything is durable."""
    stuck: bool = False
    """Work was still going on in some thread when the time was over."""
    child: int = 0
    """Exit status of the command of `-exec`."""


class Server:
    """Runs entries until told to stop.

    Args:
        shutdown_timeout: seconds for the last sync of everything; 0: one attempt, however long it takes.
        shutdown_interval: seconds between the attempts.
        child: the application to run; when it ends, so does the server.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        *,
        shutdown_timeout: float = 30.0,
        shutdown_interval: float = 0.5,
        child: Child | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self._entries: dict[str, Entry] = {}
        self._tasks: dict[str, asyncio.Task[None]] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[Outcome]] = set()
        for entry in entries:
            self.watch(entry)
        self.child = child
        self.expects_more: Callable[[], bool] = lambda: False
        """Whether databases may come that nobody knows yet."""
        self.on_hangup: Callable[[], object] | None = None
        """What SIGHUP asks for; None where it asks for the end."""
        self.shutdown_timeout = shutdown_timeout
        self.shutdown_interval = shutdown_interval
        self.logger = logger or logging.getLogger("litestream.server")

    @property
    def running(self) -> bool:
        """Whether databases that are added now are replicated: from `run` on, until it is told to stop."""
        return self._tasks is not None

    @property
    def entries(self) -> list[Entry]:
        """What is replicated now."""
        return list(self._entries.values())

    def entry(self, path: str) -> Entry | None:
        """The entry of the database at `path`, if it is replicated."""
        return self._entries.get(path)

    def watch(self, entry: Entry) -> None:
        """Replicate one more database from now on. Raises `ConfigError` if it is replicated already."""
        if entry.db.path in self._entries:
            raise ConfigError(f"database is replicated already: {entry.db.path}")
        self._entries[entry.db.path] = entry
        if self._tasks is not None:
            self._begin(entry)

    async def unwatch(self, path: str, last: Last = Last.SYNC) -> Outcome:
        """Stop replicating a database, after a last sync; an unknown path is nothing to stop.

        It goes on when its caller is cancelled, and the end of the server waits for it.
        """
        entry = self._entries.pop(path, None)
        if entry is None:
            return Outcome()
        task = self._tasks.pop(path, None) if self._tasks is not None else None
        leaving = asyncio.create_task(self._leave(entry, task, last), name=f"last sync of {path}")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        return await asyncio.shield(leaving)

    async def _leave(self, entry: Entry, task: asyncio.Task[None] | None, last: Last) -> Outcome:
        """The end of one entry. `stuck` if something of it is still open."""
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        outcome = Outcome() if last is Last.NOTHING else await self._last_sync([entry], gone=last is Last.COPIED)
        closing = asyncio.create_task(close_entries([entry], self.logger))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        # A thread that hangs must not hold up whoever waits for this; what it has open is closed when it comes back.
        done, _ = await asyncio.wait([closing], timeout=_CLOSING)
        outcome.stuck = outcome.stuck or not done
        entry.forget()
        return outcome

    async def run(
        self,
        stop: asyncio.Event,
        on_ready: Callable[[], None] = lambda: None,
        received: Callable[[], int] = lambda: signal.SIGTERM,
        on_stopping: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Start everything, wait for `stop` or the end of the child, do the last sync, close everything.

        `received` is asked for the signal that the child is sent, `on_stopping` is called when the end begins. Raises
        `ConfigError` if the child cannot be run, `DatabaseHeldError` if other processes replicate all of them.
        """
        self._tasks = {}
        for entry in self.entries:
            self._begin(entry)
        self.logger.info("litestream initialization complete")
        on_ready()
        child = 0
        failure: LitestreamError | None = None
        try:
            child = await self._until_the_end(stop, received, on_stopping)
        except (ConfigError, DatabaseHeldError) as error:
            failure = error
        finally:
            tasks, self._tasks = list(self._tasks.values()), None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        held = isinstance(failure, DatabaseHeldError)  # nothing of ours was ever opened
        outcome = Outcome() if held else await self._last_sync(self.entries)
        for left in await asyncio.gather(*self._leaving):  # no longer than a last sync takes, and they began earlier
            outcome.missing.update(left.missing)
            outcome.stuck = outcome.stuck or left.stuck
        outcome.child = child
        if not outcome.stuck:
            closing = asyncio.create_task(close_entries(self.entries, self.logger))
            done, _ = await asyncio.wait([closing], timeout=_CLOSING)
            outcome.stuck = not done
        self.logger.info("litestream shut down")
        if failure is not None:
            raise failure
        return outcome

    def _begin(self, entry: Entry) -> None:
        """Say what is replicated where, and start the work on it."""
        describe(entry, self.logger)
        if self._tasks is not None:
            self._tasks[entry.db.path] = asyncio.create_task(self._supervise(entry), name=entry.db.path)

    async def tried(self) -> None:
        """Return once every database there is now was looked for, found or not."""
        await asyncio.gather(*(entry.tried() for entry in self.entries))

    async def _until_the_end(
        self, stop: asyncio.Event, received: Callable[[], int], on_stopping: Callable[[], None]
    ) -> int:
        """Wait for the signal or the child, whichever ends first; the child's exit status. `DatabaseHeldError`."""
        running = asyncio.create_task(self._run_child())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
            on_stopping()
            if running.done():
                code = running.result()
                self.logger.info("subprocess exited, litestream shutting down")
                return code
            self.logger.info("signal received, litestream shutting down")
            return await self.child.stop(received()) if self.child is not None else 0
        finally:
            running.cancel()
            stopped.cancel()

    async def _run_child(self) -> int:
        """Run the child, once every database was looked for; for ever if there is none.

        Raises `DatabaseHeldError` if there is no database that another process does not replicate, and none may come.
        Where it is some of many, the others are replicated and those are tried again.
        """
        await self.tried()
        held = [entry.held() for entry in self.entries]
        if held and held[0] is not None and all(held) and not self.expects_more():
            raise DatabaseHeldError(f"{self.entries[0].db.path}: {held[0]}", held[0].pid)
        if self.child is None:
            await asyncio.Event().wait()
            return 0
        await self.child.start()
        return await self.child.wait()

    async def _supervise(self, entry: Entry) -> None:
        """Run an entry's work; an unexpected error is told and the work begun again, so that others go on."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await entry.run()
                text = "%s: replication ended by itself, starting it again"
                self.logger.error(text, entry.db.path, extra=facts(db=entry.db.path))
            except Exception:
                text = "%s: replication failed, starting it again in %gs"
                self.logger.exception(text, entry.db.path, pause, extra=facts(db=entry.db.path))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _last_sync(self, entries: Sequence[Entry], *, gone: bool = False) -> Outcome:
        """Bring databases and their replicas up to date, as far as that works in the time there is.

        `gone`: their files were deleted; what was committed to them is copied while it can still be reached.
        """
        outcome = Outcome()
        for entry in entries:
            for replica in entry.replicas:
                outcome.missing[f"{entry.db.path}({replica.name})"] = "no time was left"
        try:
            async with asyncio.timeout(self.shutdown_timeout or None):
                left = entries if gone else await self._unsettled(entries, outcome)
                await asyncio.gather(*(self._finish(entry, outcome, gone=gone) for entry in left))
        except TimeoutError:
            outcome.stuck = True
            limit = format_duration(self.shutdown_timeout)
            for name, reason in outcome.missing.items():
                outcome.missing[name] = f"{reason} (gave up after {limit})"
        tell_missing(entries, outcome.missing, self.logger)
        return outcome

    async def _unsettled(self, entries: Sequence[Entry], outcome: Outcome) -> list[Entry]:
        """What has to be brought up to date. The others are settled at once, in one go and before anything is waited
        for: a thousand databases at rest are no work, and lack nothing however slow the few that do are."""
        settled: list[Entry] = []

        def look() -> None:
            for entry in entries:
                try:
                    if entry.settled():
                        settled.append(entry)
                except (LitestreamError, OSError):
                    pass  # whoever copies it meets it too, and says so

        if entries:
            looking = asyncio.create_task(entries[0].db.call(look))
            await asyncio.wait([looking], timeout=_LOOK)  # a file system that hangs holds up only what is on it
            looking.cancel()
        paths = {entry.db.path for entry in tuple(settled)}
        for entry in entries:
            if entry.db.path in paths:
                for replica in entry.replicas:
                    del outcome.missing[f"{entry.db.path}({replica.name})"]
        return [entry for entry in entries if entry.db.path not in paths]

    async def _finish(self, entry: Entry, outcome: Outcome, *, gone: bool) -> None:
        names = [f"{entry.db.path}({replica.name})" for replica in entry.replicas]

        def keep(reason: str) -> None:
            outcome.missing.update(dict.fromkeys(names, reason))

        if not await self._attempt(entry.db.sync if gone else lambda: self._copy(entry.db), keep):
            return
        lacking = []
        for name, replica in zip(names, entry.replicas, strict=True):
            if replica.up_to_date:
                del outcome.missing[name]
            else:
                lacking.append(replica)
        await asyncio.gather(*(self._upload(entry.db, replica, outcome) for replica in lacking))

    async def _copy(self, db: Database) -> None:
        try:
            await db.call(db.sync_now)
        except DatabaseAbsentError:
            pass  # nothing there, nothing to copy

    async def _upload(self, db: Database, replica: Destination, outcome: Outcome) -> None:
        name = f"{db.path}({replica.name})"

        async def upload() -> None:
            await replica.stop()  # its own loop, so that the two do not upload at the same time
            try:
                await replica.sync()
            except NoGenerationError:
                pass
            if replica.pos != db.pos():
                raise LitestreamError(f"the replica is at {replica.pos or 'no position'}, the database at {db.pos()}")

        def keep(reason: str) -> None:
            outcome.missing[name] = reason

        if await self._attempt(upload, keep):
            del outcome.missing[name]

    async def _attempt(self, work: Callable[[], Awaitable[None]], keep: Callable[[str], None]) -> bool:
        """Do `work` until it succeeds; False when trying again is pointless. `keep` is told each reason."""
        while True:
            try:
                await work()
                return True
            except LitestreamError as e:
                keep(str(e))
                if not self.shutdown_timeout or is_pointless(e):
                    return False
            except Exception as e:
                # One database's surprise must not take the last sync away from the others.
                self.logger.exception("last sync failed")
                keep(f"internal error: {type(e).__name__}: {e}")
                return False
            await asyncio.sleep(self.shutdown_interval)


async def close_entries(entries: Sequence[Entry], logger: logging.Logger) -> None:
    """Close databases and replicas on which nothing runs any more; what cannot be is a warning.

    Leases are given back meanwhile, as far as that is done in `_LEASES` seconds: a store that is away costs no more,
    however many replicas it has.
    """
    turn, until = asyncio.Semaphore(_TOGETHER), time.monotonic() + _LEASES

    async def close(entry: Entry) -> None:
        async with turn:
            await asyncio.gather(*(_close_replica(entry, replica, until, logger) for replica in entry.replicas))
            try:
                await entry.db.call(entry.db.close)
            except LitestreamError as e:
                more = facts(db=entry.db.path)
                logger.warning("%s: cannot close the database: %s", entry.db.path, e, extra=more)

    await asyncio.gather(*map(close, entries))


async def _close_replica(entry: Entry, replica: Destination, until: float, logger: logging.Logger) -> None:
    try:
        await replica.close(max(0.0, until - time.monotonic()))
    except LitestreamError as e:
        more = facts(db=entry.db.path, replica=replica.name)
        logger.warning("%s(%s): cannot close the replica: %s", entry.db.path, replica.name, e, extra=more)


def describe(entry: Entry, logger: logging.Logger) -> None:
    """Say what is replicated where."""
    logger.info("initialized db: %s", entry.db.path, extra=facts(db=entry.db.path))
    for text, replica in zip(entry.describe, entry.replicas, strict=False):
        logger.info("replicating to: %s", text, extra=facts(db=entry.db.path, replica=replica.name))


def tell_missing(entries: Sequence[Entry], missing: Mapping[str, str], logger: logging.Logger) -> None:
    """Say which replicas of databases lack something, and why."""
    for entry in entries:
        for replica in entry.replicas:
            name = f"{entry.db.path}({replica.name})"
            if name in missing:
                more = facts(db=entry.db.path, replica=replica.name, position=str(replica.pos))
                logger.error("%s: not everything reached the replica: %s", name, missing[name], extra=more)


def is_pointless(error: LitestreamError) -> bool:
    """Whether the same attempt would fail the same way a moment later."""
    if isinstance(error, StorageError):
        return error.permanent
    if isinstance(error, DatabaseHeldError | LeaseLostError):
        return True
    return isinstance(error, DatabaseError) and not isinstance(error, DatabaseBusyError)
