"""`litestream reload`: have a running replicator read its configuration again."""

from __future__ import annotations

from litestream.cli import stdout, warn
from litestream.cli.control import RAW, SOCKET, post, tell_missing, timeout_flag, timeout_of
from litestream.cli.flags import FlagSet, Parsed
from litestream.cli.tables import write_json

TIMEOUT = 60.0

FLAGS = FlagSet(
    verb="reload",
    usage="reload [flags]",
    about=(
        "Have a running replicator read its configuration file again, as SIGHUP does. Databases that were added,\n"
        "removed or changed are seen to; the others notice nothing. A file with a mistake changes nothing."
    ),
    flags=(timeout_flag(TIMEOUT), SOCKET, RAW),
)


def run(parsed: Parsed) -> int:
    answer = post(parsed, {}, timeout=timeout_of(parsed, TIMEOUT))
    if parsed.switch("json"):
        write_json(answer)
    else:
        from litestream.daemon.logs import safe

        lines = [f"status: {answer['status']}"]
        lines += [f"{what}: {safe(name)}" for what in ("added", "removed", "changed") for name in answer[what]]
        stdout.write("".join(f"{line}\n" for line in lines))
    for warning in answer["warnings"]:
        warn(warning)
    if answer["restart"]:
        warn(f"these keys take effect only at the next start: {', '.join(answer['restart'])}")
    return tell_missing(answer)
