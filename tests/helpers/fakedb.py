"""A database in memory as a replica sees it: real WAL frames in real shadow objects, no SQLite.

    db = FakeDB()
    db.begin()                 # a generation
    db.commit(3)               # one transaction of three frames, copied into a segment, replicas told
    db.checkpoint()            # everything into the file; the next commit begins a new index
    db.commit(copied=False)    # only `sync()` copies it

`db.state()` is what a restore of everything committed must give.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from helpers.walmaker import make_frames
from litestream.core.position import Pos, WALSegmentInfo
from litestream.core.stamp import Kind, Stamp
from litestream.core.wal import WALHeader
from litestream.errors import CorruptObjectError, GenerationChangedError, NoGenerationError
from litestream.streams import seal

T = TypeVar("T")

Restored = Callable[[], Awaitable[bytes]]
"""Restores the latest state of a replica."""


class FakeDB:
    """A `WALSource`. `log` says what was asked of it."""

    def __init__(self, path: str = "/data/app.db", *, page_size: int = 512, pages: int = 4, seed: int = 1) -> None:
        self._path = path
        self.page_size = page_size
        self._rng = random.Random(seed)
        self.file = bytearray(_header(page_size, pages) + self._rng.randbytes(page_size * (pages - 1)))
        self._wal: dict[int, bytes] = {}
        self._pos = Pos()
        self._restart = True
        self._header: WALHeader | None = None
        self._checksum = (0, 0)
        self._ended = Pos()
        self._ended_checksum = (0, 0)
        self._previous = Pos()
        self._uncopied: list[int] = []
        self.segments: dict[Pos, bytes] = {}
        self.acknowledged: dict[str, Pos] = {}
        self.notes: dict[str, str] = {}
        self.note_error: Exception | None = None
        self.subscribers: list[Callable[[], None]] = []
        self.reasons: list[str] = []
        self.opened = 0
        self.closed = 0
        self.syncs = 0
        self.sync_error: Exception | None = None
        self.on_chunk: Callable[[], object] = lambda: None
        self.chunk_size = 1024
        self._lane = ThreadPoolExecutor(2)
        self._lock = threading.RLock()  # a snapshot ends in a thread of the lane

    # -- the application

    def begin(self, generation: str | None = None, index: int = 0) -> str:
        """A new generation."""
        with self._lock:
            self._previous = self._pos
            self._pos = Pos(generation or f"{self._rng.getrandbits(64):016x}", index, 0)
            self._restart, self._header, self._ended, self._ended_checksum = True, None, Pos(), (0, 0)
            self.segments = {}
        self.tell()
        return self._pos.generation

    def commit(self, frames: int = 1, *, copied: bool = True) -> Pos:
        """One transaction. Returns the position behind it."""
        with self._lock:
            self._uncopied.append(frames)
        if copied:
            self.copy()
        return self._pos

    def checkpoint(self) -> None:
        """Everything goes into the file, and the next commit begins a new WAL."""
        with self._lock:
            self.file = bytearray(self.state())
            self._wal.clear()
            self._restart = True

    def state(self) -> bytes:
        """The database as committed (and copied)."""
        state = bytearray(self.file)
        for page, data in self._wal.items():
            state[(page - 1) * self.page_size : page * self.page_size] = data
        return bytes(state)

    def copy(self) -> None:
        """Copy what was committed, one segment a transaction, and tell the replicas."""
        with self._lock:
            moved = bool(self._uncopied)
            for frames in self._uncopied:
                self._append(frames)
            self._uncopied.clear()
        if moved:
            self.tell()

    def tell(self) -> None:
        """Wake the replicas."""
        for callback in list(self.subscribers):
            callback()

    def prune(self, before: Pos) -> None:
        """Forget segments before a position."""
        self.segments = {pos: body for pos, body in self.segments.items() if pos >= before}

    def _append(self, frames: int) -> None:
        if self._restart:
            self._next_index()
        header = self._header
        assert header is not None
        pages = len(self.file) // self.page_size
        numbers = [self._rng.randrange(2, pages + 1) for _ in range(frames)]
        rows = [(page, 0, self._rng.randbytes(self.page_size)) for page in numbers]
        rows[-1] = (rows[-1][0], pages, rows[-1][2])
        body = make_frames(header, rows, self._checksum)
        self._wal.update((page, data) for page, _, data in rows)
        first = self._pos.offset == 0
        before, checksum = (self._ended, self._ended_checksum) if first else (self._pos, self._checksum)
        self._checksum = (
            int.from_bytes(body[-self.page_size - 8 : -self.page_size - 4], "big"),
            int.from_bytes(body[-self.page_size - 4 : -self.page_size], "big"),
        )
        content = header.raw + body if first else body
        end = Pos(self._pos.generation, self._pos.index, self._pos.offset + len(content))
        self.segments[self._pos] = seal(content, self._stamp(Kind.WAL, self._pos, before, _pack(checksum), end))
        self._pos = end

    def _next_index(self) -> None:
        if self._header is not None:
            self._ended, self._ended_checksum = self._pos, self._checksum
            self._pos = Pos(self._pos.generation, self._pos.index + 1, 0)
        self._header = WALHeader.build(self.page_size, self._rng.randbytes(8))
        self._checksum = self._header.checksum
        self._restart = False

    def _stamp(self, kind: Kind, pos: Pos, prev: Pos, prev_checksum: bytes, end: Pos) -> Stamp:
        return Stamp(
            kind=kind,
            pos=pos,
            page_size=self.page_size,
            db_pages=len(self.file) // self.page_size,
            length=0,
            frame_hash=bytes(32),
            prev=prev,
            prev_checksum=prev_checksum,
            end_checksum=_pack(self._checksum),
            wal_header=self._header.raw if self._header is not None else bytes(32),
            required=(end.index, end.offset),
            first_commit_ns=time.time_ns(),
            last_commit_ns=time.time_ns(),
            writer=b"fakedb.writer...",
        )

    # -- WALSource

    @property
    def path(self) -> str:
        return self._path

    def pos(self) -> Pos:
        return self._pos

    def end(self) -> tuple[Pos, bytes]:
        return self._pos, _pack(self._checksum)

    def wal_segments(self, generation: str) -> list[WALSegmentInfo]:
        if generation != self._pos.generation:
            return []
        return [
            WALSegmentInfo(pos.generation, pos.index, pos.offset, len(body), 0.0) for pos, body in self.segments.items()
        ]

    def read_wal_segment(self, pos: Pos) -> bytes:
        if pos.generation != self._pos.generation:
            raise GenerationChangedError(f"generation is over: {pos.generation}")
        if pos not in self.segments:
            raise CorruptObjectError("shadow segment is gone", key=str(pos))
        return self.segments[pos]

    async def sync(self) -> None:
        self.syncs += 1
        if self.sync_error is not None:
            raise self.sync_error
        self.copy()

    def open_snapshot(self) -> FakeSnapshot:
        if self._pos.is_zero:
            raise NoGenerationError
        self.opened += 1
        return FakeSnapshot(self)

    async def call(self, fn: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._lane, fn, *args)

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.subscribers.append(callback)
        return lambda: self.subscribers.remove(callback)

    def acknowledge(self, name: str, pos: Pos) -> None:
        self.acknowledged[name] = pos

    def note(self, name: str) -> str:
        return self.notes.get(name, "")

    def write_note(self, name: str, text: str) -> None:
        if self.note_error is not None:
            raise self.note_error
        self.notes[name] = text

    def new_generation(self, reason: str) -> None:
        self.reasons.append(reason)

    def close(self) -> None:
        """End its threads."""
        self._lane.shutdown()


class FakeSnapshot:
    """A `SnapshotSource`: the file as it is while it is read."""

    def __init__(self, db: FakeDB) -> None:
        self._db = db
        self._open = True
        self._at = 0
        self.pos = db.pos()

    def read(self, buffer: memoryview) -> int:
        if self._at >= len(self._db.file):
            return 0
        self._db.on_chunk()
        self._check()
        data = self._db.file[self._at : self._at + min(self._db.chunk_size, len(buffer))]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def finish(self) -> Stamp:
        with self._db._lock:
            return self._finish()

    def _finish(self) -> Stamp:
        self._db.copy()
        self._check()
        start = Pos(self.pos.generation, self.pos.index, 0)
        return self._db._stamp(Kind.SNAPSHOT, start, self._db._previous, bytes(8), self._db.pos())

    def close(self) -> None:
        self._db.closed += self._open
        self._open = False

    def _check(self) -> None:
        if self._db.pos().generation != self.pos.generation:
            raise GenerationChangedError("generation changed during snapshot")


def _header(page_size: int, pages: int) -> bytes:
    """A first page with what a database's header says of its sizes, and that it is in WAL mode."""
    page = bytearray(page_size)
    page[:24] = b"SQLite format 3\0" + page_size.to_bytes(2, "big") + bytes([2, 2, 0, 64, 32, 32])
    page[28:32] = pages.to_bytes(4, "big")
    return bytes(page)


def _pack(checksum: tuple[int, int]) -> bytes:
    return checksum[0].to_bytes(4, "big") + checksum[1].to_bytes(4, "big")
