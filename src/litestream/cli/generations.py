"""`litestream generations`: the generations of a database's replicas, and how far each is behind."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from litestream.cli.common import COMMON, JSON, REPLICA, TARGET_MISSING
from litestream.cli.flags import FlagSet, Parsed
from litestream.cli.listing import collect, shown_time
from litestream.cli.tables import write_entries
from litestream.core.durations import format_duration

if TYPE_CHECKING:
    from litestream.client import GenerationView, Overview
    from litestream.config import DatabaseConfig

FLAGS = FlagSet(
    verb="generations",
    usage="generations [flags] DB_PATH\ngenerations [flags] REPLICA_URL",
    about=(
        "List the generations of a database. The lag is the time from the newest object to the last change of the\n"
        "database or its WAL; it is - for a URL or where the database is not there."
    ),
    flags=(*COMMON, REPLICA, JSON),
    min_args=1,
    max_args=1,
    missing=TARGET_MISSING,
)


@dataclass(frozen=True, slots=True)
class Row:
    replica: str
    generation: str
    lag: float | None
    start: float
    end: float


def run(parsed: Parsed) -> int:
    rows, code = collect(parsed, _rows)
    entries = [
        {
            "name": row.replica,
            "generation": row.generation,
            "lag": shown_lag(row.lag),
            "start": shown_time(row.start),
            "end": shown_time(row.end),
            "lag_seconds": row.lag,
        }
        for row in rows
    ]
    write_entries(parsed, ["name", "generation", "lag", "start", "end"], entries)
    return code


def _rows(database: DatabaseConfig | None, name: str, overview: Overview) -> list[Row]:
    changed = changed_at(database.path) if database is not None else None
    rows = []
    for generation, view in overview.items():
        start, end = bounds(view)
        rows.append(Row(name, generation, None if changed is None else changed - end, start, end))
    return rows


def bounds(view: GenerationView) -> tuple[float, float]:
    """Times of the oldest and of the newest object of a generation."""
    times = [snapshot.created_at for snapshot in view.snapshots] + [segment.created_at for segment in view.segments]
    return min(times), max(times)


def changed_at(path: str) -> float | None:
    """When a database or its WAL was changed last; None if there is none. A stat opens no file."""
    times = []
    for name in (path, path + "-wal"):
        try:
            times.append(os.stat(name).st_mtime)
        except OSError:
            if name == path:
                return None
    return max(times)


def shown_lag(seconds: float | None) -> str:
    """A lag with about two digits: whole seconds from 10 s on, tenths from 1 s on, then ms and µs."""
    if seconds is None:
        return "-"
    size = abs(seconds)
    for least, unit in ((10.0, 1_000_000_000), (1.0, 100_000_000), (1e-3, 1_000_000), (1e-6, 1_000)):
        if size >= least:
            nanoseconds = round(size * 1e9) // unit * unit
            break
    else:
        nanoseconds = 0
    return format_duration((-nanoseconds if seconds < 0 else nanoseconds) / 1e9)
