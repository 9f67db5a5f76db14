"""The application under load, in a process of its own: as fast as it can, at a rate, or always on the same pages."""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.data import PAGE, TABLE, Bodies, application
from benchmarks.helper import Helper
from benchmarks.measure import MIB, SECOND, now, percentile
from benchmarks.objects import mark

_FRAME = PAGE + 24
_SEEDED = 20_000
"""Rows that are there before; a transaction of 50 rows changes about 30 of their pages."""
_HOT = 200
"""Rows that the hot pages have."""
_ROWS = 50
"""Rows of a transaction."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be written.

    Attributes:
        seconds: for how long.
        rate: MiB of WAL a second; 0 for as fast as it goes.
        hot: always the same few pages.
    """

    seconds: float
    rate: float = 0.0
    hot: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: MiB of WAL, transactions, seconds, the slowest commit in ms, when the last one returned."""

    mib: float
    transactions: int
    seconds: float
    p99_ms: float
    slowest_ms: float
    last: int


def seed(path: Path) -> None:
    """The table, with rows to change, all in the database file."""
    bodies = Bodies(1)
    with application(path) as connection:
        connection.execute(TABLE)
        connection.execute("BEGIN")
        rows = ((bodies.one(200, 260),) for _ in range(_SEEDED))
        connection.executemany("INSERT INTO t(m, body) VALUES('seed', ?)", rows)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class _Frames:
    """Counts the frames of the WAL over its restarts, by the header of the wal-index."""

    def __init__(self, path: Path) -> None:
        # Never closed: closing any descriptor of this file would drop SQLite's locks in this process.
        descriptor = os.open(f"{path}-shm", os.O_RDONLY)
        self._shared = mmap.mmap(descriptor, 136, prot=mmap.PROT_READ)
        self._salt, self._last = self._look()
        self.total = 0

    def _look(self) -> tuple[bytes, int]:
        return self._shared[32:40], struct.unpack_from("=I", self._shared, 16)[0]

    def count(self) -> int:
        salt, last = self._look()
        self.total += last - self._last if salt == self._salt and last >= self._last else last
        self._salt, self._last = salt, last
        return self.total


def _write(pipe: Connection, path: Path, load: Load) -> None:
    os.setpgrp()  # Ctrl-C goes to the command, which ends this one
    bodies = Bodies(5)
    delays: list[int] = []
    with application(path) as connection:
        connection.execute("INSERT INTO t(m, body) VALUES('warm', 'x')")
        frames = _Frames(path)
        rows = _HOT if load.hot else connection.execute("SELECT max(id) FROM t").fetchone()[0]
        pipe.send("ready")
        pipe.recv()
        began, last, number, size = now(), 0, 0, 0.0
        while (last or began) < began + load.seconds * SECOND:
            number += 1
            start = now()
            connection.execute("BEGIN IMMEDIATE")
            for turn in range(_ROWS):
                if turn % 2 or load.hot:
                    change = (bodies.one(200, 260) if load.hot else bodies.one(50, 400), bodies.source.randint(1, rows))
                    connection.execute("UPDATE t SET body = ? WHERE id = ?", change)
                else:
                    connection.execute("INSERT INTO t(m, body) VALUES('row', ?)", (bodies.one(50, 400),))
            if load.hot:  # the last row is the one with the mark
                connection.execute("UPDATE t SET m = ? WHERE id = 1", (mark(number),))
            else:
                connection.execute("INSERT INTO t(m, body) VALUES(?, '')", (mark(number),))
            connection.execute("COMMIT")
            last = now()
            delays.append(last - start)
            size = frames.count() * _FRAME / MIB  # each time: of a WAL that started over twice one would be missed
            ahead = size / load.rate - (last - began) / SECOND if load.rate else 0.0
            if ahead > 0:
                time.sleep(ahead)
        slowest, usual = max(delays) * 1000 / SECOND, percentile(delays, 99) * 1000 / SECOND
        pipe.send(Written(size, number, (last - began) / SECOND, usual, slowest, last))
        pipe.recv()


class Writer(Helper):
    """The process, from here. The database stays open until `close`, so nothing is checkpointed."""

    def __init__(self, path: Path, load: Load) -> None:
        super().__init__(_write, path, load)

    def run(self) -> Written:
        """Write, to the end."""
        self.pipe.send("go")
        written: Written = self.pipe.recv()
        return written

    def close(self) -> None:
        """Close the database."""
        self.pipe.send("close")
        self.ended()
