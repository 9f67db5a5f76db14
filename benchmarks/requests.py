"""Requests while an application writes, counted at an S3 server, beside what `litestream.core.costs` reckons."""

from __future__ import annotations

import math
import time

from benchmarks.counting import S3Server
from benchmarks.data import TABLE, application
from benchmarks.lines import Bench, Line, Values
from benchmarks.measure import SECOND, Replicator, now, wait_for
from benchmarks.objects import stored
from benchmarks.programs import Database, Program
from litestream.core.costs import MONTH, Intervals, usage

SYNC = 1.0
"""Seconds: the default sync-interval of all three."""
_CHANGE = 0.2
"""Seconds between two transactions: denser than the interval, so that it is the interval that counts."""


def predicted_puts(seconds: float, change: float, sync: float = SYNC) -> int:
    """Uploads of a stretch of time in which the database changes every `change` seconds, by the month's formula."""
    without_snapshots = Intervals(sync=sync, snapshot=0.0, retention=0.0, retention_check=0.0)
    month = usage(without_snapshots, change).put - 1  # the first snapshot
    return math.ceil(month * seconds / MONTH)


def measure(bench: Bench, program: Program) -> Values:
    """Transactions at a steady rate; what the server was asked from the first until all had arrived."""
    folder = bench.space.fresh(f"requests-{program.name}")
    with S3Server(folder / "s3") as server, application(folder / "app.db") as connection:
        connection.execute(TABLE)
        database = Database(folder / "app.db", folder / "unused", bucket=server.bucket)
        with Replicator(program, folder, [database]):
            wait_for("the first object", lambda: stored(server.root)[0], 60, 0.1)
            time.sleep(bench.size(4, 4))  # until the snapshot is over
            server.proxy.reset()
            count = max(5, round(bench.size(15, 8) / _CHANGE))
            began = now()
            for number in range(count):
                connection.execute("INSERT INTO t(k, m) VALUES(?, 'row')", (number,))
                time.sleep(max(0.0, (number + 1) * _CHANGE - (now() - began) / SECOND))
            seconds = (now() - began) / SECOND
            time.sleep(2 * SYNC + 0.5)
            counts = dict(server.proxy.counts)
    return {
        "transactions": count,
        "predicted_puts": predicted_puts(seconds, _CHANGE),
        "puts": counts.get("PUT", 0),
        "lists": counts.get("LIST", 0),
        "gets": counts.get("GET", 0) + counts.get("HEAD", 0),
        "puts_per_transaction": counts.get("PUT", 0) / count,
    }


LINES = (Line("requests", "five transactions a second, to an S3 server that counts requests", measure, (1, 0)),)
