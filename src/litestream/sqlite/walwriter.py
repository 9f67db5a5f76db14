"""Committing whole pages to a WAL: what SQLite has no call for.

Locks, recovery and checkpoints are SQLite's own work: whoever calls this holds the write lock by `BEGIN IMMEDIATE`. The
order of the writes is SQLite's as well: frames behind the last commit, which no reader looks at, then the hash tables,
then both copies of the wal-index header, which is the commit. A process that dies in between leaves what a writer of
SQLite would: frames that nobody sees (sqlite.org/walformat.html).
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from litestream.core.checksum import Checksum, chain_frames
from litestream.core.wal import WALHeader, frame_offset, frame_size
from litestream.core.walindex import (
    BLOCK_SIZE,
    WAL_INDEX_SIZE,
    WalIndexHeader,
    block_of,
    enter_frames,
    last_frame_of,
    pack_wal_index,
    parse_wal_index,
)
from litestream.errors import DatabaseBusyError, DatabaseError

_COPY = 48
_BIG = sys.byteorder == "big"


@dataclass(frozen=True, slots=True)
class Mark:
    """What tells one committed state of a WAL from all others. `frames` 0: the WAL is empty."""

    salts: str = ""
    frames: int = 0
    checksum: Checksum = (0, 0)

    @classmethod
    def of(cls, header: WalIndexHeader) -> Mark:
        return cls(header.salts.hex(), header.max_frame, header.checksum) if header.max_frame else cls()


class WALWriter:
    """Writes to the `-wal` and `-shm` of a database that this process has open. Blocking.

    Its descriptors are closed by `close`, which must come after that of the last connection: it drops their locks.
    """

    def __init__(self, path: str, page_size: int) -> None:
        self._page_size = page_size
        self._wal = os.open(path + "-wal", os.O_RDWR | os.O_CLOEXEC)
        try:
            self._shm = os.open(path + "-shm", os.O_RDWR | os.O_CLOEXEC)
        except BaseException:
            os.close(self._wal)
            raise

    def header(self) -> WalIndexHeader:
        """The wal-index header. Raises `DatabaseBusyError` if it cannot be read: not under the write lock."""
        parsed = parse_wal_index(os.pread(self._shm, WAL_INDEX_SIZE, 0))
        if parsed is None:
            raise DatabaseBusyError("the wal-index is being written by another process")
        return parsed[0]

    def commit(self, pieces: Iterable[bytearray], db_pages: int, intent: Callable[[Mark], None]) -> Mark:
        """Commit frames as one transaction after which the database has `db_pages` pages. Under the write lock.

        `pieces` are whole frames of which the page numbers count (and the pages); there is at least one. `intent` is
        told the mark of the state before anybody, even a recovery, can see it.
        """
        before = self.header()
        wal = self._continued(before)
        frames, checksum, page_size = before.max_frame, self._start(before, wal), self._page_size
        if not before.max_frame:
            # Old frames under an old header must never meet new ones after a power cut.
            os.pwrite(self._wal, wal.raw, 0)
            os.fsync(self._wal)
        for piece, last in with_last(pieces):
            _set_commits(piece, page_size, db_pages if last else 0)
            checksum = chain_frames(piece, page_size=page_size, start=checksum, salts=wal.salts, big=wal.big)
            count = len(piece) // frame_size(page_size)
            mark = Mark(wal.salts.hex(), frames + count, checksum)
            if last:
                intent(mark)
            _write(self._wal, piece, frame_offset(frames, page_size))
            self._enter(frames + 1, _pages(piece, page_size))
            frames += count
        if frames == before.max_frame:
            raise DatabaseError("a transaction without a page")
        change = (before.change + 1) & 0xFFFFFFFF
        self._publish(WalIndexHeader(change, page_size, frames, db_pages, checksum, wal.salts, wal.big))
        return mark

    def close(self) -> None:
        """Close the descriptors. May be called twice."""
        for descriptor in (self._wal, self._shm):
            if descriptor >= 0:
                os.close(descriptor)
        self._wal = self._shm = -1

    def _continued(self, before: WalIndexHeader) -> WALHeader:
        """The header of the WAL that is written on: a new one if it is empty."""
        if before.max_frame:
            return WALHeader.build(self._page_size, before.salts, big=before.big)
        return WALHeader.build(self._page_size, secrets.token_bytes(8), big=_BIG)

    def _start(self, before: WalIndexHeader, wal: WALHeader) -> Checksum:
        return before.checksum if before.max_frame else wal.checksum

    def _enter(self, first: int, pages: list[int]) -> None:
        """Enter frames in the hash tables, block by block."""
        while pages:
            block = block_of(first)
            room = last_frame_of(block) - first + 1
            at = block * BLOCK_SIZE
            raw = bytearray(os.pread(self._shm, BLOCK_SIZE, at))
            raw += bytes(BLOCK_SIZE - len(raw))
            enter_frames(raw, block, first, pages[:room])
            # The header and the readers' marks in the first block are not ours to write.
            own = WAL_INDEX_SIZE if block == 0 else 0
            _write(self._shm, memoryview(raw)[own:], at + own)
            first, pages = first + room, pages[room:]

    def _publish(self, header: WalIndexHeader) -> None:
        raw = pack_wal_index(header)
        _write(self._shm, raw, _COPY)  # the second copy first: a reader takes them only while both are equal
        _write(self._shm, raw, 0)


def with_last(pieces: Iterable[bytearray]) -> Iterator[tuple[bytearray, bool]]:
    """Each piece, and whether it is the last one."""
    held: bytearray | None = None
    for piece in pieces:
        if held is not None:
            yield held, False
        held = piece
    if held is not None:
        yield held, True


def _set_commits(piece: bytearray, page_size: int, db_pages: int) -> None:
    """Let no frame of the piece end a transaction but, with `db_pages`, the last."""
    size = frame_size(page_size)
    for at in range(0, len(piece), size):
        piece[at + 4 : at + 8] = bytes(4)
    if db_pages:
        piece[-size + 4 : 8 - size] = db_pages.to_bytes(4, "big")


def _pages(piece: bytearray, page_size: int) -> list[int]:
    return [int.from_bytes(piece[at : at + 4], "big") for at in range(0, len(piece), frame_size(page_size))]


def _write(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)
