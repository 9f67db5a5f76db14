"""The shadow WAL: what was copied from the WAL and some replica may not have yet.

One object (LZ4 frame and stamp) per copy, exactly as it goes to a replica, in
`generations/GEN/wal/%08x/%08x.wal.lz4` below the local state. Written with a temporary name and renamed, so that a
killed process leaves whole files; fsynced only while a replica is behind (`persist`), because a file lost with the
power costs a new generation and no data.
"""

from __future__ import annotations

import os
import re
import shutil
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from litestream import fsutil
from litestream.core.position import Pos, WALSegmentInfo
from litestream.core.stamp import Stamp
from litestream.db.staged import StagedIndex, remove_leftovers
from litestream.errors import ContinuityLostError, CorruptObjectError
from litestream.streams import open_object, stamped

_INDEX = re.compile(r"[0-9a-f]{8}")
_FILE = re.compile(r"([0-9a-f]{8,16})\.wal\.lz4")


_BLOCK = 4096
_KEPT = 256 << 10
"""Bytes of the last segment that are kept in memory; what is larger is linked rather than written once more."""


@dataclass(slots=True)
class _Entry:
    info: WALSegmentInfo
    end: int  # offset behind the last byte
    durable: bool
    first_commit_ns: int


class ShadowWAL:
    """The shadow segments of one generation. Blocking; the caller serialises."""

    def __init__(self, meta: str, generation: str, access: fsutil.Access) -> None:
        self.generation = generation
        self._meta = meta
        self._root = os.path.join(meta, "generations", generation, "wal")
        self._access = access
        self._entries: list[_Entry] = []
        self._last: tuple[Pos, bytes] | None = None
        self._unsynced_directories: set[str] = set()

    # -- reading

    def load(self) -> tuple[Stamp, bytes] | None:
        """Read what is there, keep the unbroken run at its end, and return the last segment's stamp and content.

        Anything torn (a power cut) ends the run: it and what follows it is removed, since a gap in the middle could
        never be sent.
        """
        self._entries = []
        last: tuple[Stamp, bytes] | None = None
        remove_leftovers(self._root)
        names = self._scan()
        for number, (index, offset) in enumerate(names):
            pos = Pos(self.generation, index, offset)
            checked = self._check(pos)
            if checked is None:
                self._remove(Pos(self.generation, *name) for name in names[number:])
                break
            if last is not None and not _follows(last[0], checked[0]):
                self._remove(entry.info.pos for entry in self._entries)
                self._entries = []
            last = checked
            end = offset + checked[0].length
            self._entries.append(_Entry(self._info(pos), end, False, checked[0].first_commit_ns))
            self._unsynced_directories.add(os.path.dirname(self._path(pos)))
        return last

    def segments(self) -> list[WALSegmentInfo]:
        """All segments that are kept, in order."""
        return [entry.info for entry in self._entries]

    def read(self, pos: Pos) -> bytes:
        """The object at `pos`, verbatim. Raises `CorruptObjectError` if it is gone."""
        last = self._last
        if last is not None and last[0] == pos:
            return last[1]
        try:
            return fsutil.FileBytes.read(self._path(pos))
        except FileNotFoundError as error:
            raise CorruptObjectError("shadow segment is gone", key=str(pos)) from error

    def size(self) -> int:
        """Bytes on disk."""
        return sum(entry.info.size for entry in self._entries)

    def behind(self, pos: Pos) -> tuple[int, float]:
        """Bytes of WAL that stand behind `pos`, and the Unix time at which the oldest commit among them was seen.

        (0, 0.0) if there are none; everything that is kept if `pos` is of another generation. Any thread.
        """
        entries = self._pending(pos)
        since = entries[0].first_commit_ns / 1e9 if entries else 0.0
        return sum(entry.end - entry.info.offset for entry in entries), since

    def index_within(self, limit: int) -> int:
        """The first index from which on all segments together take at most `limit` bytes; the last one if none does."""
        total = sum(_on_disk(entry) for entry in self._entries)
        for entry in self._entries:
            if total <= limit:
                return entry.info.index + (entry.info.offset > 0)
            total -= _on_disk(entry)
        return self._entries[-1].info.index if self._entries else 0

    # -- writing

    def append(self, frame: bytes, stamp: Stamp) -> WALSegmentInfo:
        """Store the next segment (not yet durable). A failure leaves no file.

        Raises `ContinuityLostError` if the local state was deleted: what stood before this segment is gone.
        """
        entry, body = self._write(frame, stamp)
        self._entries.append(entry)
        self._last = (stamp.pos, body) if len(body) <= _KEPT else None
        return entry.info

    def batch(self) -> SegmentBatch:
        """Begin segments that are to be listed together."""
        return SegmentBatch(self)

    def cut(self, pos: Pos) -> tuple[Stamp, bytes] | None:
        """Remove what begins at `pos` or later, and load what is left."""
        self._remove(entry.info.pos for entry in self._entries if entry.info.pos >= pos)
        return self.load()

    def stage(self, index: int) -> StagedIndex:
        """Begin an index that is to appear as a whole."""
        return StagedIndex(self._root, index, self._access)

    def publish(self, staged: StagedIndex) -> None:
        """Append a whole index (not yet durable). Raises `OSError`."""
        directory = os.path.join(self._root, f"{staged.index:08x}")
        staged.move(directory)
        self._unsynced_directories.add(directory)
        for stamp, size in staged.segments:
            pos = stamp.pos
            info = WALSegmentInfo(self.generation, pos.index, pos.offset, size, stamp.last_commit_ns / 1e9)
            self._entries.append(_Entry(info, pos.offset + stamp.length, False, stamp.first_commit_ns))

    def persist(self, acknowledged: Pos | None) -> None:
        """Make durable whatever lies behind `acknowledged` (None: everything). Called before a reader is let go."""
        behind = [entry for entry in self._pending(acknowledged) if not entry.durable]
        if not behind:
            return
        for entry in behind:
            self._sync_file(entry.info.pos)
        directories = {os.path.dirname(self._path(entry.info.pos)) for entry in behind} & self._unsynced_directories
        for directory in sorted(directories):
            try:
                fsutil.fsync_dir(directory)
            except FileNotFoundError as error:
                raise CorruptObjectError("shadow directory is gone", key=directory) from error
        self._unsynced_directories -= directories
        for entry in behind:
            entry.durable = True

    def prune(self, index: int) -> None:
        """Forget indexes before `index`: every replica has them, or starts with a later snapshot."""
        old = [entry for entry in self._entries if entry.info.index < index]
        if not old:
            return
        self._entries = self._entries[len(old) :]
        for number in sorted({entry.info.index for entry in old}):
            directory = os.path.join(self._root, f"{number:08x}")
            self._unsynced_directories.discard(directory)
            shutil.rmtree(directory, ignore_errors=True)

    # -- inside

    def _pending(self, acknowledged: Pos | None) -> list[_Entry]:
        if acknowledged is None or acknowledged.generation != self.generation:
            return self._entries
        start = bisect_left(self._entries, acknowledged, key=lambda entry: entry.info.pos)
        return self._entries[start:]

    def _write(self, frame: bytes, stamp: Stamp) -> tuple[_Entry, bytes]:
        """Store a segment that is not listed yet; see `append`."""
        pos = stamp.pos
        body = stamped(frame, stamp)
        path = self._path(pos)
        directory = os.path.dirname(path)
        if stamp.pos.offset == 0 or not self._entries:
            fsutil.make_dirs(directory, mode=self._access.dir_mode, owner=self._access.owner)
        try:
            with fsutil.AtomicFile(path, mode=self._access.file_mode, owner=self._access.owner) as file:
                file.write(body)
                file.publish(durable=False)
        except FileNotFoundError as error:
            raise ContinuityLostError("no shadow wal") from error
        self._unsynced_directories.add(directory)
        info = WALSegmentInfo(self.generation, pos.index, pos.offset, len(body), stamp.last_commit_ns / 1e9)
        return _Entry(info, pos.offset + stamp.length, False, stamp.first_commit_ns), body

    def _sync_file(self, pos: Pos) -> None:
        """fsync one file. After a failed fsync the pages may be gone, so the retry writes the bytes anew."""
        path = self._path(pos)
        try:
            fsutil.fsync_file(path)
        except FileNotFoundError as error:
            raise CorruptObjectError("shadow segment is gone", key=str(pos)) from error
        except OSError:
            body = self.read(pos)
            open_object(body, key=str(pos))
            fsutil.write_atomic(path, body, mode=self._access.file_mode, owner=self._access.owner)

    def _scan(self) -> list[tuple[int, int]]:
        found = []
        for index in _names(self._root):
            directory = os.path.join(self._root, index)
            if not _INDEX.fullmatch(index) or not os.path.isdir(directory):
                continue
            fsutil.remove_stale_temps(directory)
            for name in _names(directory):
                match = _FILE.fullmatch(name)
                if match is not None:
                    found.append((int(index, 16), int(match[1], 16)))
        return sorted(found)

    def _check(self, pos: Pos) -> tuple[Stamp, bytes] | None:
        try:
            with open(self._path(pos), "rb") as file:
                body = file.read()
            data, stamp = open_object(body, key=str(pos))
        except (OSError, CorruptObjectError):
            return None
        return (stamp, data) if stamp is not None and stamp.pos == pos else None

    def _info(self, pos: Pos) -> WALSegmentInfo:
        status = os.stat(self._path(pos))
        return WALSegmentInfo(pos.generation, pos.index, pos.offset, status.st_size, status.st_mtime)

    def _remove(self, positions: Iterable[Pos]) -> None:
        for pos in list(positions):
            try:
                os.unlink(self._path(pos))
            except FileNotFoundError:
                pass

    def _path(self, pos: Pos) -> str:
        return os.path.join(self._root, f"{pos.index:08x}", f"{pos.offset:08x}.wal.lz4")


class SegmentBatch:
    """Segments that are listed together or not at all. Blocking. A context manager: what was not published is removed.

    Attributes:
        count: segments so far.
    """

    def __init__(self, shadow: ShadowWAL) -> None:
        self.count = 0
        self._shadow = shadow
        self._stored: list[tuple[_Entry, bytes]] = []

    def append(self, frame: bytes, stamp: Stamp) -> None:
        """Store the next segment; errors as in `ShadowWAL.append`."""
        entry, body = self._shadow._write(frame, stamp)
        self._stored.append((entry, body if len(body) <= _KEPT else b""))
        self.count += 1

    def publish(self) -> None:
        """List all of them (not yet durable)."""
        shadow, stored = self._shadow, self._stored
        shadow._entries.extend(entry for entry, _ in stored)
        entry, body = stored[-1]
        shadow._last = (entry.info.pos, body) if body else None
        self._stored = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._shadow._remove(entry.info.pos for entry, _ in reversed(self._stored))


def _on_disk(entry: _Entry) -> int:
    """Bytes that a segment takes: of small ones much more than they hold."""
    return -(-entry.info.size // _BLOCK) * _BLOCK


def remove_generation(meta: str, generation: str) -> None:
    """Delete the shadow of a generation that is over."""
    shutil.rmtree(os.path.join(meta, "generations", generation), ignore_errors=True)


def _follows(before: Stamp, after: Stamp) -> bool:
    """Whether `after` continues where `before` ends, in bytes and in checksum."""
    end = Pos(before.pos.generation, before.pos.index, before.pos.offset + before.length)
    return after.prev == end and after.prev_checksum == before.end_checksum


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def least_of(acknowledged: Iterable[Pos | None], current: Pos) -> Pos | None:
    """The position that every replica has in the generation of `current`; None if one has nothing of it.

    None among them is a replica that is no more.
    """
    positions = [pos for pos in list(acknowledged) if pos is not None]  # another thread may add one meanwhile
    if any(pos.generation != current.generation for pos in positions):
        return None
    return min(positions) if positions else current
