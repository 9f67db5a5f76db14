"""The local copy of a followed database: ordinary SQLite readers use it while whole pages are committed to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import apsw

from litestream.core.wal import FRAME_HEADER_SIZE, is_page_size
from litestream.core.walindex import WalIndexHeader
from litestream.errors import ContinuityLostError, DatabaseBusyError, DatabaseError, NotADatabaseError
from litestream.sqlite.connection import connect, printable, translated
from litestream.sqlite.pages import LivePages
from litestream.sqlite.source import Source
from litestream.sqlite.walwriter import Mark, WALWriter

_LOCK_TIMEOUT = 5.0
"""Seconds to wait for the write lock: only a reader that checkpoints takes it, and not for long."""
_MAGIC = b"SQLite format 3\0"
_PENDING_BYTE = 0x40000000
"""The page that holds it is never written (sqlite.org/fileformat2.html)."""


class LocalCopy:
    """An open copy. Blocking; the caller serialises.

    Each `commit` and `replace` is one transaction: readers see all of it or nothing, and those that are inside a
    transaction keep what they see. What is committed outlives the death of any process; it is durable after
    `checkpoint`.

    Raises `DatabaseAbsentError`, `NotADatabaseError`, `JournalModeError` on opening.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._name = printable(path)
        self._source = Source(path)
        self._connection: apsw.Connection | None = None
        self._writer: WALWriter | None = None
        try:
            self.page_size = self._source.page_size
            self._source.end_reader(self._source.begin_reader())  # recovers, and makes -wal and -shm
            self._source.wal_size()  # opens it: `replaced` then tells of it as well
            self._connection = connect(path, _LOCK_TIMEOUT)
            self._writer = WALWriter(path, self.page_size)
            with self._locked() as writer:
                self._at(writer.header())
        except BaseException:
            self.close()
            raise

    @property
    def frames(self) -> int:
        """Frames in the WAL."""
        return self.mark.frames

    def identity(self) -> tuple[int, int]:
        """Device and inode of the file."""
        return self._source.identity()

    def commit(self, pieces: Iterable[bytearray], db_pages: int, intent: Callable[[Mark], None]) -> None:
        """Commit frames as one transaction; see `WALWriter.commit`.

        Raises `ContinuityLostError` if somebody else wrote to the copy or replaced its files, `DatabaseBusyError`.
        """
        if reason := self._source.replaced():
            raise ContinuityLostError(f"{reason}: {self._name}")
        with self._locked() as writer:
            header = writer.header()
            # A reader may have checkpointed, which counts as no change; only commits do.
            if Mark.of(header) not in (self.mark, Mark()) or header.change != self._change:
                raise ContinuityLostError(f"another program wrote to the copy: {self._name}")
            writer.commit(pieces, db_pages, intent)
            self._at(writer.header())

    def replace(self, content: BinaryIO, db_pages: int, intent: Callable[[Mark], None]) -> None:
        """Make the copy equal to a database file of so many pages, in one transaction of the pages that differ."""
        pages = LivePages.begin(self._source)
        try:
            self._at(pages.header)
            different = _different(content, pages, self.page_size, db_pages)
            first = next(different, None)
            if first is None and pages.total == db_pages:
                intent(self.mark)
                return
            if first is None:
                first = _frame(1, os.pread(content.fileno(), self.page_size, 0))
            self.commit(_chain(first, different), db_pages, intent)
        finally:
            pages.close()

    def checkpoint(self) -> bool:
        """Bring what is in the WAL to the file, durably, and empty the WAL. False if a reader still needs it."""
        complete, _, _ = self._source.checkpoint_passive()
        if not complete:
            return False
        connection = self._open()
        try:
            with translated(self.path):
                connection.set_busy_timeout(0)
                busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0]
        except DatabaseBusyError:
            return False
        finally:
            connection.set_busy_timeout(int(_LOCK_TIMEOUT * 1000))
        if busy:
            return False
        self.mark = Mark()
        return True

    def close(self) -> None:
        """Close everything, the descriptors last. May be called twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._source.close()
        if self._writer is not None:
            self._writer.close()

    def _at(self, header: WalIndexHeader) -> None:
        self.mark, self._change = Mark.of(header), header.change

    def _open(self) -> apsw.Connection:
        if self._connection is None:
            raise DatabaseError(f"closed: {self._name}")
        return self._connection

    def _locked(self) -> _Lock:
        assert self._writer is not None  # set before the first use
        return _Lock(self._open(), self._writer, self.path)


class _Lock:
    """The write lock, held by SQLite."""

    def __init__(self, connection: apsw.Connection, writer: WALWriter, path: str) -> None:
        self._connection, self._writer, self._path = connection, writer, path

    def __enter__(self) -> WALWriter:
        with translated(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
        return self._writer

    def __exit__(self, *_: object) -> None:
        with translated(self._path):
            self._connection.execute("ROLLBACK")
            # It has taken our header for its own, and so would not notice that the pages it has cached are old.
            self._connection.release_memory()


def file_header(content: BinaryIO) -> tuple[int, bool]:
    """Page size of a database file, and whether it is one in WAL mode. Raises `NotADatabaseError`."""
    head = os.pread(content.fileno(), 100, 0)
    raw = int.from_bytes(head[16:18], "big")
    page_size = 65536 if raw == 1 else raw
    if len(head) < 100 or head[:16] != _MAGIC or not is_page_size(page_size):
        raise NotADatabaseError("not a SQLite database")
    return page_size, head[18:20] == b"\x02\x02"


def _different(content: BinaryIO, pages: LivePages, page_size: int, db_pages: int) -> Iterator[bytearray]:
    """The pages of a file that are not as they are in the copy, as frames, in pieces."""
    lock_page = _PENDING_BYTE // page_size + 1
    number = 0
    for chunk in pages.chunks():
        if number >= db_pages:
            break
        piece = bytearray()
        new = os.pread(content.fileno(), len(chunk), number * page_size)
        for at in range(0, min(len(new), len(chunk)), page_size):
            number += 1
            page = new[at : at + page_size]
            if number <= db_pages and number != lock_page and page != chunk[at : at + page_size]:
                piece += _frame(number, page)
        if piece:
            yield piece
    while number < db_pages:
        piece = bytearray()
        count = min(db_pages - number, max(1, (1 << 20) // page_size))
        new = os.pread(content.fileno(), count * page_size, number * page_size)
        for at in range(0, len(new), page_size):
            number += 1
            if number != lock_page:
                piece += _frame(number, new[at : at + page_size])
        if not new:
            raise DatabaseError("the snapshot is shorter than it was")
        if piece:
            yield piece


def _frame(number: int, page: bytes) -> bytearray:
    frame = bytearray(FRAME_HEADER_SIZE)
    frame[:4] = number.to_bytes(4, "big")
    frame += page
    return frame


def _chain(first: bytearray, others: Iterator[bytearray]) -> Iterator[bytearray]:
    yield first
    yield from others
