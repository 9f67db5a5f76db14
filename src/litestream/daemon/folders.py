"""The folders of the configuration's directories: which are watched, and what was told of them since the last look."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from litestream.config import DirectoryConfig
from litestream.config.scan import Found, look
from litestream.daemon.watcher import Watcher


@dataclass(eq=False, slots=True)
class Directory:
    """A directory of the configuration, as it runs: two equal entries are still two."""

    config: DirectoryConfig
    root: str = ""
    """Its real path when it was looked at last."""

    def path(self, relative: str) -> str:
        """The path of a place below it, as its databases have it."""
        return os.path.join(self.config.dir, relative)


@dataclass(slots=True)
class News:
    """What may have changed."""

    files: set[tuple[str, str]] = field(default_factory=set)
    """Folder and name."""
    folders: set[str] = field(default_factory=set)
    everything: bool = False


class Folders:
    """Watches folders for directories, and gathers what comes and goes in them until somebody looks.

    `told` is called, on the event loop, when there is something new.
    """

    def __init__(self, watcher: Watcher, told: Callable[[], None]) -> None:
        self._watcher = watcher
        self._told = told
        self._places: dict[str, dict[Directory, str]] = {}
        self._news = News()

    # -- what the watcher calls

    def changed(self, folder: str, name: str, *, is_folder: bool, there: bool) -> None:
        """Something of that name appeared, was written to, or went away (`there` does not matter: it is looked at)."""
        owners = self._places.get(folder, {})
        if not name:
            self._news.folders.add(folder)
        elif is_folder:
            if not any(directory.config.enters(name) for directory in owners):
                return
            self._news.folders.add(os.path.join(folder, name))
        elif any(directory.config.matches(name) for directory in owners):
            self._news.files.add((folder, name))
        else:
            return
        self._told()

    def lost(self) -> None:
        """Events were lost: everything is looked at."""
        self._news.everything = True
        self._told()

    # -- what the directories ask

    def take(self) -> News:
        """What was told since the last time."""
        news, self._news = self._news, News()
        return news

    def watches(self, directory: Directory) -> bool:
        """Whether a directory was there when it was looked at."""
        return directory in self._places.get(directory.root, {})

    def owners(self, folder: str, name: str) -> Iterator[tuple[Directory, str]]:
        """The directories that a name in a folder may belong to, and its place below each."""
        for directory, inside in self._places.get(folder, {}).items():
            yield directory, os.path.join(inside, name)

    def tops(self, folder: str) -> Iterator[Directory]:
        """The directories that have their beginning at or below a folder."""
        owners = {directory for places in self._places.values() for directory in places}
        return (directory for directory in owners if is_below(directory.root, folder))

    async def look(self, directory: Directory, closed: set[str], inside: str = "") -> Found:
        """List a directory at and below a place, and watch what was found there and no longer what is gone."""
        config, entered = directory.config, list[str]()
        if not inside:
            directory.root = os.path.realpath(config.dir)

        def enter(folder: str) -> None:
            entered.append(folder)
            self._watcher.add_folder(folder, self)

        if not config.watch:
            return await asyncio.to_thread(look, config, closed, inside)
        found = await asyncio.to_thread(look, config, closed, inside, enter)
        there = {*found.folders, *found.unreadable}
        for folder in there:
            place = os.path.relpath(folder, directory.root)
            self._places.setdefault(folder, {})[directory] = "" if place == "." else place
        top = os.path.join(directory.root, inside).rstrip("/") or "/"
        # With its root somewhere else, because a link leads elsewhere now, nothing of the former places is left.
        former = [
            folder
            for folder, owners in self._places.items()
            if directory in owners and folder not in there and (not inside or is_below(folder, top))
        ]
        for folder in [*former, *entered]:
            if folder not in there:
                self._drop(directory, folder)
        return found

    def leave(self, directory: Directory) -> None:
        """Watch nothing for a directory any more."""
        for folder in [folder for folder, owners in self._places.items() if directory in owners]:
            self._drop(directory, folder)

    def _drop(self, directory: Directory, folder: str) -> None:
        owners = self._places.get(folder, {})
        owners.pop(directory, None)
        if not owners:
            self._places.pop(folder, None)
            self._watcher.remove_folder(folder)


def is_below(path: str, folder: str) -> bool:
    """Whether a path is that folder, or something in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
