"""How safe a database is, without asking the replicator: the WAL and the replica are compared.

Nothing of the database is opened but its WAL. Bytes are not a commit (docs/capture.md, F7), so this errs on one side:
what SQLite's own recovery would take from the WAL has to be in the replica.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from dataclasses import dataclass, replace

from litestream.client import ReplicaClient
from litestream.config import DatabaseConfig, ReplicaConfig
from litestream.config.rules import default_meta_path
from litestream.core.checksum import Checksum
from litestream.core.position import Pos
from litestream.core.stamp import STAMP_SIZE, Stamp
from litestream.core.wal import FRAME_HEADER_SIZE, WAL_HEADER_SIZE, FrameHeader, WALHeader, frame_size, scan_frames
from litestream.daemon.status import (
    BEHIND,
    ERROR,
    NO_DATABASE,
    NOT_INITIALIZED,
    OK,
    UNKNOWN,
    DatabaseStatus,
    ReplicaStatus,
)
from litestream.db import state as states
from litestream.errors import CorruptObjectError, LitestreamError
from litestream.replica.upload import find_end
from litestream.sqlite.digest import file_sha256
from litestream.streams import read_stamp

READ_LIMIT = 64 * 1024 * 1024
"""Bytes of WAL that are looked at: whoever is behind by more is behind."""

LOOK_AGAIN = 0.5
"""Seconds between looks while a replicator is at work."""


@dataclass(frozen=True, slots=True)
class _Local:
    """What there is on this host."""

    meta: str
    generation: str
    path: str
    base_sha256: str
    """Of the database file while the WAL held nothing; empty if it ever did, since the generation began."""
    wal_path: str
    running: bool
    """Whether a replicator has the database."""
    began: float
    """Unix seconds of the first look: what was committed before has to be in the replica."""


async def look(config: DatabaseConfig, within: float) -> DatabaseStatus:
    """The status of a database. While a replicator runs, a replica has `within` seconds to get what is there now."""
    if config.upstream is not None:
        return _follower(config)
    real = os.path.realpath(config.path)
    wal = f"{real}-wal"
    empty = DatabaseStatus(config.path, UNKNOWN, size=_size(real), wal_size=_size(wal))
    if not empty.size:
        return replace(empty, status=NO_DATABASE)
    meta = config.meta_path or default_meta_path(real)
    state = states.load(meta)
    if not state.generation:
        return replace(empty, status=NOT_INITIALIZED)
    local = _Local(meta, state.generation, real, state.base_sha256, wal, _held(meta), time.time())
    replicas = await asyncio.gather(*(_replica(local, replica, within) for replica in config.replicas))
    pos, spool = _copied(meta, state.generation)
    status = replace(empty, status=OK, pos=pos, spool_bytes=spool, replicas=tuple(replicas))
    info = os.stat(real)
    if (state.device, state.inode) != (info.st_dev, info.st_ino):
        return replace(status, status=UNKNOWN, error="database file replaced since it was replicated")
    return status


def _follower(config: DatabaseConfig) -> DatabaseStatus:
    """A database that follows another: where its note says that it is."""
    from litestream.follow.note import load, trusted

    real = os.path.realpath(config.path)
    meta = config.meta_path or default_meta_path(real)
    note = load(meta)
    status = DatabaseStatus(config.path, ERROR, size=_size(real), wal_size=_size(f"{real}-wal"))
    if note is not None:
        status = replace(status, pos=trusted(note).at.pos)
    if _held(meta):
        return replace(status, status=UNKNOWN, error="only the replicator that follows can tell: ask it, by its socket")
    if not status.size:
        return replace(status, status=NO_DATABASE, error="not following: no replicator is running, and never did")
    return replace(status, error="not following: no replicator is running")


async def _replica(local: _Local, config: ReplicaConfig, within: float) -> ReplicaStatus:
    status = ReplicaStatus(
        config.label, config.type, config.location, UNKNOWN, Pos(), sync_interval=config.sync_interval
    )
    client = None
    try:
        client = config.open()
        return await _compared(local, client, status, within)
    except LitestreamError as error:
        return replace(status, status=ERROR, error=str(error))
    finally:
        if client is not None:
            await client.close()


async def _compared(local: _Local, client: ReplicaClient, status: ReplicaStatus, within: float) -> ReplicaStatus:
    """Look until the replica has what was there at the first look, or the time is over."""
    if not client.readable:
        return replace(status, error="cannot be told without an age identity: ask the replicator, by its socket")
    while True:
        found = await _once(local, client, status)
        waited = time.time() - local.began
        if found.status != BEHIND or not local.running:
            return found
        if found.uploaded_at >= local.began:  # newer commits are there, so all before are
            return replace(found, uploaded_at=0.0, lag_seconds=waited)
        if waited > within:
            return replace(found, uploaded_at=0.0, lag_seconds=waited)
        await asyncio.sleep(min(LOOK_AGAIN, max(0.01, within - waited + 0.01)))


async def _once(local: _Local, client: ReplicaClient, status: ReplicaStatus) -> ReplicaStatus:
    """One look. While it is behind, `uploaded_at` is when the last commit was made that it has."""
    snapshots = await client.snapshots(local.generation)
    if not snapshots:
        error = f"has no snapshot of the present generation {local.generation}"
        return replace(status, status=BEHIND if local.running else ERROR, error=error)
    segments = await client.wal_segments(local.generation)
    pos, stamp = await find_end(client, local.generation, snapshots[-1].index, segments)
    status = replace(status, pos=pos, snapshots=len(snapshots))
    missing = await asyncio.to_thread(_missing, local, pos, stamp)
    if missing is None:
        return replace(status, error="the WAL says nothing: what was committed since can only be told by replicating")
    if not missing:
        return replace(status, status=OK)
    last = stamp.last_commit_ns / 1e9 if stamp is not None else snapshots[-1].created_at
    lag = max(0.0, local.began - last)
    found = replace(status, status=BEHIND, lag_seconds=lag, lag_bytes=missing, uploaded_at=last)
    # What is missing stays so, and only grows older: however young it is, that is not safe.
    return found if local.running else replace(found, status=ERROR, error="no replicator is running", uploaded_at=0.0)


def _missing(local: _Local, pos: Pos, stamp: Stamp | None) -> int | None:
    """Bytes of WAL that are committed and not before `pos`; None if that cannot be told."""
    try:
        with open(local.wal_path, "rb") as file:
            header = WALHeader.parse(file.read(WAL_HEADER_SIZE))
            start, checksum = WAL_HEADER_SIZE, header.checksum
            end = _end(stamp, pos) if stamp is not None and header.raw == stamp.wal_header else None
            if end is not None:
                file.seek(pos.offset - frame_size(header.page_size))
                if FrameHeader.parse(file.read(FRAME_HEADER_SIZE)).checksum == end:
                    start, checksum = pos.offset, end
            file.seek(start)
            body = file.read(READ_LIMIT)
    except (FileNotFoundError, CorruptObjectError):
        return _uncopied(local, pos)  # no WAL, or an empty one
    committed = scan_frames(body, header, start=checksum).committed * frame_size(header.page_size)
    return committed if committed or start == pos.offset else _uncopied(local, pos)


def _end(stamp: Stamp, pos: Pos) -> Checksum | None:
    """The checksum of the WAL at `pos`, where the stamp's object ends; None before the first frame."""
    checksum = stamp.end_checksum
    return (int.from_bytes(checksum[:4], "big"), int.from_bytes(checksum[4:], "big")) if pos.offset else None


def _uncopied(local: _Local, pos: Pos) -> int | None:
    """The same where the WAL holds nothing: as long as a replicator runs, only what it has copied can be gone."""
    copied, _ = _copied(local.meta, local.generation)
    if not local.running:
        untouched = copied == pos == Pos(local.generation) and local.base_sha256
        return 0 if untouched and file_sha256(local.path) == local.base_sha256 else None
    return 0 if copied <= pos else max(1, copied.offset - (pos.offset if copied.index == pos.index else 0))


def _copied(meta: str, generation: str) -> tuple[Pos, int]:
    """How far the WAL was copied, from the last file of the shadow WAL, and what that takes."""
    newest, size = "", 0
    for folder, _, names in os.walk(os.path.join(meta, "generations", generation, "wal")):
        for name in names:
            if name.endswith(".wal.lz4"):
                path = os.path.join(folder, name)
                newest, size = max(newest, path), size + _size(path)
    try:
        with open(newest, "rb") as file:
            file.seek(-STAMP_SIZE, os.SEEK_END)
            stamp = read_stamp(file.read(), newest)
    except (OSError, CorruptObjectError):
        stamp = None  # nothing was written since the generation began, or it goes just now
    return (Pos(generation, *stamp.required) if stamp is not None else Pos(generation)), size


def _held(meta: str) -> bool:
    """Whether a replicator holds the database's lock."""
    try:
        descriptor = os.open(os.path.join(meta, "lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
