"""Says so when a replica stays behind, for whatever reason: an upload that hangs reports nothing by itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from itertools import count

from litestream.core.durations import format_duration
from litestream.daemon.observe import Observer
from litestream.daemon.server import Server
from litestream.daemon.status import DatabaseStatus, ReplicaStatus

INTERVAL = 5.0
"""Seconds between looks at everything."""

CALM_ROUNDS = 2
"""A database at which all was well is looked at in every second round only."""

PATIENCE = 14.0
"""Seconds, besides the sync interval, by which a replica may be behind: with the two looks that is less than 30."""

REPEAT = 300.0
"""Seconds between two lines about the same replica; what fails with an error is logged by its own task as well."""


class Lookout:
    """Looks at every database of a server, one after the other."""

    def __init__(self, server: Server, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._logger = logger
        self._clock = clock
        self._told: dict[tuple[str, str], float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        for number in count():
            await asyncio.sleep(INTERVAL)
            told = {path for path, _ in self._told}
            for entry in self._server.entries:
                observer = entry.observer
                if observer is None or self._may_wait(observer, entry.db.path, number):
                    continue
                if entry.db.path in told or not observer.is_calm():
                    self.judge(observer.look())
                    await asyncio.sleep(0)  # a thousand databases take a while, and uploads go on
            paths = {entry.db.path for entry in self._server.entries}
            self._told = {key: at for key, at in self._told.items() if key[0] in paths}

    @staticmethod
    def _may_wait(observer: Observer, path: str, number: int) -> bool:
        return observer.was_calm and bool((hash(path) + number) % CALM_ROUNDS)

    def judge(self, database: DatabaseStatus) -> None:
        """Log what is to be said of one database now."""
        for replica in database.replicas:
            key, now = (database.path, replica.name), self._clock()
            if replica.lag_seconds > replica.sync_interval + PATIENCE:
                if now - self._told.get(key, -REPEAT) >= REPEAT:
                    self._told[key] = now
                    self._tell(database, replica)
            elif not replica.lag_seconds and self._told.pop(key, None) is not None:
                fields = {"db": database.path, "replica": replica.name}
                self._logger.info(
                    "%s(%s): replica is up to date again", database.path, replica.name, extra={"fields": fields}
                )

    def _tell(self, database: DatabaseStatus, replica: ReplicaStatus) -> None:
        lag = format_duration(round(replica.lag_seconds))
        fields: dict[str, object] = {"db": database.path, "replica": replica.name, "lag": lag}
        fields["bytes"] = replica.lag_bytes
        if replica.error or database.error:
            fields["error"] = replica.error or database.error
        self._logger.warning("%s(%s): replica is behind", database.path, replica.name, extra={"fields": fields})
