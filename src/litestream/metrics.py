"""Metrics: counters, gauges and histograms with labels, under the official names, in Prometheus' text form.

No dependency is imported before `expose`: counting must cost nothing at start-up. The text is written here and not by
prometheus_client, which adds `_total` to the name of every counter; the official names have no such ending.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Generic, Literal, TypeVar

Kind = Literal["counter", "gauge", "histogram"]
Sample = tuple[tuple[str, ...], float]


class Value:
    """One number of a family, with its labels. Safe to use from any thread."""

    __slots__ = ("_lock", "_number")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._number = 0.0

    @property
    def value(self) -> float:
        return self._number

    def inc(self, amount: float = 1.0) -> None:
        """Add. Counters never go down: `ValueError` for a negative amount."""
        if amount < 0:
            raise ValueError(f"a counter cannot go down: {amount}")
        with self._lock:
            self._number += amount

    def set(self, number: float) -> None:
        """Replace: for gauges, and for counters that are kept elsewhere."""
        with self._lock:
            self._number = float(number)


class Distribution:
    """How many numbers up to each bound there were, and their sum. Safe to use from any thread."""

    __slots__ = ("_bounds", "_counts", "_lock", "_sum")

    def __init__(self, lock: threading.Lock, bounds: tuple[float, ...]) -> None:
        self._lock = lock
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    @property
    def count(self) -> int:
        return sum(self._counts)

    @property
    def sum(self) -> float:
        return self._sum

    def observe(self, number: float) -> None:
        """Count one number."""
        place = bisect_left(self._bounds, number)
        with self._lock:
            self._counts[place] += 1
            self._sum += number

    def _cumulated(self) -> list[tuple[float, int]]:
        """(bound, numbers up to it); the last bound is infinite. The lock is held."""
        total = 0
        found = []
        for bound, count in zip((*self._bounds, math.inf), self._counts, strict=True):
            total += count
            found.append((bound, total))
        return found


Entry = TypeVar("Entry", Value, Distribution)


class _Labelled(ABC, Generic[Entry]):
    """All numbers of one name. A family without any is not shown, as in the official program."""

    def __init__(self, name: str, kind: Kind, text: str, labels: tuple[str, ...]) -> None:
        self.name = name
        self.kind = kind
        self.help = text
        self.label_names = labels
        self._lock = threading.Lock()
        self._values: dict[tuple[str, ...], Entry] = {}

    def labels(self, **labels: str) -> Entry:
        """The number with these labels, made (as 0) if need be. Keep it where it is used often."""
        key = tuple([labels.get(name, "") for name in self.label_names])
        if len(labels) == len(key) and (found := self._values.get(key)) is not None:
            return found  # the usual case, some 10,000 times a scrape
        if labels.keys() != set(self.label_names):
            raise ValueError(f"{self.name} has the labels {', '.join(self.label_names)}, not {', '.join(labels)}")
        with self._lock:
            if key not in self._values:
                self._values[key] = self._new()
            return self._values[key]

    def remove(self, **labels: str) -> None:
        """Forget every number that has these labels among its own: its database is no longer there."""
        places = [(self.label_names.index(name), value) for name, value in labels.items()]
        with self._lock:
            for key in [key for key in self._values if all(key[i] == value for i, value in places)]:
                del self._values[key]

    @abstractmethod
    def _new(self) -> Entry:
        """A number that begins."""

    @abstractmethod
    def _lines(self) -> Iterator[str]:
        """The lines of its numbers."""

    def _text(self) -> Iterator[str]:
        """The lines of this family; none if it has no numbers."""
        lines = self._lines()
        if (first := next(lines, None)) is not None:
            text = self.help.replace("\\", r"\\").replace("\n", r"\n")
            yield f"# HELP {self.name} {text}\n# TYPE {self.name} {self.kind}\n{first}"
            yield from lines


class Family(_Labelled[Value]):
    """Counters or gauges of one name."""

    def samples(self) -> list[Sample]:
        """Label values and number, sorted."""
        with self._lock:
            return sorted((key, value.value) for key, value in self._values.items())

    def _new(self) -> Value:
        return Value(self._lock)

    def _lines(self) -> Iterator[str]:
        return (_line(self.name, self.label_names, *sample) for sample in self.samples())


class Histogram(_Labelled[Distribution]):
    """Distributions of one name, counted up to each of `bounds`, which ascend."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...], bounds: tuple[float, ...]) -> None:
        super().__init__(name, "histogram", text, labels)
        self.bounds = bounds

    def _new(self) -> Distribution:
        return Distribution(self._lock, self.bounds)

    def _lines(self) -> Iterator[str]:
        with self._lock:
            found = sorted((key, value._cumulated(), value.sum) for key, value in self._values.items())
        for key, buckets, total in found:
            for bound, count in buckets:
                # `le` is compared as text: 1 and not 1.0, as the official program writes it.
                labels = (*self.label_names, "le"), (*key, _number(bound))
                yield _line(f"{self.name}_bucket", *labels, count)
            yield _line(f"{self.name}_sum", self.label_names, key, total)
            yield _line(f"{self.name}_count", self.label_names, key, buckets[-1][1])


_DB = ("db",)
_MODE = ("db", "mode")
_REPLICA = ("db", "name")
_BUDGET = ("budget",)
_CLASS = ("db", "name", "class")
_OPERATION = ("replica_type", "operation")
_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0)
"""Bounds of the official 0.5."""


class Metrics:
    """All families of one process. Names, types, labels and help texts are those of the official 0.3.13.

    `litestream_replica_snapshot_total` is the seed's; `litestream_txid`, `litestream_disk_full`, duration and errors of
    operations are those of 0.5, and the last ones are our own (docs/metrics.md). More can be added with `counter`,
    `gauge` and `histogram`.
    """

    def __init__(self) -> None:
        self._families: dict[str, Family | Histogram] = {}
        self._collectors: dict[Callable[[], None], None] = {}  # a dict for its order
        counter, gauge = self.counter, self.gauge
        self.db_size = gauge("db_size", "The current size of the real DB", _DB)
        self.wal_size = gauge("wal_size", "The current size of the real WAL", _DB)
        self.total_wal_bytes = counter("total_wal_bytes", "Total number of bytes written to shadow WAL", _DB)
        self.shadow_wal_index = gauge("shadow_wal_index", "The current index of the shadow WAL", _DB)
        self.shadow_wal_size = gauge("shadow_wal_size", "Current size of shadow WAL, in bytes", _DB)
        self.sync_count = counter("sync_count", "Number of sync operations performed", _DB)
        self.sync_error_count = counter("sync_error_count", "Number of sync errors that have occurred", _DB)
        self.sync_seconds = counter("sync_seconds", "Time spent syncing shadow WAL, in seconds", _DB)
        self.checkpoint_count = counter("checkpoint_count", "Number of checkpoint operations performed", _MODE)
        self.checkpoint_error_count = counter(
            "checkpoint_error_count", "Number of checkpoint errors that have occurred", _MODE
        )
        self.checkpoint_seconds = counter("checkpoint_seconds", "Time spent checkpointing WAL, in seconds", _MODE)
        self.txid = gauge("txid", "The current transaction ID", _DB)
        self.disk_full = gauge("disk_full", "Whether replication is paused because the local disk is full", _DB)
        self.replica_snapshot_total = gauge("replica_snapshot_total", "The current number of snapshots", _REPLICA)
        self.replica_wal_bytes = counter("replica_wal_bytes", "The number wal bytes written", _REPLICA)
        self.replica_wal_index = gauge("replica_wal_index", "The current WAL index", _REPLICA)
        self.replica_wal_offset = gauge("replica_wal_offset", "The current WAL offset", _REPLICA)
        self.replica_validation_total = counter(
            "replica_validation_total", "The number of validations performed", (*_REPLICA, "status")
        )
        self.replica_operation_total = counter(
            "replica_operation_total", "The number of replica operations performed", _OPERATION
        )
        self.replica_operation_bytes = counter(
            "replica_operation_bytes", "The number of bytes used by replica operations", _OPERATION
        )
        self.replica_operation_duration_seconds = self.histogram(
            "replica_operation_duration_seconds",
            "Duration of replica operations by type and operation",
            _OPERATION,
            _SECONDS,
        )
        self.replica_operation_errors_total = counter(
            "replica_operation_errors_total",
            "Number of replica operation errors by type, operation, and error code",
            (*_OPERATION, "code"),
        )

        # Ours: what the official program only logs, or does not have.
        self.db_error = gauge("db_error", "Whether the database is not being replicated, for whatever reason", _DB)
        self.replica_error = gauge("replica_error", "Whether the last upload failed", _REPLICA)
        self.replica_verified_timestamp_seconds = gauge(
            "replica_verified_timestamp_seconds", "When a validation last proved the replica good or bad", _REPLICA
        )
        self.replica_verified_ok = gauge(
            "replica_verified_ok", "Whether that validation found the database in the replica", _REPLICA
        )
        self.replica_lag_seconds = gauge(
            "replica_lag_seconds", "Age of the oldest commit that is not durable in the replica", _REPLICA
        )
        self.replica_lag_bytes = gauge("replica_lag_bytes", "Bytes of WAL that the replica lacks", _REPLICA)
        self.replica_last_upload_timestamp_seconds = gauge(
            "replica_last_upload_timestamp_seconds", "When something was last stored there, 0 if nothing yet", _REPLICA
        )
        self.replica_requests_total = counter(
            "replica_requests_total", "Requests to the store, by the class in which services bill them", _CLASS
        )
        self.replica_request_cost_dollars_total = counter(
            "replica_request_cost_dollars_total", "What these requests cost at list prices, in US dollars", _CLASS
        )
        self.shadow_wal_bytes = gauge("shadow_wal_bytes", "Bytes on disk that are kept for the replicas", _DB)
        self.wal_pinned_seconds = gauge(
            "wal_pinned_seconds", "For how long a reader has kept the WAL from restarting", _DB
        )
        self.seal_seconds_max = gauge("seal_seconds_max", "Longest time for which writers were held back", _DB)
        self.follower_connected = gauge("follower_connected", "Whether the database follows its upstream now", _DB)
        self.follower_lag_seconds = gauge(
            "follower_lag_seconds", "For how long the database has not been following, 0 while it does", _DB
        )
        self.request_budget_used = gauge("request_budget_used", "Requests counted in this month (UTC)", _BUDGET)
        self.request_budget_max = gauge("request_budget_max", "Requests allowed in a month, 0 for no cap", _BUDGET)

    def counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Family:
        """A family of numbers that only go up. `name` without the prefix `litestream_`."""
        family = Family(f"litestream_{name}", "counter", text, labels)
        self._add(family)
        return family

    def gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Family:
        """A family of numbers that go up and down. `name` without the prefix `litestream_`."""
        family = Family(f"litestream_{name}", "gauge", text, labels)
        self._add(family)
        return family

    def histogram(self, name: str, text: str, labels: tuple[str, ...], bounds: Sequence[float]) -> Histogram:
        """A family of distributions, counted up to each of `bounds`. `name` without the prefix `litestream_`."""
        if not bounds or list(bounds) != sorted(set(bounds)) or not all(map(math.isfinite, bounds)):
            raise ValueError(f"bounds are finite and ascend: {bounds}")
        family = Histogram(f"litestream_{name}", text, labels, tuple(bounds))
        self._add(family)
        return family

    def families(self) -> list[Family | Histogram]:
        """All families, by name."""
        return sorted(self._families.values(), key=lambda family: family.name)

    def before_collect(self, collector: Callable[[], None]) -> Callable[[], None]:
        """Have `collector` called before each scrape, to set what is kept elsewhere. Returns how to stop that."""
        self._collectors[collector] = None

        def stop() -> None:
            self._collectors.pop(collector, None)

        return stop

    def forget_database(self, path: str) -> None:
        """Drop every number of a database that is no longer replicated."""
        for family in self.families():
            if "db" in family.label_names:
                family.remove(db=path)

    def forget_replica(self, path: str, name: str) -> None:
        """Drop every number of a replica that a database no longer has."""
        for family in self.families():
            if {"db", "name"} <= set(family.label_names):
                family.remove(db=path, name=name)
            elif family.label_names == _BUDGET:
                family.remove(budget=budget_name(path, name))

    def collect(self) -> None:
        """Bring everything up to date."""
        for _ in self.collecting():
            pass

    def collecting(self) -> Iterator[None]:
        """The same in steps, one collector each; one that has been stopped between two of them is left out."""
        for collector in list(self._collectors):
            if collector in self._collectors:
                collector()
            yield

    def _add(self, family: Family | Histogram) -> None:
        if family.name in self._families:
            raise ValueError(f"there is a metric of this name already: {family.name}")
        self._families[family.name] = family


def budget_name(path: str, name: str) -> str:
    """The label of what is counted for a replica in months."""
    return f"{path}({name})"


DEFAULT = Metrics()
"""What is used where no other instance is given."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


_AT_ONCE = 200
"""Lines that are written in one go: about 1 ms."""
_SLICE = 0.005
"""Seconds of work on a scrape after which others have their turn."""


def expose(metrics: Metrics) -> bytes:
    """Everything in Prometheus' text format 0.0.4, followed by what prometheus_client tells of the process itself."""
    return b"".join(_parts(metrics))


async def expose_in_turns(metrics: Metrics) -> bytes:
    """The same without holding up the event loop: with 1,000 databases it is some 100 ms of work."""
    parts, since = [], time.perf_counter()
    for part in _parts(metrics):
        parts.append(part)
        if time.perf_counter() - since > _SLICE:
            await asyncio.sleep(0)
            since = time.perf_counter()
    return b"".join(parts)


def _parts(metrics: Metrics) -> Iterator[bytes]:
    """The text in pieces, with little work between two of them."""
    for _ in metrics.collecting():
        yield b""
    for family in metrics.families():
        text = family._text()
        while lines := "".join(islice(text, _AT_ONCE)):
            yield lines.encode("utf-8")
    yield _process()


def _line(name: str, label_names: Sequence[str], values: Sequence[str], number: float) -> str:
    labels = ",".join([f'{label}="{_escape(value)}"' for label, value in zip(label_names, values, strict=True)])
    return f"{name}{f'{{{labels}}}' if labels else ''} {_number(number)}\n"


def _escape(value: str) -> str:
    if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
        return value
    # Bytes of a path that are no UTF-8 are shown as \udcXX; then that backslash is escaped like any other.
    value = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(number: float) -> str:
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    return str(int(number)) if float(number).is_integer() else repr(number)


def _process() -> bytes:
    """CPU time, memory, descriptors and the version of Python: counterparts of the official Go and process metrics."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.gc_collector import GCCollector
    from prometheus_client.platform_collector import PlatformCollector
    from prometheus_client.process_collector import ProcessCollector

    registry = CollectorRegistry()
    for collector in (GCCollector, PlatformCollector, ProcessCollector):
        collector(registry=registry)
    return generate_latest(registry)
