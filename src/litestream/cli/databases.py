"""`litestream databases`: what the configuration replicates, and where to."""

from __future__ import annotations

from litestream.cli.common import COMMON, JSON, load_config, tell_warnings
from litestream.cli.flags import FlagSet, Parsed
from litestream.cli.tables import write_entries

FLAGS = FlagSet(
    verb="databases",
    usage="databases [flags]",
    about="List the databases of the configuration, those in its directories too, and the names of their replicas.",
    flags=(*COMMON, JSON),
)


def run(parsed: Parsed) -> int:
    config = load_config(parsed)
    tell_warnings(config)
    entries = [
        {"path": database.path, "replicas": [replica.label for replica in database.replicas]}
        for database in config.all_databases()
    ]
    write_entries(parsed, ["path", "replicas"], entries)
    return 0
