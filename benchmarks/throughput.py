"""An application that writes much: goals 4 to 7 (CPU, catching up, its own speed) and 17 (bytes of hot pages)."""

from __future__ import annotations

import subprocess
import time
from functools import partial
from pathlib import Path

from benchmarks.data import fingerprint
from benchmarks.lines import Bench, Line, Values, mib, restored
from benchmarks.measure import SECOND, Replicator, wait_for
from benchmarks.objects import content, mark, stored
from benchmarks.programs import OURS, Database, Program, write_config
from benchmarks.watch import Seen, Watcher
from benchmarks.writer import Load, Writer, Written, seed

COMPACT = {"compact": "true"}
"""The key under which a backlog is stored as one deduplicated WAL."""


class _Arrival:
    """Looks for the last transaction in what becomes visible, each object once."""

    def __init__(self, watcher: Watcher, written: Written) -> None:
        self._watcher = watcher
        self._written = written
        self._mark = mark(written.transactions).encode()
        self._known: set[str] = set()

    def __call__(self) -> Seen | None:
        for each in reversed(self._watcher.peek()):
            if each.time < self._written.last - 2 * SECOND:
                break
            if each.path not in self._known and self._is_in(each.path):
                return each
        return None

    def _is_in(self, path: str) -> bool:
        self._known.add(path)
        try:
            return self._mark in content(Path(path).read_bytes())
        except (OSError, RuntimeError, ValueError):
            return False  # gone again, or no segment


def measure(bench: Bench, program: Program, load: Load, keys: dict[str, str] | None = None) -> Values:
    """Everything from the first transaction until the last one has arrived."""
    folder = bench.space.fresh(f"load-{program.name}")
    database = Database(folder / "app.db", folder / "replica", keys=keys)
    seed(database.path)
    with Watcher(database.replica) as watcher, Replicator(program, folder, [database]) as replicator:
        wait_for("the first object", watcher.count, 30)
        time.sleep(1.5)
        with Writer(database.path, load) as writer:
            _, before = stored(database.replica)
            cpu, puts = replicator.cpu, watcher.count()
            written = writer.run()
            arrival = wait_for("the last transaction", _Arrival(watcher, written), 90, 0.1)
            cpu, peak, puts = replicator.cpu - cpu, replicator.peak, watcher.count() - puts
            writer.close()
        _, after = stored(database.replica)
    restored(program, database.replica, folder, fingerprint(database.path))
    lag = max(0.0, (arrival.time - written.last) / SECOND)
    return {
        "cpu_ms_per_mib": 1000 * cpu / written.mib,
        "lag_ms": 1000 * lag,
        "lag_ms_per_mib": 1000 * lag / written.mib,
        "wal_mib_per_s": written.mib / written.seconds,
        "commits_per_s": written.transactions / written.seconds,
        "commit_p99_ms": written.p99_ms,
        "commit_max_ms": written.slowest_ms,
        "memory_mib": peak,
        "puts_per_s": puts / written.seconds,
        "stored_per_wal": mib(after - before) / written.mib,
    }


def _unpaced(bench: Bench, program: Program) -> Values:
    return measure(bench, program, Load(bench.size(5, 3)))


def _paced(bench: Bench, program: Program) -> Values:
    return measure(bench, program, Load(bench.size(5, 3), rate=20))


def _hot(bench: Bench, program: Program, *, compact: bool = False) -> Values:
    return measure(bench, program, Load(bench.size(5, 3), rate=20, hot=True), COMPACT if compact else None)


def takes_compact(program: Program, folder: Path) -> bool:
    """Whether the program knows the key; the line is left out where it does not."""
    config = folder / "compact.yml"
    write_config(config, [Database(folder / "app.db", folder / "replica", keys=COMPACT)])
    done = subprocess.run(
        [*program.argv, "config", "check", str(config)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode == 0 and "unknown" not in done.stderr.lower() and "not a key" not in done.stderr.lower()


LINES = (
    Line("load", "an unpaced writer, default configuration", _unpaced, (3, 1)),
    Line("load-paced", "a writer of 20 MiB of WAL a second, default configuration", _paced, (3, 1)),
    Line("hot", "the same pages again and again, 20 MiB of WAL a second", _hot, (2, 0)),
)
COMPACT_LINE = Line("hot-compact", "the same with `compact: true`", partial(_hot, compact=True), (2, 0), only=(OURS,))
