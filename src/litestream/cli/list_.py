"""`litestream list`: the databases of a running replicator."""

from __future__ import annotations

import re

from litestream.cli import stdout
from litestream.cli.control import RAW, SOCKET, ask, socket_of, timeout_flag, timeout_of
from litestream.cli.flags import FlagSet, Parsed
from litestream.cli.tables import write_json

TIMEOUT = 10.0

FLAGS = FlagSet(
    verb="list",
    usage="list [flags]",
    about="List the databases of a running replicator, and when all their replicas had everything last.",
    flags=(timeout_flag(TIMEOUT), SOCKET, RAW),
)


def run(parsed: Parsed) -> int:
    answer = ask(socket_of(parsed), "GET", "/list", timeout=timeout_of(parsed, TIMEOUT))
    if parsed.switch("json"):
        write_json(answer)
        return 0
    from litestream.daemon.logs import safe

    for database in answer["databases"]:
        last = re.sub(r"\.[0-9]+", "", database.get("last_sync_at") or "never")
        stdout.write(f"{safe(database['path'])} [{database['status']}] (last sync: {last})\n")
    return 0
