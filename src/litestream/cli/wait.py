"""`litestream wait`: return when what is committed now is durable in a replica."""

from __future__ import annotations

from litestream.cli.control import (
    PATH_MISSING,
    RAW,
    SOCKET,
    absolute,
    post,
    timeout_flag,
    timeout_of,
    write_result,
)
from litestream.cli.flags import Flag, FlagSet, Parsed

TIMEOUT = 30.0

FLAGS = FlagSet(
    verb="wait",
    usage="wait [flags] DB_PATH",
    about=(
        "Return when everything that is committed by now is durable in a replica, with exit code 0. Any number may\n"
        "wait: they ride on the next upload, and cause none."
    ),
    flags=(
        Flag("pos", "Only up to this position (GENERATION/INDEX:OFFSET).", "POS"),
        Flag("all", "In every replica, not just in one."),
        timeout_flag(TIMEOUT),
        SOCKET,
        RAW,
    ),
    min_args=1,
    max_args=1,
    missing=PATH_MISSING,
    examples="litestream wait -timeout 5m -all /var/lib/app.db",
)


def run(parsed: Parsed) -> int:
    body = {"path": absolute(parsed.args[0]), "pos": parsed.text("pos"), "all": parsed.switch("all")}
    answer = post(parsed, body, timeout=timeout_of(parsed, TIMEOUT))
    pairs = [("status", answer["status"]), ("db_path", answer["path"]), ("txid", answer["txid"])]
    write_result(parsed, [*pairs, ("pos", answer["pos"]), ("duration_ms", answer["duration_ms"])])
    return 0
