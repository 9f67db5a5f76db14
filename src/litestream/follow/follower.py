"""The work on one database that follows another: connect, apply what comes, come back after whatever happens."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing
from typing import TypeVar

from litestream import fsutil
from litestream.core.live import Record, RecordType
from litestream.core.position import Pos
from litestream.db.paths import meta_path as default_meta_path
from litestream.errors import ContinuityLostError, CorruptObjectError, LitestreamError, NotADatabaseError, UpstreamError
from litestream.follow.assemble import IN_MEMORY, Assembler
from litestream.follow.copy import Copy
from litestream.follow.link import Stream, Upstream, open_stream
from litestream.replica.log import ErrorLog, ReplicaLogger
from litestream.replica.pacing import Backoff
from litestream.sqlite.check import Check
from litestream.streams import open_object

T = TypeVar("T")

_CONTENT_LIMIT = 128 << 20
"""Bytes that a segment may unpack to."""

_SETTLED = 2.0
"""Seconds after which a connection that was made counts as one that works."""

_WRONG = 3
"""Streams in a row that do not fit the copy, after which a snapshot is asked for."""


class Follower:
    """A database that is a copy of another host's. `run` goes on until it is cancelled.

    Readers may have it open all the time, and see one committed state after the other. Has what the daemon needs of a
    database; there is nothing to copy and nothing to upload, so that `sync` does nothing.
    """

    def __init__(
        self,
        path: str,
        upstream: Upstream,
        *,
        meta_path: str | None = None,
        logger: logging.Logger | None = None,
        lane: Executor | None = None,
    ) -> None:
        self.path = os.path.abspath(path)
        real = os.path.realpath(self.path)
        self.upstream = upstream
        self.error: Exception | None = None
        """Why it is not following now; None while it is."""
        self._behind_since: float | None = time.monotonic()
        self._copy = Copy(real, meta_path or default_meta_path(real))
        self._logger = ReplicaLogger(logger or logging.getLogger("litestream.follow"), self.path, "upstream")
        self._lane = lane or ThreadPoolExecutor(1, thread_name_prefix="litestream-follow")
        self._tried = asyncio.Event()
        self._busy = asyncio.Lock()
        self._wrong = 0
        self._errors = ErrorLog(self._logger, "follow")
        self._backoff = Backoff()

    # -- what the daemon asks of a database

    def pos(self) -> Pos:
        """The position that readers see."""
        return self._copy.place.pos

    def behind(self) -> float:
        """Seconds for which it has not been following, since the start at most; 0 while it follows."""
        return 0.0 if self._behind_since is None else max(1e-3, time.monotonic() - self._behind_since)

    def sync_now(self) -> bool:
        """Nothing is copied from here. False."""
        return False

    async def sync(self) -> None:
        """Nothing is copied from here."""

    async def call(self, fn: Callable[..., T], *args: object) -> T:
        """Run blocking work in this database's lane, after what runs there; also if cancelled meanwhile."""
        async with self._busy:
            work = asyncio.get_running_loop().run_in_executor(self._lane, fn, *args)
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work])
                raise

    def close(self) -> None:
        """Make the copy durable, as far as its readers let us, and close it."""
        self._copy.close()

    async def tried(self) -> None:
        """Return once there is a copy, or the first try to get one failed."""
        await self._tried.wait()

    # -- the work

    async def run(self) -> None:
        """Follow until cancelled; whatever fails is told and tried again, less and less often up to every 5 s."""
        while True:
            try:
                await self.call(self._copy.open)
                await self._session()
                self._backoff.reset()  # the stream ended as it may: at a new generation, or a restart
                await asyncio.sleep(0.1)
            except (LitestreamError, OSError) as error:
                await self._failed(error)
            finally:
                self._tried.set()

    def _ended(self) -> None:
        if self._behind_since is None:
            self._behind_since = time.monotonic()

    async def _failed(self, error: Exception) -> None:
        self.error = error
        self._errors.failed(error)
        if isinstance(error, CorruptObjectError):
            self._wrong += 1
        if isinstance(error, ContinuityLostError):
            await self.call(self._copy.lose)
        if self._wrong >= _WRONG:
            self._copy.forget()
            self._wrong = 0
        self._tried.set()
        await asyncio.sleep(self._backoff.next())

    async def _session(self) -> None:
        """One connection, until it ends."""
        place = self._copy.place
        async with open_stream(self.upstream, place.pos) as stream:
            batch: Assembler | None = None
            if place.pos.generation and stream.page_size == self._copy.page_size and stream.position.is_zero:
                batch = self._assembler(place.pos, place.salts)
            # Whoever resumes and hears nothing wrong for a while follows, also if nothing is committed there.
            quiet = asyncio.get_running_loop().call_later(_SETTLED, self._following) if batch is not None else None
            try:
                while (record := await stream.record()) is not None:
                    if record.kind is RecordType.SNAPSHOT:
                        if batch is not None:
                            batch.close()
                        batch = await self._snapshot(stream, record)
                    elif batch is None:
                        raise CorruptObjectError("a segment comes before any snapshot", key=str(record.pos))
                    else:
                        await self._segment(stream, record, batch)
            finally:
                self._ended()
                if quiet is not None:
                    quiet.cancel()
                if batch is not None:
                    batch.close()

    def _assembler(self, applied: Pos, salts: str = "") -> Assembler:
        required = self._copy.shown
        return Assembler(applied, self._copy.page_size, required=required, salts=salts, directory=self._copy.meta)

    async def _segment(self, stream: Stream, record: Record, batch: Assembler) -> None:
        data, stamp = open_object(await stream.segment(record), key=str(record.pos), limit=_CONTENT_LIMIT)
        batch.feed(record.pos, data, stamp)
        # What has come already goes along: one transaction is cheaper than several.
        if batch.ready and (not stream.more or batch.held > IN_MEMORY):
            await self.call(self._copy.apply, batch)
            batch.taken()
            await self.call(self._copy.checkpoint)
            self._following()

    async def _snapshot(self, stream: Stream, record: Record) -> Assembler:
        """Take a snapshot, check it, show it; what follows it comes next."""
        pos = stream.position if stream.position.generation else record.pos
        if (pos.generation, pos.index) != (record.pos.generation, record.pos.index) or record.pos.offset:
            raise CorruptObjectError(f"a snapshot of {pos} cannot come at {record.pos}")
        if not record.size or record.size % stream.page_size:
            raise CorruptObjectError(f"a snapshot of {record.size} bytes is not one of pages of {stream.page_size}")
        self._logger.info("taking a snapshot", extra={"fields": {"pos": pos, "size": record.size}})
        with _temporary(self._copy.path, record.size) as file:
            async with aclosing(stream.pieces(record.size)) as pieces:
                async for piece in pieces:
                    file.write(piece)
            await self.call(_check, file, stream.position.generation != "")
            await self.call(self._copy.replace, file.temp, pos)
        await self.call(self._copy.replaced, pos)
        self._following()
        return self._assembler(pos)

    def _following(self) -> None:
        if self.error is not None or not self._tried.is_set():
            self._logger.info("following", extra={"fields": {"pos": self.pos()}})
        self.error = self._behind_since = None
        self._wrong = 0
        self._errors.succeeded()
        self._backoff.reset()
        self._tried.set()


def _temporary(path: str, size: int) -> fsutil.AtomicFile:
    """A file beside the copy that takes a snapshot. Raises `UpstreamError` if there is no room for one."""
    directory = os.path.dirname(path)
    fsutil.make_dirs(directory)
    fsutil.remove_stale_temps(directory)
    if shutil.disk_usage(directory).free < size:
        raise UpstreamError(f"no room for a snapshot of {size} bytes in {directory}")
    return fsutil.AtomicFile(path)


def _check(file: fsutil.AtomicFile, exact: bool) -> None:
    """Let SQLite check a snapshot, if it is a committed state: a stream has no checksum of it."""
    try:
        problems = Check(file.temp, full=False).run() if exact else []
    except NotADatabaseError:
        problems = ["not a SQLite database"]
    if problems:
        raise CorruptObjectError(f"the snapshot fails SQLite's check: {' '.join(problems[0].split())}")
