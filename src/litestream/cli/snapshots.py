"""`litestream snapshots`: the snapshots in a database's replicas, the newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litestream.cli.common import COMMON, JSON, REPLICA, TARGET_MISSING
from litestream.cli.flags import FlagSet, Parsed
from litestream.cli.listing import collect, shown_time
from litestream.cli.tables import write_entries

if TYPE_CHECKING:
    from litestream.client import Overview
    from litestream.config import DatabaseConfig
    from litestream.core.position import SnapshotInfo

FLAGS = FlagSet(
    verb="snapshots",
    usage="snapshots [flags] DB_PATH\nsnapshots [flags] REPLICA_URL",
    about="List the snapshots of a database, the newest first. The index is written as in the objects' names.",
    flags=(*COMMON, REPLICA, JSON),
    min_args=1,
    max_args=1,
    missing=TARGET_MISSING,
)


def run(parsed: Parsed) -> int:
    found, code = collect(parsed, _rows)
    found.sort(key=lambda row: (row[1].created_at, row[1].generation, row[1].index), reverse=True)
    entries = [
        {
            "replica": name,
            "generation": snapshot.generation,
            "index": f"{snapshot.index:08x}",
            "size": snapshot.size,
            "created": shown_time(snapshot.created_at),
        }
        for name, snapshot in found
    ]
    write_entries(parsed, ["replica", "generation", "index", "size", "created"], entries)
    return code


def _rows(database: DatabaseConfig | None, name: str, overview: Overview) -> list[tuple[str, SnapshotInfo]]:
    return [(name, snapshot) for view in overview.values() for snapshot in view.snapshots]
