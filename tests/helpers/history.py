"""Random but repeatable histories of one database: what an application may do in the life of its file.

A history is a function of its seed. It runs in slices, so that a test can look at the replica between them.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

PAGE_SIZES = (512, 1024, 4096, 4096, 4096, 8192, 65536)


class History:
    """One database and its connection. Step 0 is the creation; each later step is drawn from (seed, step)."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.seed = seed
        self.step = 0
        rnd = random.Random(f"{seed} life")
        self.page_size = rnd.choice(PAGE_SIZES)
        self.auto_vacuum = rnd.choice((0, 0, 1, 2))
        self.autocheckpoint = rnd.choice((1000, 1000, 0, 5, 50))
        self.synchronous = rnd.choice(("NORMAL", "FULL", "OFF"))
        self.connection: sqlite3.Connection | None = None
        self.reader: sqlite3.Connection | None = None

    def run(self, last: int) -> None:
        """Go on until step `last` is done."""
        while self.step <= last:
            rnd = random.Random(f"{self.seed} step {self.step}")
            if self.step == 0:
                self._create()
            else:
                rnd.choice(ACTIONS)(self, rnd)
            self.step += 1
            time.sleep(rnd.choice((0, 0, 0.005, 0.03)))

    def close(self) -> None:
        for connection in (self.reader, self.connection):
            if connection is not None:
                connection.close()
        self.reader = self.connection = None

    def _open(self) -> sqlite3.Connection:
        if self.connection is None:
            self.connection = sqlite3.connect(self.path, isolation_level=None, timeout=30)
            self.connection.execute(f"PRAGMA wal_autocheckpoint={self.autocheckpoint}")
            self.connection.execute(f"PRAGMA synchronous={self.synchronous}")
        return self.connection

    def _create(self) -> None:
        connection = self.connection = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        connection.execute(f"PRAGMA page_size={self.page_size}")
        connection.execute(f"PRAGMA auto_vacuum={self.auto_vacuum}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, body BLOB)")
        self.connection.close()
        self.connection = None

    def insert(self, rnd: random.Random) -> None:
        connection = self._open()
        for _ in range(rnd.randint(1, 5)):
            connection.execute(
                "INSERT INTO item(name, body) VALUES(?,?)", (str(rnd.random()), rnd.randbytes(rnd.randint(0, 400)))
            )

    def large(self, rnd: random.Random) -> None:
        """Rows longer than any page: overflow chains."""
        self._open().execute(
            "INSERT INTO item(name, body) VALUES('large', ?)", (rnd.randbytes(rnd.randint(5_000, 90_000)),)
        )

    def bulk(self, rnd: random.Random) -> None:
        """One transaction of several hundred frames."""
        connection = self._open()
        connection.execute("BEGIN")
        rows = [(str(i), rnd.randbytes(300)) for i in range(rnd.randint(200, 1500))]
        connection.executemany("INSERT INTO item(name, body) VALUES(?,?)", rows)
        connection.execute("COMMIT")

    def update(self, rnd: random.Random) -> None:
        self._open().execute(
            "UPDATE item SET body=? WHERE id%?=0", (rnd.randbytes(rnd.randint(0, 500)), rnd.randint(2, 30))
        )

    def delete(self, rnd: random.Random) -> None:
        self._open().execute("DELETE FROM item WHERE id%?=0", (rnd.choice((2, 3, 10)),))

    def rollback(self, rnd: random.Random) -> None:
        connection = self._open()
        connection.execute("BEGIN")
        connection.execute("DELETE FROM item WHERE id%2=0")
        connection.execute("SAVEPOINT s")
        connection.execute("INSERT INTO item(name) VALUES('ghost')")
        connection.execute("ROLLBACK TO s")
        connection.execute(rnd.choice(("ROLLBACK", "COMMIT")))

    def spill(self, rnd: random.Random) -> None:
        """A transaction larger than the cache: its frames stand in the WAL before, or without, a commit."""
        connection = self._open()
        connection.execute("PRAGMA cache_size=5")
        connection.execute("BEGIN")
        for _ in range(60):
            connection.execute("INSERT INTO item(name, body) VALUES('spill', ?)", (rnd.randbytes(2500),))
        connection.execute(rnd.choice(("ROLLBACK", "ROLLBACK", "COMMIT")))
        connection.execute("PRAGMA cache_size=-2000")

    def schema(self, rnd: random.Random) -> None:
        connection = self._open()
        name = f"extra{rnd.randint(0, 3)}"
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name=?", (name,)).fetchone():
            connection.execute(f"DROP TABLE {name}")
        else:
            connection.execute(f"CREATE TABLE {name} AS SELECT id, name FROM item LIMIT 200")
            connection.execute(f"CREATE INDEX {name}_name ON {name}(name)")
        connection.execute(f"PRAGMA user_version={rnd.randint(1, 10_000)}")

    def vacuum(self, rnd: random.Random) -> None:
        if self.reader is None:
            self._open().execute("VACUUM")

    def incremental_vacuum(self, rnd: random.Random) -> None:
        self._open().executescript(f"PRAGMA incremental_vacuum({rnd.randint(1, 50)})")

    def checkpoint(self, rnd: random.Random) -> None:
        connection = self._open()
        connection.execute("PRAGMA busy_timeout=150")
        mode = rnd.choice(("PASSIVE", "PASSIVE", "FULL", "RESTART", "TRUNCATE"))
        try:
            connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        except sqlite3.OperationalError as e:
            # Only "locked" is part of an application's life: its checkpoint met somebody else's.
            if "locked" not in str(e):
                raise
        connection.execute("PRAGMA busy_timeout=30000")

    def reopen(self, rnd: random.Random) -> None:
        """The last close checkpoints the WAL and deletes it."""
        self.close()
        time.sleep(rnd.choice((0, 0.02)))

    def park(self, rnd: random.Random) -> None:
        """A reader stays in a transaction until this comes round again."""
        if self.reader is not None:
            self.reader.close()
            self.reader = None
            return
        self.reader = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        self.reader.execute("BEGIN")
        self.reader.execute("SELECT count(*) FROM item").fetchone()


Action = Callable[[History, random.Random], None]
ACTIONS: tuple[Action, ...] = (
    *(History.insert,) * 6,
    *(History.update,) * 3,
    *(History.checkpoint,) * 3,
    *(History.delete, History.spill, History.large) * 2,
    History.bulk,
    History.rollback,
    History.schema,
    History.vacuum,
    History.incremental_vacuum,
    History.reopen,
    History.park,
)
