"""A database's life recorded from its own files, and replicas of it put together by hand: any layout, any cuts.

The recording is what an ideal replicator sees: each index's WAL bytes, snapshots, and after each commit the database
file as SQLite itself makes it (a copy, checkpointed).
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from litestream.core.layout import V03, Layout
from litestream.core.position import Pos
from litestream.core.stamp import Kind, Stamp
from litestream.core.wal import committed_prefix, frame_offset, frame_size
from litestream.storage.memory import MemoryStore
from litestream.streams import compress, seal

GENERATION = "a1b2c3d4e5f60718"
EPOCH = 1_700_000_000
"""Unix seconds of the first commit; each later one is a second later."""
SECOND = 1_000_000_000


@dataclass(frozen=True)
class Point:
    """A committed state: where it ends, when it was made, and the database file."""

    index: int
    offset: int
    time_ns: int
    image: bytes


@dataclass(frozen=True)
class Snapshot:
    """A database file as read at an index, and the position up to which WAL has to be applied on it."""

    index: int
    data: bytes
    required: tuple[int, int]


@dataclass
class Recording:
    """What was recorded. `wals[i]` is the committed part of index i's WAL."""

    page_size: int = 0
    wals: list[bytes] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    @property
    def last(self) -> Point:
        return self.points[-1]

    def boundaries(self, index: int) -> list[int]:
        """All offsets at which index's WAL may be cut: between any two frames."""
        size = frame_size(self.page_size)
        return list(range(32 + size, len(self.wals[index]), size))

    def commits(self, index: int) -> list[int]:
        """Offsets behind commits, without the last one of the index."""
        return [p.offset for p in self.points if p.index == index and p.offset < len(self.wals[index])]

    def checksum(self, index: int, offset: int) -> bytes:
        """The running checksum at an offset, 8 bytes as stored."""
        at = 24 if offset == 32 else offset - frame_size(self.page_size) + 16
        return self.wals[index][at : at + 8]

    def commit_time(self, index: int, offset: int) -> int:
        """When the last commit at or before a position was made."""
        return max((p.time_ns for p in self.points if (p.index, p.offset) <= (index, offset)), default=EPOCH * SECOND)

    def pages_at(self, index: int, offset: int) -> int:
        """Pages in the database after the last commit at or before a position."""
        before = [p for p in self.points if (p.index, p.offset) <= (index, offset)]
        return len(before[-1].image) // self.page_size if before else 1

    def best(self, fits: Callable[[Point], bool]) -> Point:
        """The last point that fits."""
        return [p for p in self.points if fits(p)][-1]


class Recorder:
    """Runs one database and records it. Use as a context manager; nothing checkpoints by itself."""

    def __init__(self, folder: Path, page_size: int = 512, *, auto_vacuum: int = 0) -> None:
        self.path = folder / "app.db"
        self.recording = Recording(page_size)
        self._index = 0
        self._started = False
        self.db = sqlite3.connect(self.path, isolation_level=None, timeout=10)
        for pragma in (f"page_size={page_size}", f"auto_vacuum={auto_vacuum}", "journal_mode=WAL"):
            self.db.execute(f"PRAGMA {pragma}").fetchall()
        self.db.execute("PRAGMA wal_autocheckpoint=0").fetchall()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    def run(self, *statements: str | tuple[str, Sequence[object]]) -> None:
        """One transaction."""
        self.db.execute("BEGIN")
        for statement in statements:
            sql, values = (statement, ()) if isinstance(statement, str) else statement
            self.db.execute(sql, values)
        self.db.execute("COMMIT")
        self.record()

    def record(self) -> None:
        """Record what was committed since the last time."""
        raw = self.path.with_name("app.db-wal").read_bytes()
        header, run = committed_prefix(raw)
        wal = raw[: frame_offset(run.committed, header.page_size)]
        rec = self.recording
        if self._started and wal[:32] != rec.wals[self._index][:32]:
            self._index += 1
        if self._index == len(rec.wals):
            rec.wals.append(b"")
        if len(wal) == len(rec.wals[self._index]):
            return
        self._started = True
        rec.wals[self._index] = wal
        moment = (EPOCH + len(rec.points)) * SECOND
        rec.points.append(Point(self._index, len(wal), moment, self.image()))

    def image(self) -> bytes:
        """The database file as SQLite makes it from the file and the WAL."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.db"
            shutil.copyfile(self.path, copy)
            shutil.copyfile(self.path.with_name("app.db-wal"), copy.with_name("copy.db-wal"))
            db = sqlite3.connect(copy)
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            db.close()
            return copy.read_bytes()

    def snapshot(self, *, during: Callable[[], None] | None = None) -> None:
        """Copy the file; `during` runs between the two halves of the copy, as an application would."""
        data = self.path.read_bytes()
        if during is not None:
            half = len(data) // 2 // self.recording.page_size * self.recording.page_size
            size = len(data)
            during()
            data = data[:half] + self.path.read_bytes()[half:size]
            data = data.ljust(size, b"\0")
        index = self._index
        wals = self.recording.wals
        required = (self._index, len(wals[self._index])) if wals else (index, 0)
        self.recording.snapshots.append(Snapshot(index, data, required))

    def passive(self) -> None:
        """Backfill; the WAL is not started over before the next write."""
        self.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def restart(self) -> None:
        """Make the next write start a new WAL, so a new index."""
        self.db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()


def replica(
    recording: Recording,
    *,
    layout: Layout = V03,
    generation: str = GENERATION,
    cuts: Callable[[int], Iterable[int]] | None = None,
    stamped: bool = True,
    previous: Pos | None = None,
    shift_ns: int = 0,
) -> dict[str, tuple[bytes, float]]:
    """Objects (key: content and time of the store) of a replica. `cuts(index)`: where segments end, beside the last.

    The default cuts at each commit. `previous` is where the generation before ended; `shift_ns` moves all times.
    """
    objects: dict[str, tuple[bytes, float]] = {}
    ended = Pos()
    for index, wal in enumerate(recording.wals):
        ends = sorted({*(recording.commits(index) if cuts is None else cuts(index)), len(wal)})
        start = 0
        for end in ends:
            moment = recording.commit_time(index, end) + shift_ns
            pos = Pos(generation, index, start)
            before = ended if start == 0 else pos
            stamp = _stamp(recording, Kind.WAL, pos, before, (index, end), moment)
            data = wal[start:end]
            body = seal(data, stamp) if stamped else compress(data)
            objects[layout.wal_key(generation, index, start)] = (body, moment / SECOND)
            start, ended = end, Pos(generation, index, end)
    for number, snapshot in enumerate(recording.snapshots):
        moment = recording.commit_time(*snapshot.required) + shift_ns
        before = (previous or Pos()) if number == 0 else Pos()
        pos = Pos(generation, snapshot.index, 0)
        stamp = _stamp(recording, Kind.SNAPSHOT, pos, before, snapshot.required, moment)
        body = seal(snapshot.data, stamp) if stamped else compress(snapshot.data)
        objects[layout.snapshot_key(generation, snapshot.index)] = (body, moment / SECOND)
    return objects


def _stamp(recording: Recording, kind: Kind, pos: Pos, before: Pos, end: tuple[int, int], moment: int) -> Stamp:
    own = before.generation == pos.generation and kind is Kind.WAL
    return Stamp(
        kind=kind,
        pos=pos,
        page_size=recording.page_size,
        db_pages=recording.pages_at(*end),
        length=0,
        frame_hash=bytes(32),
        prev=before,
        prev_checksum=recording.checksum(before.index, before.offset) if own else bytes(8),
        end_checksum=recording.checksum(*end) if end[1] else bytes(8),
        wal_header=recording.wals[end[0]][:32] if end[1] else bytes(32),
        required=end,
        first_commit_ns=moment,
        last_commit_ns=moment,
        writer=b"recorded by test",
    )


def memory_store(objects: dict[str, tuple[bytes, float]]) -> MemoryStore:
    """A store that holds these objects."""
    store = MemoryStore()
    store._objects.update(objects)
    return store


def write_tree(objects: dict[str, tuple[bytes, float]], root: Path) -> Path:
    """The objects as files, with their times."""
    import os

    for key, (data, modified) in objects.items():
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (modified, modified))
    return root
