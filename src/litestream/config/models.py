"""The typed configuration. Attribute `sync_interval` is `sync-interval` in the file; durations are seconds.

Everything is resolved: paths are absolute, defaults of the file are in each replica. The models are frozen, refuse
unknown names, and may be built in Python as well (`DatabaseConfig(path="app.db", replicas=(...))`); strings are then
read as in the file (`sync_interval="1s"`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from litestream.config.known_keys import FALSE, TRUE
from litestream.config.paths import absolute_path, database_path, destination
from litestream.config.rules import NO_REPLICA, display, problems_between
from litestream.core.durations import parse_duration
from litestream.errors import FormatError

MAX_COUNT = 0x7FFFFFFF
"""Pages: SQLite's own limit is 4294967294; a WAL of 2^31 frames has no 32-bit index any more."""


def _seconds(value: object) -> float:
    """Text as Go writes durations, or a number of seconds from Python."""
    if isinstance(value, str):
        try:
            value = parse_duration(value)
        except FormatError as error:
            raise ValueError(str(error)) from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("must be a duration such as 10s, 1m30s or 24h")  # noqa: TRY004 - pydantic collects ValueError
    if not 0 <= value < 1e10:
        raise ValueError("must not be negative" if value < 0 else "must be less than 292 years")
    return float(value)


def _some_seconds(value: object) -> float:
    seconds = _seconds(value)
    if seconds == 0:
        raise ValueError("must be greater than 0")
    return seconds


def _count(value: object) -> int:
    if isinstance(value, str):
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", value):
            raise ValueError("must be a whole number")
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a whole number")  # noqa: TRY004 - as above
    if not 0 <= value <= MAX_COUNT:
        raise ValueError("must not be negative" if value < 0 else f"must be at most {MAX_COUNT}")
    return value


def _positive_count(value: object) -> int:
    try:
        count = _count(value)
    except ValueError as error:
        if "negative" in str(error):
            raise ValueError("must be > 0") from None
        raise
    if count == 0:
        raise ValueError("must be > 0")
    return count


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in TRUE | FALSE:
        return value in TRUE
    raise ValueError("must be true or false")


def _level(value: object) -> object:
    level = value.lower() if isinstance(value, str) else value
    if level == "warning":
        return "warn"
    if level not in {"trace", "debug", "info", "warn", "error"}:
        raise ValueError("must be trace, debug, info, warn or error")
    return level


def _log_type(value: object) -> object:
    if value not in {"text", "json"}:
        raise ValueError("must be text or json")
    return value


def _address(value: object) -> object:
    """HOST:PORT; the host may be empty, or IPv6 in brackets."""
    match = (
        re.fullmatch(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]*):([0-9]{1,5})", value) if isinstance(value, str) else None
    )
    if match is None:
        raise ValueError("must specify port for bind address: HOST:PORT or :PORT")
    if int(match[1]) > 65535:
        raise ValueError("the port must be at most 65535")
    return value


def _path(function: Callable[[str], str]) -> BeforeValidator:
    def check(value: object) -> object:
        return function(value) if isinstance(value, str) else value

    return BeforeValidator(check)


_DURATION: dict[str, Any] = {
    "type": "string",
    "pattern": r"^[+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$",
}
_OFF: dict[str, Any] = {"enum": [0, "0"]}
Seconds = Annotated[float, BeforeValidator(_seconds), WithJsonSchema({"anyOf": [_DURATION, _OFF]})]
"""Zero or more; zero switches the thing off, or means no pause."""
SomeSeconds = Annotated[float, BeforeValidator(_some_seconds), WithJsonSchema(_DURATION)]
Count = Annotated[int, BeforeValidator(_count), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_COUNT})]
SomeCount = Annotated[
    int, BeforeValidator(_positive_count), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_COUNT})
]
Flag = Annotated[bool, BeforeValidator(_flag)]


def _alias(name: str) -> str:
    return "dbs" if name == "databases" else name.replace("_", "-")


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=_alias, populate_by_name=True, hide_input_in_errors=True
    )


class LoggingConfig(_Model):
    """`logging:`. The flag `-log-level` and the variable LOG_LEVEL are the caller's to apply."""

    level: Annotated[Literal["trace", "debug", "info", "warn", "error"], BeforeValidator(_level)] = "info"
    type: Annotated[
        Literal["text", "json"],
        BeforeValidator(_log_type),
        WithJsonSchema({"enum": ["text", "json", "pretty"]}),  # the loader takes pretty as text
    ] = "text"
    stderr: Flag = False


class SnapshotConfig(_Model):
    """`snapshot:`, at the top and per database; None where not given. Resolved already in each replica."""

    interval: Seconds | None = None
    retention: Seconds | None = None


class ReplicaDefaults(_Model):
    """What the top of the file may hold for all replicas; None where not given. Resolved already in each replica."""

    sync_interval: Seconds | None = None
    snapshot_interval: Seconds | None = None
    retention: Seconds | None = None
    retention_check_interval: Seconds | None = None


class ReplicaConfig(_Model):
    """One place where a database is copied to."""

    type: Annotated[str, WithJsonSchema({"enum": ["file"]})] = "file"
    name: str = ""
    """As given; `label` is never empty."""
    path: str = ""
    """Absolute directory: what `litestream.client.open_client` takes. A `url` given is turned into it."""
    url: str | None = Field(default=None, exclude=True)
    """As given, or None. Not part of a dump: `path` says it already."""
    sync_interval: Seconds = 1.0
    snapshot_interval: Seconds = 0.0
    """0: a snapshot only when one is needed."""
    retention: Seconds = 86400.0
    """0: for ever."""
    retention_check_interval: Seconds = 3600.0
    """0: nothing is ever deleted."""

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, data: Any) -> Any:  # noqa: ANN401 - whatever the caller gave; pydantic answers for the rest
        if not isinstance(data, dict) or not all(
            isinstance(data.get(key) or "", str) for key in ("type", "path", "url")
        ):
            return data
        kind, path = destination(data.get("type"), data.get("path"), data.get("url"))
        return {**data, "type": kind, "path": path}

    @property
    def label(self) -> str:
        """The name, or the type where none was given."""
        return self.name or self.type

    @property
    def location(self) -> str:
        """What opens this replica's store."""
        return self.path


class DatabaseConfig(_Model):
    """One database and its replicas."""

    path: Annotated[str, _path(database_path)]
    """Absolute; symbolic links are kept."""
    meta_path: Annotated[str, _path(absolute_path)] | None = None
    """Absolute directory of the local state; None: `.FILE-litestream` beside the database."""
    monitor_interval: SomeSeconds = 1.0
    checkpoint_interval: Seconds = 60.0
    """0: off."""
    min_checkpoint_page_count: SomeCount = 1000
    max_checkpoint_page_count: Count = 10000
    """0: off."""
    busy_timeout: Seconds = 1.0
    replicas: tuple[ReplicaConfig, ...] = ()


class Config(_Model):
    """A whole configuration, free of contradictions."""

    addr: Annotated[str, BeforeValidator(_address)] | None = None
    """HOST:PORT or :PORT for /metrics; None: off."""
    exec: str | None = None
    """Command of the application to run beside the replication; None: none."""
    logging: LoggingConfig = LoggingConfig()
    shutdown_sync_timeout: Seconds = 30.0
    shutdown_sync_interval: SomeSeconds = 0.5
    databases: tuple[DatabaseConfig, ...] = ()
    source: str | None = Field(default=None, description="the file this was read from")
    warnings: tuple[str, ...] = Field(default=(), description="one line each, to be logged")

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        entries = [(("dbs", number), database) for number, database in enumerate(self.databases)]
        problems = [f"{display(loc)}: {NO_REPLICA}" for loc, database in entries if not database.replicas]
        problems += [f"{display(loc)}: {text}" for loc, _, text in problems_between(entries)]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def database(self, path: str) -> DatabaseConfig | None:
        """The database of that path (as given on a command line: relative, `~/` and `sqlite://` are fine)."""
        wanted = database_path(path)
        return next((database for database in self.databases if database.path == wanted), None)

    @classmethod
    def for_command_line(cls, db_path: str, replica_urls: list[str]) -> Config:
        """The configuration of `replicate DB URL...`. Raises `ConfigError`."""
        from litestream.config.loader import for_command_line

        return for_command_line(db_path, replica_urls)
