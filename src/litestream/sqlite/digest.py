"""The hash of a database file, for processes that replicate nothing."""

from __future__ import annotations

import hashlib
import os

from litestream.errors import DatabaseBusyError
from litestream.sqlite.connection import printable
from litestream.sqlite.source import is_open


def file_sha256(path: str) -> str:
    """SHA-256 of the file as it is, in hex. Blocking. Raises `OSError`.

    Closing the file drops every lock that this process has on it (docs/capture.md, F6), so it must not be replicated
    here: `DatabaseBusyError`.
    """
    if is_open(path):
        raise DatabaseBusyError(f"the database is being replicated by this process: {printable(path)}")
    with open(os.path.realpath(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
