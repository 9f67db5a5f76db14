"""Many short random histories under one replicator: starting a process per history would be most of the time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.app import App
from helpers.cli import Daemon, Database, Yaml, write_config

SIZE = 10


def seeds(first: int) -> list[list[int]]:
    """LITESTREAM_HISTORIES (default 50) seeds from `first` on, in batches."""
    count = int(os.environ.get("LITESTREAM_HISTORIES", "50"))
    numbers = range(first, first + count)
    return [list(numbers[at : at + SIZE]) for at in range(0, count, SIZE)]


@dataclass(frozen=True)
class Life:
    """One history: its database and its replica."""

    seed: int
    db: Path
    replica: Path


class Batch:
    """Databases with their applications: two processes, each with half of the histories."""

    def __init__(self, folder: Path, numbers: Sequence[int], apps: Callable[[], App]) -> None:
        self.folder = folder
        self.lives = [Life(seed, folder / f"{seed}.db", folder / f"replica-{seed}") for seed in numbers]
        self.apps = [apps(), apps()]

    def config(self, **options: Yaml) -> Path:
        """One configuration for all; options are those of a database, with _ for -."""
        named = {name.replace("_", "-"): value for name, value in options.items()}
        databases = [Database(life.db, [life.replica], named) for life in self.lives]
        return write_config(self.folder / "batch.yml", databases, sync="50ms")

    def run(self, last: int) -> None:
        """Take every history on to step `last`; afterwards all are still, with their connections open."""
        for half, app in enumerate(self.apps):
            mine = self.lives[half::2]
            paths, numbers = [str(life.db) for life in mine], [life.seed for life in mine]
            app.begin("histories_run", paths=paths, seeds=numbers, last=last)
        for app in self.apps:
            app.result()

    def close(self) -> None:
        """Close every connection of the applications."""
        for app in self.apps:
            app.do("histories_close")

    def wait_replicated(self, daemon: Daemon) -> None:
        """Wait until the replicator is at work and every replica holds something."""
        daemon.wait_until_ready()
        for life in self.lives:
            daemon.wait_for_objects(life.replica)
