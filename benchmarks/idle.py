"""What databases at rest cost, and a few active ones among many: goals 11, 12 and 14, and memory by their number."""

from __future__ import annotations

import contextlib
import shutil
import time
from functools import partial
from pathlib import Path

from benchmarks.data import application, fingerprint
from benchmarks.lines import Bench, Line, Values, restored
from benchmarks.measure import SECOND, Replicator, now, percentile, wait_for
from benchmarks.objects import delays, mark
from benchmarks.programs import BenchError, Database, Program
from benchmarks.watch import Watcher


def _databases(folder: Path, count: int) -> list[Database]:
    template = folder / "template.db"
    with application(template) as connection:
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, m TEXT, body BLOB)")
        connection.execute("INSERT INTO t(m) VALUES('x')")
    found = []
    for number in range(count):
        place = folder / f"{number:04d}"
        place.mkdir()
        shutil.copyfile(template, place / "app.db")
        found.append(Database(place / "app.db", folder / "replicas" / f"{number:04d}"))
    return found


def _is_stored(replica: Path) -> bool:
    return any(path.is_file() and ".tmp" not in path.name for path in replica.rglob("*"))


def _activity(databases: list[Database], seconds: float) -> dict[int, int]:
    """One transaction a second in each of these; when each COMMIT returned."""
    commits: dict[int, int] = {}
    with contextlib.ExitStack() as stack:
        open_ones = [stack.enter_context(application(database.path)) for database in databases]
        began = now()
        while now() - began < seconds * SECOND:
            number = len(commits) + 1
            open_ones[number % len(open_ones)].execute("INSERT INTO t(m) VALUES(?)", (mark(number),))
            commits[number] = now()
            time.sleep(max(0.0, number / len(open_ones) - (now() - began) / SECOND))
    return commits


def _measure_active(
    program: Program, replicator: Replicator, folder: Path, active: list[Database], seconds: float
) -> dict[str, float]:
    with Watcher(folder / "replicas", keep=True) as watcher:
        cpu, began = replicator.cpu, now()
        commits = _activity(active, seconds)
        cpu, spent = replicator.cpu - cpu, (now() - began) / SECOND
        time.sleep(3.0)
        found = delays(watcher.stop(), commits)
    if len(found) != len(commits):
        raise BenchError(f"{program.name} replicated {len(found)} of {len(commits)} commits")
    return {
        "active_cpu_percent": 100 * cpu / spent,
        "active_p50_ms": percentile(found, 50),
        "active_p95_ms": percentile(found, 95),
        "active_memory_mib": replicator.resident,
    }


def measure(bench: Bench, program: Program, *, count: int, active: int = 0) -> Values:
    """CPU and memory of `count` databases at rest, then with a transaction a second in each of `active` of them."""
    folder = bench.space.fresh(f"idle-{program.name}")
    databases = _databases(folder, count)
    left = list(databases)

    def is_ready() -> bool:
        left[:] = [each for each in left if not _is_stored(each.replica)]
        return not left

    (folder / "replicas").mkdir()
    seconds = bench.size(15, 4)
    with Replicator(program, folder, databases) as replicator:
        wait_for("an object of every database", is_ready, 120, 0.25)
        time.sleep(bench.size(6 if count > 100 else 3, 2))
        cpu, began = replicator.cpu, now()
        time.sleep(seconds)
        spent = (now() - began) / SECOND
        values = {
            "cpu_percent": 100 * (replicator.cpu - cpu) / spent,
            "memory_mib": replicator.resident,
            "peak_mib": replicator.peak,
        }
        used = databases[:: max(1, count // active)][:active] if active else []
        if used:
            values |= _measure_active(program, replicator, folder, used, seconds)
    for database in (used or databases)[:3]:
        restored(program, database.replica, folder, fingerprint(database.path))
    return values


LINES = (
    Line("idle-1", "one database at rest", partial(measure, count=1), (2, 1)),
    Line("idle-100", "100 databases at rest", partial(measure, count=100), (1, 0)),
    Line("idle-300", "300 databases at rest", partial(measure, count=300), (1, 0)),
    Line(
        "idle-1000",
        "1,000 databases at rest, then 50 of them with a transaction a second",
        partial(measure, count=1000, active=50),
        (1, 0),
    ),
)
