"""Putting pages where they belong: the newest version of each, once.

WAL frames come newest first, so the first sight of a page is its last version; the snapshot comes last and fills
what no frame has given. Memory: a byte for each page of the database.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from typing import TYPE_CHECKING

from litestream.core.checksum import Buffer
from litestream.core.wal import FRAME_HEADER_SIZE, frame_size, frames_table, is_page_size
from litestream.direct import ALIGNMENT, Direct
from litestream.errors import CorruptObjectError
from litestream.restore.segment import PIECE, Segment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGIC = b"SQLite format 3\0"
HEADER_SIZE = 100
_LOCK_BYTE = 0x40000000
"""SQLite locks bytes from here on; the page that holds them is never written (sqlite.org/fileformat2.html)."""
_FEW_FRAMES = 64
"""Up to here the plain loop beats numpy."""
_PLAIN_BYTES = 1 << 20
"""And up to here loading numpy (150 ms or more) is not worth it."""
_SEEN = 1
_LARGE = 64 << 20
"""Bytes of a database from which on the page cache is a detour, if it is not read at once."""


class PageWriter:
    """Writes the pages of the restored database into an open file.

    Attributes:
        page_size: of the database.
        total: pages that the database will have; None until it is known.

    Args:
        reread: the file is read as soon as it is there: it is kept in the page cache, unless it is too large for that.
    """

    def __init__(self, fd: int, page_size: int, *, max_bytes: int, reread: bool = True) -> None:
        self.fd = fd
        self.page_size = page_size
        self.total: int | None = None
        self._max_pages = max_bytes // page_size
        self._reread = reread
        self._direct: Direct | None = None
        self._seen = bytearray()  # by page number; number 0 does not exist

    def begin(self, total: int, key: str) -> None:
        """The database will have `total` pages; `key` is the object that says so.

        Raises `CorruptObjectError` if that is more than all objects together can hold, and `OSError` if there is
        no room for it.
        """
        if not 0 < total <= self._max_pages:
            raise CorruptObjectError(f"a database of {total} pages cannot be in these objects", key=key)
        self.total = total
        self._seen = bytearray(total + 1)
        os.ftruncate(self.fd, total * self.page_size)
        _reserve(self.fd, total * self.page_size)

    def apply(self, segment: Segment, frames: int) -> None:
        """Write the pages of the first `frames` frames of a segment that no newer frame has given."""
        per_piece = max(1, PIECE // frame_size(self.page_size))
        end = frames
        while end:
            first = max(0, end - per_piece)
            self._apply_piece(segment.read(first, end - first), end - first)
            end = first

    def fill(self, offset: int, data: Buffer) -> None:
        """Write a piece of the snapshot where no frame has given the page."""
        if self.total is None:
            raise ValueError("the size is not known yet")
        data_end = min(offset + len(data), self.total * self.page_size)
        view, number = memoryview(data), offset // self.page_size + 1
        while (number - 1) * self.page_size < data_end:
            last = (data_end - 1) // self.page_size + 1
            number = self._seen.find(0, number, last + 1)
            if number < 0:
                return
            behind = self._seen.find(_SEEN, number, last + 1)
            behind = last + 1 if behind < 0 else behind
            start = max((number - 1) * self.page_size, offset)
            stop = min((behind - 1) * self.page_size, data_end)
            self._write_run(view[start - offset : stop - offset], start)
            number = behind

    def close(self) -> None:
        """All is written; the file itself stays open. May be called twice."""
        if self._direct is not None:
            self._direct.close()

    def missing(self, snapshot_size: int) -> int:
        """The first page that neither a frame nor the snapshot of so many bytes has given; 0 if there is none."""
        if self.total is None:
            raise ValueError("the size is not known yet")
        lock_page = _LOCK_BYTE // self.page_size + 1
        number = snapshot_size // self.page_size
        while 0 <= (number := self._seen.find(0, number + 1)) == lock_page:
            pass
        return max(number, 0)

    # -- inside

    def _write_run(self, data: memoryview, offset: int) -> None:
        if self._direct is None and self._is_past_cache():
            self._direct = Direct(self.fd)
        done = self._direct.write(data, offset) if self._direct is not None else 0
        if done < len(data):
            write_at(self.fd, data[done:], offset + done)

    def _is_past_cache(self) -> bool:
        """Whether the file does not belong in the page cache: nobody looks at it soon, or it does not fit in."""
        size = (self.total or 0) * self.page_size
        large = _LARGE if not self._reread else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        return size >= large and self.page_size % ALIGNMENT == 0

    def _apply_piece(self, view: memoryview, count: int) -> None:
        plain = count <= _FEW_FRAMES or ("numpy" not in sys.modules and len(view) <= _PLAIN_BYTES)
        if plain:
            self._apply_plain(view, count)
        else:
            self._apply_numpy(view)

    def _apply_plain(self, view: memoryview, count: int) -> None:
        size = frame_size(self.page_size)
        for n in range(count - 1, -1, -1):
            number = int.from_bytes(view[n * size : n * size + 4], "big")
            if number < len(self._seen) and not self._seen[number]:
                self._seen[number] = _SEEN
                page = view[n * size + FRAME_HEADER_SIZE : (n + 1) * size]
                write_at(self.fd, page, (number - 1) * self.page_size)

    def _apply_numpy(self, view: memoryview) -> None:
        import numpy as np

        numbers, _ = frames_table(view, self.page_size)
        seen = np.frombuffer(self._seen, np.uint8)
        wanted = np.flatnonzero(numbers < len(seen))
        wanted = wanted[seen[numbers[wanted]] == 0][::-1]  # newest first, so that unique() takes the newest
        pages, newest = np.unique(numbers[wanted], return_index=True)
        if not len(pages):
            return
        seen[pages] = _SEEN
        frames = np.frombuffer(view, np.uint8).reshape(len(numbers), frame_size(self.page_size))
        self._write_runs(pages, frames[wanted[newest], FRAME_HEADER_SIZE:])

    def _write_runs(self, pages: NDArray[np.int64], content: NDArray[np.uint8]) -> None:
        """Write pages (ascending numbers), neighbours in one call."""
        import numpy as np

        # One plain call for each run: pages that change at random are not neighbours, and there are very many of them.
        size, fd, pwrite = self.page_size, self.fd, os.pwrite
        borders = np.flatnonzero(np.diff(pages) != 1) + 1
        data = np.ascontiguousarray(content).data.cast("B")
        begins = np.concatenate(([0], borders))
        ends = np.append(borders, len(pages)) * size
        offsets = (pages[begins] - 1) * size
        for begin, end, offset in zip((begins * size).tolist(), ends.tolist(), offsets.tolist(), strict=True):
            run = data[begin:end]
            done = pwrite(fd, run, offset)
            if done < end - begin:
                write_at(fd, run[done:], offset + done)


def write_at(fd: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


def database_header(head: bytes, key: str) -> tuple[int, int]:
    """Page size and size in pages of the database that begins with `head`; 0 pages: its header does not say.

    Raises `CorruptObjectError` if that is no plain SQLite database.
    """
    if len(head) < HEADER_SIZE or head[:16] != MAGIC:
        raise CorruptObjectError("does not begin with a SQLite database's header", key=key)
    raw = struct.unpack_from(">H", head, 16)[0]
    page_size = 65536 if raw == 1 else raw
    if not is_page_size(page_size):
        raise CorruptObjectError(f"database header with a page size of {page_size}", key=key)
    changes, pages, valid_for = (struct.unpack_from(">I", head, at)[0] for at in (24, 28, 92))
    return page_size, pages if changes == valid_for else 0


def _reserve(fd: int, size: int) -> None:
    """Allocate the blocks now: a full disk shows at once, and the file is in fewer pieces."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
