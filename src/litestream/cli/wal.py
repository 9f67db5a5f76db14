"""`litestream wal`: the WAL segments in a database's replicas, the newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litestream.cli.common import COMMON, JSON, REPLICA, TARGET_MISSING
from litestream.cli.flags import Flag, FlagSet, Parsed
from litestream.cli.listing import collect, shown_time
from litestream.cli.tables import write_entries
from litestream.core.position import is_generation
from litestream.errors import ConfigError

if TYPE_CHECKING:
    from litestream.client import Overview
    from litestream.config import DatabaseConfig
    from litestream.core.position import WALSegmentInfo

FLAGS = FlagSet(
    verb="wal",
    usage="wal [flags] DB_PATH\nwal [flags] REPLICA_URL",
    about="List the WAL segments of a database, the newest first. Index and offset are written as in objects' names.",
    flags=(*COMMON, REPLICA, Flag("generation", "Only the segments of this generation.", "NAME"), JSON),
    min_args=1,
    max_args=1,
    missing=TARGET_MISSING,
)


def run(parsed: Parsed) -> int:
    generation = parsed.text("generation")
    if generation and not is_generation(generation):
        raise ConfigError(f'invalid generation "{generation}": it has 16 hex digits, lower case')
    found, code = collect(parsed, _rows)
    found = [row for row in found if generation in ("", row[1].generation)]
    found.sort(key=lambda row: (row[1].created_at, row[1].generation, row[1].index, row[1].offset), reverse=True)
    entries = [
        {
            "replica": name,
            "generation": segment.generation,
            "index": f"{segment.index:08x}",
            "offset": f"{segment.offset:08x}",
            "size": segment.size,
            "created": shown_time(segment.created_at),
            "pos": str(segment.pos),
        }
        for name, segment in found
    ]
    write_entries(parsed, ["replica", "generation", "index", "offset", "size", "created"], entries)
    return code


def _rows(database: DatabaseConfig | None, name: str, overview: Overview) -> list[tuple[str, WALSegmentInfo]]:
    return [(name, segment) for view in overview.values() for segment in view.segments]
