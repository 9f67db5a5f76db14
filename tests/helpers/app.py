"""The test's side of an application process (`helpers.app_process`)."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from helpers.ledger import BIG

TESTS = Path(__file__).resolve().parent.parent
Json = Any  # what json.loads gives


class AppError(Exception):
    """The application's own call failed; `kind` is the exception's class there."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


@dataclass(frozen=True)
class Report:
    """What a background writer has done: newest transaction, slowest commit in seconds, commits that failed."""

    n: int
    slowest: float
    failures: list[str]
    fatal: str


class App:
    """An application process. Use it as a context manager, or through the `apps` fixture, which ends all of them."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "helpers.app_process"],
            cwd=TESTS,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self, do: str, **arguments: Json) -> None:
        """Send a command without waiting for its answer, which `result` then gives."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()

    def result(self, timeout: float = 120) -> Json:
        """The answer to the oldest command that has none yet."""
        line = self._answers.get(timeout=timeout)
        if not line:
            raise AssertionError(f"the application has ended: {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise AppError(answer["error"], answer["text"])
        return answer["ok"]

    def do(self, command: str, **arguments: Json) -> Json:
        self.begin(command, **arguments)
        return self.result()

    # --- connections

    def open(self, path: Path, *, name: str = "main", timeout: float = 30, pragmas: Sequence[str] = ()) -> App:
        self.do("open", path=str(path), name=name, timeout=timeout, pragmas=list(pragmas))
        return self

    def create(self, path: Path, *, pragmas: Sequence[str] = (), name: str = "main") -> App:
        """A new ledger database in WAL mode; pragmas for a new file (page_size, auto_vacuum) go first."""
        self.open(path, name=name, pragmas=[*pragmas, "journal_mode=WAL", "synchronous=NORMAL"])
        self.do("ledger_init", name=name)
        return self

    def sql(self, sql: str, *params: Json, name: str = "main") -> list[list[Json]]:
        rows: list[list[Json]] = self.do("sql", sql=sql, params=list(params), name=name)
        return rows

    def script(self, sql: str, *, name: str = "main") -> None:
        """Run statements that give no rows, each to its end."""
        self.do("script", sql=sql, name=name)

    def one(self, sql: str, *params: Json, name: str = "main") -> Json:
        """The single value of a query."""
        return self.sql(sql, *params, name=name)[0][0]

    def close(self, name: str = "main") -> None:
        self.do("close", name=name)

    def checkpoint(self, mode: str = "PASSIVE", *, wait: float = 0.2, name: str = "main") -> tuple[int, int, int]:
        """(busy, frames in the WAL, frames backfilled); waits for locks for `wait` seconds."""
        busy, log, done = self.do("checkpoint", mode=mode, wait=wait, name=name)
        return busy, log, done

    def spill(self, rows: int = 200, *, name: str = "main") -> None:
        self.do("spill", rows=rows, name=name)

    def fill(self, rows: int, *, table: str = "bulk") -> None:
        """A table of random rows, one page each, in one transaction: what makes a snapshot take its time."""
        self.sql(f"CREATE TABLE IF NOT EXISTS {table}(body BLOB)")
        self.sql(
            "WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM k WHERE i<?) "
            f"INSERT INTO {table} SELECT randomblob(3900) FROM k",
            rows,
        )

    # --- the ledger

    def ledger(self, count: int = 1, *, big: int = BIG, pause: float = 0, name: str = "main") -> int:
        n: int = self.do("ledger", count=count, big=big, pause=pause, name=name)
        return n

    def start_writing(
        self,
        path: Path,
        *,
        pause: float = 0.002,
        big: int = BIG,
        pragmas: Sequence[str] = (),
        every: Sequence[tuple[int, str]] = (),
        name: str = "writer",
    ) -> None:
        """Commit transactions in the background; `every` (count, SQL) runs after each count commits."""
        arguments = {"pause": pause, "big": big, "pragmas": list(pragmas), "every": list(every)}
        self.do("writer_start", path=str(path), name=name, **arguments)

    def written(self, name: str = "writer") -> Report:
        return self._report(self.do("writer_report", name=name))

    def stop_writing(self, name: str = "writer") -> Report:
        return self._report(self.do("writer_stop", name=name))

    def _report(self, answer: Json) -> Report:
        report = Report(**answer)
        if report.fatal:
            raise AssertionError(f"the application's writer died: {report.fatal}")
        return report

    # --- the end

    def kill(self) -> None:
        """SIGKILL: connections are not closed, transactions not ended."""
        self._process.kill()
        self.end()

    def end(self) -> None:
        """End it as a crash would; the WAL stays as it is."""
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
