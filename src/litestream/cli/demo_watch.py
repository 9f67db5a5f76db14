"""What the demo measures, from outside: when each commit was made, and when it stood in the replica."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
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
    """Reads each new object of a file replica once, and finds out which commits it brought."""

    def __init__(self, replica: Path) -> None:
        self._replica = replica
        self._seen: set[str] = set()
        self._arrived = 0
        self._delays: list[float] = []
        self.pos = Pos()
        """Where the newest segment begins."""

    @property
    def objects(self) -> int:
        return len(self._seen)

    def look(self, commits: dict[int, int]) -> bool:
        """Take notice of new objects; whether there is any object at all."""
        fresh: list[tuple[int, str]] = []
        for folder, _, names in os.walk(self._replica):
            for name in names:
                key = os.path.relpath(os.path.join(folder, name), self._replica)
                if key not in self._seen and V03.parse(key) is not None:
                    self._seen.add(key)
                    fresh.append((self._published_at(key), key))
        for at, key in sorted(fresh):
            self._take(key, at, commits)
        return bool(self._seen)

    def delays(self) -> tuple[float, float] | None:
        """p50 and p95 in milliseconds, None before the first commit has arrived."""
        if not self._delays:
            return None
        ordered = sorted(self._delays)
        return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)]

    def _published_at(self, key: str) -> int:
        # A rename changes the inode's time: this is when the object got its name.
        return (self._replica / key).stat().st_ctime_ns

    def _take(self, key: str, at: int, commits: dict[int, int]) -> None:
        name = V03.parse(key)
        if not isinstance(name, WALName):
            return
        from litestream.sqlite.shop import newest_order
        from litestream.streams import open_object

        self.pos = name.pos
        wal, _ = open_object((self._replica / key).read_bytes(), key=key)
        newest = newest_order(wal)
        for number in range(self._arrived + 1, newest + 1):
            if number in commits:
                self._delays.append((at - commits[number]) / 1e6)
        self._arrived = max(self._arrived, newest)
