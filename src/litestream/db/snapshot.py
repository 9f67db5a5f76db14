"""Reading the database file for a snapshot, while the application and the capture go on."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from litestream.core.position import Pos
from litestream.core.stamp import Stamp
from litestream.errors import GenerationChangedError

if TYPE_CHECKING:
    from litestream.sqlite.source import Reader, Source

HASHED_SIZE = 64 << 20
"""Bytes of a file up to which it is hashed as a whole: of a larger one, the hashes of its pages say more and later."""


class DatabaseSnapshot:
    """One copy of the database file, under a read transaction of its own.

    The reader keeps every page that the copy needs either in the file or in the WAL from `pos.index` on. What is read
    is a committed state only together with the WAL up to the position that `finish` writes into the stamp.

    `read` may run in any one thread at a time; `close` ends the reader, whatever happened before, and may come from
    another thread: what is read later is an error.
    """

    def __init__(
        self,
        source: Source,
        reader: Reader,
        pos: Pos,
        finish: Callable[[DatabaseSnapshot], Stamp],
        check: Callable[[], None],
        closed: Callable[[DatabaseSnapshot], None],
    ) -> None:
        self.pos = pos
        self.page_size = source.page_size
        self.size = source.database_size()
        self._source = source
        self._reader: Reader | None = reader
        self._finish = finish
        self._check = check
        self._closed = closed
        self._offset = 0
        self._sha256 = hashlib.sha256() if self.size <= HASHED_SIZE else None
        self._reading = threading.Lock()

    def read(self, buffer: memoryview) -> int:
        """The file's next bytes; fewer than the buffer has room for only at its end, and none behind it.

        Raises `GenerationChangedError` if its history ended meanwhile. A file that shrinks while it is read is no
        error: the pages that are gone are beyond the size which the WAL up to the required position gives it, or are
        written anew by that WAL; they read as zeros.
        """
        buffer = buffer[: self.size - self._offset]
        if not buffer:
            return 0
        with self._reading:
            self._check()
            if self._reader is None:
                raise GenerationChangedError("the snapshot was ended")
            count = self._source.read_database_into(buffer, self._offset)
        buffer[count:] = bytes(len(buffer) - count)
        if self._sha256 is not None:
            self._sha256.update(buffer)
        self._offset += len(buffer)
        return len(buffer)

    @property
    def sha256(self) -> str:
        """Hash of what was read; empty for a file of more than `HASHED_SIZE` bytes."""
        return self._sha256.hexdigest() if self._sha256 is not None else ""

    def finish(self) -> Stamp:
        """Copy every committed frame, then the stamp to write behind the snapshot (length and hash not filled in)."""
        return self._finish(self)

    def close(self) -> None:
        """End the read transaction. May be called twice."""
        with self._reading:
            reader, self._reader = self._reader, None
            if reader is not None:
                self._source.end_reader(reader)
                self._closed(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
