"""File changes, from one inotify descriptor for all databases, and one timer that looks where no event came from.

Directories are watched, not files: a database, its `-wal` and its replacements appear, change and vanish by name. Where
there is no inotify nothing is ever reported, and the sweep does the work alone.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

Changed = Callable[[], None]

_SUFFIXES = ("", "-wal", "-shm")

TICK = 0.05
"""Seconds between two turns of the sweep: each looks at the databases whose time has come. A shorter interval of a
database makes it shorter."""

_SELDOM, _ROUND = 5.0, 0.5
"""Looks that are so far away, in seconds, are put together: the loop is woken less often."""

_BURST, _BREATH = 16, 0.004
"""Readings of events in a row, each within two breaths of the one before, after which each is followed by a pause of so
many seconds."""

_REFRESH = 0.5
"""Seconds after which a directory is watched once more, with the next look at one of its databases."""

_AFTER_ERROR = 1.0
"""Seconds until the next look after one that failed."""

Swept = Callable[[], float]
"""A look at a database; returns the seconds until the next one."""


class FolderListener(Protocol):
    """Who wants to know what comes and goes in a directory. All is called on the event loop."""

    def changed(self, folder: str, name: str, *, is_folder: bool, there: bool) -> None:
        """Something of that name appeared or was written to (`there`), or went away. No name: the folder itself."""
        ...

    def lost(self) -> None:
        """Events were lost: anything may have changed anywhere."""
        ...


@dataclass(slots=True)
class _Sweep:
    """When a database is looked at next."""

    path: str
    call: Swept
    due: float


class Watcher:
    """Calls back, on the event loop, when a file beside a watched database changes, or one in a watched folder.

    Never misses in silence: when the kernel's queue overflows, everybody is called.
    """

    def __init__(self) -> None:
        self._inotify: Any = None
        self._mask = self._overflow = self._ignored = self._gone = self._is_folder = self._content = 0
        self._by_directory: dict[str, dict[str, Changed]] = {}
        self._folders: dict[str, FolderListener] = {}
        self._watched: dict[str, int] = {}
        self._descriptors: dict[int, set[str]] = {}
        self._sweeps: dict[str, _Sweep] = {}
        self._queue: list[tuple[float, int, _Sweep]] = []  # a heap; what has been put off or removed stays in it
        self._numbers = count()
        self._refreshed: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._turned_at = 0.0
        self._tick = TICK
        self._burst, self._read_at = 0, 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self.complete = False
        """Whether every change is told of: there is inotify, and no directory was refused."""

    def start(self) -> None:
        """Begin reading events on the running loop."""
        self._loop = asyncio.get_running_loop()
        if not sys.platform.startswith("linux"):
            return
        from inotify_simple import INotify, flags

        try:
            self._inotify = INotify(nonblocking=True)
        except OSError:
            return  # none left for this user: the sweep does the work
        self.complete = True
        self._content = flags.MODIFY
        self._gone = flags.DELETE | flags.MOVED_FROM
        self._mask = (
            flags.MODIFY | flags.CREATE | flags.DELETE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE_SELF
            | flags.MOVE_SELF
        )  # fmt: skip
        self._overflow, self._ignored, self._is_folder = flags.Q_OVERFLOW, flags.IGNORED, flags.ISDIR
        self._listen()

    def close(self) -> None:
        """Let the descriptor go."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._inotify is not None and self._loop is not None:
            self._loop.remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None

    # -- databases

    def add(self, path: str, changed: Changed, swept: Swept | None = None, interval: float = 1.0) -> None:
        """Report changes of the database at `path` (its real path), and call `swept`, first within `interval` seconds,
        and then whenever it says."""
        directory, name = os.path.split(path)
        names = self._by_directory.setdefault(directory, {})
        for suffix in _SUFFIXES:
            names[name + suffix] = changed
        self._watch(directory)
        if swept is not None:
            self._loop = self._loop or asyncio.get_running_loop()
            # The first ones at different times: a thousand databases that began together are not swept together.
            share = (len(self._sweeps) * 0.618034) % 1.0
            self._sweeps[path] = _Sweep(path, swept, 0.0)
            self._tick = min(self._tick, interval)
            self._schedule(self._sweeps[path], interval * (0.5 + share / 2))

    def remove(self, path: str) -> None:
        """Stop reporting."""
        self._sweeps.pop(path, None)
        directory, name = os.path.split(path)
        names = self._by_directory.get(directory, {})
        for suffix in _SUFFIXES:
            names.pop(name + suffix, None)
        if not names and self._by_directory.pop(directory, None) is not None:
            self._release(directory)

    def hasten(self, path: str, seconds: float) -> None:
        """Look at a database within `seconds` from now."""
        sweep = self._sweeps.get(path)
        if sweep is not None and sweep.due > time.monotonic() + seconds:
            self._schedule(sweep, seconds)

    def refresh(self, path: str) -> None:
        """Watch the database's directory again if it was replaced or has only now appeared."""
        self._watch(os.path.dirname(path))

    # -- folders

    def add_folder(self, folder: str, listener: FolderListener) -> None:
        """Report what comes and goes in a folder (its real path). May be called from any thread.

        What was there before is not reported: list it afterwards.
        """
        self._folders[folder] = listener
        self._watch(folder)

    def remove_folder(self, folder: str) -> None:
        """Stop reporting."""
        if self._folders.pop(folder, None) is not None:
            self._release(folder)

    # -- inside

    def _watch(self, directory: str) -> None:
        if self._inotify is None:
            return
        try:
            descriptor = self._inotify.add_watch(directory, self._mask)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return  # absent, or not for us: the sweep tries again
        except OSError:
            self.complete = False  # out of watches or memory: the sweep goes on, and tries again
            return
        before = self._watched.get(directory)
        if before != descriptor:
            self._watched[directory] = descriptor
            if before is not None:
                self._drop(before, directory)
            self._descriptors.setdefault(descriptor, set()).add(directory)

    def _release(self, directory: str) -> None:
        """Nobody asks for a directory any more, perhaps."""
        if directory in self._by_directory or directory in self._folders:
            return
        self._refreshed.pop(directory, None)
        descriptor = self._watched.pop(directory, None)
        if descriptor is not None:
            self._drop(descriptor, directory)

    def _drop(self, descriptor: int, directory: str) -> None:
        places = self._descriptors.get(descriptor, set())
        places.discard(directory)
        if places:
            return
        self._descriptors.pop(descriptor, None)
        try:
            self._inotify.rm_watch(descriptor)
        except (OSError, AttributeError):
            pass  # the directory is gone, and the watch with it; or everything is closed

    def _read(self) -> None:
        self._breathe()
        called: set[int] = set()
        for event in self._inotify.read(timeout=0):
            if event.mask & self._overflow:
                for listener in set(self._folders.values()):
                    listener.lost()
                changes = [changed for names in self._by_directory.values() for changed in names.values()]
            else:
                changes = self._changes(event)
            for changed in changes:
                if id(changed) not in called:
                    called.add(id(changed))
                    changed()

    def _breathe(self) -> None:
        """Under a storm of events, let them gather for a moment: a busy writer makes thousands a second."""
        now = time.monotonic()
        self._burst = self._burst + 1 if now - self._read_at < 2 * _BREATH else 0
        self._read_at = now
        if self._burst > _BURST and self._loop is not None:
            self._loop.remove_reader(self._inotify.fileno())
            self._loop.call_later(_BREATH, self._listen)

    def _listen(self) -> None:
        if self._inotify is not None and self._loop is not None:
            self._loop.add_reader(self._inotify.fileno(), self._read)

    def _changes(self, event: Any) -> list[Changed]:  # noqa: ANN401 - inotify_simple has no types
        """Who is to be called for an event; folders are told at once."""
        found: list[Changed] = []
        if event.mask & self._ignored:
            for directory in self._descriptors.pop(event.wd, set()):
                self._watched.pop(directory, None)
            return found
        for directory in list(self._descriptors.get(event.wd, ())):
            names = self._by_directory.get(directory, {})
            known = names.get(event.name) if event.name else None
            if known is not None:
                found.append(known)
            elif not event.name:
                found += names.values()
            listener = self._folders.get(directory)
            if listener is not None and not (known is not None and event.mask & self._content):
                there = bool(event.name) and not event.mask & self._gone
                is_folder = bool(event.mask & self._is_folder)
                listener.changed(directory, event.name, is_folder=is_folder, there=there)
        return found

    def _schedule(self, sweep: _Sweep, seconds: float) -> None:
        sweep.due = time.monotonic() + seconds
        if seconds >= _SELDOM:
            sweep.due = -(-sweep.due // _ROUND) * _ROUND
        heapq.heappush(self._queue, (sweep.due, next(self._numbers), sweep))
        self._wake()

    def _wake(self) -> None:
        """Have the next turn when the first look is due."""
        if not self._queue or self._loop is None or self._loop.is_closed():
            return
        at = max(self._queue[0][0], self._turned_at + self._tick)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(at - time.monotonic(), self._turn)

    def _turn(self) -> None:
        """Look at the databases whose time has come."""
        self._timer = None
        now = self._turned_at = time.monotonic()
        due = []
        while self._queue and self._queue[0][0] <= now:
            at, _, sweep = heapq.heappop(self._queue)
            if self._sweeps.get(sweep.path) is sweep and sweep.due == at:
                due.append(sweep)
        try:
            while due:
                self._look(due.pop(), now)
        finally:
            for sweep in due:  # an error in one look must not end the others
                self._schedule(sweep, TICK)
            self._wake()

    def _look(self, sweep: _Sweep, now: float) -> None:
        directory = os.path.dirname(sweep.path)
        if now - self._refreshed.get(directory, 0.0) >= _REFRESH:
            self._refreshed[directory] = now
            self._watch(directory)
        pause = _AFTER_ERROR
        try:
            pause = sweep.call()
        finally:
            if self._sweeps.get(sweep.path) is sweep:
                self._schedule(sweep, pause)
