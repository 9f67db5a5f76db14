"""When the pages of a database are hashed: in quiet moments, and now and then under load."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from litestream.db.db import DB
from litestream.descriptors import check_room
from litestream.errors import LitestreamError
from litestream.priority import lower_priority

QUIET = 1.0
"""Seconds without a change after which what is not hashed is."""

BUSY = 60.0
"""Seconds between two passes over a database that is never quiet. What has changed since the last one counts as
different after a kill, so it bounds what a catch-up sends."""


class Hashing:
    """The hashing of one database."""

    def __init__(self, db: DB, logger: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self._db = db
        self._logger = logger
        self._task: asyncio.Task[None] | None = None
        self._ended = float("-inf")
        self._failed = False

    def look(self, quiet: float) -> None:
        """Begin if it is time; `quiet`: seconds for which nothing has changed. Cheap."""
        if not self._db.wants_hashing or (self._task is not None and not self._task.done()):
            return
        if (quiet >= QUIET and not self._failed) or time.monotonic() - self._ended >= BUSY:
            self._task = asyncio.create_task(self._run(), name=f"hashing of {self._db.path}")

    def cancel(self) -> None:
        """Wait for nothing: a pass that runs ends by itself when the database is closed."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            self._failed = True
            check_room()  # it keeps a descriptor, and uploads need some for moments
            await asyncio.get_running_loop().run_in_executor(_lane(), self._db.hash_pages)
            self._failed = False
        except LitestreamError as error:
            # Nothing depends on it, and whatever is wrong with the database shows elsewhere.
            self._logger.debug("pages not hashed", extra={"fields": {"db": self._db.path, "error": str(error)}})
        finally:
            self._ended = time.monotonic()


@lru_cache(maxsize=1)
def _lane() -> ThreadPoolExecutor:
    """One thread for all databases, which runs when nobody else wants the processor."""
    return ThreadPoolExecutor(1, thread_name_prefix="litestream-hash", initializer=lower_priority)
