"""The applications' side: databases with content like that of real ones, and proof that a copy is equal."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from benchmarks.measure import MIB
from benchmarks.programs import BenchError

TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, m TEXT, body BLOB)"
PAGE = 4096
_BATCH = 5000


@cache
def _words() -> tuple[str, ...]:
    source = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return tuple("".join(source.choice(letters) for _ in range(source.randint(3, 11))) for _ in range(4000))


def text(source: random.Random, size: int) -> bytes:
    """Bytes like a service's JSON, about two fifths of them random: LZ4 makes it a little more than half."""
    words, parts, length = _words(), [], 0
    while length < size:
        first, second, third = source.choice(words), source.choice(words), source.choice(words)
        unique, amount = f"{source.getrandbits(64):016x}", source.randint(0, 10**6)
        part = f'{{"k":"{first} {second}","u":"{unique}","v":{amount},"t":"{third}"}},'
        parts.append(part)
        length += len(part)
    return "".join(parts)[:size].encode()


class Bodies:
    """Contents of rows, cheap to make and never twice the same: random bytes and a piece of a pool of text."""

    def __init__(self, seed: int, pieces: int = 16, size: int = 1 << 14) -> None:
        self.source = random.Random(seed)
        self._pool = [text(self.source, size) for _ in range(pieces)]
        self._size = size

    def one(self, least: int, most: int) -> bytes:
        """About `least` to `most` bytes, a fifth of them random."""
        length = self.source.randint(least, most)
        start = self.source.randrange(self._size - most)
        piece = self._pool[self.source.randrange(len(self._pool))]
        return self.source.randbytes(length // 4) + piece[start : start + length]


@contextlib.contextmanager
def application(path: Path) -> Iterator[sqlite3.Connection]:
    """An application's connection in WAL mode, which commits by itself."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        yield connection


def build(path: Path, mib: float) -> None:
    """A database in WAL mode of about this size, with an index."""
    bodies = Bodies(42, pieces=64, size=1 << 16)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size={PAGE}")
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(TABLE)
        connection.execute("CREATE INDEX t_k ON t(k)")
        number, size = 0, 0
        while size < mib * MIB:
            rows = []
            for _ in range(_BATCH):
                number += 1
                rows.append((number, bodies.source.getrandbits(31), "seed", bodies.one(80, 900)))
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO t VALUES(?,?,?,?)", rows)
            connection.execute("COMMIT")
            size = connection.execute("PRAGMA page_count").fetchone()[0] * PAGE
        connection.execute("PRAGMA journal_mode=WAL")


def copy(source: Path, target: Path) -> None:
    """A copy of a database that nobody has open, and on the disk when this returns."""
    shutil.copyfile(source, target)
    descriptor = os.open(target, os.O_RDWR)
    os.fsync(descriptor)
    os.close(descriptor)


def fingerprint(path: Path) -> tuple[int, ...]:
    """Number of the rows of `t`, and sums over every column of every row; equal for equal content.

    Raises:
        BenchError: SQLite cannot read it.
    """
    # zlib.crc32 of each body: a sum of lengths alone would not see a wrong page of the right form.
    query = "SELECT count(*), total(id), total(k), total(crc(m)), total(crc(body)) FROM t"
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.create_function("crc", 1, _crc, deterministic=True)
            return tuple(int(number) for number in connection.execute(query).fetchone())
    except sqlite3.Error as error:
        raise BenchError(f"cannot read {path.name}: {error}") from error


def _crc(value: str | bytes | None) -> int:
    return zlib.crc32(value.encode() if isinstance(value, str) else value or b"")
