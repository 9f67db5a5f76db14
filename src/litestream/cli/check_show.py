"""What `check` prints: the table of operations, what is missing, and the estimate of a month."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from litestream.cli.generations import shown_lag
from litestream.cli.tables import table
from litestream.config import DatabaseConfig, ReplicaConfig
from litestream.core.costs import AS_OF, MINUTE, Intervals, Prices, Usage, prices_of, usage
from litestream.core.durations import format_duration
from litestream.daemon.logs import safe
from litestream.storage.probe import NEEDED, Finding, Operation, Status, is_usable
from litestream.storage.protocol import Store
from litestream.storage.rights import right_for
from litestream.storage.wrappers.requests import requests_of

_GB = 1e9


@dataclass(frozen=True)
class Checked:
    """One replica, tried."""

    database: DatabaseConfig | None
    replica: ReplicaConfig
    store: Store
    findings: Sequence[Finding]

    @property
    def is_usable(self) -> bool:
        """Whether replicating and restoring will work."""
        return is_usable(self.findings)

    @cached_property
    def estimate(self) -> Estimate | None:
        """Requests of a month; None where there is no database, or requests cost nothing and nobody counts them."""
        if self.database is None or self.replica.type == "file":
            return None
        return Estimate.of(self.database, self.replica, self.store)

    def right(self, finding: Finding) -> str:
        """What is to be allowed where an operation was denied."""
        if finding.status is not Status.DENIED:
            return ""
        backend = self.replica.backend
        place = {"bucket": getattr(backend, "bucket", ""), "path": getattr(backend, "path", "")}
        return right_for(self.replica.type, finding.operation, **place)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Requests and cost of a month; `size` is that of the database in bytes, 0 if it is not there."""

    intervals: Intervals
    worst: Usage
    typical: Usage
    prices: Prices | None
    size: int
    cap: int

    @classmethod
    def of(cls, database: DatabaseConfig, replica: ReplicaConfig, store: Store) -> Estimate:
        """From the intervals of the configuration and the size of the database."""
        intervals = Intervals(
            replica.sync_interval, replica.snapshot_interval, replica.retention, replica.retention_check_interval
        )
        try:
            size = os.stat(database.path).st_size
        except OSError:
            size = 0
        each = requests_of(store, "PUT", size=size)
        lease = replica.lease is not False and store.conditional
        cap = replica.max_requests.per_month if replica.max_requests is not None else None
        return cls(
            intervals,
            usage(intervals, 0.0, snapshot_requests=each, lease=lease),
            usage(intervals, MINUTE, snapshot_requests=each, lease=lease),
            prices_of(replica.type, getattr(replica.backend, "endpoint", "")),
            size,
            cap or 0,
        )

    @property
    def stored(self) -> float:
        """GB of snapshots, if they could not be compressed at all."""
        return self.size * self.intervals.snapshots_kept / _GB

    @property
    def warning(self) -> str:
        """What is wrong with the cap, empty if nothing."""
        if not self.cap or self.worst.total <= self.cap:
            return ""
        return (
            f"max-requests.per-month is {self.cap}, less than the {self.worst.total} of the worst case: at the cap "
            "nothing is uploaded any more until the month ends"
        )


def text(checked: Checked) -> str:
    """The report on one replica."""
    database = f" of {checked.database.path}" if checked.database is not None else ""
    lines = [f"replica {checked.replica.label}{database}: {checked.store.url}", ""]
    rows = [_row(finding) for finding in checked.findings]
    found = table(["operation", "result", "latency", "needed for", "note"], rows)
    parts = [_lines(lines), found, "\n", _lines(_verdict(checked))]
    if checked.estimate is not None:
        parts += ["\n", _estimate(checked.estimate)]
    return re.sub(" +\n", "\n", "".join(parts))  # of notes that are empty


def _row(finding: Finding) -> list[str]:
    latency = shown_lag(finding.seconds)
    note = "see below" if finding.is_fault else finding.note
    return [finding.operation, finding.status, latency, ", ".join(NEEDED[finding.operation]) or "-", note]


def _verdict(checked: Checked) -> list[str]:
    lines = []
    for finding in checked.findings:
        if not finding.is_fault:
            continue
        uses = ", ".join(NEEDED[finding.operation])
        what = f"{finding.operation}, needed for {uses}" if uses else str(finding.operation)
        lines.append(f"{finding.status}: {what}: {finding.note}")
        if right := checked.right(finding):
            lines.append(f"  allow {right}")
    if any(finding.operation is Operation.DELETE and finding.status is Status.DENIED for finding in checked.findings):
        lines.append(
            "without the right to delete set retention: 0s here, and run `litestream prune` where there is that right"
        )
    if checked.replica.age is None:
        lines.append("age is off: what is stored is not encrypted by this program")
    works = "everything works" if checked.is_usable else "NOT everything works"
    return [*lines, f"{works} that replicating and restoring need"]


def _estimate(estimate: Estimate) -> str:
    prices = estimate.prices
    rows = [
        [name, str(use.put), str(use.list), str(use.get), str(use.delete), _money(use, prices)]
        for name, use in (("worst case", estimate.worst), ("typical", estimate.typical))
    ]
    every = format_duration(max(estimate.intervals.sync, MINUTE))
    worst = format_duration(estimate.intervals.sync)
    lines = [
        f"worst case: a change in every sync-interval ({worst}), day and night; typical: one upload every {every}",
        "while nothing changes there is no PUT",
    ]
    if prices is None:
        lines.append("no price of requests is known for this service")
    else:
        lines.append(f"prices: {prices.where}, list prices of {AS_OF}, without free allowances and traffic")
        if estimate.size:
            cost = prices.stored(estimate.stored)
            lines.append(
                f"stored: at most {estimate.stored:.3f} GB of snapshots (${cost:.2f}), less by compression; WAL besides"
            )
        else:
            lines.append("stored: unknown, the database is not there")
    if estimate.warning:
        lines.append(f"Warning: {estimate.warning}")
    head = "estimate for 30 days, from the intervals of the configuration:\n"
    return head + table(["", "PUT", "LIST", "GET", "DELETE", "cost"], rows) + _lines(lines)


def _money(use: Usage, prices: Prices | None) -> str:
    if prices is None:
        return "-"
    cost = use.cost(prices)
    return f"${cost:.2f}" if cost >= 0.01 or not cost else "<$0.01"


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{safe(line)}\n" for line in lines)


def document(checked: Checked) -> dict[str, object]:
    """The JSON form."""
    return {
        "replica": checked.replica.label,
        "database": checked.database.path if checked.database is not None else None,
        "type": checked.replica.type,
        "url": checked.store.url,
        "usable": checked.is_usable,
        "encrypted": checked.replica.age is not None,
        "readable": getattr(checked.store, "readable", True),
        "operations": [
            {
                "operation": finding.operation,
                "result": finding.status,
                "latency_seconds": finding.seconds,
                "needed_for": list(NEEDED[finding.operation]),
                "note": finding.note,
                "right": checked.right(finding),
            }
            for finding in checked.findings
        ],
        "estimate": _estimate_document(checked.estimate) if checked.estimate is not None else None,
    }


def _estimate_document(estimate: Estimate) -> dict[str, object]:
    prices = estimate.prices

    def use(usage: Usage) -> dict[str, object]:
        counts = {"put": usage.put, "list": usage.list, "get": usage.get, "delete": usage.delete}
        return {**counts, "requests": usage.total, "cost_usd": round(usage.cost(prices), 4) if prices else None}

    return {
        "days": 30,
        "worst_case": use(estimate.worst),
        "typical": use(estimate.typical),
        "prices": prices.where if prices else None,
        "prices_as_of": AS_OF if prices else None,
        "snapshots_gb": round(estimate.stored, 6) if estimate.size else None,
        "storage_usd": round(prices.stored(estimate.stored), 4) if prices and estimate.size else None,
        "max_requests_per_month": estimate.cap or None,
        "warning": estimate.warning or None,
    }
