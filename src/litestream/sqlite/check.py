"""SQLite's own check of a database file that nobody else has open."""

from __future__ import annotations

import apsw

from litestream.errors import NotADatabaseError
from litestream.sqlite.connection import database_uri, printable

_MAX_PROBLEMS = 10
"""Lines of a failed check that are worth reading; a large damaged file has millions."""


class Check:
    """One check, which another thread may stop.

    The file is opened read-only and as immutable: no lock is taken, no -wal or -shm is looked at or made.
    """

    def __init__(self, path: str, *, full: bool) -> None:
        self._path = path
        self._pragma = f"PRAGMA {'integrity' if full else 'quick'}_check({_MAX_PROBLEMS})"
        self._connection: apsw.Connection | None = None
        self._stopped = False

    def run(self) -> list[str]:
        """The problems found, none for a sound file. Blocks.

        Raises `NotADatabaseError` for what is no database at all.
        """
        try:
            self._connection = apsw.Connection(
                database_uri(self._path, mode="ro", immutable="1"),
                flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
            )
            if self._stopped:
                return ["stopped"]
            rows = self._connection.execute(self._pragma).fetchall()
        except apsw.NotADBError as error:
            raise NotADatabaseError(f"not a SQLite database: {printable(self._path)}") from error
        except apsw.Error as error:
            return [str(error)]  # damage that keeps even the check from running
        finally:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
        problems = [str(row[0]) for row in rows]
        return [] if problems == ["ok"] else problems

    def stop(self) -> None:
        """Make `run` in another thread return soon; its answer then means nothing."""
        self._stopped = True
        connection = self._connection
        if connection is not None:
            try:
                connection.interrupt()
            except apsw.ConnectionClosedError:
                pass  # it has just finished


def integrity_check(path: str, full: bool) -> list[str]:
    """What `PRAGMA integrity_check` (`full`) or the faster `quick_check` finds wrong; empty for a sound file."""
    return Check(path, full=full).run()
