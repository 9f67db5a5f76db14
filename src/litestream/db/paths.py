"""Where a database's local state is, and with which modes it is written."""

from __future__ import annotations

import os


def meta_path(database: str) -> str:
    """`.<file>-litestream` beside the database: the official programs' place."""
    directory, name = os.path.split(database)
    return os.path.join(directory, f".{name}-litestream")


def directory_mode(file_mode: int) -> int:
    """The mode of a directory whose files have `file_mode`: whoever may read a file may also find it."""
    return (file_mode & 0o666) | (file_mode & 0o444) >> 2
