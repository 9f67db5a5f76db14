"""An application in a process of its own: `python -m helpers.app_process`.

Reads one JSON object a line from stdin (`do` names a method below, the rest are its arguments) and answers each with
one line: {"ok": result} or {"error": class, "text": message}. It uses the standard library's SQLite, as applications
do, and knows nothing of the replicator. It ends when stdin does.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any

from helpers import ledger
from helpers.history import History

Json = Any  # what json.loads gives


class Writer(threading.Thread):
    """Commits ledger transactions on a connection of its own until told to stop."""

    def __init__(self, path: str, pause: float, big: int, pragmas: list[str], every: list[list[object]]) -> None:
        super().__init__(daemon=True)
        self.path, self.pause, self.big, self.pragmas, self.every = path, pause, big, pragmas, every
        self.done = 0
        """The newest transaction of this writer; others may write to the same ledger."""
        self.slowest = 0.0
        self.failures: list[str] = []
        self.fatal = ""
        self.halt = threading.Event()

    def run(self) -> None:
        try:
            self._run()
        except Exception as e:
            self.fatal = f"{type(e).__name__}: {e}"

    def _run(self) -> None:
        connection = connect(self.path, 30.0, self.pragmas)
        try:
            while not self.halt.is_set():
                began = time.perf_counter()
                try:
                    self.done = ledger.write(connection, self.big)
                except sqlite3.OperationalError as e:
                    self.failures.append(str(e))
                self.slowest = max(self.slowest, time.perf_counter() - began)
                for count, sql in self.every:
                    if self.done % int(str(count)) == 0:
                        connection.execute(str(sql)).fetchall()
                if self.pause:
                    time.sleep(self.pause)
        finally:
            connection.close()

    def report(self) -> dict[str, object]:
        return {"n": self.done, "slowest": self.slowest, "failures": list(self.failures), "fatal": self.fatal}


def connect(path: str, timeout: float, pragmas: list[str]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=timeout, check_same_thread=False)
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


class Application:
    """The commands. `name` chooses among the application's connections."""

    def __init__(self) -> None:
        self.connections: dict[str, sqlite3.Connection] = {}
        self.writers: dict[str, Writer] = {}
        self.histories: dict[str, History] = {}

    def open(self, path: str, name: str, timeout: float, pragmas: list[str]) -> None:
        self.connections[name] = connect(path, timeout, pragmas)

    def sql(self, sql: str, params: list[object], name: str) -> list[list[object]]:
        rows = self.connections[name].execute(sql, params).fetchall()
        return [[value.hex() if isinstance(value, bytes) else value for value in row] for row in rows]

    def script(self, sql: str, name: str) -> None:
        """For statements that work on while they are stepped and give no rows: `sql` would take one step only."""
        self.connections[name].executescript(sql)

    def checkpoint(self, mode: str, wait: float, name: str) -> list[int]:
        connection = self.connections[name]
        before = connection.execute("PRAGMA busy_timeout").fetchone()[0]
        connection.execute(f"PRAGMA busy_timeout={int(wait * 1000)}")
        try:
            return list(connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone())
        finally:
            connection.execute(f"PRAGMA busy_timeout={before}")

    def spill(self, rows: int, name: str) -> None:
        """Begin a transaction that is larger than the cache and leave it open."""
        connection = self.connections[name]
        connection.execute("PRAGMA cache_size=5")
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE IF NOT EXISTS spill(body BLOB)")
        for _ in range(rows):
            connection.execute("INSERT INTO spill VALUES(randomblob(3000))")

    def ledger_init(self, name: str) -> None:
        ledger.init(self.connections[name])

    def ledger(self, count: int, big: int, pause: float, name: str) -> int:
        """Commit `count` more transactions; returns the number of the last one."""
        connection = self.connections[name]
        n = 0
        for _ in range(count):
            n = ledger.write(connection, big)
            if pause:
                time.sleep(pause)
        return n

    def writer_start(self, name: str, **arguments: Json) -> None:
        self.writers[name] = Writer(**arguments)
        self.writers[name].start()

    def writer_report(self, name: str) -> dict[str, object]:
        return self.writers[name].report()

    def writer_stop(self, name: str) -> dict[str, object]:
        writer = self.writers.pop(name)
        writer.halt.set()
        writer.join()
        return writer.report()

    def histories_run(self, paths: list[str], seeds: list[int], last: int) -> None:
        """Take every history on to step `last`, a few steps each in turn."""
        for path, seed in zip(paths, seeds, strict=True):
            self.histories.setdefault(path, History(Path(path), seed))
        for upto in range(min(last, 2), last + 3, 3):
            for path in paths:
                self.histories[path].run(min(upto, last))

    def histories_close(self) -> None:
        for history in self.histories.values():
            history.close()
        self.histories.clear()

    def touch(self, path: str) -> int:
        """Open, read and close a file in this process: POSIX then drops every lock this process has on it."""
        return len(Path(path).read_bytes())

    def copy(self, path: str, to: str) -> None:
        shutil.copyfile(path, to)

    def keep_wal_at_close(self, name: str) -> None:
        """SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, which Python has from 3.12 on."""
        connection: Json = self.connections[name]
        connection.setconfig(1006, True)

    def close(self, name: str) -> None:
        self.connections.pop(name).close()


def main() -> None:
    application = Application()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(application, request.pop("do"))(**request)}
        except Exception as e:
            answer = {"error": type(e).__name__, "text": str(e)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    # Nobody listens any more. Leave as a killed process would: without the orderly close that checkpoints.
    os._exit(0)


if __name__ == "__main__":
    main()
