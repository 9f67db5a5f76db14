"""What several verbs share: their flags, the configuration, the replicas an argument means, running to an end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from litestream.cli.flags import Flag, Parsed
from litestream.daemon.logs import LEVEL_NAMES
from litestream.daemon.signals import StopSignals
from litestream.errors import ConfigError

if TYPE_CHECKING:
    from litestream.client import ReplicaClient
    from litestream.config import Config, DatabaseConfig

T = TypeVar("T")

CONFIG = Flag(
    "config",
    "Path of the configuration file.",
    "PATH",
    default="$LITESTREAM_CONFIG, ./litestream.yml, /etc/litestream.yml: the first there is",
)
NO_EXPAND_ENV = Flag("no-expand-env", "Do not replace $NAME in the configuration file by environment variables.")
LOG_LEVEL = Flag(
    "log-level",
    "How much is told; with debug and trace an unexpected error shows where it happened.",
    "LEVEL",
    choices=LEVEL_NAMES,
    default="$LOG_LEVEL, then info",
)
COMMON = (CONFIG, NO_EXPAND_ENV, LOG_LEVEL)
REPLICA = Flag("replica", "Only the replica of this name.", "NAME")
JSON = Flag("json", "Print JSON instead of a table.")
TARGET_MISSING = "database path or replica URL required"


def load_config(parsed: Parsed) -> Config:
    """The configuration that the flags mean. Raises `ConfigError`."""
    from litestream.config import load

    return load(parsed.text("config") or None, expand_env=not parsed.switch("no-expand-env"))


def tell_warnings(config: Config | None) -> None:
    """Say on stderr what a configuration is warned about; for the verbs that have no log."""
    from litestream.cli import warn

    for warning in config.warnings if config is not None else ():
        warn(warning)


def is_url(text: str) -> bool:
    """Whether an argument is a replica's URL and not a database's path."""
    from litestream.storage import split_scheme

    return split_scheme(text) not in ("", "sqlite", "sqlite3")


@dataclass(slots=True)
class Target:
    """What the positional argument of `restore` and the listing verbs means."""

    database: DatabaseConfig | None
    """None where a replica's URL was given."""
    replicas: list[tuple[str, ReplicaClient]]
    """Name and client of each replica, in the order of the configuration."""
    config: Config | None
    """What was read to find out; None where a URL needed nothing."""


@asynccontextmanager
async def open_target(parsed: Parsed) -> AsyncIterator[Target]:
    """The database or replica that the first argument names; `-replica` narrows it. Closes the clients.

    Raises `ConfigError` when the database or the replica is not in the configuration.
    """
    argument, wanted = parsed.args[0], parsed.text("replica")
    if is_url(argument):
        if wanted:
            raise ConfigError("the -replica flag needs a database path: a replica URL names the replica itself")
        # What a file that is named has wrong is told, although a URL needs nothing from it.
        target = _url_target(argument, load_config(parsed) if parsed.given("config") else None)
    else:
        target = _database_target(load_config(parsed), argument, wanted)
    try:
        yield target
    finally:
        for _, client in target.replicas:
            await client.close()


def _url_target(url: str, config: Config | None) -> Target:
    from litestream.cli import warn
    from litestream.client import open_client
    from litestream.storage import VISIBLE, shows_secret, store_type

    if store_type(url) == "memory":
        raise ConfigError('unknown replica type in config: "memory"')
    if shows_secret(url):
        warn(f"the replica URL: {VISIBLE}")
    client = open_client(url) if config is None else config.replica_at(url).open()
    return Target(None, [(client.type, client)], config)


def _database_target(config: Config, path: str, wanted: str) -> Target:
    database = find_database(config, path)
    chosen = [replica for replica in database.replicas if wanted in ("", replica.label)]
    if not chosen:
        names = ", ".join(replica.label for replica in database.replicas) or "none"
        raise ConfigError(f'replica "{wanted}" not found for database {database.path}: the configuration has {names}')
    replicas = []
    for replica in chosen:
        try:
            replicas.append((replica.label, replica.open()))
        except ConfigError as e:  # a package that this machine does not have
            other = " (-replica chooses another one)" if len(chosen) > 1 else ""
            raise ConfigError(f"replica {replica.label}: {e}{other}") from e
    return Target(database, replicas, config)


def find_database(config: Config, path: str) -> DatabaseConfig:
    """The configuration's entry for a database. Raises `ConfigError`."""
    try:
        database = config.database(path)
    except ValueError as e:
        raise ConfigError(f"{path}: {e}") from e
    if database is None:
        names = [
            *(entry.path for entry in config.databases),
            *(f"directory {entry.dir}" for entry in config.directories),
        ]
        known = ", ".join(names) or "no database"
        where = f"in {config.source}" if config.source else "in the configuration"
        raise ConfigError(f"database not found in config: {os.path.abspath(path)} ({where}: {known})")
    return database


def run_to_end(work: Coroutine[object, object, T]) -> T:
    """Run a command's coroutine. A first SIGINT, SIGTERM or SIGHUP cancels it, so that it cleans up.

    Raises `KeyboardInterrupt` when it was cancelled that way.
    """

    async def guarded() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        signals.on_stop_in(loop, task.cancel)
        return await work

    with StopSignals() as signals:
        try:
            return asyncio.run(guarded())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
