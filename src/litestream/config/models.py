"""The typed configuration. Attribute `sync_interval` is `sync-interval` in the file; durations are seconds.

Everything is resolved: paths are absolute, defaults of the file are in each replica. The models are frozen, refuse
unknown names, and may be built in Python as well (`DatabaseConfig(path="app.db", replicas=(...))`); strings are then
read as in the file (`sync_interval="1s"`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from litestream.config.databases import DatabaseConfig, DirectoryConfig
from litestream.config.model import Check, JsonSchema, Model, SecretStr
from litestream.config.paths import absolute_path, database_path
from litestream.config.replica import ReplicaConfig, ReplicaDefaults
from litestream.config.rules import display, problems_between, replicas_wanted
from litestream.config.values import (
    File,
    Flag,
    Seconds,
    Secret,
    SomeSeconds,
    check_address,
    check_heartbeat_interval,
    check_level,
    check_log_type,
    check_permissions,
    check_url,
    path_by,
)

if TYPE_CHECKING:
    from litestream.config.rules import Loc

__all__ = [
    "Config",
    "DatabaseConfig",
    "DirectoryConfig",
    "LoggingConfig",
    "ReplicaConfig",
    "ReplicaDefaults",
    "SnapshotConfig",
    "SocketConfig",
    "ValidationConfig",
]


class LoggingConfig(Model):
    """`logging:`. The flag `-log-level` and the variable LOG_LEVEL are the caller's to apply."""

    level: Annotated[Literal["trace", "debug", "info", "warn", "error"], Check(check_level)] = "info"
    type: Annotated[
        Literal["text", "json"],
        Check(check_log_type),
        JsonSchema({"enum": ["text", "json", "pretty"]}),  # the loader takes pretty as text
    ] = "text"
    stderr: Flag = False


class SocketConfig(Model):
    """`socket:`, through which a running replicator is controlled."""

    enabled: Flag = False
    path: Annotated[str, path_by(absolute_path)] = "/var/run/litestream.sock"
    """Absolute."""
    permissions: Annotated[
        int,
        Check(check_permissions),
        JsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^0o?[0-7]{1,4}$"}]}),
    ] = 0o600


class SnapshotConfig(Model):
    """`snapshot:`, at the top and per database; None where not given. Resolved already in each replica."""

    interval: Seconds | None = None
    retention: Seconds | None = None


class ValidationConfig(Model):
    """`validation:`; None where not given. Resolved already in each replica."""

    interval: Seconds | None = None


class Config(Model):
    """A whole configuration, free of contradictions."""

    HIDDEN: ClassVar[Collection[str]] = frozenset({"heartbeat_url"})

    addr: Annotated[str, Check(check_address)] | None = None
    """HOST:PORT or :PORT for /metrics; None: off."""
    stream_token: Secret = None
    """What followers have to send; None: none is served but by `stream`."""
    stream: Flag = False
    tls_cert: File = None
    tls_key: File = None
    """Absolute paths, both or neither; what `addr` speaks TLS with."""
    exec: str | None = None
    """Command of the application to run beside the replication; None: none."""
    logging: LoggingConfig = LoggingConfig()
    socket: SocketConfig = SocketConfig()
    heartbeat_url: Annotated[SecretStr | None, Check(check_url), JsonSchema({"type": "string"})] = None
    """Asked for every `heartbeat_interval` while every database is safe; None: never."""
    heartbeat_interval: Annotated[Seconds, Check(check_heartbeat_interval)] = 300.0
    shutdown_sync_timeout: Seconds = 30.0
    shutdown_sync_interval: SomeSeconds = 0.5
    databases: tuple[DatabaseConfig, ...] = ()
    directories: tuple[DirectoryConfig, ...] = ()
    """The entries of dbs that have dir."""
    defaults: ReplicaDefaults = ReplicaDefaults()
    """For replicas that no file names."""
    source: str | None = None
    """The file this was read from."""
    warnings: tuple[str, ...] = ()
    """One line each, to be logged."""

    def _after(self) -> None:
        entries: list[tuple[Loc, DatabaseConfig | DirectoryConfig]] = []
        entries += [(("dbs", number), database) for number, database in enumerate(self.databases)]
        entries += [(("dbs", len(entries) + number), entry) for number, entry in enumerate(self.directories)]
        problems = [f"{display(loc)}: {text}" for loc, entry in entries if (text := replicas_wanted(entry))]
        if (self.tls_cert is None) != (self.tls_key is None):
            problems.append("tls-cert and tls-key need each other")
        problems += [f"{display(loc)}: {text}" for loc, _, text in problems_between(entries)]
        if problems:
            raise ValueError("; ".join(problems))

    def database(self, path: str) -> DatabaseConfig | None:
        """The database of that path (as given on a command line: relative, `~/` and `sqlite://` are fine).

        One below a directory of the configuration need not be there (any more).
        """
        wanted = database_path(path)
        for database in self.databases:
            if database.path == wanted:
                return database
        for directory in self.directories:
            relative = directory.relative(wanted)
            if relative is not None:
                return directory.database(relative)
        return None

    def all_databases(self) -> list[DatabaseConfig]:
        """The databases of the configuration, and those that its directories have now, each once."""
        from litestream.config.scan import databases_of

        return [*self.databases, *databases_of(self)]

    def replica_at(self, url: str) -> ReplicaConfig:
        """The replica at a URL, with the defaults of this file. Raises `ConfigError`."""
        from litestream.config.loader import replica_at

        return replica_at(url, self.defaults)

    @classmethod
    def for_command_line(cls, db_path: str, replica_urls: list[str]) -> Config:
        """The configuration of `replicate DB URL...`. Raises `ConfigError`."""
        from litestream.config.loader import for_command_line

        return for_command_line(db_path, replica_urls)
