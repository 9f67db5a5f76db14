"""`litestream info`: version, process and age of a running replicator."""

from __future__ import annotations

import re

from litestream.cli import stdout
from litestream.cli.control import RAW, SOCKET, ask, socket_of, timeout_flag, timeout_of
from litestream.cli.flags import FlagSet, Parsed
from litestream.cli.tables import write_json
from litestream.core.durations import format_duration

TIMEOUT = 10.0

FLAGS = FlagSet(
    verb="info",
    usage="info [flags]",
    about="Show version, process and age of a running replicator.",
    flags=(timeout_flag(TIMEOUT), SOCKET, RAW),
)


def run(parsed: Parsed) -> int:
    answer = ask(socket_of(parsed), "GET", "/info", timeout=timeout_of(parsed, TIMEOUT))
    if parsed.switch("json"):
        write_json(answer)
        return 0
    stdout.write(
        f"Litestream {answer['version']}\n"
        f"  PID:        {answer['pid']}\n"
        f"  Uptime:     {format_duration(answer['uptime_seconds'])}\n"
        f"  Started at: {re.sub('[.][0-9]+', '', answer['started_at'])}\n"
        f"  Databases:  {answer['database_count']}\n"
    )
    return 0
