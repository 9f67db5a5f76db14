"""Rules between databases and replicas: what no single entry can see."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from litestream.config.paths import shown

if TYPE_CHECKING:
    from litestream.config.models import DatabaseConfig

Loc: TypeAlias = tuple[str | int, ...]
"""Where in the file: `("dbs", 0, "replicas", 1, "path")`."""


NO_REPLICA = "must specify replica for database"


def problems_between(
    databases: Sequence[tuple[Loc, DatabaseConfig]], replica_locs: Sequence[Sequence[Loc]] | None = None
) -> Iterator[tuple[Loc, str, str]]:
    """Every contradiction: the place of the later of two that do not go together, a text, and a text with the values.

    Two databases must not be one file, nor share local state; two replicas must not share a directory, or a place in
    a bucket: each would overwrite the other. `replica_locs` has the places of each database's replicas where they
    differ from the usual.
    """
    files: dict[object, Loc] = {}
    states: dict[str, str] = {}
    places: dict[object, Loc] = {}
    for number, (loc, database) in enumerate(databases):
        for identity in _identities(database.path):
            other = files.setdefault(identity, loc)
            if other != loc:
                text = f"the same database as {display(other)}"
                yield (*loc, "path"), text, f"{text}: {shown(database.path)}"
                break
        state = os.path.realpath(database.meta_path or default_meta_path(database.path))
        first = states.setdefault(state, database.path)
        if first != database.path:
            both = f"{shown(first)} and {shown(database.path)}"
            text = f"meta-path collision: databases {both} would share meta-path {shown(state)}"
            yield (*loc, "meta-path"), "meta-path collision with another database", text
        locs = replica_locs[number] if replica_locs else [(*loc, "replicas", i) for i in range(len(database.replicas))]
        yield from _replica_problems(database, locs, places)


def _replica_problems(
    database: DatabaseConfig, locs: Sequence[Loc], places: dict[object, Loc]
) -> Iterator[tuple[Loc, str, str]]:
    names: set[str] = set()
    own = {os.path.realpath(database.path), os.path.realpath(database.meta_path or default_meta_path(database.path))}
    for replica, place in zip(database.replicas, locs, strict=True):
        if replica.label in names:
            hint = "" if replica.name else ": give each replica a name"
            text = f'duplicate replica name: "{shown(replica.label)}"{hint}'
            yield (*place, "name"), "duplicate replica name", text
        names.add(replica.label)
        is_file = replica.type == "file"
        where = os.path.realpath(replica.path) if is_file else replica.place
        if is_file and where in own:
            text = "the replica's path is the database itself, or its local state"
            yield place, text, text
        other = places.setdefault(where, place)
        if other != place:
            kind = "directory" if is_file else "place"
            text = f"the same {kind} as {display(other)}: each replica needs one of its own"
            yield place, text, text


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
