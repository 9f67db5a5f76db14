"""Objects from a store, unpacked and verified, several at a time and in order, in bounded memory."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
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
from litestream.streams import Buffer, ObjectReader, read_stamp

if TYPE_CHECKING:
    from litestream.restore.model import Plan

T = TypeVar("T")

MEMORY = 48 << 20
"""Bytes that segments on their way may take together."""
_WHOLE = 4 << 20
"""Stored bytes up to which an object is fetched before it is unpacked, so that its stamp is known then."""
_TYPICAL_RATIO = 16
"""How much an object may be expected to grow when unpacked (LZ4 can do 255; WAL of text pages is below 10)."""
_GROUP = 64
"""Segments in files that are read in one go, of together at most `_WHOLE` stored bytes."""
_GROUP_CONTENT = 16 << 20
"""Bytes of content from which on the rest of such a group waits."""
_INLINE = 32 << 10
"""Stored bytes up to which unpacking is cheaper than a hop to another thread."""
_BUFFERS = 3
"""For blocks of a snapshot: one is unpacked, one is written, and one is between the two."""
_THREADS = 3
"""Two that unpack (of a snapshot: one unpacks, one computes the hash), and the one that writes pages."""


@dataclass(slots=True)
class Group:
    """Segments that were loaded in one go, of which the caller has asked for more."""

    segments: list[Segment]
    left: list[WALSegmentInfo] = field(default_factory=list)
    """Those that are not loaded yet: the ones before have much content."""
    fetched: int = 0
    error: Exception | None = None
    """Why the one behind them could not be loaded."""

    def close(self) -> None:
        for segment in self.segments:
            segment.close()


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
        self._read: Callable[[str], bytes] | None = getattr(
            plan.store, "read_blocking", None
        )  # of stores that are files
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

    async def segments(self, infos: Sequence[WALSegmentInfo], parallelism: int) -> AsyncGenerator[list[Segment]]:
        """The segments in the given order, a few at a time, each verified by itself; the caller closes them.

        What the caller got before must be done with.
        """
        waiting: deque[tuple[asyncio.Task[Group], int]] = deque()
        left = deque(infos)
        used = 0
        try:
            while left or waiting:
                while left and len(waiting) < parallelism:
                    chosen, cost = self._next(left)
                    if waiting and used + cost > MEMORY:
                        break
                    for _ in chosen:
                        left.popleft()
                    waiting.append((asyncio.create_task(self._load_group(chosen)), cost))
                    used += cost
                task, cost = waiting[0]
                group = await task
                waiting.popleft()
                yield group.segments
                while group.left:
                    group = await self._load_group(group.left)
                    yield group.segments
                if group.error is not None:
                    raise group.error
                used -= cost
        finally:
            await _settle([task for task, _ in waiting])
            await self.settle()

    def _next(self, left: Sequence[WALSegmentInfo]) -> tuple[list[WALSegmentInfo], int]:
        """What to load in one go, and the bytes that this may take.

        What is in files goes through a thread in groups: for segments of a MiB the hops cost more than the reading.
        """
        size = left[0].size
        if not self._in_groups(left[0]):
            return [left[0]], size + min(size * _TYPICAL_RATIO, IN_MEMORY + PIECE)
        chosen = [left[0]]
        for info in itertools.islice(left, 1, _GROUP):
            size += info.size
            if not self._in_groups(info) or size > _WHOLE:
                break
            chosen.append(info)
        return chosen, _GROUP_CONTENT

    def _in_groups(self, info: WALSegmentInfo) -> bool:
        return self._read is not None and self._plan.stamped and info.size <= _WHOLE

    async def _load_group(self, infos: list[WALSegmentInfo]) -> Group:
        if not self._in_groups(infos[0]):
            return Group([await self.load(infos[0])])
        group = await self._made(self._take_group, infos)
        self._count(group.fetched)
        return group

    def _take_group(self, infos: list[WALSegmentInfo]) -> Group:
        """Read and verify segments that are in files, until there is much content. Blocking."""
        group, content = Group([], infos), 0
        while group.left and content < _GROUP_CONTENT:
            try:
                one = self._take_one(group.left[0], None, None)
            except Exception as error:  # it is raised behind what was there before it
                group.error, group.left = error, []
                break
            group.segments += one.segments
            group.left = group.left[1:]
            group.fetched += one.fetched
            content += one.segments[0].length
        return group

    async def load(self, info: WALSegmentInfo) -> Segment:
        """Fetch one segment and verify everything that it says by itself."""
        if info.size > _WHOLE:
            return await self._load_large(info)
        stamped = self._plan.stamped
        header = await self._header_of(info.index) if info.offset and not stamped else None
        if self._read is not None and info.size > _INLINE:
            group = await self._made(self._take_one, info, None, header)
            self._count(group.fetched)
            return group.segments[0]
        async with aclosing(self._chunks(self.key(info))) as chunks:
            body = b"".join([chunk async for chunk in chunks])
        if len(body) <= _INLINE:
            return self._take(info, body, header)
        return (await self._made(self._take_one, info, body, header)).segments[0]

    async def _load_large(self, info: WALSegmentInfo) -> Segment:
        """The same for what is better not in memory as a whole."""
        key = self.key(info)
        async with aclosing(self._chunks(key)) as chunks:
            stamp = await fetch_stamp(self._plan.store, key, info.size)
            check_stamp(info, stamp, key, stamped=self._plan.stamped, page_size=self.page_size)
            header = None
            if info.offset:
                header = stamp_header(stamp, key) if stamp is not None else await self._header_of(info.index)
            segment, reader = self._segment(info, stamp, header)
            try:
                async for chunk in chunks:
                    await self._unpack(reader, segment, chunk)
                self._finish(segment, reader)
            except BaseException:
                segment.close()
                raise
        return segment

    def _take_one(self, info: WALSegmentInfo, body: bytes | None, header: WALHeader | None) -> Group:
        """`_take` of an object, which is read first if it is not there. Blocking: one hop to a thread for all of it."""
        if body is None:
            assert self._read is not None  # who calls this has looked
            body = self._read(self.key(info))
        return Group([self._take(info, body, header)], fetched=len(body))

    def _take(self, info: WALSegmentInfo, body: bytes, header: WALHeader | None) -> Segment:
        """The segment in an object that is there as a whole, verified. Blocking.

        `header` is that of its WAL, unless the object itself tells it.
        """
        key = self.key(info)
        stamp = read_stamp(body, key)
        check_stamp(info, stamp, key, stamped=self._plan.stamped, page_size=self.page_size)
        if info.offset and stamp is not None:
            header = stamp_header(stamp, key)
        segment, reader = self._segment(info, stamp, header)
        try:
            _feed(reader, segment, body)
            self._finish(segment, reader)
        except BaseException:
            segment.close()
            raise
        return segment

    def _segment(
        self, info: WALSegmentInfo, stamp: Stamp | None, header: WALHeader | None
    ) -> tuple[Segment, ObjectReader]:
        """An empty segment, and what unpacks its object."""
        key = self.key(info)
        segment = Segment(info, key, page_size=self.page_size, header=header, directory=self._directory)
        return segment, ObjectReader(key=key, limit=stamp.length if stamp is not None else None)

    def _finish(self, segment: Segment, reader: ObjectReader) -> None:
        """All was fed: what only the end of an object proves."""
        segment.stamp = reader.finish()
        segment.finish()
        # What is behind the frame may have changed since the first look at a large object.
        check_stamp(segment.info, segment.stamp, segment.key, stamped=self._plan.stamped, page_size=self.page_size)
        check_content(segment)

    async def _made(self, make: Callable[..., Group], *args: object) -> Group:
        """What `make` makes in a thread; closed there if nobody waits for it any more."""
        future = self._pool.submit(make, *args)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(_let_go)
            raise

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

    async def snapshot(self) -> AsyncGenerator[Buffer]:
        """The snapshot's content in pieces, each valid until the next but one. All are proved when the last one was."""
        plan, info = self._plan, self._plan.objects.snapshot
        key = self.key(info)
        planned = plan.snapshot_stamp
        limit = planned.length if planned is not None else None
        reader = ObjectReader(key=key, limit=limit, beside=self._pool, buffers=_BUFFERS)
        async with aclosing(_ahead(self._chunks(key))) as chunks:
            async for chunk in chunks:
                pieces = reader.views(chunk)
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
                self._count(len(chunk))
                yield chunk

    def _count(self, size: int) -> None:
        """So many more bytes were read."""
        self.fetched += size
        if self._progress is not None:
            self._progress(min(self.fetched, self._plan.size), self._plan.size)

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


async def _ahead(chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The same chunks; each is read while the caller is busy with the one before."""
    async with aclosing(chunks):
        coming: asyncio.Future[bytes] = asyncio.ensure_future(anext(chunks, b""))
        try:
            while chunk := await coming:
                coming = asyncio.ensure_future(anext(chunks, b""))
                yield chunk
        finally:
            await _settle([coming])


def _feed(reader: ObjectReader, segment: Segment, data: bytes) -> None:
    for piece in reader.feed(data):
        segment.feed(piece)


def _let_go(future: Future[Group]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()


async def _settle(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait until they have ended."""
    pending = list(tasks)
    for task in pending:
        task.cancel()
    for outcome in await asyncio.gather(*pending, return_exceptions=True):
        if isinstance(outcome, Segment | Group):
            outcome.close()
