"""Changing a database that is being replicated: it stays open, and only what is different is begun anew."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from litestream.config import DatabaseConfig, ReplicaConfig
from litestream.config.rules import replica_place
from litestream.daemon.logs import safe
from litestream.daemon.observe import Observer
from litestream.daemon.server import Entry
from litestream.db.db import DB
from litestream.errors import LitestreamError, NoGenerationError
from litestream.metrics import DEFAULT
from litestream.replica import Replica


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of one database; nothing has been done yet, and nothing is open."""

    entry: Entry
    observer: Observer
    config: DatabaseConfig
    replicas: list[Replica]
    """Those that stay are the objects that run now."""
    begun: list[str]
    """What the log says of the others."""
    last: list[Replica]
    """Those that nobody goes on writing to."""

    async def retire(self, timeout: float, logger: logging.Logger) -> dict[str, str]:
        """Bring the replicas up to date that are given up, and stop them; `PATH(NAME)` of what failed, and why.

        One attempt: why one is given up may be that it does not work.
        """
        missing: dict[str, str] = {}
        for replica in self.last:
            await replica.stop()
            try:
                async with asyncio.timeout(timeout or None):
                    await replica.sync()
            except NoGenerationError:
                pass  # nothing there, nothing to upload
            except (LitestreamError, OSError, TimeoutError) as error:
                missing[f"{self.config.path}({replica.name})"] = str(error) or "no time was left"
        for name, reason in missing.items():
            logger.error("%s: not everything reached the replica: %s", name, reason)
        return missing

    async def apply(self, logger: logging.Logger) -> None:
        """Go on with the new settings. The generation goes on too."""
        db, task = self.observer.task.db, self.observer.task
        db.min_checkpoint_page_count = self.config.min_checkpoint_page_count
        db.max_checkpoint_page_count = self.config.max_checkpoint_page_count
        db.checkpoint_interval = self.config.checkpoint_interval
        db.busy_timeout = self.config.busy_timeout
        db.compact = self.config.compact
        names = {replica.name for replica in task.replicas}
        await task.exchange(self.replicas, self.config.monitor_interval, self._exchanged)
        for name in names - {replica.name for replica in self.replicas}:
            DEFAULT.forget_replica(db.path, name)
        logger.info("database changed", extra={"fields": {"db": db.path}})
        for text in self.begun:
            logger.info("replicating to: %s", text)

    def _exchanged(self) -> None:
        self.entry.replicas, self.entry.config = self.replicas, self.config
        self.observer.exchanged([(replica.type, replica.location) for replica in self.config.replicas])

    async def drop(self) -> None:
        """Close what was made for nothing."""
        for replica in self.replicas:
            if replica not in self.observer.task.replicas:
                await replica.close()


def prepare(
    entry: Entry,
    config: DatabaseConfig,
    make: Callable[[DB, ReplicaConfig], Replica],
    describe: Callable[[ReplicaConfig], str],
) -> Change:
    """The change of a running database to another configuration. Raises `ConfigError` like `make`."""
    if entry.observer is None or entry.config is None:
        raise LitestreamError(f"nobody looks after {safe(entry.db.path)}")
    task = entry.observer.task
    running = {replica.name: replica for replica in task.replicas}
    before = {replica.label: replica for replica in entry.config.replicas}
    replicas, begun = [], []
    for wanted in config.replicas:
        if before.get(wanted.label) == wanted and wanted.label in running:
            replicas.append(running[wanted.label])
        else:
            replicas.append(make(task.db, wanted))
            begun.append(describe(wanted))
    places = {replica_place(wanted) for wanted in config.replicas}
    last = [running[label] for label, old in before.items() if label in running and replica_place(old) not in places]
    return Change(entry, entry.observer, config, replicas, begun, last)
