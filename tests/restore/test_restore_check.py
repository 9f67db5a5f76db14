"""SQLite's own check of a file, as the restore runs it."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from litestream.errors import NotADatabaseError
from litestream.sqlite.check import Check, integrity_check


def _database(path: Path, rows: int = 50) -> Path:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t(a, b)")
    connection.execute("CREATE INDEX i ON t(a)")
    connection.execute(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<?) "
        "INSERT INTO t SELECT x, hex(randomblob(50)) FROM n",
        (rows,),
    )
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    return path


@pytest.mark.parametrize("name", ["plain.db", "a b%41?mode=rw#x.db", "\udcff\udcfe.db"], ids=ascii)
def test_sound_file(name: str, tmp_path: Path) -> None:
    """A sound database in WAL mode passes both checks, and no -wal or -shm comes to be."""
    path = _database(tmp_path / name)

    assert integrity_check(str(path), full=False) == []
    assert integrity_check(str(path), full=True) == []
    assert os.listdir(tmp_path) == [name]


def test_wrong_index_is_found_by_the_full_check_only(tmp_path: Path) -> None:
    """quick_check does not compare indexes with their tables; integrity_check does."""
    path = _database(tmp_path / "a.db")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_master SET sql='CREATE INDEX i ON t(b)' WHERE name='i'")
    connection.close()

    assert integrity_check(str(path), full=False) == []
    assert integrity_check(str(path), full=True) != []


def test_damage_and_foreign_files(tmp_path: Path) -> None:
    """A zeroed page is a problem in words; a file that is no database has its own error."""
    path = _database(tmp_path / "a.db")
    raw = bytearray(path.read_bytes())
    raw[4096:8192] = bytes(4096)
    path.write_bytes(raw)
    assert integrity_check(str(path), full=False)

    path.write_bytes(b"something else" * 1000)
    with pytest.raises(NotADatabaseError, match="not a SQLite database"):
        integrity_check(str(path), full=False)


def test_stopped_from_another_thread(tmp_path: Path) -> None:
    """A long check ends soon after `stop`, before or while it runs."""
    path = _database(tmp_path / "a.db", rows=300_000)
    check = Check(str(path), full=True)
    check.stop()
    assert check.run() != []

    check = Check(str(path), full=True)
    timer = threading.Timer(0.02, check.stop)
    timer.start()
    began = time.monotonic()
    check.run()
    timer.join()
    assert time.monotonic() - began < 5
