"""File changes, from one inotify descriptor for all databases.

Directories are watched, not files: a database, its `-wal` and its replacements appear, change and vanish by name. Where
there is no inotify nothing is ever reported, and the sweep of each database's task does the work alone.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

Changed = Callable[[], None]

_SUFFIXES = ("", "-wal", "-shm")


class Watcher:
    """Calls back, on the event loop, when a file beside a watched database changes. Never misses in silence: when
    the kernel's queue overflows, everybody is called."""

    def __init__(self) -> None:
        self._inotify: Any = None
        self._mask = 0
        self._overflow = 0
        self._by_directory: dict[str, dict[str, Changed]] = {}
        self._descriptors: dict[int, str] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin reading events on the running loop."""
        self._loop = asyncio.get_running_loop()
        if not sys.platform.startswith("linux"):
            return
        from inotify_simple import INotify, flags

        self._inotify = INotify(nonblocking=True)
        self._mask = (
            flags.MODIFY | flags.CREATE | flags.DELETE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE_SELF
            | flags.MOVE_SELF
        )  # fmt: skip
        self._overflow = flags.Q_OVERFLOW
        self._loop.add_reader(self._inotify.fileno(), self._read)

    def add(self, path: str, changed: Changed) -> None:
        """Report changes of the database at `path` (its real path). A directory that is absent is tried again by
        `refresh`."""
        directory, name = os.path.split(path)
        names = self._by_directory.setdefault(directory, {})
        for suffix in _SUFFIXES:
            names[name + suffix] = changed
        self._watch(directory)

    def remove(self, path: str) -> None:
        """Stop reporting."""
        directory, name = os.path.split(path)
        names = self._by_directory.get(directory, {})
        for suffix in _SUFFIXES:
            names.pop(name + suffix, None)
        if not names and self._by_directory.pop(directory, None) is not None:
            for descriptor, watched in list(self._descriptors.items()):
                if watched == directory:
                    self._forget(descriptor)

    def refresh(self, path: str) -> None:
        """Watch the database's directory again if it was replaced or has only now appeared."""
        self._watch(os.path.dirname(path))

    def close(self) -> None:
        """Let the descriptor go."""
        if self._inotify is not None and self._loop is not None:
            self._loop.remove_reader(self._inotify.fileno())
            self._inotify.close()
            self._inotify = None

    def _watch(self, directory: str) -> None:
        if self._inotify is None:
            return
        try:
            descriptor = self._inotify.add_watch(directory, self._mask)
        except OSError:
            return  # absent or out of watches: the sweep goes on, and tries again
        self._descriptors[descriptor] = directory

    def _forget(self, descriptor: int) -> None:
        self._descriptors.pop(descriptor, None)
        try:
            self._inotify.rm_watch(descriptor)
        except OSError:
            pass  # the directory is gone, and the watch with it

    def _read(self) -> None:
        called: set[int] = set()
        for event in self._inotify.read(timeout=0):
            if event.mask & self._overflow:
                changes = [changed for names in self._by_directory.values() for changed in names.values()]
            else:
                names = self._by_directory.get(self._descriptors.get(event.wd, ""), {})
                changes = [names[event.name]] if event.name in names else [] if event.name else list(names.values())
            for changed in changes:
                if id(changed) not in called:
                    called.add(id(changed))
                    changed()
