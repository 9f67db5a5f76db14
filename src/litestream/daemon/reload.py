"""Reading the configuration again: databases come, go and change, and those that stay the same notice nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from litestream.config import Config, DatabaseConfig
from litestream.config.paths import shown
from litestream.config.rules import problems_between
from litestream.daemon.control import Controller
from litestream.daemon.difference import Difference, difference, needs_new_start, waiting_for
from litestream.daemon.directories import Changes, Directories
from litestream.daemon.exchange import Change
from litestream.daemon.missing import is_missing, restore_missing
from litestream.daemon.server import Entry, Server
from litestream.daemon.workshop import Source, Workshop
from litestream.errors import ConfigError, LitestreamError
from litestream.web.api import Answer, RequestError

AT_ONCE = 32
"""Databases that are let go of at the same time."""

_LOOK = 0.2
"""Seconds between looks whether the end has begun, while databases are restored."""


@dataclass(slots=True)
class _Plan:
    """All that is to be done, made and checked before the first step."""

    config: Config
    difference: Difference
    removed: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    begun: list[Entry] = field(default_factory=list)
    waiting: list[Entry] = field(default_factory=list)
    """Those that begin when others have let go of what they need."""
    again: list[DatabaseConfig] = field(default_factory=list)
    """Those that are stopped and begin anew."""
    stopped: dict[str, DatabaseConfig | None] = field(default_factory=dict)
    """Of databases that were stopped by request: with what they start again; None: never."""

    async def drop(self) -> None:
        """Close what was made for nothing."""
        for change in self.changes:
            await change.drop()
        for entry in [*self.begun, *self.waiting]:
            for replica in entry.replicas:
                await replica.close()
            entry.forget()


class Reloader:
    """Brings a running server to what its configuration file says now. An invalid file changes nothing.

    Databases that were registered at run time, and those that were stopped or unregistered by request, stay so.
    """

    def __init__(
        self,
        server: Server,
        control: Controller,
        directories: Directories,
        config: Config,
        source: Source,
        workshop: Workshop,
        logger: logging.Logger,
    ) -> None:
        self._server = server
        self._control = control
        self._directories = directories
        self._config = config
        self._source = source
        self._workshop = workshop
        self._logger = logger
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[Answer] | None = None
        self._signalled: set[asyncio.Task[None]] = set()

    async def reload(self) -> Answer:
        """Reload, one at a time; those who ask while one waits for its turn share it. Returns what was done.

        Raises `RequestError`: 400 an invalid file, 503 while the server starts or ends.
        """
        self._check_running()
        if self._next is None:
            self._next = asyncio.create_task(self._turn(), name="reload")
            self._control.finish(self._next)
        return await asyncio.shield(self._next)

    def on_signal(self) -> None:
        """The same for a signal, which nobody answers: what is wrong is in the log."""
        task = asyncio.create_task(self._logged())
        self._signalled.add(task)
        task.add_done_callback(self._signalled.discard)

    async def _logged(self) -> None:
        try:
            await self.reload()
        except RequestError as error:
            if error.status == 503:  # all else was logged line by line
                self._logger.warning("configuration not reloaded: %s", error)
        except Exception:
            self._logger.exception("internal error while the configuration was reloaded")

    async def _turn(self) -> Answer:
        async with self._lock:
            self._next = None  # who asks from now on means what the file says from now on
            self._check_running()
            self._workshop.notifier.reloading()
            try:
                return await self._reload()
            finally:
                self._workshop.notifier.ready()

    async def _reload(self) -> Answer:
        try:
            new = await asyncio.to_thread(self._source.read)
            plan = await self._plan(new)
        except ConfigError as error:
            raise self._refused(400, "invalid configuration", str(error).splitlines()) from error
        try:
            await self._restore(plan)
        except BaseException as error:
            await plan.drop()
            if isinstance(error, LitestreamError) and not isinstance(error, RequestError):
                raise self._refused(500, "a missing database could not be restored", [str(error)]) from error
            raise
        return await self._apply(plan)

    def _refused(self, status: int, what: str, lines: Sequence[str]) -> RequestError:
        """Say in the log that nothing was changed, and why; the answer that says the same."""
        for line in (*lines, "configuration not reloaded: everything goes on as it was"):
            self._logger.error("%s", line)
        return RequestError(status, f"{what}: nothing was changed", "; ".join(lines))

    def _check_running(self) -> None:
        if not self._server.running:
            raise RequestError(503, "the replicator is starting or shutting down: try again")

    # -- planning

    async def _plan(self, new: Config) -> _Plan:
        """What is to be done. Raises `ConfigError`, and has changed nothing then."""
        self._check_others(new)
        self._workshop.check(new)
        await self._directories.check(new)
        found = difference(self._config, new)
        plan = _Plan(new, found)
        stopped = self._control.stopped
        plan.stopped |= {database.path: None for database in found.removed if database.path in stopped}
        plan.removed = [database.path for database in found.removed if self._server.entry(database.path) is not None]
        try:
            await self._plan_rest(plan)
        except BaseException:
            await plan.drop()
            raise
        return plan

    async def _plan_rest(self, plan: _Plan) -> None:
        added: list[DatabaseConfig] = []
        leaving = [*plan.difference.removed]
        known = {database.path for database in plan.difference.added}
        held = {database.path for database in self._directories.databases}
        for number, database in enumerate([*plan.difference.added, *plan.difference.changed]):
            if number % 50 == 49:
                await asyncio.sleep(0)  # uploads of others go on
            entry = self._server.entry(database.path)
            if database.path in held:
                await self._try(entry, database)
                plan.again.append(database)  # the directory lets go of it first
            elif database.path in self._control.stopped:
                plan.stopped[database.path] = database
            elif entry is not None and entry.config is not None:
                if needs_new_start(entry.config, database):
                    await self._try(entry, database)
                    plan.removed.append(database.path)
                    plan.again.append(database)
                elif entry.config != database:
                    plan.changes.append(self._workshop.change(entry, database))
                leaving.append(entry.config)
            elif database.path in known:
                added.append(database)
        late = waiting_for(added, leaving)
        for database in added:
            waits = database.path in late or self._has_directories(plan)
            (plan.waiting if waits else plan.begun).append(self._workshop.make(database))

    async def _try(self, entry: Entry | None, database: DatabaseConfig) -> None:
        """Raise `ConfigError` now for what cannot be made later."""
        if entry is not None and entry.observer is not None and database.upstream is None:
            await self._workshop.change(entry, database).drop()

    def _has_directories(self, plan: _Plan) -> bool:
        return bool(plan.config.directories or self._config.directories)

    def _check_others(self, new: Config) -> None:
        """Raise `ConfigError` if the new file is in the way of a database that was registered at run time."""
        mine = {database.path for config in (self._config, new) for database in config.databases}
        running = {entry.db.path: entry.config for entry in self._server.entries if entry.config is not None}
        folders = [*self._config.directories, *new.directories]
        registered = [
            config
            for path, config in {**running, **self._control.stopped}.items()
            if path not in mine and not any(folder.relative(path) for folder in folders)
        ]
        if registered:
            names = {config.path for config in registered}
            entries = [((database.path,), database) for database in [*new.databases, *registered]]
            for loc, _, text in problems_between(entries):
                if loc[0] in names:
                    raise ConfigError(f"the database {loc[0]} was registered at run time: {text}: unregister it first")

    # -- doing it

    async def _restore(self, plan: _Plan) -> None:
        """Restore the new databases that are missing and are to be there. Raises what `restore_missing` raises.

        Raises `ConfigError` for one whose replica another database still writes to: its last commits come later.
        """
        entries = [*plan.begun, *plan.waiting]
        wanted = [entry.config for entry in entries if entry.config is not None and self._is_to_be_restored(entry)]
        leaving = [entry.config for entry in self._server.entries if entry.config is not None]
        for path in sorted(waiting_for(wanted, leaving)):
            raise ConfigError(
                f"cannot restore {shown(path)}: another database still uses its replica or its local state: reload "
                "without either of them first"
            )
        if not wanted:
            return
        work = asyncio.create_task(restore_missing(wanted, self._logger))
        extending = asyncio.create_task(self._workshop.notifier.starting())
        try:
            while not (await asyncio.wait([work], timeout=_LOOK))[0]:
                self._check_running()
            await work
        finally:
            work.cancel()
            extending.cancel()
            await asyncio.gather(work, extending, return_exceptions=True)

    def _is_to_be_restored(self, entry: Entry) -> bool:
        database = entry.config
        if database is None or database.upstream is not None:
            return False
        return (self._source.restores or database.restore_if_db_not_exists) and is_missing(database)

    async def _apply(self, plan: _Plan) -> Answer:
        has_directories = self._has_directories(plan)
        self._config = self._control.config = plan.config
        self._source.adopt(plan.config)
        self._server.shutdown_timeout = plan.config.shutdown_sync_timeout
        self._server.shutdown_interval = plan.config.shutdown_sync_interval
        for warning in plan.config.warnings:
            self._logger.warning("%s", warning)
        for path, config in plan.stopped.items():
            self._control.keep_stopped(path, config)
        await self._begin(plan.begun)
        missing = await self._let_go(plan)
        await asyncio.gather(*map(self._change, plan.changes))
        inside = Changes()
        if has_directories and self._server.running:
            inside = await self._directories.reconfigure(plan.config)
        await self._begin([*plan.waiting, *self._made(plan.again)])
        return self._told(plan, inside, missing)

    async def _begin(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            path = entry.db.path
            async with self._control.alone(path):
                if path in self._control.stopped:
                    self._control.keep_stopped(path, entry.config)
                elif self._server.running and self._server.entry(path) is None:
                    self._server.watch(entry)
                    continue
            for replica in entry.replicas:  # stopped or registered, or the end began, since the plan was made
                await replica.close()

    async def _let_go(self, plan: _Plan) -> dict[str, str]:
        """A last sync of what goes away; `PATH(NAME)` of what did not reach its replica, and why."""
        missing: dict[str, str] = {}
        turn, again = asyncio.Semaphore(AT_ONCE), {database.path for database in plan.again}

        async def remove(path: str) -> None:
            async with turn, self._control.alone(path):
                if self._server.running:
                    missing.update((await self._server.unwatch(path)).missing)
                if path not in again:
                    self._control.keep_stopped(path, None)
                    self._logger.info("database removed", extra={"fields": {"db": path}})

        async def retire(change: Change) -> None:
            async with turn, self._control.alone(change.config.path):
                if self._is_there(change):
                    missing.update(await change.retire(self._server.shutdown_timeout, self._logger))

        await asyncio.gather(*map(remove, plan.removed), *map(retire, plan.changes))
        return missing

    async def _change(self, change: Change) -> None:
        async with self._control.alone(change.config.path):
            if self._is_there(change):
                await change.apply(self._logger)
                return
            await change.drop()
            self._control.keep_stopped(change.config.path, change.config)  # stopped meanwhile

    def _made(self, databases: Sequence[DatabaseConfig]) -> list[Entry]:
        entries = []
        for database in databases:
            try:
                entries.append(self._workshop.make(database))
            except ConfigError as error:
                fields = {"db": database.path, "error": str(error)}
                self._logger.log(logging.ERROR, "database not replicated", extra={"fields": fields})
        return entries

    def _is_there(self, change: Change) -> bool:
        return self._server.running and self._server.entry(change.config.path) is change.entry

    def _told(self, plan: _Plan, inside: Changes, missing: dict[str, str]) -> Answer:
        found = plan.difference
        came, went, differ = ([one.path for one in some] for some in (found.added, found.removed, found.changed))
        # A database may go from a directory to an entry of its own, or the other way.
        added = sorted({*came, *inside.added} - {*went, *inside.removed})
        removed = sorted({*went, *inside.removed} - {*came, *inside.added})
        both = {*came, *inside.added} & {*went, *inside.removed}
        changed = sorted({*differ, *inside.changed, *both})
        counts = {"added": len(added), "removed": len(removed), "changed": len(changed)}
        self._logger.info("configuration reloaded", extra={"fields": counts})
        if found.restart:
            self._logger.warning("these keys take effect only at the next start: %s", ", ".join(found.restart))
        answer: Answer = {
            "status": "reloaded" if found else "unchanged",
            "added": added,
            "removed": removed,
            "changed": changed,
            "settings": list(found.settings),
            "restart": list(found.restart),
            "warnings": list(plan.config.warnings),
        }
        return {**answer, "missing": missing} if missing else answer
