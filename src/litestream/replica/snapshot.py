"""A snapshot's bytes, from the database file to the body of a put."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Iterator
from typing import TypeVar

from litestream.core.stamp import Stamp
from litestream.errors import GenerationChangedError
from litestream.replica.source import SnapshotSource, WALSource
from litestream.streams import FrameWriter

T = TypeVar("T")


class SnapshotStream:
    """Reads and compresses a database file piece by piece. Blocking; any thread, one at a time.

    `close` may be called at any moment, also while a cancelled `open` or `read` still runs in some thread: it waits
    for that, and nothing is opened after it. A transaction left open would keep the application's WAL from restarting.
    """

    def __init__(self, db: WALSource) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._closed = False
        self._source: SnapshotSource | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._writer = FrameWriter()

    def open(self) -> SnapshotSource:
        """Begin the transaction."""
        with self._lock:
            self._check()
            self._source = self._db.open_snapshot()
            self._chunks = self._source.chunks()
            return self._source

    def read(self) -> bytes | None:
        """The next compressed bytes, perhaps none yet; None when all of the file was read."""
        with self._lock:
            self._check()
            chunk = next(self._chunks, None)
            return None if chunk is None else self._writer.write(chunk)

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
        source, self._source = self._source, None
        if source is not None:
            source.close()


async def to_the_end(work: Awaitable[T]) -> T:
    """Await `work` to its end even if cancelled meanwhile; the cancellation follows."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
