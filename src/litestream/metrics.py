"""Metrics: counters and gauges with labels, under the official names, and their text form for Prometheus.

No dependency is imported before `expose`: counting must cost nothing at start-up. The text is written here and not by
prometheus_client, which adds `_total` to the name of every counter; the official names have no such ending.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Literal

Kind = Literal["counter", "gauge"]


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


class Family:
    """All numbers of one name. A family without any is not shown, as in the official program."""

    def __init__(self, name: str, kind: Kind, text: str, labels: tuple[str, ...]) -> None:
        self.name = name
        self.kind = kind
        self.help = text
        self.label_names = labels
        self._lock = threading.Lock()
        self._values: dict[tuple[str, ...], Value] = {}

    def labels(self, **labels: str) -> Value:
        """The number with these labels, made (as 0) if need be. Keep it where it is used often."""
        if labels.keys() != set(self.label_names):
            raise ValueError(f"{self.name} has the labels {', '.join(self.label_names)}, not {', '.join(labels)}")
        key = tuple(labels[name] for name in self.label_names)
        with self._lock:
            if key not in self._values:
                self._values[key] = Value(self._lock)
            return self._values[key]

    def remove(self, **labels: str) -> None:
        """Forget every number that has these labels among its own: its database is no longer there."""
        places = [(self.label_names.index(name), value) for name, value in labels.items()]
        with self._lock:
            for key in [key for key in self._values if all(key[i] == value for i, value in places)]:
                del self._values[key]

    def samples(self) -> list[tuple[tuple[str, ...], float]]:
        """Label values and number, sorted."""
        with self._lock:
            return sorted((key, value.value) for key, value in self._values.items())


_DB = ("db",)
_MODE = ("db", "mode")
_REPLICA = ("db", "name")
_OPERATION = ("replica_type", "operation")


class Metrics:
    """All families of one process. Names, types, labels and help texts are those of the official 0.3.13.

    `litestream_replica_snapshot_total` is the seed's, and the last ones are our own. More can be added with `counter`
    and `gauge`.
    """

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}
        self._collectors: list[Callable[[], None]] = []
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

        # Ours: what the official program only logs.
        self.db_error = gauge("db_error", "Whether the database is not being replicated, for whatever reason", _DB)
        self.replica_error = gauge("replica_error", "Whether the last upload failed", _REPLICA)
        self.wal_pinned_seconds = gauge(
            "wal_pinned_seconds", "For how long a reader has kept the WAL from restarting", _DB
        )
        self.seal_seconds_max = gauge("seal_seconds_max", "Longest time for which writers were held back", _DB)

    def counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Family:
        """A family of numbers that only go up. `name` without the prefix `litestream_`."""
        return self._add(name, "counter", text, labels)

    def gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Family:
        """A family of numbers that go up and down. `name` without the prefix `litestream_`."""
        return self._add(name, "gauge", text, labels)

    def families(self) -> list[Family]:
        """All families, by name."""
        return sorted(self._families.values(), key=lambda family: family.name)

    def before_collect(self, collector: Callable[[], None]) -> Callable[[], None]:
        """Have `collector` called before each scrape, to set what is kept elsewhere. Returns how to stop that."""
        self._collectors.append(collector)

        def stop() -> None:
            if collector in self._collectors:
                self._collectors.remove(collector)

        return stop

    def collect(self) -> None:
        """Bring everything up to date."""
        for collector in list(self._collectors):
            collector()

    def _add(self, name: str, kind: Kind, text: str, labels: tuple[str, ...]) -> Family:
        name = f"litestream_{name}"
        if name in self._families:
            raise ValueError(f"there is a metric of this name already: {name}")
        family = self._families[name] = Family(name, kind, text, labels)
        return family


DEFAULT = Metrics()
"""What is used where no other instance is given."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def expose(metrics: Metrics) -> bytes:
    """Everything in Prometheus' text format 0.0.4, followed by what prometheus_client tells of the process itself."""
    metrics.collect()
    lines: list[str] = []
    for family in metrics.families():
        if samples := family.samples():
            lines += _lines(family, samples)
    return "".join(lines).encode("utf-8") + _process()


def _lines(family: Family, samples: list[tuple[tuple[str, ...], float]]) -> list[str]:
    text = family.help.replace("\\", r"\\").replace("\n", r"\n")
    lines = [f"# HELP {family.name} {text}\n", f"# TYPE {family.name} {family.kind}\n"]
    for values, number in samples:
        labels = ",".join(f'{name}="{_escape(value)}"' for name, value in zip(family.label_names, values, strict=True))
        lines.append(f"{family.name}{f'{{{labels}}}' if labels else ''} {_number(number)}\n")
    return lines


def _escape(value: str) -> str:
    # Bytes of a path that are no UTF-8 are shown as \udcXX; then that backslash is escaped like any other.
    value = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(number: float) -> str:
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    return str(int(number)) if number.is_integer() else repr(number)


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
