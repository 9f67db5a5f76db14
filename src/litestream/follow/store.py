"""Following a replica in a store: restore once, then apply what is added to it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from litestream import fsutil
from litestream.core.position import WALSegmentInfo
from litestream.db.paths import meta_path as default_meta_path
from litestream.errors import ContinuityLostError, CorruptObjectError, LitestreamError
from litestream.follow.assemble import IN_MEMORY, Assembler
from litestream.follow.copy import Copy
from litestream.replica.log import ErrorLog, ReplicaLogger
from litestream.replica.pacing import Backoff
from litestream.restore import RestoreOptions, restore
from litestream.restore.choose import make_plan
from litestream.streams import open_object

if TYPE_CHECKING:
    from litestream.client import ReplicaClient

T = TypeVar("T")

_CONTENT_LIMIT = 1 << 30
"""Bytes that a segment may unpack to: those of the official programs may be a whole WAL."""
_LOOK_AROUND = 10.0
"""Seconds without anything new after which it is asked whether another generation has begun."""
_WRONG = 3
"""Objects in a row that do not fit, after which the database is restored anew."""


class StoreFollower:
    """The database at `output`, kept equal to the newest of `replicas` (names and clients).

    It looks every `interval` seconds: one listing of a generation's segments. A copy that was followed before is
    continued where it is. Readers may have it open all the time, as with `follower.Follower`.
    """

    def __init__(
        self, replicas: Sequence[tuple[str, ReplicaClient]], output: str, options: RestoreOptions, interval: float
    ) -> None:
        path = os.path.realpath(output)
        self._replicas = list(replicas)
        self._options = options
        self._interval = interval
        self._copy = Copy(path, default_meta_path(path))
        self._client: ReplicaClient | None = None
        self._batch: Assembler | None = None
        self._lane = ThreadPoolExecutor(1, thread_name_prefix="litestream-follow")
        self._logger = ReplicaLogger(logging.getLogger("litestream.follow"), path, "restore")
        self._errors = ErrorLog(self._logger, "follow")
        self._backoff = Backoff(longest=60.0, first=max(1.0, interval))
        self._news = time.monotonic()
        self._wrong = 0

    async def run(self) -> None:
        """Follow until cancelled; then what was applied is made durable. That is how it ends, without an error.

        Raises `DatabaseError` if there is another database at `output`, and what the first restore raises.
        """
        try:
            await self._call(self._copy.open)
            if not self._copy.place.pos.generation:
                await self._restore()
            self._logger.info("following", extra={"fields": {"pos": self._copy.place.pos}})
            while True:
                pause = await self._look()
                await asyncio.sleep(pause)
        except asyncio.CancelledError:
            pass  # stopped, which is the only end it has
        finally:
            self._drop_batch()
            await asyncio.shield(self._call(self._copy.close))
            self._lane.shutdown(wait=False)

    async def _look(self) -> float:
        """Apply what is new; seconds until the next look."""
        try:
            await self._apply_new()
            if time.monotonic() - self._news > _LOOK_AROUND:
                await self._look_around()
        except (LitestreamError, OSError) as error:
            self._errors.failed(error)
            self._drop_batch()
            await self._after(error)
            return self._backoff.next()
        self._errors.succeeded()
        self._backoff.reset()
        return self._interval

    async def _after(self, error: Exception) -> None:
        """What does not fit three times never will, and a copy that somebody wrote to is none."""
        self._wrong = self._wrong + 1 if isinstance(error, CorruptObjectError) else 0
        if isinstance(error, ContinuityLostError):
            await self._call(self._copy.lose)
            await self._call(self._copy.open)
        elif self._wrong < _WRONG:
            return
        try:
            await self._restore()
        except (LitestreamError, OSError) as again:
            self._errors.failed(again)
        else:
            self._wrong = 0

    async def _apply_new(self) -> None:
        """Apply the segments behind those that were applied."""
        client = await self._source()
        if self._batch is None:
            place = self._copy.place
            self._batch = Assembler(
                place.pos,
                self._copy.page_size,
                required=self._copy.shown,
                salts=place.salts,
                directory=self._copy.meta,
            )
            first = (place.pos.index, 0)
        else:
            first = (self._batch.at.index, self._batch.at.offset)
        for info in await client.wal_segments(self._batch.at.generation):
            if (info.index, info.offset) >= first:
                await self._segment(client, info, self._batch)
        await self._show(self._batch)

    async def _segment(self, client: ReplicaClient, info: WALSegmentInfo, batch: Assembler) -> None:
        body = await client.read_wal_segment(info.pos)
        data, stamp = await self._call(lambda: open_object(body, key=str(info.pos), limit=_CONTENT_LIMIT))
        batch.feed(info.pos, data, stamp)
        if batch.held > IN_MEMORY:
            await self._show(batch)

    async def _show(self, batch: Assembler) -> None:
        if not batch.ready:
            return
        await self._call(lambda: self._copy.apply(batch))
        batch.taken()
        await self._call(self._copy.checkpoint)
        self._news = time.monotonic()
        self._wrong = 0

    async def _look_around(self) -> None:
        """Begin anew if the newest generation is another one by now."""
        plan = await make_plan(self._replicas, self._options)
        self._news = time.monotonic()
        if plan.generation != self._copy.place.pos.generation:
            await self._restore()

    async def _restore(self) -> None:
        """Restore the latest state beside the copy, and make it the copy's, all at once for its readers."""
        self._drop_batch()
        directory = os.path.dirname(self._copy.path)
        fsutil.make_dirs(directory)
        fsutil.remove_stale_temps(directory)
        with fsutil.AtomicFile(self._copy.path) as file:
            result = await restore(self._replicas, file.temp, options=replace(self._options, force=True))
            await self._call(lambda: self._copy.replace(file.temp, result.pos))
        await self._call(lambda: self._copy.replaced(result.pos))
        self._client = dict(self._replicas)[result.replica]
        self._news = time.monotonic()
        self._logger.info("restored", extra={"fields": {"pos": result.pos, "from": result.replica}})

    async def _source(self) -> ReplicaClient:
        """The replica that has the copy's generation. Raises `CorruptObjectError` if none has."""
        if self._client is None:
            generation = self._copy.place.pos.generation
            for _, client in self._replicas:
                if generation in await client.generations():
                    self._client = client
                    return client
            self._wrong = _WRONG - 1  # it is restored from what there is now
            raise CorruptObjectError(f"no replica has the generation of the copy any more: {generation}")
        return self._client

    def _drop_batch(self) -> None:
        if self._batch is not None:
            self._batch.close()
            self._batch = None

    async def _call(self, work: Callable[[], T]) -> T:
        """Run blocking work in its thread, to its end also if cancelled meanwhile."""
        running = asyncio.get_running_loop().run_in_executor(self._lane, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise
