"""Where a database's local state is, and with which modes it is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from litestream import fsutil
from litestream.descriptors import is_lacking, too_many
from litestream.errors import DatabaseAbsentError, LocalStateError
from litestream.sqlite.connection import printable


def meta_path(database: str) -> str:
    """`.<file>-litestream` beside the database: the official programs' place."""
    directory, name = os.path.split(database)
    return os.path.join(directory, f".{name}-litestream")


def changed_at(real_path: str, path: str) -> float:
    """When a database file or its WAL last changed, in Unix seconds; a stat opens nothing.

    Raises `DatabaseAbsentError`, with `path` for people, if there is none.
    """
    try:
        times = [os.stat(real_path).st_mtime]
    except OSError as error:
        raise DatabaseAbsentError(f"database does not exist: {printable(path)}") from error
    try:
        times.append(os.stat(real_path + "-wal").st_mtime)
    except OSError:
        pass  # no WAL: not opened by anybody yet
    return max(times)


def local_access(database: str) -> fsutil.Access:
    """Modes and owner of the local state: the database's, and its owner only where we may give files away."""
    access = fsutil.access_of(database)
    return access if os.geteuid() == 0 else fsutil.Access(access.file_mode, access.dir_mode)


@contextmanager
def local_errors(meta: str) -> Iterator[None]:
    """Turn what the operating system says of the local state into our own error, with its path."""
    try:
        yield
    except OSError as error:
        if is_lacking(error):
            raise too_many(error) from error
        name = os.fsencode(meta).decode("utf-8", "backslashreplace")
        raise LocalStateError(f"cannot keep the local state in {name}: {error.strerror or error}") from error
