"""`litestream register`: have a running replicator replicate one more database."""

from __future__ import annotations

import re

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
from litestream.cli.flags import Flag, FlagSet, Parsed
from litestream.errors import ConfigError

TIMEOUT = 30.0

FLAGS = FlagSet(
    verb="register",
    usage="register [flags] -replica REPLICA_URL DB_PATH",
    about=(
        "Replicate one more database, with the defaults of the replicator's configuration, until it is unregistered\n"
        "or the replicator ends: the file does not change."
    ),
    flags=(
        Flag("replica", "Where to replicate it to. Needed.", "URL"),
        timeout_flag(TIMEOUT),
        SOCKET,
        RAW,
    ),
    min_args=1,
    max_args=1,
    missing=PATH_MISSING,
    examples="litestream register -replica file:///backup/app /var/lib/app.db",
)


def run(parsed: Parsed) -> int:
    from litestream.storage import split_scheme

    url = parsed.text("replica")
    if not url:
        raise ConfigError("replica URL required: -replica URL")
    sent = url if split_scheme(url) else absolute(url)
    body = {"path": absolute(parsed.args[0]), "replica_url": sent}
    answer = post(parsed, body, timeout=timeout_of(parsed, TIMEOUT))
    pairs = [("status", answer["status"]), ("db_path", answer["path"]), ("replica", _shown(sent))]
    write_result(parsed, [*pairs, ("socket", socket_of(parsed))])
    return 0


def _shown(url: str) -> str:
    """The URL without what may be a secret."""
    return re.sub(r"//[^/@]*@", "//***@", url).partition("?")[0]
