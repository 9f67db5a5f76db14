"""What a database says, in a form that compares: content, page count and the bytes of its pages."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class State:
    """Two databases are equal where these are; the text of a failed comparison then says in what they differ."""

    integrity: str
    page_size: int
    page_count: int
    content: str
    """SHA-256 over schema, rows and the settings stored in the header; tables named _litestream… are left out."""
    pages: str
    """SHA-256 over the bytes of the database file, everything checkpointed into it."""

    def without_pages(self) -> State:
        """For comparing with a database whose file may be laid out differently."""
        return State(self.integrity, self.page_size, 0, self.content, "")


def read(path: Path) -> State:
    """The state of a database that nobody else has open; its WAL, if it has one, is checkpointed."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        integrity = "; ".join(str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)"))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        page_size = connection.execute("PRAGMA page_size").fetchone()[0]
        page_count = connection.execute("PRAGMA page_count").fetchone()[0]
        content = _content(connection)
        with path.open("rb") as f:
            pages = hashlib.file_digest(f, "sha256").hexdigest()
    finally:
        connection.close()
    return State(integrity, page_size, page_count, content, pages)


def _content(connection: sqlite3.Connection) -> str:
    h = hashlib.sha256()
    schema = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master "
        r"WHERE tbl_name NOT LIKE '\_litestream%' ESCAPE '\' ORDER BY type, name"
    ).fetchall()
    for row in schema:
        h.update(repr(row).encode())
    for kind, name, _, sql in schema:
        if kind != "table" or (sql or "").upper().startswith("CREATE VIRTUAL"):
            continue
        count = 0
        for row in connection.execute(f'SELECT * FROM "{name}"'):
            for value in row:
                if isinstance(value, bytes):  # large ones are not spelt out first
                    h.update(b"blob %d " % len(value))
                    h.update(value)
                else:
                    h.update(repr(value).encode())
            count += 1
        h.update(b"%d rows" % count)
    for pragma in ("auto_vacuum", "user_version", "application_id", "encoding"):
        h.update(repr(connection.execute(f"PRAGMA {pragma}").fetchone()).encode())
    return h.hexdigest()


def dump_sha256(path: Path) -> str:
    """SHA-256 of the SQL dump without the official program's own tables, as the golden replicas record it."""
    connection = sqlite3.connect(path)
    try:
        text = "\n".join(line for line in connection.iterdump() if "_litestream_" not in line)
    finally:
        connection.close()
    return hashlib.sha256(text.encode()).hexdigest()


def copy_of(source: Path, target: Path) -> Path:
    """Copy a live but still database with its WAL, without opening it as a database: that would leave marks on it.

    The database file goes first: a backfill in between only moves pages that the WAL, copied afterwards, has too.
    If the WAL was started over in between, the copy is made again.
    """
    wal = source.with_name(source.name + "-wal")
    for _ in range(50):
        before = _header(wal)
        shutil.copyfile(source, target)
        target_wal = target.with_name(target.name + "-wal")
        target_wal.unlink(missing_ok=True)
        if before or wal.exists():
            shutil.copyfile(wal, target_wal)
        if _header(wal) == before:
            return target
    raise AssertionError(f"{source} is not still")


def _header(wal: Path) -> bytes:
    try:
        with wal.open("rb") as f:
            return f.read(32)
    except FileNotFoundError:
        return b""


def source(path: Path) -> State:
    """The committed state of an application's database, which must be still; it is not touched."""
    with tempfile.TemporaryDirectory(prefix="state-") as folder:
        return read(copy_of(path, Path(folder) / "copy.db"))
