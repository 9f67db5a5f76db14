"""Objects from a store, unpacked and verified, several at a time and in order, in bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

from litestream.core.position import SnapshotInfo, WALSegmentInfo
from litestream.core.stamp import Stamp
from litestream.core.wal import WAL_HEADER_SIZE, WALHeader
from litestream.errors import CorruptObjectError
from litestream.priority import lower_priority
from litestream.restore.choose import fetch_stamp
from litestream.restore.links import check_content, check_stamp, stamp_header
from litestream.restore.pages import HEADER_SIZE, database_header
from litestream.restore.segment import IN_MEMORY, PIECE, Segment
from litestream.storage.reading import closing
from litestream.streams import ObjectReader, read_stamp

if TYPE_CHECKING:
    from litestream.restore.model import Plan

T = TypeVar("T")

MEMORY = 48 << 20
"""Bytes that segments on their way may take together."""
_WHOLE = 4 << 20
"""Stored bytes up to which an object is fetched before it is unpacked, so that its stamp is known then."""
_TYPICAL_RATIO = 16
"""How much an object may be expected to grow when unpacked (LZ4 can do 255; WAL of text pages is below 10)."""
_INLINE = 32 << 10
"""Stored bytes up to which unpacking is cheaper than a hop to another thread."""
_THREADS = 3
"""Two that unpack (of a snapshot: one unpacks, one computes the hash), and the one that writes pages."""


class Fetcher:
    """Reads the objects of one plan.

    Attributes:
        fetched: stored bytes read so far.
        page_size: of the database; 0 before `open()`.
    """

    def __init__(
        self, plan: Plan, directory: str, progress: Callable[[int, int], None] | None, *, background: bool = False
    ) -> None:
        self.fetched = 0
        self.page_size = 0
        self._plan = plan
        self._directory = directory
        self._progress = progress
        self._headers: dict[int, asyncio.Task[WALHeader]] = {}
        initializer = lower_priority if background else None
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="litestream-restore", initializer=initializer)

    async def run(self, fn: Callable[..., T], *args: object) -> T:
        """Run blocking work in this restore's own threads. Cancelled, the thread goes on; `close` waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, fn, *args)

    async def settle(self) -> None:
        """Give up what `load` has begun and nobody waits for."""
        await _settle(self._headers.values())

    def close(self) -> None:
        """Wait for work that is under way (a few MiB at most), drop the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def open(self) -> None:
        """Find out the page size: from the snapshot's stamp, or its first bytes (or, if it is empty, from the WAL).

        Raises `CorruptObjectError` if the snapshot is no database.
        """
        plan, snapshot = self._plan, self._plan.objects.snapshot
        if plan.snapshot_stamp is not None:
            self.page_size = plan.snapshot_stamp.page_size
            return
        key = self.key(snapshot)
        head = await self._peek(key, HEADER_SIZE)
        if not head and plan.objects.segments:
            self.page_size = (await self._header_of(snapshot.index)).page_size
        else:
            self.page_size, _ = database_header(head, key)

    def key(self, info: SnapshotInfo | WALSegmentInfo) -> str:
        """The object's key."""
        layout = self._plan.layout
        if isinstance(info, SnapshotInfo):
            return layout.snapshot_key(info.generation, info.index)
        return layout.wal_key(info.generation, info.index, info.offset)

    # -- segments

    async def segments(self, infos: Sequence[WALSegmentInfo], parallelism: int) -> AsyncGenerator[Segment]:
        """The segments in the given order, each verified by itself. What the caller got before it must be done with."""
        waiting: deque[tuple[asyncio.Task[Segment], int]] = deque()
        left = deque(infos)
        used = 0
        try:
            while left or waiting:
                while left and len(waiting) < parallelism:
                    cost = left[0].size + min(left[0].size * _TYPICAL_RATIO, IN_MEMORY + PIECE)
                    if waiting and used + cost > MEMORY:
                        break
                    waiting.append((asyncio.create_task(self.load(left.popleft())), cost))
                    used += cost
                task, cost = waiting[0]
                yield await task
                waiting.popleft()
                used -= cost
        finally:
            await _settle([task for task, _ in waiting])
            await self.settle()

    async def load(self, info: WALSegmentInfo) -> Segment:
        """Fetch one segment and verify everything that it says by itself."""
        key = self.key(info)
        async with aclosing(self._chunks(key)) as chunks:
            whole = info.size <= _WHOLE
            body = b"".join([chunk async for chunk in chunks]) if whole else b""
            stamp = read_stamp(body, key) if whole else await fetch_stamp(self._plan.store, key, info.size)
            check_stamp(info, stamp, key, stamped=self._plan.stamped, page_size=self.page_size)
            header = await self._header_for(info, stamp, key)
            segment = Segment(info, key, page_size=self.page_size, header=header, directory=self._directory)
            reader = ObjectReader(key=key, limit=stamp.length if stamp is not None else None)
            try:
                if whole:
                    await self._unpack(reader, segment, body)
                else:
                    async for chunk in chunks:
                        await self._unpack(reader, segment, chunk)
                segment.stamp = reader.finish()
                segment.finish()
                # What is behind the frame may have changed since the first look at a large object.
                check_stamp(info, segment.stamp, key, stamped=self._plan.stamped, page_size=self.page_size)
                check_content(segment)
            except BaseException:
                segment.close()
                raise
        return segment

    async def _header_for(self, info: WALSegmentInfo, stamp: Stamp | None, key: str) -> WALHeader | None:
        """The header of a segment's WAL; None if the segment itself brings it."""
        if info.offset == 0:
            return None
        return stamp_header(stamp, key) if stamp is not None else await self._header_of(info.index)

    async def _header_of(self, index: int) -> WALHeader:
        """The header at the start of an index's WAL, where no stamp tells it: read once, and again with its segment."""
        if index not in self._headers:
            self._headers[index] = asyncio.create_task(self._read_header(index))
        return await asyncio.shield(self._headers[index])

    async def _read_header(self, index: int) -> WALHeader:
        generation = self._plan.generation
        key = self._plan.layout.wal_key(generation, index, 0)
        try:
            return WALHeader.parse(await self._peek(key, WAL_HEADER_SIZE))
        except CorruptObjectError as error:
            raise CorruptObjectError(error.reason, key=key) from error

    async def _unpack(self, reader: ObjectReader, segment: Segment, data: bytes) -> None:
        if len(data) <= _INLINE:
            _feed(reader, segment, data)
        else:
            await self.run(_feed, reader, segment, data)

    # -- the snapshot

    async def snapshot(self) -> AsyncGenerator[bytes]:
        """The snapshot's content in pieces. What it yields is proved when it ends."""
        plan, info = self._plan, self._plan.objects.snapshot
        key = self.key(info)
        planned = plan.snapshot_stamp
        limit = planned.length if planned is not None else None
        reader = ObjectReader(key=key, limit=limit, beside=self._pool)
        async with aclosing(self._chunks(key)) as chunks:
            async for chunk in chunks:
                pieces = reader.feed(chunk)
                if len(chunk) <= _INLINE:
                    for piece in pieces:
                        yield piece
                else:
                    while piece := await self.run(next, pieces, b""):
                        yield piece
        stamp = reader.finish()
        if stamp != planned:
            raise CorruptObjectError("changed while it was read", key=key)

    # -- inside

    async def _chunks(self, key: str) -> AsyncGenerator[bytes]:
        async with closing(self._plan.store.get(key)) as stream:
            async for chunk in stream:
                self.fetched += len(chunk)
                if self._progress is not None:
                    self._progress(min(self.fetched, self._plan.size), self._plan.size)
                yield chunk

    async def _peek(self, key: str, size: int) -> bytes:
        """The first `size` bytes of an object's content, or all if there are fewer. Proves nothing."""
        reader = ObjectReader(key=key)
        head = b""
        async with closing(self._plan.store.get(key)) as stream:
            async for chunk in stream:
                for piece in reader.feed(chunk):
                    head += piece
                    if len(head) >= size:
                        return head[:size]
        reader.finish()
        return head


def _feed(reader: ObjectReader, segment: Segment, data: bytes) -> None:
    for piece in reader.feed(data):
        segment.feed(piece)


async def _settle(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended."""
    pending = list(tasks)
    for task in pending:
        task.cancel()
    for outcome in await asyncio.gather(*pending, return_exceptions=True):
        if isinstance(outcome, Segment):
            outcome.close()
