"""`litestream sync`: copy what is committed, and with `-wait` upload it at once."""

from __future__ import annotations

import time

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
    verb="sync",
    usage="sync [flags] DB_PATH",
    about=(
        "Copy everything that is committed now, whatever the intervals are. With -wait it is uploaded at once, and in\n"
        "every replica when this returns. `litestream wait` costs no upload of its own."
    ),
    flags=(
        Flag("wait", "Return when it is in every replica."),
        timeout_flag(TIMEOUT),
        SOCKET,
        RAW,
    ),
    min_args=1,
    max_args=1,
    missing=PATH_MISSING,
)


def run(parsed: Parsed) -> int:
    began = time.monotonic()
    wait = parsed.switch("wait")
    body = {"path": absolute(parsed.args[0]), "wait": wait}
    answer = post(parsed, body, timeout=timeout_of(parsed, TIMEOUT))
    pairs: list[tuple[str, object]] = [("db_path", answer["path"]), ("txid", answer["txid"])]
    if wait:
        pairs.append(("replica_txid", answer["replicated_txid"]))
    pairs += [("pos", answer["pos"]), ("duration_ms", round((time.monotonic() - began) * 1000))]
    write_result(parsed, pairs)
    return 0
