"""`litestream start`: go on replicating a database that was stopped."""

from __future__ import annotations

from litestream.cli.control import (
    PATH_MISSING,
    RAW,
    SOCKET,
    absolute,
    post,
    socket_of,
    timeout_flag,
    timeout_of,
    write_result,
)
from litestream.cli.flags import FlagSet, Parsed

TIMEOUT = 30.0

FLAGS = FlagSet(
    verb="start",
    usage="start [flags] DB_PATH",
    about="Go on replicating a database that was stopped with `litestream stop`.",
    flags=(timeout_flag(TIMEOUT), SOCKET, RAW),
    min_args=1,
    max_args=1,
    missing=PATH_MISSING,
)


def run(parsed: Parsed) -> int:
    answer = post(parsed, {"path": absolute(parsed.args[0])}, timeout=timeout_of(parsed, TIMEOUT))
    pairs = [("status", answer["status"]), ("db_path", answer["path"]), ("state", "running")]
    write_result(parsed, [*pairs, ("txid", answer["txid"]), ("pos", answer["pos"]), ("socket", socket_of(parsed))])
    return 0
