"""The typed configuration. Attribute `sync_interval` is `sync-interval` in the file; durations are seconds.

Everything is resolved: paths are absolute, defaults of the file are in each replica. The models are frozen, refuse
unknown names, and may be built in Python as well (`DatabaseConfig(path="app.db", replicas=(...))`); strings are then
read as in the file (`sync_interval="1s"`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, WithJsonSchema, model_validator

from litestream.config.paths import absolute_path, database_path, destination
from litestream.config.rules import NO_REPLICA, display, problems_between
from litestream.config.store_keys import BY_NAME, NETWORK, belongs_elsewhere
from litestream.config.store_settings import Model, SettingError, StoreSettings
from litestream.config.values import (
    Count,
    Flag,
    Seconds,
    SomeCount,
    SomeSeconds,
    check_address,
    check_heartbeat_interval,
    check_level,
    check_log_type,
    check_permissions,
    check_url,
    path_by,
)
from litestream.errors import StoreConfigError

if TYPE_CHECKING:
    from litestream.client import ReplicaClient
    from litestream.metrics import Metrics
    from litestream.storage.backends import BackendConfig
    from litestream.storage.wrappers.wrap import Budget, Limits


class LoggingConfig(Model):
    """`logging:`. The flag `-log-level` and the variable LOG_LEVEL are the caller's to apply."""

    level: Annotated[Literal["trace", "debug", "info", "warn", "error"], BeforeValidator(check_level)] = "info"
    type: Annotated[
        Literal["text", "json"],
        BeforeValidator(check_log_type),
        WithJsonSchema({"enum": ["text", "json", "pretty"]}),  # the loader takes pretty as text
    ] = "text"
    stderr: Flag = False


class SocketConfig(Model):
    """`socket:`, through which a running replicator is controlled."""

    enabled: Flag = False
    path: Annotated[str, path_by(absolute_path)] = "/var/run/litestream.sock"
    """Absolute."""
    permissions: Annotated[
        int,
        BeforeValidator(check_permissions),
        WithJsonSchema(
            {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^0o?[0-7]{1,4}$"}]}
        ),
    ] = 0o600


class SnapshotConfig(Model):
    """`snapshot:`, at the top and per database; None where not given. Resolved already in each replica."""

    interval: Seconds | None = None
    retention: Seconds | None = None


class ValidationConfig(Model):
    """`validation:`; None where not given. Resolved already in each replica."""

    interval: Seconds | None = None


class ReplicaDefaults(StoreSettings):
    """What the top of the file may hold for all replicas; None where not given. Resolved already in each replica."""

    sync_interval: Seconds | None = None
    snapshot_interval: Seconds | None = None
    retention: Seconds | None = None
    retention_check_interval: Seconds | None = None
    validation_interval: Seconds | None = None


class ReplicaConfig(StoreSettings):
    """One place where a database is copied to."""

    type: Annotated[str, WithJsonSchema({"enum": ["file", *NETWORK, "gcs", "webdavs"]})] = "file"
    name: str = ""
    """As given; `label` is never empty."""
    path: str = ""
    """Absolute directory of a file replica, also when a `url` gave it; else what names in the store begin with."""
    url: Annotated[SecretStr | None, WithJsonSchema({"type": "string"})] = Field(default=None, exclude=True, repr=False)
    """As given, or None: it may hold secrets. `location` is for people."""
    sync_interval: Seconds = 1.0
    snapshot_interval: Seconds = 0.0
    """0: a snapshot only when one is needed."""
    retention: Seconds = 86400.0
    """0: for ever."""
    retention_check_interval: Seconds = 3600.0
    """0: nothing is ever deleted."""
    validation_interval: Seconds = 0.0
    """0: never."""
    _backend: BackendConfig | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, data: Any) -> Any:  # noqa: ANN401 - whatever the caller gave; pydantic answers for the rest
        if not isinstance(data, dict):
            return data
        url = data.get("url")
        data = {**data, "url": url.get_secret_value() if isinstance(url, SecretStr) else url}
        if not all(isinstance(data.get(key) or "", str) for key in ("type", "path", "url")):
            return data
        others = {name.replace("_", "-"): value for name, value in data.items()}
        kind, path = destination(data.get("type"), data.get("path"), data.get("url"), others)
        return {**data, "type": kind, "path": path}

    @model_validator(mode="after")
    def _checked(self) -> ReplicaConfig:
        for name, key in BY_NAME.items():
            problem = belongs_elsewhere(key, self.type) if getattr(self, name.replace("-", "_")) is not None else ""
            if problem:
                raise SettingError(name, f"{name} {problem}")
        self._check_store()
        return self

    def _check_store(self) -> None:
        """Everything that only the back end knows of, before anything is replicated."""
        from litestream.storage import backend_config

        try:
            self._backend = backend_config(self.type, self.store_settings())
            if self.age is not None:
                from litestream.storage.age.keys import AgeKeys

                keys = self.age.keys()
                AgeKeys(keys["recipients"], keys["identities"])
        except StoreConfigError as error:
            raise SettingError(error.setting, str(error)) from None

    def store_settings(self) -> dict[str, Any]:
        """Settings for `litestream.storage.open_store`, secrets in clear."""
        place = {"url": self.url.get_secret_value()} if self.url and self.type != "file" else {"path": self.path}
        return {**self.plain(self.type), **{name: value for name, value in place.items() if value}, "type": self.type}

    def limits(self) -> Limits:
        """Time and requests that the store may take."""
        from litestream.storage.wrappers.wrap import Limits

        given: dict[str, Any] = {} if self.timeout is None else {"timeout": self.timeout}
        if self.max_requests is not None:
            given["requests_per_second"] = self.max_requests.per_second or 0
            given["requests_per_month"] = self.max_requests.per_month or 0
        return Limits(**given)

    def open(self, *, metrics: Metrics | None = None, budget: Budget | None = None) -> ReplicaClient:
        """A client for this replica; nothing is contacted yet. Raises `StoreConfigError`."""
        from litestream.client import open_client

        settings = self.store_settings()
        return open_client(
            settings.pop("url", ""),
            settings=settings,
            limits=self.limits() if self.type != "file" else None,
            metrics=metrics,
            budget=budget,
            age=self.age.keys() if self.age is not None else None,
        )

    @property
    def label(self) -> str:
        """The name, or the type where none was given."""
        return self.name or self.type

    @property
    def location(self) -> str:
        """Where it is, for people, without secrets: the directory, or the URL."""
        return self.path if self.type == "file" else self.backend.url

    @property
    def backend(self) -> BackendConfig:
        """The checked settings of the store."""
        assert self._backend is not None  # since the model was built
        return self._backend

    @property
    def place(self) -> tuple[str, ...]:
        """The same for two replicas that would share their objects."""
        return self.type, self.backend.url, getattr(self.backend, "endpoint", "")


class DatabaseConfig(Model):
    """One database and its replicas."""

    path: Annotated[str, path_by(database_path)]
    """Absolute; symbolic links are kept."""
    meta_path: Annotated[str, path_by(absolute_path)] | None = None
    """Absolute directory of the local state; None: `.FILE-litestream` beside the database."""
    monitor_interval: SomeSeconds = 1.0
    checkpoint_interval: Seconds = 60.0
    """0: off."""
    min_checkpoint_page_count: SomeCount = 1000
    max_checkpoint_page_count: Count = 10000
    """0: off."""
    busy_timeout: Seconds = 1.0
    replicas: tuple[ReplicaConfig, ...] = ()


class Config(Model):
    """A whole configuration, free of contradictions."""

    addr: Annotated[str, BeforeValidator(check_address)] | None = None
    """HOST:PORT or :PORT for /metrics; None: off."""
    exec: str | None = None
    """Command of the application to run beside the replication; None: none."""
    logging: LoggingConfig = LoggingConfig()
    socket: SocketConfig = SocketConfig()
    heartbeat_url: Annotated[SecretStr | None, BeforeValidator(check_url), WithJsonSchema({"type": "string"})] = Field(
        default=None, exclude=True, repr=False
    )
    """Asked for every `heartbeat_interval` while every database is safe; None: never."""
    heartbeat_interval: Annotated[Seconds, BeforeValidator(check_heartbeat_interval)] = 300.0
    shutdown_sync_timeout: Seconds = 30.0
    shutdown_sync_interval: SomeSeconds = 0.5
    databases: tuple[DatabaseConfig, ...] = ()
    defaults: ReplicaDefaults = Field(default=ReplicaDefaults(), description="for replicas that no file names")
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

    def replica_at(self, url: str) -> ReplicaConfig:
        """The replica at a URL, with the defaults of this file. Raises `ConfigError`."""
        from litestream.config.loader import replica_at

        return replica_at(url, self.defaults)

    @classmethod
    def for_command_line(cls, db_path: str, replica_urls: list[str]) -> Config:
        """The configuration of `replicate DB URL...`. Raises `ConfigError`."""
        from litestream.config.loader import for_command_line

        return for_command_line(db_path, replica_urls)
