"""Restore: of a snapshot (goal 9, by the line `snapshot`), and of much WAL in many segments (goal 10)."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.data import fingerprint
from benchmarks.lines import Bench, Line, Values, restored
from benchmarks.measure import MIB, Replicator, wait_for
from benchmarks.objects import stored
from benchmarks.programs import Database, Program
from benchmarks.watch import Watcher
from benchmarks.writer import Load, Writer, seed

_RATE = 25.0
"""MiB of WAL a second while the replica is made, so that it has many segments and nobody falls behind."""


def measure_restore(
    program: Program, replica: Path, folder: Path, expected: tuple[int, ...], *, checked: bool
) -> dict[str, float]:
    """Without SQLite's check where there is a flag for that; with `checked` also with the quick one, apart."""
    read(replica)
    ran = restored(program, replica, folder, expected)
    values = {"restore_s": ran.wall, "restore_cpu_s": ran.cpu, "restore_memory_mib": ran.memory}
    if checked and program.checked is not None:
        ran = restored(program, replica, folder, expected, program.checked)
        values |= {"restore_checked_s": ran.wall, "restore_checked_cpu_s": ran.cpu}
    return values


def measure(bench: Bench, program: Program) -> Values:
    """Make a replica with this much WAL at intervals of 50 ms, then restore it."""
    folder = bench.space.fresh(f"wal-{program.name}")
    database = Database(folder / "app.db", folder / "replica", "50ms")
    seed(database.path)
    with Watcher(database.replica) as watcher, Replicator(program, folder, [database]):
        wait_for("the first object", watcher.count, 60)
        with Writer(database.path, Load(bench.size(300, 40) / _RATE, _RATE)) as writer:
            written = writer.run()
            time.sleep(3)
            writer.close()
    expected = fingerprint(database.path)
    first = restored(program, database.replica, folder, expected)  # the first one warms the page cache for the second
    second = restored(program, database.replica, folder, expected)
    return {
        "wal_mib": written.mib,
        "files": stored(database.replica)[0],
        "restore_s": min(first.wall, second.wall),
        "restore_cpu_s": min(first.cpu, second.cpu),
        "restore_memory_mib": max(first.memory, second.memory),
    }


def read(folder: Path) -> None:
    """Bring all files into the page cache: some programs write past it, and reading a disk is not what is compared."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(MIB):
                    pass


LINES = (Line("restore-wal", "the restore of 300 MiB of WAL in many segments (short form: 40 MiB)", measure, (2, 1)),)
