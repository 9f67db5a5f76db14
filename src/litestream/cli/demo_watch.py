"""What the demo measures, from outside: when each commit was made, and when it stood in the replica."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

from litestream.core.layout import V03, WALName
from litestream.core.position import Pos
from litestream.errors import LitestreamError


class Writer:
    """The shop in its own process, and a list of its commits as they come."""

    def __init__(self, database: Path) -> None:
        self.commits: dict[int, int] = {}
        """Order number to the time of its commit, Unix nanoseconds."""
        self._process = subprocess.Popen(  # noqa: S603 our own program
            [sys.executable, "-m", "litestream.sqlite.shop", str(database)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, name="demo-writer", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """Close the shop after the transaction it is in."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reader.join()
        if self._process.wait() != 0:
            raise LitestreamError("the shop's process failed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.alive:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                number, at = line.split()
                self.commits[int(number)] = int(at)


class ReplicaWatch:
    """Reads each new object of a file replica once, and finds out which commits it brought.

    A commit has arrived when it can be restored: when its object is there, and the generation's first snapshot.
    """

    def __init__(self, replica: Path) -> None:
        self._replica = replica
        self._seen: set[str] = set()
        self._begun: dict[str, int] = {}  # generation to the time of its first snapshot
        self._waiting: list[tuple[int, str, Pos]] = []  # objects not read yet: time, key, position
        self._delays: list[float] = []  # milliseconds
        self._arrived = 0  # greatest order number in the replica
        self._started_again = 0
        self.caught_up: float | None = None
        """Milliseconds from the replicator's second start to the arrival of what it had missed; None before that."""
        self.pos = Pos()
        """Where the newest object begins."""

    @property
    def objects(self) -> int:
        return len(self._seen)

    def look(self, commits: dict[int, int]) -> bool:
        """Take notice of new objects; whether there is any object at all."""
        for folder, _, names in os.walk(self._replica):
            for name in names:
                self._notice(os.path.relpath(os.path.join(folder, name), self._replica))
        ready = [entry for entry in self._waiting if entry[2].generation in self._begun]
        self._waiting = [entry for entry in self._waiting if entry[2].generation not in self._begun]
        for at, key, pos in sorted(ready, key=lambda entry: entry[0]):
            self._take(key, pos, max(at, self._begun[pos.generation]), commits)
        return bool(self._seen)

    def started_again(self) -> None:
        """A replicator runs again. What it finds is what it missed, and no measure of its delay."""
        self._started_again = time.time_ns()

    def delays(self) -> tuple[float, float] | None:
        """p50 and p95 in milliseconds while a replicator ran, None before the first commit has arrived."""
        ordered = sorted(self._delays)
        if not ordered:
            return None
        return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)]

    def _notice(self, key: str) -> None:
        found = V03.parse(key) if key not in self._seen else None
        if found is None:
            return
        self._seen.add(key)
        # A rename changes the inode's time: this is when the object got its name.
        at = (self._replica / key).stat().st_ctime_ns
        if isinstance(found, WALName):
            self._waiting.append((at, key, found.pos))
        else:
            self._begun[found.generation] = min(at, self._begun.get(found.generation, at))
            self._waiting.append((at, key, Pos(found.generation, found.index)))

    def _take(self, key: str, pos: Pos, at: int, commits: dict[int, int]) -> None:
        from litestream.sqlite.shop import newest_order
        from litestream.streams import open_object

        self.pos = pos
        content, _ = open_object((self._replica / key).read_bytes(), key=key)
        fresh = range(self._arrived + 1, newest_order(content) + 1)
        if not fresh:
            return
        self._arrived = fresh[-1]
        if self._started_again and self.caught_up is None:
            self.caught_up = (at - self._started_again) / 1e6
        else:
            self._delays += [(at - commits[number]) / 1e6 for number in fresh if number in commits]
