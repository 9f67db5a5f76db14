"""The smallest application there is: rows in one table, written by the tests themselves."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from helpers.cli import OURS


def write_rows(path: Path, rows: int = 10) -> None:
    """Add rows to a WAL database, and close it: no WAL is left."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
    connection.executemany("INSERT INTO t VALUES(?)", [(i,) for i in range(rows)])
    connection.commit()
    connection.close()


def count_rows(path: Path) -> int:
    """How many there are."""
    connection = sqlite3.connect(path)
    found: int = connection.execute("SELECT count(*) FROM t").fetchone()[0]
    connection.close()
    return found


def restored_rows(replica: Path, out: Path) -> int:
    """How many are in what a replica restores."""
    done = OURS.restore(f"file://{replica}", out)
    assert done.code == 0, done.text
    return count_rows(out)
