"""The flags of `restore -f`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litestream.core.durations import parse_duration
from litestream.errors import ConfigError

if TYPE_CHECKING:
    from litestream.cli.flags import Parsed

_NOT_WITH = (
    "index",
    "timestamp",
    "dry-run",
    "force",
    "if-db-not-exists",
    "if-replica-exists",
    "json",
    "resume",
    "update",
)


def follow_interval(parsed: Parsed) -> float:
    """Seconds between two looks at the replica. Raises `ConfigError` for flags that do not go with `-f`."""
    if not parsed.switch("f"):
        if parsed.given("follow-interval"):
            raise ConfigError("the -follow-interval flag needs -f")
        return 0.0
    for name in _NOT_WITH:
        if parsed.given(name):
            raise ConfigError(f"the -{name} flag does not go with -f, which follows the latest state")
    seconds = parse_duration(parsed.text("follow-interval") or "1s")
    if seconds <= 0:
        raise ConfigError("-follow-interval must be more than 0s")
    return seconds
