"""How long a start takes: goal 13."""

from __future__ import annotations

import os
import statistics

from benchmarks.data import TABLE, application, fingerprint
from benchmarks.lines import Bench, Line, Values, restored
from benchmarks.measure import SECOND, Replicator, timed_run, wait_for
from benchmarks.programs import BenchError, Database, Program
from benchmarks.watch import Watcher


def version(bench: Bench, program: Program) -> Values:
    """`version`, several times: one takes too little to be worth a repetition of its own."""
    log = bench.space.fresh(f"version-{program.name}") / "log"
    runs = [timed_run([*program.argv, "version"], log) for _ in range(5)]
    if any(run.code for run in runs) or program.version not in log.read_text(encoding="utf-8"):
        raise BenchError(f"version of {program.name} failed")
    return {
        "wall_ms": 1000 * statistics.median(run.wall for run in runs),
        "cpu_ms": 1000 * statistics.median(run.cpu for run in runs),
    }


def first_byte(bench: Bench, program: Program) -> Values:
    """From the start of the process to the first visible object of a database of 40 KiB."""
    folder = bench.space.fresh(f"start-{program.name}")
    database = Database(folder / "app.db", folder / "replica")
    with application(database.path) as connection:
        connection.execute(TABLE)
        connection.executemany("INSERT INTO t(body) VALUES(?)", [(os.urandom(400),)] * 80)
    with Watcher(database.replica) as watcher, Replicator(program, folder, [database]) as replicator:
        wait_for("the first object", watcher.count, 30, 0.005)
        first = watcher.peek()[0].time
    restored(program, database.replica, folder, fingerprint(database.path))
    return {"first_byte_ms": (first - replicator.began) * 1000 / SECOND}


LINES = (
    Line("version", "`litestream version`", version, (5, 3)),
    Line("first-byte", "the first replicated byte of a small database", first_byte, (5, 1)),
)
