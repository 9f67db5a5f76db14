"""What replicating costs a month, at each provider: `python -m benchmarks.costs --databases 100 --change 10`.

The requests are those of `litestream.core.costs`, which `litestream check` uses as well; the benchmark
`requests` counts them. `--write` makes the tables and plots of docs/costs.md anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from benchmarks import plots
from benchmarks.programs import NAMES
from benchmarks.report import IMAGES, number, replaced, table
from benchmarks.results import FULL, KEPT, ROOT, Results, newest
from litestream.core.costs import AS_OF, MONTH, PRICES, Intervals, Prices, Usage, usage

PAGE = ROOT / "docs" / "costs.md"
DAY, GB, MB = 86400.0, 1e9, 1e6
DEFAULTS = Intervals(sync=1.0, snapshot=0.0, retention=DAY, retention_check=3600.0)
SNAPSHOT_RATIO, WAL_RATIO = 0.7, 0.65
"""Stored bytes for a byte of the benchmarks' databases and WAL; text compresses better, media do not."""
_CHANGES = (1.0, 10.0, 60.0, 600.0, 3600.0)
_COUNTS = (1, 10, 100, 1000)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Databases that are alike.

    Attributes:
        databases: how many.
        change: seconds between two transactions of each.
        size: bytes of each.
        wal: bytes of WAL that a transaction makes.
    """

    databases: int = 1
    change: float = 60.0
    size: float = 100 * MB
    wal: float = 16_000.0
    intervals: Intervals = DEFAULTS
    lease: bool = True

    @property
    def requests(self) -> Usage:
        """Of a month, of all."""
        each = usage(self.intervals, self.change, lease=self.lease)
        return Usage(*(self.databases * count for count in (each.put, each.list, each.get, each.delete)))

    @property
    def wal_a_month(self) -> float:
        """Bytes of WAL segments, of all."""
        return self.databases * MONTH / self.change * self.wal * WAL_RATIO

    @property
    def sent(self) -> float:
        """Bytes uploaded in a month."""
        snapshots = max(1.0, MONTH / self.intervals.snapshots)
        return self.databases * snapshots * self.size * SNAPSHOT_RATIO + self.wal_a_month

    @property
    def stored(self) -> float:
        """Bytes in the replicas: the snapshots that are kept, and the WAL of the retention."""
        kept = min(MONTH, self.intervals.retention or MONTH) / MONTH
        snapshots = self.databases * self.intervals.snapshots_kept * self.size * SNAPSHOT_RATIO
        return snapshots + self.wal_a_month * kept


def by_provider(fleet: Fleet) -> str:
    """Requests, storage and their sum."""
    rows = []
    for prices in PRICES.values():
        requests, storage = fleet.requests.cost(prices), prices.stored(fleet.stored / GB)
        rows.append([prices.where, *(f"${amount:,.2f}" for amount in (requests, storage, requests + storage))])
    return table(["provider", "requests", "storage", "a month"], rows)


def summary(fleet: Fleet) -> str:
    """What is done in a month."""
    found = fleet.requests
    return (
        f"{fleet.databases:,} databases of {fleet.size / MB:,.0f} MB, each with a transaction every "
        f"{fleet.change:g} s of {fleet.wal / 1000:g} kB of WAL: "
        f"{found.put:,} PUT, {found.list:,} LIST, {found.get:,} GET, {found.delete:,} DELETE; "
        f"{fleet.sent / GB:,.1f} GB sent, {fleet.stored / GB:,.1f} GB stored.\n"
    )


def by_rate(fleet: Fleet, changes: Iterable[float] = _CHANGES) -> str:
    """Requests and their price against the write rate, for one database."""
    rows = []
    for change in changes:
        one = replace(fleet, databases=1, change=change)
        found = one.requests
        costs = [f"${found.cost(PRICES[name]):,.2f}" for name in ("s3", "r2", "b2")]
        rows.append([f"{change:g} s", *(f"{count:,}" for count in (found.put, found.list, found.delete)), *costs])
    return table(["a change every", "PUT", "LIST", "DELETE", "AWS S3", "R2", "B2"], rows)


def by_count(fleet: Fleet, counts: Iterable[int] = _COUNTS) -> str:
    """The same against the number of databases."""
    rows = []
    for count in counts:
        many = replace(fleet, databases=count)
        sizes = [f"{size / GB:,.1f} GB" for size in (many.sent, many.stored)]
        amounts = [many.requests.cost(price) + price.stored(many.stored / GB) for price in _some()]
        rows.append([f"{count:,}", f"{many.requests.total:,}", *sizes, *(f"${amount:,.2f}" for amount in amounts)])
    return table(["databases", "requests", "sent", "stored", "AWS S3", "R2", "B2", "Hetzner"], rows)


def _some() -> list[Prices]:
    return [PRICES[name] for name in ("s3", "r2", "b2", "hetzner")]


def memory(results: Results | None) -> dict[str, list[tuple[float, float]]]:
    """MiB by the number of databases, as far as they were measured."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name in NAMES:
        for count in (1, 100, 300, 1000):
            value = results.median(f"idle-{count}", name, "memory_mib") if results else None
            if value is not None:
                found.setdefault(name, []).append((count, value))
    return found


def memory_table(measured: dict[str, list[tuple[float, float]]]) -> str:
    """The same as a table."""
    counts = sorted({count for points in measured.values() for count, _ in points})
    rows = [[f"{count:,.0f}", *(number(dict(measured.get(name, [])).get(count)) for name in NAMES)] for count in counts]
    return table(["databases at rest", *(f"{name}, MiB" for name in NAMES)], rows)


def write(fleet: Fleet, results: Results | None) -> None:
    """Make the generated parts and the plots of the page anew."""
    steps = [0.1 * 10 ** (power / 4) for power in range(20)]
    lines = {
        f"{count:,} databases": [
            (change, replace(fleet, databases=count, change=change).requests.total) for change in steps
        ]
        for count in _COUNTS
    }
    axes = ("seconds between two transactions", "requests a month")
    plots.curves(IMAGES / "costs-requests.svg", "Requests, default configuration", axes, lines)
    text = PAGE.read_text(encoding="utf-8")
    text = replaced(text, "by rate", by_rate(fleet))
    text = replaced(text, "by count", by_count(fleet))
    text = replaced(
        text, "by provider", f"{summary(replace(fleet, databases=100))}\n{by_provider(replace(fleet, databases=100))}"
    )
    if measured := memory(results):
        plots.curves(IMAGES / "costs-memory.svg", "Memory at rest", ("databases", "MiB"), measured)
        text = replaced(
            text, "memory", f"{memory_table(measured)}\n![Memory against databases](images/costs-memory.svg)\n"
        )
    PAGE.write_text(text, encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """The options."""
    usual = Fleet()
    made = argparse.ArgumentParser(prog="python -m benchmarks.costs", description="what replicating costs a month")
    made.add_argument("--databases", type=int, default=usual.databases, help="default: %(default)s")
    made.add_argument("--change", type=float, default=usual.change, help="seconds between transactions; default: 60")
    made.add_argument("--size", type=float, default=usual.size / MB, help="MB of each database; default: 100")
    made.add_argument("--wal", type=float, default=usual.wal / 1000, help="kB of WAL of a transaction; default: 16")
    made.add_argument("--sync", type=float, default=1.0, help="sync-interval, seconds; default: 1")
    made.add_argument("--retention", type=float, default=24.0, help="hours; default: 24")
    made.add_argument("--snapshots", type=float, default=0.0, help="snapshot-interval, hours; default: by retention")
    made.add_argument("--no-lease", action="store_true", help="lease: off")
    made.add_argument("--write", action="store_true", help="make the tables and plots of docs/costs.md anew")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    options = parser().parse_args(argv)
    intervals = Intervals(options.sync, options.snapshots * 3600, options.retention * 3600, 3600.0)
    fleet = Fleet(
        options.databases, options.change, options.size * MB, options.wal * 1000, intervals, not options.no_lease
    )
    if options.write:
        write(Fleet(), newest(KEPT, FULL))
    else:
        print(f"{summary(fleet)}\n{by_provider(fleet)}\nList prices of {AS_OF}, without free allowances and traffic.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
