"""From commit to replica: goals 1 (sparse), 2 (dense) and 3 (intervals of a millisecond).

Each transaction writes a mark. A process with inotify keeps every object as it becomes visible; the delay is from the
moment at which COMMIT returned to the first object whose content has the mark.
"""

from __future__ import annotations

import random
import sqlite3
import time
from functools import partial

from benchmarks.data import TABLE, application, fingerprint, text
from benchmarks.lines import Bench, Line, Values, restored
from benchmarks.measure import SECOND, Replicator, now, percentile, wait_for
from benchmarks.objects import delays, mark
from benchmarks.programs import BenchError, Database, Program
from benchmarks.watch import Watcher

SPARSE, DENSE = (1.3, 2.0), (0.05, 0.5)
"""Least and greatest seconds between two commits; the peers look once a second."""
_AFTERWARDS = 3.0
"""Seconds in which the last commits must arrive: two intervals in series, and slack."""


def _commit_all(connection: sqlite3.Connection, count: int, gaps: tuple[float, float]) -> dict[int, int]:
    """Commit at random times; when each COMMIT returned."""
    source, commits = random.Random(1), {}
    for number in range(1, count + 1):
        time.sleep(source.uniform(*gaps))
        body = text(source, source.randint(50, 400))
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t(k, m, body) VALUES(?, ?, ?)", (number, mark(number), body))
        connection.execute("COMMIT")
        commits[number] = now()
    return commits


def measure(bench: Bench, program: Program, *, count: int, gaps: tuple[float, float], interval: str = "") -> Values:
    """The delays of `count` commits."""
    folder = bench.space.fresh(f"delay-{program.name}")
    database = Database(folder / "app.db", folder / "replica", interval)
    with application(database.path) as connection, Watcher(database.replica, keep=True) as watcher:
        connection.execute(TABLE)
        with Replicator(program, folder, [database]) as replicator:
            wait_for("the first object", watcher.count, 30)
            time.sleep(2.5)
            before, cpu, began = watcher.count(), replicator.cpu, now()
            commits = _commit_all(connection, count, gaps)
            time.sleep(_AFTERWARDS)
            puts, seconds = watcher.count() - before, (now() - began) / SECOND
            cpu, peak = replicator.cpu - cpu, replicator.peak
        found = delays(watcher.stop(), commits)
    restored(program, database.replica, folder, fingerprint(database.path))
    if len(found) != count:
        raise BenchError(f"{program.name} replicated {len(found)} of {count} commits")
    return {
        "p50_ms": percentile(found, 50),
        "p95_ms": percentile(found, 95),
        "mean_ms": sum(found) / count,
        "max_ms": max(found),
        "puts_per_commit": puts / count,
        "cpu_percent": 100 * cpu / seconds,
        "memory_mib": peak,
    }


def _sparse(bench: Bench, program: Program) -> Values:
    return measure(bench, program, count=round(bench.size(15, 3)), gaps=SPARSE)


def _dense(bench: Bench, program: Program, interval: str = "") -> Values:
    return measure(bench, program, count=round(bench.size(40, 12)), gaps=DENSE, interval=interval)


LINES = (
    Line("delay-sparse", "commits 1.3 to 2 s apart, default configuration", _sparse, (2, 1)),
    Line("delay-dense", "commits 50 to 500 ms apart, default configuration", _dense, (2, 0)),
    Line("delay-1ms", "commits 50 to 500 ms apart, all intervals 1 ms", partial(_dense, interval="1ms"), (2, 0)),
)
