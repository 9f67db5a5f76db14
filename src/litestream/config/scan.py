"""What a directory of the configuration holds now: its subdirectories, and the files that may be databases."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from litestream.config.databases import DatabaseConfig, DirectoryConfig, replica_roots
from litestream.config.model import ValidationError
from litestream.config.paths import shown
from litestream.errors import ConfigError
from litestream.sqlite.source import is_database

if TYPE_CHECKING:
    from litestream.config.models import Config


@dataclass(slots=True)
class Found:
    """What was found at and below a place."""

    files: list[str] = field(default_factory=list)
    """Places, relative to the directory, of files whose names fit."""
    folders: list[str] = field(default_factory=list)
    """Real paths of the directories that were looked into."""
    unreadable: dict[str, OSError] = field(default_factory=dict)
    """Paths of directories that could not be, and why; what they hold is not known."""


def look(
    directory: DirectoryConfig,
    closed: set[str],
    inside: str = "",
    entering: Callable[[str], None] = lambda real: None,
) -> Found:
    """List a directory at, and if it is recursive below, the place `inside`. Blocking.

    `closed` are real paths of directories that are not entered: replicas, local state. `entering` is called with the
    real path of each directory before it is listed. Symbolic links to directories are not followed, those to files
    are files. A directory that is not there holds nothing.
    """
    found = Found()
    places = [inside]
    root = os.path.realpath(directory.dir)
    while places:
        place = places.pop()
        real = os.path.join(root, place).rstrip("/") or "/"
        try:
            entering(real)
            with os.scandir(real) as entries:
                found.folders.append(real)
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        if directory.matches(entry.name):
                            found.files.append(os.path.join(place, entry.name))
                    elif directory.enters(entry.name) and entry.path not in closed:
                        places.append(os.path.join(place, entry.name))
        except (FileNotFoundError, NotADirectoryError):
            pass  # nothing, or not any more
        except OSError as error:
            found.unreadable[real] = error
    found.files.sort()
    return found


def closed_to(config: Config) -> set[str]:
    """The real paths of the directories that hold replicas or local state of a configuration."""
    closed: set[str] = set()
    for entry in (*config.databases, *config.directories):
        closed |= replica_roots(entry)
        if entry.meta_path is not None:
            closed.add(os.path.realpath(entry.meta_path))
    closed |= {os.path.realpath(entry.meta_dir) for entry in config.directories if entry.meta_dir is not None}
    return closed


def databases_of(config: Config) -> Iterator[DatabaseConfig]:
    """The databases that the directories of a configuration hold now. Blocking.

    A file that an entry of its own, or an earlier directory, has is left to that one. Raises `ConfigError` for a
    directory that cannot be read, and for a name that a replica cannot have.
    """
    known = {os.path.realpath(database.path) for database in config.databases}
    closed = closed_to(config)
    for directory in config.directories:
        found = look(directory, closed)
        for path, error in found.unreadable.items():
            raise ConfigError(f"failed to scan directory {shown(path)}: {error.strerror or error}")
        for relative in real_first(directory, found.files):
            real = os.path.realpath(os.path.join(directory.dir, relative))
            if real not in known and _is_database(real):
                known.add(real)
                yield configured(directory, relative)


def configured(directory: DirectoryConfig, relative: str) -> DatabaseConfig:
    """What the database at a place below a directory is replicated by. Raises `ConfigError`."""
    try:
        return directory.database(relative)
    except ValidationError as error:
        path = shown(os.path.join(directory.dir, relative))
        raise ConfigError(f"{path}: {'; '.join(detail.text for detail in error.details)}") from None


def real_first(directory: DirectoryConfig, files: Iterable[str]) -> list[str]:
    """Files before the symbolic links to files: a database that has both goes by its own name."""
    return sorted(files, key=lambda relative: os.path.islink(os.path.join(directory.dir, relative)))


def _is_database(path: str) -> bool:
    try:
        return is_database(path) is not False
    except OSError:
        return False  # gone since it was listed, or not for us to read
