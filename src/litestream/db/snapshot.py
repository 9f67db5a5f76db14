"""Reading the database file for a snapshot, while the application and the capture go on."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from litestream.core.position import Pos
from litestream.core.stamp import Stamp
from litestream.errors import GenerationChangedError

if TYPE_CHECKING:
    from litestream.sqlite.source import Reader, Source

CHUNK = 4 * 1024 * 1024


class DatabaseSnapshot:
    """One copy of the database file, under a read transaction of its own.

    The reader keeps every page that the copy needs either in the file or in the WAL from `pos.index` on. What is read
    is a committed state only together with the WAL up to the position that `finish` writes into the stamp.

    `chunks` may run in any one thread at a time; `close` ends the reader, whatever happened before, and may come from
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
        self._sha256 = hashlib.sha256()
        self._reading = threading.Lock()

    def chunks(self) -> Iterator[bytes]:
        """The file in pieces of 4 MiB. Raises `GenerationChangedError` if its history ended meanwhile.

        A file that shrinks while it is read is no error: the pages that are gone are beyond the size which the WAL
        up to the required position gives it, or are written anew by that WAL; they read as zeros.
        """
        offset = 0
        while offset < self.size:
            size = min(CHUNK, self.size - offset)
            with self._reading:
                self._check()
                if self._reader is None:
                    raise GenerationChangedError("the snapshot was ended")
                data = self._source.read_database(offset, size)
            if len(data) < size:
                data += bytes(size - len(data))
            self._sha256.update(data)
            yield data
            offset += size

    @property
    def sha256(self) -> str:
        """Hash of what was read."""
        return self._sha256.hexdigest()

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
