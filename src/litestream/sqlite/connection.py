"""Opening connections: the one way this process talks to SQLite."""

from __future__ import annotations

import contextlib
import ctypes
import os
from urllib.parse import quote

import apsw

from litestream.descriptors import is_lacking, limit, too_many
from litestream.errors import DatabaseBusyError, DatabaseError, NotADatabaseError, ReadOnlyDatabaseError

SQLITE_VERSION = apsw.sqlite_lib_version()
"""Version of the SQLite library that this process uses (apsw brings its own)."""

_CACHE_PAGES = 2
_FOR_MOMENTS = 32  # descriptors that others may have had when one was lacking, and have given back since
"""We read one page per transaction. Below 3 pages SQLite does not allocate twenty of them beforehand, which is most of
what a connection takes: a thousand idle databases must stay small."""


def be_thrifty() -> None:
    """Have no connection of this process take memory before it needs it: SQLite would give each 48 KiB, and fill them.

    For a process that is ours alone: it holds for everybody who uses this SQLite library. Call it before the first
    connection; later it has no effect.
    """
    with contextlib.suppress(apsw.Error):
        apsw.shutdown()
        apsw.config(apsw.SQLITE_CONFIG_LOOKASIDE, 0, 0)
    apsw.initialize()


def database_uri(path: str, **parameters: str) -> str:
    """`path` as a SQLite URI. Percent-encoding carries every byte that a file name can have, also non-UTF-8 ones."""
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    return "file:" + quote(os.fsencode(path)) + (f"?{query}" if query else "")


def connect(path: str, busy_timeout: float) -> apsw.Connection:
    """A read-write connection to an existing database, which never checkpoints by itself and never deletes a WAL.

    `synchronous` stays SQLite's default: a checkpoint without fsync would put the user's database at risk.
    """
    with translated(path):
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(database_uri(path), flags=flags)
        try:
            _configure(connection, path, busy_timeout)
        except BaseException:
            connection.close()
            raise
    return connection


def _configure(connection: apsw.Connection, path: str, busy_timeout: float) -> None:
    if connection.readonly("main"):
        raise ReadOnlyDatabaseError(f"the database file cannot be written, which WAL mode needs: {printable(path)}")
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    persist = ctypes.c_int(1)
    connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(persist))
    connection.wal_autocheckpoint(0)
    # This pragma reads the schema, and so fails where that is locked or does not parse. It only saves memory: whether
    # the database can be read is found out by whoever reads it.
    with contextlib.suppress(apsw.Error):
        connection.execute(f"PRAGMA cache_size = {_CACHE_PAGES}")
        connection.release_memory()  # reading the schema was before that
    connection.set_busy_timeout(int(busy_timeout * 1000))


class translated:  # noqa: N801 - reads as a statement: `with translated(path):`
    """Turns apsw's exceptions into ours, with the database's path in the text."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, apsw.Error):
            return
        name = printable(self._path)
        if isinstance(error, apsw.BusyError | apsw.LockedError | apsw.ProtocolError):
            raise DatabaseBusyError(f"database is busy: {name}") from error
        if isinstance(error, apsw.NotADBError):
            raise NotADatabaseError(f"not a database, or encrypted: {name}") from error
        if isinstance(error, apsw.ReadOnlyError | apsw.CantOpenError):  # without a descriptor it tries read-only
            _check_descriptors(error)
        if isinstance(error, apsw.ReadOnlyError | apsw.CantOpenError | apsw.PermissionsError):
            raise ReadOnlyDatabaseError(
                f"cannot open for writing, which WAL mode needs: {name}: {error} (check the modes and owner of the "
                "file, its -wal and -shm, and of their directory)"
            ) from error
        raise DatabaseError(f"{name}: {error}") from error


def _check_descriptors(error: apsw.Error) -> None:
    """SQLite does not say why it could not open a file. Raises `TooManyFilesError` if hardly any can be opened."""
    try:
        lowest = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)  # all numbers below it are in use
    except OSError as reason:
        if is_lacking(reason):
            raise too_many(reason) from error
        return
    os.close(lowest)
    if lowest >= limit() - _FOR_MOMENTS:
        raise too_many(None) from error


def printable(path: str) -> str:
    """A path that can always be written to a log: bytes that are no UTF-8 appear as `\\xNN`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
