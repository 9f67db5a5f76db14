"""A snapshot's bytes, from the database file to the body of a put."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any, TypeVar

from litestream.core.stamp import Stamp
from litestream.errors import GenerationChangedError
from litestream.replica.source import SnapshotSource, WALSource
from litestream.streams import BlockWriter, pack_block

T = TypeVar("T")
_Pieces = tuple[bytes, bytes]

_BLOCK = 2 << 20
"""Bytes of a block: as quick as the format's greatest, 4 MiB, in half of the memory; smaller ones restore slower."""
_PIECE = 256 << 10
"""Bytes that are read at once: they fit into the cache that a processor has for itself."""
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
        self._packing: deque[tuple[memoryview, Future[bytes], Future[_Pieces]]] = deque()

    def open(self) -> SnapshotSource:
        """Begin the transaction."""
        with self._lock:
            self._check()
            self._source = self._db.open_snapshot()
            return self._source

    def read(self) -> _Pieces | None:
        """The next bytes of the object, in two pieces; None when all of the file was read."""
        with self._lock:
            self._check()
            self._read_ahead()
            if not self._packing:
                return None
            pieces = self._packing[0][2].result()
            self._free.append(self._packing.popleft()[0])
            self._read_ahead()  # there is work for both processors while these are stored
            return pieces

    def _read_ahead(self) -> None:
        while len(self._packing) < _AHEAD and self._read_block():
            pass

    def _read_block(self) -> bool:
        """Read a block and have it packed. False if the file has no more."""
        assert self._source is not None, "open() comes first"
        buffer = self._free.pop() if self._free else memoryview(bytearray(_BLOCK))
        count = self._fill(self._source, buffer)
        if not count:
            self._free.append(buffer)
            return False
        block = buffer[:count]
        packed: Future[bytes] = Future()
        pieces: Future[_Pieces] = Future()
        if count < len(buffer) and not self._packing:  # a small database, or the rest of one: no thread is worth it
            packed.set_result(pack_block(block))
            pieces.set_result(self._take(count, packed))
        else:
            packed = _packers().submit(pack_block, block)
            pieces = _hasher().submit(self._take, count, packed)
        self._packing.append((buffer, packed, pieces))
        return True

    def _fill(self, source: SnapshotSource, buffer: memoryview) -> int:
        """Read a block, and take each piece of it into the checksum while the processor still has it at hand."""
        done = 0
        while done < len(buffer):
            piece = buffer[done : done + _PIECE]
            count = source.read(piece)
            self._writer.content(piece[:count])
            done += count
            if count < len(piece):
                break
        return done

    def _take(self, size: int, packed: Future[bytes]) -> _Pieces:
        """What stands before a packed block, and the block; both are in the object's hash then. In order."""
        return self._writer.take(size, packed.result()), packed.result()

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
        futures: list[Future[Any]] = [future for _, packed, pieces in self._packing for future in (pieces, packed)]
        wait([future for future in futures if not future.cancel()])  # they read from the buffers
        self._free.clear()
        self._packing.clear()
        source, self._source = self._source, None
        if source is not None:
            source.close()


@lru_cache(maxsize=1)
def _packers() -> ThreadPoolExecutor:
    """The threads that compress, for all snapshots of the process: many at a time must not take every processor."""
    return ThreadPoolExecutor(_WORKERS, thread_name_prefix="litestream-snapshot")


@lru_cache(maxsize=1)
def _hasher() -> ThreadPoolExecutor:
    """The thread that computes the hashes of objects, which go on from one packed block to the next."""
    return ThreadPoolExecutor(1, thread_name_prefix="litestream-hash-object")


async def read_ahead(db: WALSource, stream: SnapshotStream) -> AsyncGenerator[_Pieces]:
    """All that `stream` gives, up to `finish`. The next of it is read while the consumer stores what it got."""
    reading = asyncio.ensure_future(db.call(stream.read))
    try:
        while (pieces := await reading) is not None:
            reading = asyncio.ensure_future(db.call(stream.read))
            yield pieces
    finally:
        reading.cancel()  # the consumer has given up; if it has failed, nobody is told of that either


async def to_the_end(work: Awaitable[T]) -> T:
    """Await `work` to its end even if cancelled meanwhile; the cancellation follows."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
