"""What a running replicator can be asked for, by the control socket."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from litestream.config import Config, DatabaseConfig
from litestream.config.paths import database_path, shown
from litestream.config.rules import problems_between
from litestream.core.position import Pos
from litestream.core.timestamps import format_rfc3339
from litestream.daemon.observe import Observer
from litestream.daemon.server import Entry, Outcome, Server
from litestream.daemon.status import OK, STOPPED, WITHIN, DatabaseStatus, report, shown_time, txid_of
from litestream.daemon.waiting import Waiting
from litestream.errors import ConfigError, DatabaseError, InvalidNameError, LitestreamError, NoGenerationError
from litestream.version import VERSION
from litestream.web.api import Answer, RequestError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Stopped:
    """A database whose replication was stopped by request."""

    config: DatabaseConfig
    status: DatabaseStatus


class Controller:
    """The operations of the control API (`litestream.web.api.Control`) on a `Server`.

    Args:
        config: what the server was built from.
        make: makes an entry for one more database, nothing of it opened yet.
    """

    def __init__(
        self, server: Server, config: Config, make: Callable[[DatabaseConfig], Entry], logger: logging.Logger
    ) -> None:
        self._server = server
        self._make = make
        self._logger = logger
        self.config = config
        """What new databases take their defaults from."""
        self.on_reload: Callable[[], Awaitable[Answer]] | None = None
        """What reads the configuration again and says what changed; None where nothing can."""
        self._stopped: dict[str, _Stopped] = {}
        self._waiting: dict[str, tuple[Entry, Waiting]] = {}
        self._generations: dict[str, set[str]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._background: set[asyncio.Future[Any]] = set()
        self._started = time.time()

    # -- starting and stopping

    async def start(self, path: str, timeout: float) -> Answer:
        """Replicate a stopped database again. Its replicas go on where they were, if the WAL proves it."""
        path = self._path(path)

        async def start() -> str:
            if self._server.entry(path) is not None:
                return "already_running"
            self._check_running()
            if path not in self._stopped:
                raise _not_found(path)
            await self._watch(self._make(self._stopped[path].config))
            return "started"

        status = await self._within(timeout, path, start())
        return {"status": status, "path": path, **self._position(path)}

    async def stop(self, path: str, timeout: float) -> Answer:
        """Stop replicating a database, after a last sync; `missing` says what did not reach which replica."""
        path = self._path(path)

        async def stop() -> tuple[str, Outcome]:
            entry = self._server.entry(path)
            if entry is None:
                if path not in self._stopped:
                    raise _not_found(path)
                return "already_stopped", Outcome()
            config, observer = _parts(entry)
            before = observer.look()
            outcome = await self._server.unwatch(path)
            self._stopped[path] = _Stopped(config, _as_stopped(before, observer))
            self._logger.info("replication stopped by request", extra={"fields": {"db": path}})
            return "stopped", outcome

        status, outcome = await self._within(timeout, path, stop())
        return {"status": status, "path": path, **self._position(path), **_missing(outcome)}

    async def register(self, path: str, replica_url: str, timeout: float) -> Answer:
        """Replicate one more database to a URL, until it is unregistered or this process ends."""
        path = self._path(path)

        async def register() -> str:
            if self._server.entry(path) is not None or path in self._stopped:
                return "already_registered"
            self._check_running()
            database = DatabaseConfig(path=path, replicas=(self.config.replica_at(replica_url),))
            self._check_place(database)
            await self._watch(self._make(database))
            return "registered"

        return {"status": await self._within(timeout, path, register()), "path": path}

    async def unregister(self, path: str, timeout: float) -> Answer:
        """Replicate a database no more, after a last sync; its replicas stay as they are."""
        path = self._path(path)

        async def unregister() -> tuple[str, Answer, Outcome]:
            entry = self._server.entry(path)
            if entry is None and self._stopped.pop(path, None) is None:
                return "already_unregistered", _position(Pos()), Outcome()
            outcome, at = Outcome(), _position(Pos())
            if entry is not None:
                _, observer = _parts(entry)
                before = observer.look()
                outcome = await self._server.unwatch(path)
                at = _position(_as_stopped(before, observer).pos)
                self._logger.info("database unregistered by request", extra={"fields": {"db": path}})
            return "unregistered", at, outcome

        status, at, outcome = await self._within(timeout, path, unregister())
        return {"status": status, "path": path, **at, **_missing(outcome)}

    # -- bringing up to date

    async def sync(self, path: str, *, wait: bool, timeout: float) -> Answer:
        """Copy what is committed; with `wait` upload it at once, to every replica, whatever the sync interval is."""
        path = self._path(path)
        observer, waiting = self._running(path)
        db, replicas = observer.task.db, observer.task.replicas
        before = db.pos()
        behind = any(replica.durable != before for replica in replicas)

        async def sync() -> None:
            target = await waiting.copied()
            if not wait:
                return
            await asyncio.gather(*(replica.sync() for replica in replicas))
            if not await waiting.durable(target, every=True, running=lambda: self._is_running(path, observer)):
                raise _not_open(path)

        await self._limited(timeout, sync(), lambda: self._why(observer))
        pos = db.pos()
        moved = pos != before or (wait and behind)
        status = "no_change" if not moved else "synced" if wait else "synced_local"
        durable = [replica.durable for replica in replicas if replica.durable.generation == pos.generation]
        least = min(durable) if len(durable) == len(replicas) and durable else Pos()
        replicated = {"replicated_txid": txid_of(least), "replicated_pos": str(least)}
        return {"status": status, "path": path, **self._position(path), **replicated}

    async def wait(self, path: str, pos: str, *, every: bool, timeout: float) -> Answer:
        """Return when everything committed by now, or up to `pos`, is durable in a replica, or in `every` one.

        It makes no upload of its own: any number of waiters ride on the next one.
        """
        path = self._path(path)
        observer, waiting = self._running(path)
        began = time.monotonic()
        given = self._given(path, observer, pos)

        async def wait() -> Pos:
            target = given or await waiting.copied()
            self._note(path, target)
            if not await waiting.durable(target, every=every, running=lambda: self._is_running(path, observer)):
                raise _not_open(path)
            return target

        target = await self._limited(timeout, wait(), lambda: self._why(observer))
        duration = round((time.monotonic() - began) * 1000, 3)
        return {"status": "durable", "path": path, **_position(target), "duration_ms": duration}

    async def reset(self, path: str, timeout: float) -> Answer:
        """Begin a new generation, with a new snapshot, as if the local state had been deleted."""
        path = self._path(path)
        observer, _ = self._running(path)
        db = observer.task.db
        before = db.pos()
        db.new_generation("reset by request")
        await self._limited(timeout, db.call(db.sync_now), lambda: self._why(observer))
        return {"status": "reset", "path": path, "previous_pos": str(before), **self._position(path)}

    async def reload(self, timeout: float) -> Answer:
        """Read the configuration again; what is not from a file cannot be."""
        if self.on_reload is None:
            raise RequestError(409, "nothing to reload", "this replicator has no configuration file: restart it")
        return await self._in_time(timeout, asyncio.ensure_future(self.on_reload()))

    # -- telling

    async def txid(self, path: str) -> Answer:
        """The position of a database."""
        path = self._path(path)
        if self._server.entry(path) is None and path not in self._stopped:
            raise RequestError(404, "database not found")
        return self._position(path)

    async def databases(self) -> Answer:
        """Every database, and whether it is being replicated."""
        found = []
        for status in await self._look():
            entry: Answer = {"path": status.path, "status": "replicating" if status.status == OK else status.status}
            if status.synced_at:
                entry["last_sync_at"] = shown_time(status.synced_at)
            found.append(entry)
        return {"databases": found}

    async def info(self) -> Answer:
        """The program and its process."""
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "uptime_seconds": int(time.time() - self._started),
            "started_at": format_rfc3339(self._started, fraction=True),
            "database_count": len(self._server.entries) + len(self._stopped),
        }

    async def status(self, path: str, within: float | None) -> Answer:
        """How safe every database is, or one."""
        return report(await self._look(path), WITHIN if within is None else within)

    async def sync_status(self, path: str) -> Answer:
        """The same in the official form, as far as there is one."""
        found = [
            {
                "active": any(replica.status != OK for replica in status.replicas) and status.status != STOPPED,
                "txid": txid_of(status.pos),
                "last_synced_wal_offset": status.pos.offset,
                **status.to_json(),
            }
            for status in await self._look(path)
        ]
        return {"databases": found}

    @property
    def started(self) -> float:
        """When this process began, in Unix seconds."""
        return self._started

    async def statuses(self) -> list[DatabaseStatus]:
        """How safe every database is."""
        return await self._look()

    def stopped_statuses(self) -> list[DatabaseStatus]:
        """The databases whose replication was stopped by request, as they were left."""
        return [stopped.status for stopped in self._stopped.values()]

    # -- for those who change what is replicated

    def alone(self, path: str) -> asyncio.Lock:
        """Held while a database is started, stopped or changed: one such work at a time."""
        lock = self._locks.get(path)
        if lock is None:
            lock = self._locks[path] = asyncio.Lock()
        return lock

    def forget(self, path: str) -> None:
        """There is no such database any more: nothing is kept of it."""
        self._stopped.pop(path, None)
        self._waiting.pop(path, None)
        self._generations.pop(path, None)

    @property
    def stopped(self) -> dict[str, DatabaseConfig]:
        """The databases that were stopped by request, and what they would be started with."""
        return {path: stopped.config for path, stopped in self._stopped.items()}

    def keep_stopped(self, path: str, config: DatabaseConfig | None) -> None:
        """Have a stopped database start with another configuration; None: there is no such database any more."""
        if config is None:
            self._stopped.pop(path, None)
        elif path in self._stopped:
            self._stopped[path] = replace(self._stopped[path], config=config)

    def finish(self, task: asyncio.Future[Any]) -> None:
        """Have `close` wait for what goes on by itself."""
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def close(self) -> None:
        """Wait for what callers did not wait for: a last sync of a database that is being stopped is one."""
        if self._background:
            await asyncio.wait(self._background, timeout=self._server.shutdown_timeout or None)

    # -- inside

    def _path(self, text: str) -> str:
        """A database's path as the configuration has it."""
        try:
            path = database_path(text)
        except ValueError as error:
            raise RequestError(400, "invalid path", str(error)) from None
        known = {*self._stopped, *(entry.db.path for entry in self._server.entries)}
        if path in known:
            return path
        real = os.path.realpath(path)
        return next((other for other in known if os.path.realpath(other) == real), path)

    async def _look(self, path: str = "") -> list[DatabaseStatus]:
        """The status of every database, or of one, by path."""
        wanted = self._path(path) if path else ""
        found: list[DatabaseStatus] = [
            stopped.status for path, stopped in self._stopped.items() if wanted in ("", path)
        ]
        for entry in self._server.entries:
            look = entry.observer.look if entry.observer is not None else entry.look
            if wanted in ("", entry.db.path) and look is not None:
                found.append(look())
                if len(found) % 100 == 0:
                    await asyncio.sleep(0)  # a thousand databases take a while, and uploads go on
        if wanted and not found:
            raise _not_found(wanted)
        return sorted(found, key=lambda status: status.path)

    def _running(self, path: str) -> tuple[Observer, Waiting]:
        """A database that is being replicated, and its waiters."""
        entry = self._server.entry(path)
        if entry is None:
            raise _not_open(path) if path in self._stopped else _not_found(path)
        _, observer = _parts(entry)
        if path not in self._waiting or self._waiting[path][0] is not entry:
            self._waiting[path] = entry, Waiting(observer.task)
        return observer, self._waiting[path][1]

    def _is_running(self, path: str, observer: Observer) -> bool:
        entry = self._server.entry(path)
        return entry is not None and entry.observer is observer

    async def _watch(self, entry: Entry) -> None:
        """Replicate a database, and return once it was looked for."""
        self._server.watch(entry)
        self._stopped.pop(entry.db.path, None)
        await entry.tried()

    def _check_running(self) -> None:
        if not self._server.running:
            raise RequestError(503, "the replicator is starting or shutting down: try again")

    def _check_place(self, database: DatabaseConfig) -> None:
        """Raise `ConfigError` if a new database, or its replica, is in the way of one that is replicated."""
        others = [entry.config for entry in self._server.entries if entry.config is not None]
        others += [stopped.config for stopped in self._stopped.values()]
        entries = [((other.path,), other) for other in (*others, database)]
        for _, _, text in problems_between(entries):
            raise ConfigError(f"cannot register {shown(database.path)}: {text}")

    def _position(self, path: str) -> Answer:
        entry, stopped = self._server.entry(path), self._stopped.get(path)
        pos = entry.db.pos() if entry is not None else stopped.status.pos if stopped is not None else Pos()
        self._note(path, pos)
        return _position(pos)

    def _note(self, path: str, pos: Pos) -> None:
        """Remember the generations that callers were told: whoever comes back with one is understood."""
        if not pos.is_zero:
            self._generations.setdefault(path, set()).add(pos.generation)

    def _given(self, path: str, observer: Observer, text: str) -> Pos | None:
        """The position that a caller waits for; None if that is what is committed now."""
        if not text:
            return None
        try:
            pos = Pos.parse(text)
        except InvalidNameError as error:
            raise RequestError(400, "invalid position", f"{error}: GENERATION/INDEX:OFFSET is needed") from None
        self._note(path, observer.task.db.pos())
        if pos.generation not in self._generations.get(path, set()):
            raise RequestError(
                409, f"unknown position: {pos}", "this replicator has not been in that generation since it was started"
            )
        return pos

    def _why(self, observer: Observer) -> str:
        """What holds a database's replicas up, for those who waited in vain."""
        status = observer.look()
        reasons = [f"{replica.name}: {replica.error}" for replica in status.replicas if replica.error]
        return "; ".join([status.error] * bool(status.error) + reasons) or "no upload has ended in that time"

    async def _within(self, timeout: float, path: str, work: Awaitable[T]) -> T:
        """Do what changes a database, one change at a time. What takes longer than the caller waits goes on."""

        async def alone() -> T:
            async with self.alone(path):
                return await work

        return await self._in_time(timeout, asyncio.ensure_future(alone()))

    async def _in_time(self, timeout: float, task: asyncio.Future[T]) -> T:
        """The result of what goes on when the caller has waited long enough."""
        self.finish(task)
        done, _ = await asyncio.wait([task], timeout=timeout)
        if not done:
            task.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody is left to be told
            raise RequestError(504, f"timeout after {timeout:g}s", "it goes on in the background")
        return task.result()

    async def _limited(self, timeout: float, work: Awaitable[T], why: Callable[[], str]) -> T:
        """Wait for work that may be given up."""
        try:
            async with asyncio.timeout(timeout):
                return await work
        except TimeoutError:
            raise RequestError(504, f"timeout after {timeout:g}s", why()) from None
        except (DatabaseError, NoGenerationError) as error:
            raise RequestError(409, str(error)) from None


def _parts(entry: Entry) -> tuple[DatabaseConfig, Observer]:
    if entry.config is None or entry.observer is None:
        raise LitestreamError(f"it follows another database, and is not replicated: {entry.db.path}")
    return entry.config, entry.observer


def _position(pos: Pos) -> Answer:
    return {"txid": txid_of(pos), "pos": str(pos)}


def _missing(outcome: Outcome) -> Answer:
    return {"missing": dict(outcome.missing)} if outcome.missing else {}


def _not_found(path: str) -> RequestError:
    return RequestError(404, f"database not found: {path}")


def _not_open(path: str) -> RequestError:
    return RequestError(409, f"database not open: {path}", "its replication is stopped")


def _as_stopped(before: DatabaseStatus, observer: Observer) -> DatabaseStatus:
    """The status of a database that was closed: what the last sync brought to its replicas is known from them."""
    durable = {replica.name: replica.durable for replica in observer.task.replicas}
    reached = [pos for pos in durable.values() if pos.generation == before.pos.generation]
    replicas = tuple(replace(replica, status=STOPPED, pos=durable[replica.name]) for replica in before.replicas)
    return replace(before, status=STOPPED, pos=max([before.pos, *reached]), replicas=replicas)
