"""`litestream stop`: stop replicating one database of a running replicator, after a last sync."""

from __future__ import annotations

from litestream.cli.control import (
    PATH_MISSING,
    RAW,
    SOCKET,
    absolute,
    post,
    socket_of,
    tell_missing,
    timeout_flag,
    timeout_of,
    write_result,
)
from litestream.cli.flags import FlagSet, Parsed

TIMEOUT = 30.0

FLAGS = FlagSet(
    verb="stop",
    usage="stop [flags] DB_PATH",
    about="Stop replicating a database, after a last sync. The replicator goes on with the others.",
    flags=(timeout_flag(TIMEOUT), SOCKET, RAW),
    min_args=1,
    max_args=1,
    missing=PATH_MISSING,
)


def run(parsed: Parsed) -> int:
    answer = post(parsed, {"path": absolute(parsed.args[0])}, timeout=timeout_of(parsed, TIMEOUT))
    pairs = [("status", answer["status"]), ("db_path", answer["path"]), ("state", "stopped")]
    write_result(parsed, [*pairs, ("txid", answer["txid"]), ("pos", answer["pos"]), ("socket", socket_of(parsed))])
    return tell_missing(answer)
