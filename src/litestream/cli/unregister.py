"""`litestream unregister`: have a running replicator replicate a database no more."""

from __future__ import annotations

from litestream.cli import stdout
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
from litestream.cli.flags import Flag, FlagSet, Parsed

TIMEOUT = 30.0

FLAGS = FlagSet(
    verb="unregister",
    usage="unregister [flags] DB_PATH",
    about=(
        "Replicate a database no more, after a last sync. Its replicas and its local state stay. A database of the\n"
        "configuration comes back with the next start."
    ),
    flags=(
        timeout_flag(TIMEOUT),
        SOCKET,
        Flag("dry-run", "Show what would be asked for, and ask nobody."),
        RAW,
    ),
    min_args=1,
    max_args=1,
    missing=PATH_MISSING,
)


def run(parsed: Parsed) -> int:
    path, timeout = absolute(parsed.args[0]), timeout_of(parsed, TIMEOUT)
    if parsed.switch("dry-run"):
        from litestream.daemon.logs import safe

        stdout.write(
            "Dry run: unregister request preview\n"
            f"  database: {safe(path)}\n"
            f"  socket: {safe(socket_of(parsed))}\n"
            "  replicas: daemon-managed replicas for this database\n"
            "  final sync: the database and its replicas are synced before the command completes\n"
            f"  timeout: {timeout:g}s\n"
            "No unregister request was sent.\n"
        )
        return 0
    answer = post(parsed, {"path": path}, timeout=timeout)
    pairs = [("status", answer["status"]), ("db_path", answer["path"]), ("final_txid", answer["txid"])]
    write_result(parsed, [*pairs, ("final_pos", answer["pos"]), ("socket", socket_of(parsed))])
    return tell_missing(answer)
