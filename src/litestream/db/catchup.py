"""Going on after continuity was lost: what differs from the state that the replicas hold, as a WAL of our own.

One committed state of the database is read under a transaction that holds it in place, and compared page by page with
the hashes of the state that was copied last (docs/capture.md). The pages that differ become the next index: a WAL with
salts of its own, right checksums, and one transaction. Every reader of the format applies it like any other. The live
WAL follows as the index after it.

Correctness does not hang on the hashes: without ones that hold for just this position there is no catch-up.
"""

from __future__ import annotations

import logging
import secrets
import sys
from array import array
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace

from litestream.core.checksum import chain_frames
from litestream.core.position import MAX_INDEX, Pos
from litestream.core.wal import FRAME_HEADER_SIZE, WAL_HEADER_SIZE, WALHeader, frame_size
from litestream.db.capture import SEGMENT_LIMIT, Base, Capture, Cursor
from litestream.db.hashes import ENTRY, PageHashes
from litestream.db.staged import StagedIndex
from litestream.errors import ContinuityLostError, DatabaseBusyError
from litestream.sqlite.pages import PIECE, LivePages
from litestream.sqlite.walwriter import with_last
from litestream.streams import compress

LIVE_LIMIT = 64 << 20
"""Bytes of a live WAL that are published in one piece if need be; they are held in memory."""

_MOST_SHARE = 2
"""If more than the half of the pages differ, a snapshot is not much more to send, and much less to restore."""
_SMALL = 256
"""Pages of a database for which that does not matter."""
_LOCK_BYTE = 0x40000000
_AHEAD = 3
"""Pieces that are hashed beside the one that is looked at."""


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What a catch-up has published."""

    pages: int
    total: int
    """Pages of the database."""


class _TooMuchError(Exception):
    """A snapshot is the better answer."""


class CatchUp:
    """One attempt, from a capture whose cursor is where the last copy ended. Blocking.

    Args:
        capture: of the generation that is to go on; its cursor, shadow and hashes are moved on.
        pages: the state, under its own transaction; it must be held until everything behind it has been copied.
        stopped: asked now and then whether to give up (`DatabaseBusyError`).
    """

    def __init__(self, capture: Capture, pages: LivePages, stopped: Callable[[], bool]) -> None:
        self._capture = capture
        self._pages = pages
        self._stopped = stopped
        self._numbers = array("I")
        self._size = frame_size(pages.page_size)

    def run(self) -> CaughtUp | None:
        """Publish what differs; None if a new generation is the better answer. The cursor then stands at the state.

        Raises `OSError` if the local state cannot be written, and what reading the database raises. The cursor is as
        it was then.
        """
        capture, before = self._capture, self._capture.cursor
        base = self._base()
        if base is not None and not base.in_file and base.end > LIVE_LIMIT:
            return None
        with capture.shadow.stage(self._index(before)) as staged:
            try:
                after = self._write(staged, before)
            except _TooMuchError:
                return None
            finally:
                capture.hashes.trim()
            if after is not before:
                total = self._pages.total
                capture.hashes.forget(((number, total) for number in self._numbers), before.pos, after.pos)
                capture.shadow.publish(staged)
                capture.last_commit_ns = staged.segments[-1][0].last_commit_ns
        capture.cursor = replace(after, base=base)
        return CaughtUp(len(self._numbers), self._pages.total)

    # -- inside

    def _index(self, before: Cursor) -> int:
        index = before.pos.index + bool(before.header)
        if index >= MAX_INDEX:
            raise ContinuityLostError("max index exceeded")
        return index

    def _base(self) -> Base:
        """Where the live WAL stands in the state that is read."""
        pages = self._pages
        if not pages.end:
            return Base(b"", 0, (0, 0), b"", in_file=True)
        source = self._capture.source
        # The transaction holds this WAL: its header is that of the wal-index at that moment, or it was reset meanwhile.
        # A reset writes the header before any frame: so the frame is looked at first.
        frame, raw = source.read_wal(pages.end - self._size, FRAME_HEADER_SIZE), source.wal_header()
        header = WALHeader.parse(raw)
        if header.salts != pages.header.salts:
            raise DatabaseBusyError("the WAL started over while it was read")
        return Base(raw, pages.end, pages.header.checksum, frame, in_file=pages.in_file)

    def _write(self, staged: StagedIndex, before: Cursor) -> Cursor:
        """Store the segments; the cursor behind them, or `before` if nothing differs."""
        capture, now = self._capture, self._capture.now()
        wal = WALHeader.build(before.page_size, secrets.token_bytes(8), big=sys.byteorder == "big")
        cursor = Cursor(
            Pos(before.pos.generation, self._index(before), 0),
            before.page_size,
            self._pages.total,
            wal.raw,
            wal.checksum,
            ended=before.pos if before.header else Pos(),
            ended_checksum=before.checksum if before.header else (0, 0),
        )
        first = cursor
        for piece, last in with_last(self._pieces(before.db_pages)):
            if last:
                piece[4 - self._size : 8 - self._size] = self._pages.total.to_bytes(4, "big")
            checksum = chain_frames(
                piece, page_size=before.page_size, start=cursor.checksum, salts=wal.salts, big=wal.big
            )
            data = piece if cursor is not first else bytearray(wal.raw) + piece
            after = replace(
                cursor,
                pos=Pos(cursor.pos.generation, cursor.pos.index, cursor.pos.offset + len(data)),
                checksum=checksum,
                last_frame=bytes(data[-self._size : FRAME_HEADER_SIZE - self._size]),
            )
            staged.append(compress(data), capture.segment_stamp(cursor, after, len(data), now))
            cursor = after
        return before if cursor is first else cursor

    def _pieces(self, pages_before: int) -> Iterator[bytearray]:
        """The pages that differ as frames without checksums, at most a segment in each piece."""
        most = max(_SMALL, self._pages.total // _MOST_SHARE)
        piece = bytearray()
        for number, page in self._different(pages_before):
            self._numbers.append(number)
            if len(self._numbers) > most:
                raise _TooMuchError
            piece += number.to_bytes(4, "big") + bytes(FRAME_HEADER_SIZE - 4) + page
            if len(piece) + self._size > SEGMENT_LIMIT - WAL_HEADER_SIZE:
                yield piece
                piece = bytearray()
        if piece:
            yield piece

    def _different(self, pages_before: int) -> Iterator[tuple[int, memoryview]]:
        """Number and content of each page that is not known to be what it was.

        A database that only became shorter has no such page: its first one tells the new length.
        """
        size, hashes, found = self._pages.page_size, self._capture.hashes, False
        lock_page = _LOCK_BYTE // size + 1
        with closing(self._hashed(hashes)) as pieces:
            for first, data, digests in pieces:
                if self._stopped():
                    raise DatabaseBusyError("stopped while catching up")
                known = hashes.entries(first, len(digests))
                if known == b"".join(digests):
                    continue
                view = memoryview(data)
                for n, digest in enumerate(digests):
                    if known[n * ENTRY : (n + 1) * ENTRY] != digest and first + n != lock_page:
                        found = True
                        yield first + n, view[n * size : (n + 1) * size]
        if not found and pages_before not in (0, self._pages.total):
            yield 1, memoryview(self._pages.read(1, 1))

    def _hashed(self, hashes: PageHashes) -> Generator[tuple[int, bytearray, list[bytes]]]:
        """All pages in order: number of the first, the pages, their hashes. Two threads hash ahead."""

        def one(first: int, count: int) -> tuple[int, bytearray, list[bytes]]:
            data = self._pages.read(first, count)
            return first, data, hashes.digests(memoryview(data))

        per_piece = max(1, PIECE // self._pages.page_size)
        waiting: list[Future[tuple[int, bytearray, list[bytes]]]] = []
        with ThreadPoolExecutor(2, thread_name_prefix="litestream-hash") as pool:
            try:
                for first in range(1, self._pages.total + 1, per_piece):
                    waiting.append(pool.submit(one, first, min(per_piece, self._pages.total - first + 1)))
                    if len(waiting) > _AHEAD:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def tell(
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger], path: str, pos: Pos, done: CaughtUp, reason: str
) -> None:
    """The log line of a catch-up."""
    fields = {"db": path, "generation": pos.generation, "pages": done.pages, "of": done.total, "reason": reason}
    logger.info('sync: caught up "%s", %s', pos.generation, reason, extra={"fields": fields})
