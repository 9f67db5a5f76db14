"""`replicate -once`: everything is brought into the replicas, and that is all."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from litestream.daemon.server import Entry, Outcome, close_entries, describe, is_pointless, tell_missing
from litestream.db.db import DB
from litestream.errors import LitestreamError
from litestream.replica import Replica

_TOGETHER = 16
"""Databases at a time."""

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is done besides.

    Attributes:
        snapshot: take a snapshot of every database in each replica.
        retention: then delete what is older than each replica's retention.
    """

    snapshot: bool = False
    retention: bool = False


class Once:
    """Brings entries up to date, each as long as it takes.

    Args:
        patience: seconds for which something that fails is tried again; also what is left of the time after `stop`.
    """

    def __init__(self, entries: Sequence[Entry], wishes: Wishes, *, patience: float, logger: logging.Logger) -> None:
        self._entries = entries
        self._wishes = wishes
        self._patience = patience
        self._logger = logger
        self._turn = asyncio.Semaphore(_TOGETHER)
        self._missing: dict[str, str] = {}

    async def run(self, stop: asyncio.Event) -> Outcome:
        """Do it and close everything. What is not durable in a replica in the end is missing in the outcome."""
        for entry in self._entries:
            describe(entry, self._logger)
        self._missing = {name: "not begun" for entry in self._entries for name in _names(entry)}
        work = asyncio.gather(*(self._bring(entry) for entry in self._entries))
        stuck = not await self._until_done(work, stop)
        tell_missing(self._entries, self._missing, self._logger)
        if not self._missing:
            self._logger.info("one-shot replication complete")
        self._logger.info("litestream shut down")
        return Outcome(self._missing, stuck)

    async def _until_done(self, work: asyncio.Future[Any], stop: asyncio.Event) -> bool:
        """Whether it came to an end; after `stop` it has the time of a shutdown for that."""
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self._logger.info("signal received, litestream shutting down")
                await asyncio.wait([work], timeout=self._patience or None)
            return work.done()
        finally:
            stopped.cancel()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _bring(self, entry: Entry) -> None:
        names = _names(entry)
        async with self._turn:
            self._logger.info("syncing database", extra={"fields": {"db": entry.db.path}})
            if await self._attempt(names, lambda: entry.db.call(entry.db.sync_now)):
                replicas = entry.observer.task.replicas if entry.observer is not None else []
                await asyncio.gather(*map(self._upload, names, replicas))
                if entry.observer is not None:
                    await self._hash(entry.observer.task.db)
            await close_entries([entry], self._logger)  # now: a thousand databases are not open at the same time

    async def _hash(self, db: DB) -> None:
        """See to it that the next run need not send all of the database if a new WAL begins before it."""
        try:
            if db.wants_hashing:
                await db.call(db.hash_pages)
        except LitestreamError as error:  # nothing is missing in a replica for that
            self._logger.debug("pages not hashed", extra={"fields": {"db": db.path, "error": str(error)}})

    async def _upload(self, name: str, replica: Replica) -> None:
        async def upload() -> None:
            # The snapshot first: where there is none yet it is the one that is needed anyway.
            if self._wishes.snapshot:
                await replica.snapshot()
            await replica.sync()

        if self._wishes.snapshot:
            replica.logger.info("taking snapshot")
        if not await self._attempt([name], upload):
            return
        if self._wishes.retention and replica.retains:
            replica.logger.info("enforcing retention")
            if not await self._attempt([name], replica.enforce_retention):
                return
        del self._missing[name]

    async def _attempt(self, names: Sequence[str], work: Callable[[], Awaitable[object]]) -> bool:
        """Do `work` until it succeeds, or has failed for too long; what the matter is stands beside `names`."""
        pause, failing_since = _FIRST_PAUSE, 0.0
        self._missing.update(dict.fromkeys(names, "not done yet"))
        while True:
            try:
                await work()
                return True
            except LitestreamError as error:
                failing_since = failing_since or time.monotonic()
                self._missing.update(dict.fromkeys(names, str(error)))
                if is_pointless(error) or time.monotonic() - failing_since + pause > self._patience:
                    return False
            except Exception as error:
                # One database's surprise must not keep the others from being done.
                self._logger.exception("%s: internal error", names[0])
                self._missing.update(dict.fromkeys(names, f"internal error: {type(error).__name__}: {error}"))
                return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _names(entry: Entry) -> list[str]:
    """What its replicas are called in the log."""
    return [f"{entry.db.path}({replica.name})" for replica in entry.replicas]
