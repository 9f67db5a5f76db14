"""The first snapshot of a database, and its restore: goals 8 and 9."""

from __future__ import annotations

import time

from benchmarks.data import copy, fingerprint
from benchmarks.lines import Bench, Line, Values, mib
from benchmarks.measure import SECOND, Replicator, wait_for
from benchmarks.objects import stored
from benchmarks.programs import Database, Program
from benchmarks.restore import measure_restore
from benchmarks.watch import Seen, Watcher


def is_snapshot(seen: Seen, size: int) -> bool:
    """Whether this is a whole copy: no program compresses this content to a tenth."""
    return seen.size > size * 0.1


def measure(bench: Bench, program: Program) -> Values:
    """From the start of the process until the first whole copy is visible; then the restore of it."""
    folder = bench.space.fresh(f"snapshot-{program.name}")
    database = Database(folder / "app.db", folder / "replica")
    copy(bench.database(bench.size(1024, 128)), database.path)
    size = database.path.stat().st_size
    with Watcher(database.replica) as watcher, Replicator(program, folder, [database]) as replicator:
        found = wait_for(
            "the snapshot", lambda: [each for each in watcher.peek() if is_snapshot(each, size)], 240, 0.01
        )
        cpu, peak = replicator.cpu, replicator.peak
        wall = (found[0].time - replicator.began) / SECOND
        time.sleep(bench.size(4, 1))  # 0.5 goes on to store a second whole copy
        written = replicator.written
    values = {
        "wall_s": wall,
        "cpu_s": cpu,
        "memory_mib": peak,
        "written_per_byte": written / size,
        "stored_mib": mib(stored(database.replica)[1]),
    }
    checked = not bench.short
    return values | measure_restore(program, database.replica, folder, fingerprint(database.path), checked=checked)


LINES = (Line("snapshot", "the first snapshot of 1 GiB (short form: 128 MiB), and its restore", measure, (3, 1)),)
