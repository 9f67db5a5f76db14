"""What a running replica does by itself."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

from litestream.core.position import SnapshotInfo
from litestream.errors import NoGenerationError, StorageError
from litestream.replica.log import ErrorLog
from litestream.replica.pacing import Backoff
from litestream.replica.source import WALSource

if TYPE_CHECKING:
    from litestream.replica.replica import Replica


_LONGEST_WANTED = 60.0
"""Seconds for which a service that wants to be left alone is; then it is asked again, and the error told again."""


class Monitor:
    """Uploads what the database copies: the first change after a quiet time at once, then once per sync interval.

    Attributes:
        error: why the last upload failed; None if it did not.
        retry_at: monotonic time of the next attempt after an error; 0 while there is none.
    """

    def __init__(self, replica: Replica, db: WALSource) -> None:
        self.error: Exception | None = None
        self.retry_at = 0.0
        self._replica = replica
        self._db = db
        self._errors = ErrorLog(replica.logger, "monitor")
        self._backoff = Backoff()
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    async def run(self) -> None:
        """Until cancelled."""
        unsubscribe = self._db.subscribe(self._notify)
        self._changed.set()  # whatever is there already goes up at once
        try:
            while True:
                await self._changed.wait()
                await self._wait_until_due()
                self._changed.clear()
                await self._sync()
        finally:
            unsubscribe()

    def _notify(self) -> None:
        """The database moved; may come from any of its threads."""
        if threading.get_ident() == self._thread:
            self._changed.set()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _wait_until_due(self) -> None:
        delay = self._replica.due_at() - time.monotonic()
        if delay <= 0:
            return
        await asyncio.sleep(delay)
        try:
            await self._db.sync()  # what was committed while we waited goes along
        except Exception as error:
            # The database's own task meets it too and reports it; what is copied goes up all the same.
            self._replica.logger.debug("database not copied before upload: %s", error)

    async def _sync(self) -> None:
        try:
            await self._replica.sync()
        except NoGenerationError:
            self._succeeded()  # nothing to upload yet: the database will tell
        except Exception as error:
            self.error = error
            self._errors.failed(error)
            wanted = min(error.retry_after, _LONGEST_WANTED) if isinstance(error, StorageError) else 0.0
            self.retry_at = time.monotonic() + max(self._backoff.next(), wanted)
            self._changed.set()
        else:
            self._succeeded()

    def _succeeded(self) -> None:
        self.error, self.retry_at = None, 0.0
        self._errors.succeeded()
        self._backoff.reset()


async def retain(replica: Replica) -> None:
    """Delete what is old, every check interval (but at least once per retention).

    Nothing is asked while nothing is stored and nothing that is there has come of age: at rest it costs a look per
    retention, or one for each thing that goes.
    """
    errors = ErrorLog(replica.logger, "retainer")
    while True:
        await asyncio.sleep(min(replica.retention_check_interval, replica.retention))
        if not replica.may_have_old:
            continue
        try:
            await replica.enforce_retention()
        except Exception as error:
            errors.failed(error)
        else:
            errors.succeeded()


async def take_snapshots(replica: Replica) -> None:
    """Take snapshots, the first when the newest one there is has the interval's age."""
    errors = ErrorLog(replica.logger, "snapshotter")
    delay = replica.snapshot_interval
    try:
        delay = first_delay(await replica.snapshots(), time.time(), replica.snapshot_interval)
    except Exception as error:
        errors.failed(error)
    while True:
        await asyncio.sleep(delay)
        delay = replica.snapshot_interval
        try:
            await replica.snapshot_if_new()
        except NoGenerationError:
            pass
        except Exception as error:
            errors.failed(error)
        else:
            errors.succeeded()


def first_delay(snapshots: list[SnapshotInfo], now: float, interval: float) -> float:
    """Seconds until the newest of `snapshots` has the age `interval`; never more than that."""
    if not snapshots:
        return interval
    newest = max(snapshot.created_at for snapshot in snapshots)
    return min(max(newest + interval - now, 0.0), interval)
