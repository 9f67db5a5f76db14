"""A snapshot's bytes, from the database file to the body of a put."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import TypeVar

from litestream.core.stamp import Stamp
from litestream.errors import GenerationChangedError
from litestream.replica.source import SnapshotSource, WALSource
from litestream.streams import BlockWriter, pack_block

T = TypeVar("T")


_BLOCK = 2 << 20
"""Bytes of a block: as quick as the format's greatest, 4 MiB, in half of the memory; smaller ones restore slower."""
_AHEAD = 3
"""Blocks that are packed, or wait for it, beside the one that is given out."""
_WORKERS = 2


class SnapshotStream:
    """Reads and compresses a database file block by block, on two processors. Blocking; any thread, one at a time.

    `close` may be called at any moment, also while a cancelled `open` or `read` still runs in some thread: it waits
    for that, and nothing is opened after it. A transaction left open would keep the application's WAL from restarting.
    """

    def __init__(self, db: WALSource) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._closed = False
        self._source: SnapshotSource | None = None
        self._writer = BlockWriter()
        self._free: list[memoryview] = []  # buffers are used again: fresh memory costs more than packing saves
        self._packing: deque[tuple[memoryview, int, Future[bytes]]] = deque()

    def open(self) -> SnapshotSource:
        """Begin the transaction."""
        with self._lock:
            self._check()
            self._source = self._db.open_snapshot()
            return self._source

    def read(self) -> bytes | None:
        """The next compressed bytes; None when all of the file was read."""
        with self._lock:
            self._check()
            while len(self._packing) < _AHEAD and self._read_block():
                pass
            if not self._packing:
                return None
            buffer, count, packed = self._packing.popleft()
            before = self._writer.take(buffer[:count], packed.result())
            self._free.append(buffer)
            return before + packed.result()

    def _read_block(self) -> bool:
        """Read a block and have it packed. False if the file has no more."""
        assert self._source is not None, "open() comes first"
        buffer = self._free.pop() if self._free else memoryview(bytearray(_BLOCK))
        count = self._source.read(buffer)
        if not count:
            self._free.append(buffer)
            return False
        if count < len(buffer) and not self._packing:  # a small database, or the rest of one: no thread is worth it
            packed: Future[bytes] = Future()
            packed.set_result(pack_block(buffer[:count]))
        else:
            packed = _packers().submit(pack_block, buffer[:count])
        self._packing.append((buffer, count, packed))
        return True

    def finish(self) -> tuple[bytes, Stamp]:
        """The frame's last bytes, and the stamp (not filled in) of the committed state it belongs to. Closes."""
        with self._lock:
            self._check()
            assert self._source is not None, "open() comes first"
            try:
                return self._writer.finish(), self._source.finish()
            finally:
                self._close()

    def seal(self, stamp: Stamp) -> bytes:
        """The stamp's bytes, after `finish`."""
        return self._writer.seal(stamp)

    def close(self) -> None:
        """End the transaction. May be called twice."""
        with self._lock:
            self._close()

    def _check(self) -> None:
        if self._closed:
            raise GenerationChangedError("the snapshot was cancelled")

    def _close(self) -> None:
        self._closed = True
        wait([packed for _, _, packed in self._packing if not packed.cancel()])  # they read from the buffers
        self._free.clear()
        self._packing.clear()
        source, self._source = self._source, None
        if source is not None:
            source.close()


@lru_cache(maxsize=1)
def _packers() -> ThreadPoolExecutor:
    """The threads that compress, for all snapshots of the process: many at a time must not take every processor."""
    return ThreadPoolExecutor(_WORKERS, thread_name_prefix="litestream-snapshot")


async def to_the_end(work: Awaitable[T]) -> T:
    """Await `work` to its end even if cancelled meanwhile; the cancellation follows."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
