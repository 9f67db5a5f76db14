"""Where a database's local state is, and with which modes it is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from litestream import fsutil
from litestream.errors import LocalStateError


def meta_path(database: str) -> str:
    """`.<file>-litestream` beside the database: the official programs' place."""
    directory, name = os.path.split(database)
    return os.path.join(directory, f".{name}-litestream")


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
        name = os.fsencode(meta).decode("utf-8", "backslashreplace")
        raise LocalStateError(f"cannot keep the local state in {name}: {error.strerror or error}") from error
