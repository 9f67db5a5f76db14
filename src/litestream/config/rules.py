"""Rules between databases and replicas: what no single entry can see."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from litestream.config.databases import DatabaseConfig, DirectoryConfig
from litestream.config.paths import shown
from litestream.config.upstream import NO_REPLICAS

if TYPE_CHECKING:
    from litestream.config.replica import ReplicaConfig

Loc: TypeAlias = tuple[str | int, ...]
"""Where in the file: `("dbs", 0, "replicas", 1, "path")`."""


NO_REPLICA = "must specify replica for database"


def replicas_wanted(entry: DatabaseConfig | DirectoryConfig) -> str:
    """What is wrong with an entry's having replicas, or none; empty if nothing is."""
    if isinstance(entry, DatabaseConfig) and entry.upstream is not None:
        return NO_REPLICAS if entry.replicas else ""
    return "" if entry.replicas else NO_REPLICA


def problems_between(
    entries: Sequence[tuple[Loc, DatabaseConfig | DirectoryConfig]],
    replica_locs: Sequence[Sequence[Loc]] | None = None,
) -> Iterator[tuple[Loc, str, str]]:
    """Every contradiction: the place of the later of two that do not go together, a text, and a text with the values.

    Two databases must not be one file, nor share local state; two replicas must not share a directory, or a place in
    a bucket: each would overwrite the other. `replica_locs` has the places of each entry's replicas where they
    differ from the usual.
    """
    files: dict[object, Loc] = {}
    states: dict[str, str] = {}
    places: dict[object, tuple[Loc, str]] = {}
    for number, (loc, entry) in enumerate(entries):
        locs = replica_locs[number] if replica_locs else [(*loc, "replicas", i) for i in range(len(entry.replicas))]
        if isinstance(entry, DirectoryConfig):
            yield from _directory_problems(loc, entry, states)
            yield from _replica_problems(entry, locs, places, {os.path.realpath(entry.dir)}, entry.dir)
            continue
        for identity in _identities(entry.path):
            other = files.setdefault(identity, loc)
            if other != loc:
                text = f"the same database as {display(other)}"
                yield (*loc, "path"), text, f"{text}: {shown(entry.path)}"
                break
        state = os.path.realpath(entry.meta_path or default_meta_path(entry.path))
        first = states.setdefault(state, entry.path)
        if first != entry.path:
            both = f"{shown(first)} and {shown(entry.path)}"
            text = f"meta-path collision: databases {both} would share meta-path {shown(state)}"
            yield (*loc, "meta-path"), "meta-path collision with another database", text
        yield from _replica_problems(entry, locs, places, {os.path.realpath(entry.path), state}, "")


def _directory_problems(loc: Loc, entry: DirectoryConfig, states: dict[str, str]) -> Iterator[tuple[Loc, str, str]]:
    """Two entries may be about one directory; two directories must not keep their state in one place."""
    for key, path in (("meta-path", entry.meta_path), ("meta-dir", entry.meta_dir)):
        if path is None:
            continue
        state, real = os.path.realpath(path), os.path.realpath(entry.dir)
        first = states.setdefault(f"{key} {state}", real)
        if first != real:
            both = f"{shown(first)} and {shown(real)}"
            text = f"{key} collision: directories {both} would share {shown(state)}"
            yield (*loc, key), f"{key} collision with another directory", text


def _replica_problems(
    entry: DatabaseConfig | DirectoryConfig,
    locs: Sequence[Loc],
    places: dict[object, tuple[Loc, str]],
    own: set[str],
    directory: str,
) -> Iterator[tuple[Loc, str, str]]:
    """`own`: where no replica can be. `directory`: the entry's, of which several entries may be; empty for a file."""
    names: set[str] = set()
    for replica, place in zip(entry.replicas, locs, strict=True):
        if replica.label in names:
            hint = "" if replica.name else ": give each replica a name"
            text = f'duplicate replica name: "{shown(replica.label)}"{hint}'
            yield (*place, "name"), "duplicate replica name", text
        names.add(replica.label)
        is_file = replica.type == "file"
        if is_file and os.path.realpath(replica.path) in own:
            text = f"the replica's path is the {'directory' if directory else 'database'} itself"
            text += "" if directory else ", or its local state"
            yield place, text, text
        real = os.path.realpath(directory) if directory else ""
        other, first = places.setdefault(replica_place(replica), (place, real))
        if other != place and not (real and first == real and other[:-1] != place[:-1]):
            kind = "directory" if is_file else "place"
            text = f"the same {kind} as {display(other)}: each replica needs one of its own"
            yield place, text, text


def replica_place(replica: ReplicaConfig) -> object:
    """The same for two replicas that would share their objects."""
    return os.path.realpath(replica.path) if replica.type == "file" else replica.place


def _identities(path: str) -> Iterator[object]:
    """What tells that two paths are one file: the path with its links followed, and the inode of hard links."""
    yield os.path.realpath(path)
    try:
        info = os.stat(path)
    except OSError:
        return  # not there yet, or not for us to see: the path alone has to do
    yield (info.st_dev, info.st_ino)


def default_meta_path(path: str) -> str:
    """The directory of local state of a database that configures none."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}-litestream")


def display(loc: Loc) -> str:
    """`dbs[0].replicas[1].path`"""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
