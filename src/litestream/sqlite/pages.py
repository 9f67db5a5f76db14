"""One committed state of a live database, page by page, while writers go on.

A read transaction keeps the state in place (docs/capture.md, F1 and F2). If it took a mark, the WAL cannot be reset and
no page is backfilled from a frame behind the mark: a page is its last frame up to there, else what stands in the file.
If everything was backfilled when it began, the file alone is the state, and no checkpoint may touch it.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

from litestream.core.wal import FRAME_HEADER_SIZE, frame_offset, frame_size
from litestream.errors import DatabaseBusyError, DatabaseError, JournalModeError
from litestream.sqlite.connection import printable

if TYPE_CHECKING:
    from litestream.core.walindex import WalIndexHeader
    from litestream.sqlite.source import Reader, Source

PIECE = 1 << 20
"""Bytes of pages handed out at once."""
_TRIES = 200
_PAUSE = 0.0002  # seconds, times the attempt: a writer needs microseconds between two looks of ours


class LivePages:
    """A read transaction whose place in the WAL is known. Blocking.

    `close` may come from another thread than the one that reads, and ends that.

    Attributes:
        page_size: bytes of a page.
        total: pages of the database in this state.
        header: the wal-index as it was when the transaction began: `max_frame` is the last frame that counts.
        in_file: whether the database file alone is the state: everything was backfilled.
    """

    def __init__(self, source: Source, reader: Reader, header: WalIndexHeader, *, in_file: bool) -> None:
        self.header = header
        self.page_size = source.page_size
        self.total = header.db_pages or source.database_size() // source.page_size
        self._source = source
        self._reader: Reader | None = reader
        self.in_file = in_file
        self._frames: array[int] | None = None
        self._reading = threading.Lock()
        self._scanning = threading.Lock()

    @classmethod
    def begin(cls, source: Source) -> LivePages:
        """Begin the transaction, at a moment at which nobody commits or backfills.

        Raises `JournalModeError` without WAL mode, and `DatabaseBusyError` if there is no such moment.
        """
        if not source.is_wal:
            raise JournalModeError(f"not in WAL mode: {printable(source.path)}")
        for attempt in range(_TRIES):
            before = source.wal_index()
            reader = source.begin_reader()
            try:
                after = source.wal_index()
                # Equal looks before and after: nothing was committed and nothing backfilled between them, so this is
                # what the reader sees, and whether it took a mark.
                if after is not None and after == before:
                    header, backfilled = after
                    return cls(source, reader, header, in_file=backfilled == header.max_frame)
            except BaseException:
                source.end_reader(reader)
                raise
            source.end_reader(reader)
            time.sleep(attempt * _PAUSE)
        raise DatabaseBusyError(f"the WAL cannot be read at one moment: {printable(source.path)}")

    @property
    def end(self) -> int:
        """Offset in the WAL behind the last frame that counts; 0 if the WAL holds none."""
        return frame_offset(self.header.max_frame, self.page_size) if self.header.max_frame else 0

    def chunks(self) -> Iterator[bytes]:
        """All pages in order, in pieces of whole pages. Raises `DatabaseError` once `close` was called.

        Memory: a piece, and four bytes for each page of the database.
        """
        per_piece = max(1, PIECE // self.page_size)
        for first in range(1, self.total + 1, per_piece):
            yield bytes(self.read(first, min(per_piece, self.total - first + 1)))

    def read(self, first: int, count: int) -> bytearray:
        """`count` pages from page `first` on. For any thread. Raises `DatabaseError` once `close` was called."""
        frames, size = self._table(), self.page_size
        with self._reading:
            self._check()
            data = bytearray(self._source.read_database((first - 1) * size, count * size))
            data += bytes(count * size - len(data))
            for n in range(count if frames is not None else 0):
                frame = frames[first + n] if frames is not None else 0
                if frame:
                    data[n * size : (n + 1) * size] = self._frame(frame)
        return data

    def close(self) -> None:
        """End the transaction. May be called twice."""
        with self._reading:
            reader, self._reader = self._reader, None
            if reader is not None:
                self._source.end_reader(reader)

    # -- inside

    def _table(self) -> array[int] | None:
        """By page number, the last frame that holds it (the first being 1, 0 for none); None: the file has all."""
        if self.in_file:
            return None
        with self._scanning:
            if self._frames is None:
                self._frames = self._last_frames()
            return self._frames

    def _last_frames(self) -> array[int]:
        frames = array("I", bytes(4 * (self.total + 1)))
        size = frame_size(self.page_size)
        per_piece = max(1, PIECE // size)
        for first in range(0, self.header.max_frame, per_piece):
            count = min(per_piece, self.header.max_frame - first)
            with self._reading:
                self._check()
                data = self._source.read_wal(frame_offset(first, self.page_size), count * size)
            for n in range(len(data) // size):
                number = int.from_bytes(data[n * size : n * size + 4], "big")
                if number <= self.total:
                    frames[number] = first + n + 1
        return frames

    def _frame(self, frame: int) -> bytes:
        offset = frame_offset(frame - 1, self.page_size) + FRAME_HEADER_SIZE
        page = self._source.read_wal(offset, self.page_size)
        return page + bytes(self.page_size - len(page))

    def _check(self) -> None:
        if self._reader is None:
            raise DatabaseError(f"reading ended: {printable(self._source.path)}")
