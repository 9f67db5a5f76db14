"""Restarts: after the application's checkpoint while nobody replicated (goal 15), and of a database at rest (16)."""

from __future__ import annotations

import random
import time
from pathlib import Path

from benchmarks.counting import S3Server
from benchmarks.data import Bodies, application, copy, fingerprint
from benchmarks.lines import Bench, Line, Values, mib, restored
from benchmarks.measure import SECOND, Replicator, now, wait_for
from benchmarks.objects import stored
from benchmarks.programs import BenchError, Database, Program
from benchmarks.snapshot import is_snapshot
from benchmarks.watch import Seen, Watcher

_PART = 0.01
"""Pages that change while nobody replicates."""
_REST = 10.0
"""Seconds at rest before the end, so that what is done in quiet moments has been done."""


_TOGETHER = 0.3 * SECOND
"""Nanoseconds without a new object after which a restore is tried."""


def _change(path: Path) -> None:
    """Change about one page in a hundred, checkpoint, and close: the WAL is empty afterwards."""
    bodies, source = Bodies(9), random.Random(9)
    with application(path) as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        last = connection.execute("SELECT max(id) FROM t").fetchone()[0]
        chosen = source.sample(range(1, last + 1), min(last, round(pages * _PART)))
        connection.execute("BEGIN")
        for row in chosen:
            # As long as before, so that only the page of this row changes.
            (length,) = connection.execute("SELECT length(body) FROM t WHERE id = ?", (row,)).fetchone()
            body = bodies.one(80, 900).ljust(length, b".")[:length]
            connection.execute("UPDATE t SET body = ? WHERE id = ?", (body, row))
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def catch_up(bench: Bench, program: Program) -> Values:
    """Bytes and time until the replica has what happened meanwhile, beside those of a first snapshot."""
    folder = bench.space.fresh(f"catchup-{program.name}")
    database = Database(folder / "app.db", folder / "replica")
    copy(bench.database(bench.size(1024, 64)), database.path)
    size = database.path.stat().st_size
    with Watcher(database.replica) as watcher:
        with Replicator(program, folder, [database]) as replicator:
            whole = wait_for("the snapshot", lambda: _first_whole(watcher, size), 240, 0.02)
            snapshot_s = (whole.time - replicator.began) / SECOND
            time.sleep(bench.size(_REST, 3))
            replicator.settle(30)
        _change(database.path)
        expected = fingerprint(database.path)
        before, began = watcher.count(), now()
        with Replicator(program, folder, [database]) as replicator:
            arrived = _until_equal(program, watcher, before, folder, database, expected)
            cpu = replicator.cpu
        new = [each for each in watcher.peek()[before:] if each.time <= arrived]
    uploaded = sum(each.size for each in new)
    return {
        "snapshot_s": snapshot_s,
        "snapshot_mib": mib(whole.size),
        "uploaded_mib": mib(uploaded),
        "uploaded_per_snapshot": uploaded / whole.size,
        "wall_s": (arrived - began) / SECOND,
        "wall_per_snapshot": (arrived - began) / SECOND / snapshot_s,
        "cpu_s": cpu,
    }


def _first_whole(watcher: Watcher, size: int) -> Seen | None:
    return next((each for each in watcher.peek() if is_snapshot(each, size)), None)


def _until_equal(
    program: Program, watcher: Watcher, before: int, folder: Path, database: Database, expected: tuple[int, ...]
) -> int:
    """When the last object became visible that was needed until a restore gave what the application had."""
    until, tried = time.monotonic() + 240, before
    while time.monotonic() < until:
        seen = watcher.peek()
        # What comes together is needed together: a restore finds what became visible after it was begun, too.
        if len(seen) > tried and now() - seen[-1].time > _TOGETHER:
            tried = len(seen)
            try:
                restored(program, database.replica, folder, expected)
                return seen[tried - 1].time
            except BenchError:
                continue  # not all of it is there yet
        time.sleep(0.05)
    raise BenchError(f"{program.name} did not catch up in 240 s")


def at_rest(bench: Bench, program: Program) -> Values:
    """Requests of a restart at which nothing has changed, and of a time at rest afterwards, at an S3 server."""
    folder = bench.space.fresh(f"rest-{program.name}")
    with S3Server(folder / "s3") as server:
        database = Database(folder / "app.db", folder / "unused", bucket=server.bucket)
        copy(bench.database(bench.size(32, 4)), database.path)
        with Replicator(program, folder, [database]) as replicator:
            wait_for("the snapshot", lambda: stored(server.root)[1] > database.path.stat().st_size * 0.1, 120, 0.1)
            time.sleep(bench.size(_REST, 3))
            replicator.settle(20)
        before = stored(server.root)
        server.proxy.reset()
        with Replicator(program, folder, [database]):
            time.sleep(bench.size(_REST, 4))
            start = dict(server.proxy.counts)
            server.proxy.reset()
            time.sleep(bench.size(30, 4))
            later = dict(server.proxy.counts)
        grown = stored(server.root)[1] - before[1]
    writes = sum(counts.get(kind, 0) for counts in (start, later) for kind in ("PUT", "POST", "DELETE"))
    return {
        "writes": writes,
        "start_requests": sum(start.values()),
        "start_lists": start.get("LIST", 0),
        "later_requests": sum(later.values()),
        "bytes": grown,
    }


LINES = (
    Line("catch-up", "restart after 1 % of the pages of 1 GiB changed and were checkpointed", catch_up, (2, 0)),
    Line("at-rest", "restart with nothing changed, and half a minute at rest", at_rest, (1, 0)),
)
