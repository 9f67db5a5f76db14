"""From a configuration to a server: the objects that replicate, wired up, and what they tell of themselves."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from litestream.config import Config, DatabaseConfig, ReplicaConfig
from litestream.config.paths import shown
from litestream.config.rules import default_meta_path
from litestream.core.durations import format_duration
from litestream.daemon.company import Company, accompanied
from litestream.daemon.database import DatabaseTask
from litestream.daemon.logs import quoted
from litestream.daemon.measures import Measures
from litestream.daemon.notify import Notifier, notifying
from litestream.daemon.observe import Observer
from litestream.daemon.server import Entry, Server
from litestream.daemon.watcher import Watcher
from litestream.daemon.workshop import Source, Workshop
from litestream.db.db import DB
from litestream.descriptors import raise_limit
from litestream.errors import ConfigError
from litestream.metrics import DEFAULT, budget_name
from litestream.replica import Replica

if TYPE_CHECKING:
    from litestream.daemon.child import Child
    from litestream.daemon.exchange import Change
    from litestream.replica.validation import Validator
    from litestream.storage.wrappers.budget import Budget

STARTS = 16
"""Databases that attach at the same time: a thousand that begin together leave room for the uploads of the first."""

LANE_THREADS = 8
"""Threads for what may block (attaching, backfilling, reading a snapshot) of all databases together."""


@asynccontextmanager
async def build(
    config: Config,
    logger: logging.Logger,
    *,
    addr: str = "",
    command: str = "",
    notifier: Notifier | None = None,
    source: Source | None = None,
    takeover: bool = False,
) -> AsyncIterator[Server]:
    """A server for everything in the configuration, nothing of it opened yet. Runs on the current event loop.

    `command` is the application to run beside it. With `addr`, `/metrics` and a page are there. `notifier` has
    the service manager told how it goes. From `source` the configuration can be read again. With
    `takeover` the end of another process that replicates a database is waited for. Raises `ConfigError` if that
    address, or the control socket, cannot be had, a package for a replica is missing, or a replica could only be read.
    """
    _check_age(config)
    before, now = raise_limit()
    logger.debug("file descriptors", extra={"fields": {"limit": now, "before": before}})
    watcher = Watcher()
    watcher.start()
    lane = ThreadPoolExecutor(LANE_THREADS, thread_name_prefix="litestream-db")
    try:
        measures = Measures(DEFAULT)
        turn, starts = asyncio.Semaphore(1), asyncio.Semaphore(STARTS)

        def make(database: DatabaseConfig) -> Entry:
            return _entry(database, watcher, lane, measures, turn, starts, takeover=takeover)

        server = Server(
            [make(database) for database in config.databases],
            shutdown_timeout=config.shutdown_sync_timeout,
            shutdown_interval=config.shutdown_sync_interval,
            child=_child(command, config, logger),
            logger=logger,
        )

        def change(entry: Entry, database: DatabaseConfig) -> Change:
            from litestream.daemon.exchange import prepare

            place = database.meta_path or default_meta_path(database.path)
            return prepare(entry, database, lambda db, replica: _replica(db, replica, place, turn), _described)

        notifier = notifier or Notifier()
        company = Company(server, config, Workshop(_check_age, make, change, notifier), source, watcher, logger)
        async with (
            accompanied(company, controlled=bool(addr)),
            _visible(addr, config, server, company, lane, logger),
            notifying(notifier, server, lane),
        ):
            yield server
    finally:
        watcher.close()
        lane.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def _visible(
    addr: str, config: Config, server: Server, company: Company, lane: Executor, logger: logging.Logger
) -> AsyncIterator[None]:
    """Serve what there is to see, and the stream for followers, at `addr`; nothing is imported if it is empty."""
    if not addr:
        yield
        return
    from litestream.daemon.following import routes, streams, tls
    from litestream.daemon.sight import visible

    shared = streams(config, addr, server)
    async with visible(addr, server, company.control, lane, logger, routes(shared), tls(config)), shared:
        yield


@asynccontextmanager
async def entries_of(config: Config) -> AsyncIterator[list[Entry]]:
    """The databases there are now, those of directories too and none that follows another one, with their replicas;
    nothing runs on them by itself.

    Raises `ConfigError` as `build` does, and for a directory that cannot be read.
    """
    _check_age(config)
    lane = ThreadPoolExecutor(LANE_THREADS, thread_name_prefix="litestream-db")
    try:
        watcher, measures, turn = Watcher(), Measures(DEFAULT), asyncio.Semaphore(1)
        databases = [database for database in config.all_databases() if database.upstream is None]
        yield [_entry(database, watcher, lane, measures, turn, turn) for database in databases]
    finally:
        lane.shutdown(wait=False, cancel_futures=True)


def _child(command: str, config: Config, logger: logging.Logger) -> Child | None:
    if not command:
        return None
    from litestream.daemon.child import Child

    first = [*(database.path for database in config.databases), *(entry.dir for entry in config.directories)]
    return Child(command, os.environ, first[0] if first else "", logger)


def _entry(
    config: DatabaseConfig,
    watcher: Watcher,
    lane: Executor,
    measures: Measures,
    turn: asyncio.Semaphore,
    starts: asyncio.Semaphore,
    *,
    takeover: bool = False,
) -> Entry:
    """One database with its replicas. `turn` is whose turn it is to be validated: one at a time. So is `starts`, of
    attaching: several at a time."""
    if config.upstream is not None:
        from litestream.daemon.following import follower_entry

        return follower_entry(config, lane, measures)
    db = DB(
        config.path,
        meta_path=config.meta_path,
        min_checkpoint_page_count=config.min_checkpoint_page_count,
        max_checkpoint_page_count=config.max_checkpoint_page_count,
        checkpoint_interval=config.checkpoint_interval,
        busy_timeout=config.busy_timeout,
        compact=config.compact,
        lane=lane,
    )
    meta_path = config.meta_path or default_meta_path(config.path)
    replicas = [_replica(db, replica, meta_path, turn) for replica in config.replicas]
    task = DatabaseTask(db, replicas, watcher, sweep_interval=config.monitor_interval, starts=starts, takeover=takeover)
    observer = Observer(task, [(replica.type, replica.location) for replica in config.replicas])
    described = [_described(replica) for replica in config.replicas]
    entry = Entry(db, replicas, task.run, described, task.tried, config, observer, task.all_durable, held=task.held)
    entry.settled = task.settled
    entry.forget = measures.watch(entry)
    return entry


def _replica(db: DB, config: ReplicaConfig, meta_path: str, turn: asyncio.Semaphore) -> Replica:
    client = config.open(metrics=DEFAULT, budget=_budget(db, config, meta_path))
    if config.lease and not client.store.conditional:
        name = f"{shown(db.path)}({shown(config.label)})"
        raise ConfigError(f"{name}: lease cannot be on: the store has no conditional writes; take the key away")
    return Replica(
        db,
        client,
        name=config.name,
        sync_interval=config.sync_interval,
        snapshot_interval=config.snapshot_interval,
        retention=config.retention,
        retention_check_interval=config.retention_check_interval,
        validation_interval=config.validation_interval,
        validator=_validator(db, turn) if config.validation_interval > 0 else None,
        lease=config.lease is not False,
    )


def _validator(db: DB, turn: asyncio.Semaphore) -> Validator:
    from litestream.verify.running import RunningValidator

    return RunningValidator(db, turn)


def _check_age(config: Config) -> None:
    """Raise `ConfigError` for a replica that could only be read: nothing would ever be stored in it."""
    places = [(database.path, database.replicas) for database in config.databases]
    places += [(directory.dir, directory.replicas) for directory in config.directories]
    for path, replicas in places:
        for replica in replicas:
            if replica.age is not None and not replica.age.recipients:
                name = f"{shown(path)}({shown(replica.label)})"
                raise ConfigError(f"{name}: age has identities only: set age.recipients, for whom to encrypt")


def _budget(db: DB, config: ReplicaConfig, meta_path: str) -> Budget | None:
    """The count of this month's requests, beside the database; None where there is no cap."""
    if config.max_requests is None or config.max_requests.per_month is None:
        return None
    from urllib.parse import quote

    from litestream.storage.wrappers.budget import Budget

    file = f"requests-{quote(config.label, safe='')}.json"  # a name may hold a slash
    return Budget(os.path.join(meta_path, file), name=budget_name(db.path, config.label))


_PLACE = {
    "s3": ("bucket", "path", "region", "endpoint"),
    "gs": ("bucket", "path"),
    "abs": ("bucket", "path", "endpoint"),
    "sftp": ("host", "user", "path"),
    "file": ("path",),
}
"""What the official program says of the place, by type of replica."""


def _described(config: ReplicaConfig) -> str:
    """What the log says of a replica, in the official form."""
    place = {name: getattr(config.backend, name) for name in _PLACE.get(config.type, ())} or {"path": config.location}
    fields = {
        "name": config.label,
        "type": config.type,
        **place,
        "sync-interval": format_duration(config.sync_interval),
    }
    return " ".join(f"{name}={quoted(value)}" for name, value in fields.items())
