"""The databases of the configuration's directories: found, replicated, and let go of when their files are gone.

Events only say where to look; what is true is what the files say then. So nothing depends on their order, and a lost
one costs a minute at most.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from litestream.config import Config, DatabaseConfig
from litestream.config.paths import shown
from litestream.config.rules import default_meta_path, replica_place
from litestream.config.scan import Found, closed_to, configured
from litestream.daemon.control import Controller
from litestream.daemon.folders import Directory, Folders, is_below
from litestream.daemon.server import Entry, Last, Outcome, Server
from litestream.daemon.watcher import Watcher
from litestream.descriptors import SHORTAGE
from litestream.errors import ConfigError, LitestreamError
from litestream.sqlite.source import is_database

DEBOUNCE = 0.25
"""Seconds from a change to the look at it: what comes in a burst is looked at once."""

RESCAN = 60.0
"""Seconds between looks at everything, where the system tells of changes."""

RESCAN_BLIND = 10.0
"""The same where it does not tell of all, and after something could not be looked at."""

RESCAN_ABSENT = 1.0
"""The same while a directory is not there: nobody tells when it appears."""

Place = tuple[Directory, str]
"""A directory, and the place of a file below it."""


@dataclass(eq=False, slots=True)
class _Held:
    """A database that a directory has."""

    directory: Directory
    relative: str
    database: DatabaseConfig
    real: str
    """Where its file is when links are followed."""
    leaving: asyncio.Task[Outcome] | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What stands at a path."""

    real: str
    database: bool | None = False
    """None: this process has it open already."""
    is_link: bool = False
    error: OSError | None = None
    """Why that is not known."""

    @property
    def is_candidate(self) -> bool:
        """Whether it is a database, as far as that can be said."""
        return self.error is None and self.database is not False


@dataclass(frozen=True, slots=True)
class Changes:
    """Paths of databases that came, went, or are replicated otherwise."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


class Directories:
    """Keeps a server's databases as the directories of a configuration have them.

    Databases that were stopped, registered or unregistered by request are left as they are, and those that entries of
    their own have.

    Args:
        make: makes an entry for a database, nothing of it opened yet.
    """

    def __init__(
        self,
        config: Config,
        server: Server,
        control: Controller,
        make: Callable[[DatabaseConfig], Entry],
        watcher: Watcher,
        logger: logging.Logger,
    ) -> None:
        self._server = server
        self._control = control
        self._make = make
        self._watcher = watcher
        self._logger = logger
        self._config = config
        self._directories = [Directory(entry) for entry in config.directories]
        self._changed = asyncio.Event()
        self._folders = Folders(watcher, self._changed.set)
        self._held: dict[str, _Held] = {}
        self._reals: dict[str, _Held] = {}
        self._again: set[Place] = set()
        """Places to look at as soon as somebody has let go of what is there."""
        self._told: dict[str, str] = {}
        self._unsure = False
        """Something could not be looked at."""
        self._blind = False
        self._lock = asyncio.Lock()

    @property
    def databases(self) -> list[DatabaseConfig]:
        """The databases that the directories have now, those that were stopped by request included."""
        return [held.database for held in self._held.values() if held.leaving is None]

    def expects_more(self) -> bool:
        """Whether a watched directory has no database yet."""
        having = {held.directory for held in self._held.values()}
        return any(directory.config.watch and directory not in having for directory in self._directories)

    async def begin(self) -> None:
        """Have the server replicate what there is. Raises `ConfigError` if a directory without `watch` has nothing."""
        async with self._lock:
            places = await self._look(self._directories)
            seen = await asyncio.to_thread(_see, places)
            self._check_found(self._directories, seen)
            await self._judge(seen)

    async def run(self) -> None:
        """Act upon changes, until cancelled."""
        while True:
            if not await self._wait():
                self._folders.lost()
            await asyncio.sleep(DEBOUNCE)
            if self._server.running:
                self._changed.clear()
                async with self._lock:
                    await self._settle()

    async def reconfigure(self, config: Config) -> Changes:
        """Go over to another configuration; what is the same in both goes on undisturbed.

        Returns when what is let go of had its last sync. Entries of their own that are gone must have been let go of
        before, and those that are new begin afterwards: a file is replicated once. Raises `ConfigError`, and nothing
        has changed then, if a new directory without `watch` has no database.
        """
        await self.check(config)
        async with self._lock:
            former = list(self._directories)
            wanted = [_same(former, Directory(entry)) for entry in config.directories]
            for directory in former:
                self._folders.leave(directory)
            self._config, self._directories = config, wanted
            before = {path: held.database for path, held in self._held.items()}
            await self._hand_over()
            self._again.clear()
            # All of them: what a directory had that is gone may be another one's now.
            await self._judge(await asyncio.to_thread(_see, await self._look(wanted)))
            self._changed.set()
            after = {path: held.database for path, held in self._held.items()}
        return Changes(
            added=tuple(sorted(after.keys() - before.keys())),
            removed=tuple(sorted(before.keys() - after.keys())),
            changed=tuple(sorted(path for path in after.keys() & before.keys() if after[path] != before[path])),
        )

    async def check(self, config: Config) -> None:
        """Raise `ConfigError` if a directory that is new in a configuration, without `watch`, has no database."""
        known = [directory.config for directory in self._directories]
        once = [Directory(entry) for entry in config.directories if not entry.watch and entry not in known]
        self._check_found(once, await asyncio.to_thread(_see, await self._list(once, closed_to(config))))

    async def close(self) -> None:
        """Wait until what is being let go of has had its last sync."""
        await asyncio.gather(*self._leaving(), return_exceptions=True)

    # -- looking

    async def _wait(self) -> bool:
        """Whether something was told, before it is time to look at everything."""
        watched = [directory for directory in self._directories if directory.config.watch]
        pause = RESCAN_BLIND if self._unsure or not self._watcher.complete else RESCAN
        until = time.monotonic() + pause if watched else math.inf
        while (left := until - time.monotonic()) > 0:
            absent = [directory.config.dir for directory in watched if not self._folders.watches(directory)]
            there = await asyncio.to_thread(_any_there, absent)
            if there:
                return False
            try:
                async with asyncio.timeout(min(left, RESCAN_ABSENT) if absent else left if watched else None):
                    await self._changed.wait()
                    return True
            except TimeoutError:
                pass
        return False

    async def _settle(self) -> None:
        """Look at whatever may have changed, and act upon it."""
        news, again = self._folders.take(), self._again
        self._again = set()
        if news.everything:
            places = await self._look([directory for directory in self._directories if directory.config.watch])
        else:
            places = await self._look_at(news.folders)
            places += [place for folder, name in news.files for place in self._folders.owners(folder, name)]
        places += [place for place in again if place[0] in self._directories]
        await self._judge(await asyncio.to_thread(_see, places))

    async def _look(self, directories: Iterable[Directory]) -> list[Place]:
        """All that may be a database, and all that was one, of whole directories."""
        self._unsure = False
        places = []
        for directory in directories:
            places += await self._look_in(directory)
        if not self._watcher.complete and not self._blind:
            self._blind = True
            self._logger.warning(
                "the system does not tell of all changes (inotify: fs.inotify.max_user_watches, max_user_instances): "
                "directories are read every %gs",
                RESCAN_BLIND,
            )
        return places

    async def _look_at(self, folders: Iterable[str]) -> list[Place]:
        """The same for some folders."""
        places = []
        for folder in sorted(folders):
            for directory in list(self._folders.tops(folder)):
                places += await self._look_in(directory)
            for directory, inside in list(self._folders.owners(*os.path.split(folder))):
                if directory.config.enters(os.path.basename(folder)) and folder not in closed_to(self._config):
                    places += await self._look_in(directory, inside)
        return places

    async def _look_in(self, directory: Directory, inside: str = "") -> list[Place]:
        found = await self._folders.look(directory, closed_to(self._config), inside)
        self._tell_unreadable(directory, found)
        places = [(directory, relative) for relative in found.files]
        places += [
            (directory, held.relative)
            for held in self._held.values()
            if held.directory is directory and (not inside or is_below(held.relative, inside))
        ]
        return places

    async def _list(self, directories: Iterable[Directory], closed: set[str]) -> list[Place]:
        """What may be a database in directories that are not watched."""
        places = []
        for directory in directories:
            found = await self._folders.look(directory, closed)
            places += [(directory, relative) for relative in found.files]
        return places

    def _tell_unreadable(self, directory: Directory, found: Found) -> None:
        for folder in found.folders:
            self._told.pop(folder, None)
        for folder, error in found.unreadable.items():
            if not directory.config.watch and not self._server.running:
                raise ConfigError(f"failed to scan directory {shown(folder)}: {error.strerror or error}")
            self._tell(folder, error, f"failed to scan directory {shown(folder)}: {error.strerror or error}")

    def _tell(self, path: str, error: Exception, text: str) -> None:
        """Say once what is wrong with a file or folder, and look again soon."""
        self._unsure = True
        if not SHORTAGE.tell(path, error) and self._told.get(path) != text:
            self._told[path] = text
            self._logger.error("%s", text)

    def _check_found(self, directories: Iterable[Directory], seen: list[tuple[Place, _Seen | None]]) -> None:
        having = {directory for (directory, _), one in seen if one is not None and one.is_candidate}
        for directory in directories:
            config = directory.config
            if not config.watch and directory not in having:
                raise ConfigError(
                    f"no SQLite databases found in directory {shown(config.dir)} with pattern {shown(config.pattern)}: "
                    "with watch: true it may be empty at first"
                )

    # -- acting

    async def _judge(self, seen: list[tuple[Place, _Seen | None]]) -> None:
        """Let go of what is gone, then begin with what is new: files before links to them, in the order of entries."""
        for (directory, relative), one in seen:
            path = directory.path(relative)
            held = self._held.get(path)
            if one is not None and one.error is not None:
                self._tell(path, one.error, f"cannot look into {shown(path)}: {one.error.strerror or one.error}")
                continue
            self._told.pop(path, None)
            if held is not None and held.directory is directory and _is_over(held, one):
                self._let_go(held, Last.COPIED)
        order = {directory: number for number, directory in enumerate(self._directories)}
        new = [(place, one) for place, one in seen if one is not None and one.is_candidate]
        new.sort(key=lambda item: (order.get(item[0][0], 0), item[1].is_link, item[0][1]))
        taken = await asyncio.to_thread(self._taken) if new else set()
        for number, (place, one) in enumerate(new):
            self._begin(place, one, taken)
            if number % 20 == 19:
                await asyncio.sleep(0)  # a thousand take a while, and uploads go on

    def _taken(self) -> set[str]:
        """The real paths of files that others replicate, or have been told not to."""
        paths = {database.path for database in self._config.databases}
        paths |= {entry.db.path for entry in self._server.entries} | self._control.stopped.keys()
        return {os.path.realpath(path) for path in paths if path not in self._held}

    def _begin(self, place: Place, seen: _Seen, taken: set[str]) -> None:
        """Replicate a database, unless somebody does."""
        directory, relative = place
        path = directory.path(relative)
        holder = self._held.get(path) or self._reals.get(seen.real)
        if holder is not None:
            if holder.leaving is not None:
                self._again.add(place)
            return
        if seen.real in taken:
            return
        if seen.database is None or self._control.alone(path).locked():
            self._again.add(place)  # the same file under another name, which is being let go of
            return
        try:
            database = configured(directory.config, relative)
            self._server.watch(self._make(database))
        except LitestreamError as error:
            self._tell(path, error, f"{shown(path)} is not replicated: {error}")
            return
        self._held[path] = self._reals[seen.real] = _Held(directory, relative, database, seen.real)

    def _let_go(self, held: _Held, last: Last) -> None:
        if held.leaving is None:
            held.leaving = asyncio.create_task(self._leave(held, last), name=f"leave {held.database.path}")

    async def _leave(self, held: _Held, last: Last) -> Outcome:
        """A last sync, and the end of a database; if its file is gone, of its local state too."""
        path, outcome, there = held.database.path, Outcome(), False
        try:
            async with self._control.alone(path):
                entry = self._server.entry(path)
                outcome = await self._server.unwatch(path, last)
                self._control.forget(path)
                there = await asyncio.to_thread(os.path.exists, held.real)
                if last is Last.COPIED and not there and entry is not None:
                    await self._clear(held, entry, complete=not outcome.missing and not outcome.stuck)
                self._logger.info("database removed", extra={"fields": {"db": path}})
        except Exception:
            self._logger.exception("%s: letting go of it failed", path)
        finally:
            self._held.pop(path, None)
            self._reals.pop(held.real, None)
            self._again.add((held.directory, held.relative))
            self._changed.set()
        if last is Last.COPIED and there:
            self._folders.lost()  # perhaps it has another name
        return outcome

    async def _clear(self, held: _Held, entry: Entry, *, complete: bool) -> None:
        """Remove the local state of a database that is gone, if nobody needs it any more."""
        state = held.database.meta_path or default_meta_path(held.real)
        fields = {"db": held.database.path, "path": state}
        if not await asyncio.to_thread(os.path.isdir, state):
            self._logger.warning("deleted before it was replicated: nothing of it was stored", extra={"fields": fields})
            return
        if not complete or not entry.all_durable():
            self._logger.warning("deleted before everything was uploaded, local state kept", extra={"fields": fields})
            return
        try:
            await asyncio.to_thread(shutil.rmtree, state)
        except OSError as error:
            fields["error"] = error.strerror or str(error)
            self._logger.warning("cannot remove local state", extra={"fields": fields})

    def _leaving(self) -> list[asyncio.Task[Outcome]]:
        return [held.leaving for held in self._held.values() if held.leaving is not None]

    # -- another configuration

    async def _hand_over(self) -> None:
        """Give every database to the directory that wants it now, and let go of those that none wants so."""
        closed = closed_to(self._config)
        own = await asyncio.to_thread(lambda: {os.path.realpath(one.path) for one in self._config.databases})
        for number, held in enumerate(list(self._held.values())):
            if held.leaving is not None:
                continue
            if number % 20 == 19:
                await asyncio.sleep(0)
            last = self._given(held, closed) if held.real not in own else Last.NOTHING
            if last is not None:
                self._let_go(held, last)
        await asyncio.gather(*self._leaving())

    def _given(self, held: _Held, closed: set[str]) -> Last | None:
        """Give a database to the directory that wants it now; None unless it must be let go of first, and how."""
        path, folder = held.database.path, os.path.realpath(os.path.dirname(held.database.path))
        for directory in self._directories:
            relative = directory.config.relative(path)
            if relative is None or directory.path(relative) != path or any(is_below(folder, one) for one in closed):
                continue
            try:
                database = configured(directory.config, relative)
            except ConfigError as error:
                self._tell(path, error, f"{shown(path)} is not replicated: {error}")
                return Last.SYNC
            running = self._server.entry(path) is not None
            if database == held.database or not running:
                self._control.keep_stopped(path, database)
                held.directory, held.relative, held.database = directory, relative, database
                return None
            same = [*map(replica_place, database.replicas)] == [*map(replica_place, held.database.replicas)]
            return Last.NOTHING if same else Last.SYNC
        return Last.SYNC


def _any_there(paths: list[str]) -> bool:
    return any(map(os.path.isdir, paths))


def _same(former: list[Directory], new: Directory) -> Directory:
    """The directory that runs already, taken out of `former`, or the new one."""
    for number, directory in enumerate(former):
        if directory.config == new.config:
            return former.pop(number)
    return new


def _is_over(held: _Held, seen: _Seen | None) -> bool:
    return seen is None or seen.database is False or seen.real != held.real


def _see(places: Iterable[Place]) -> list[tuple[Place, _Seen | None]]:
    """What stands at each place, None: nothing. Blocking."""
    return [(place, _see_one(place[0].path(place[1]))) for place in dict.fromkeys(places)]


def _see_one(path: str) -> _Seen | None:
    real = os.path.realpath(path)
    try:
        return _Seen(real, is_database(real), os.path.islink(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return _Seen(real, error=error)
