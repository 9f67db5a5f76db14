"""One database under replication: attach, copy, overlap, checkpoint.

The rule that nothing committed can be lost, and why, is in docs/capture.md. In short: a read transaction is always
held; a newer one begins before the older one ends, and between the two every committed frame is copied.

All methods block and are safe to call from several threads. Two locks: `_lock` guards the cursor, the shadow and the
readers and is held briefly; `_maintenance` keeps overlaps and checkpoints from running into each other.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

from litestream.core.checkpoint import Action
from litestream.core.position import Pos, WALSegmentInfo
from litestream.core.stamp import Stamp
from litestream.db.attach import NO_SHADOW, Attachment, attach
from litestream.db.capture import pack_checksum
from litestream.db.checkpoints import Checkpoints
from litestream.db.guard import Guard
from litestream.db.hashing import close_hashes, hash_unknown
from litestream.db.notes import Notes
from litestream.db.pages import Readings, position
from litestream.db.paths import changed_at, local_access, local_errors
from litestream.db.paths import meta_path as default_meta_path
from litestream.db.shadow import ShadowWAL, least_of
from litestream.db.snapshot import DatabaseSnapshot
from litestream.db.stats import Stats
from litestream.errors import (
    ContinuityLostError,
    CorruptObjectError,
    GenerationChangedError,
    NoGenerationError,
)
from litestream.sqlite.connection import printable
from litestream.sqlite.pages import LivePages
from litestream.sqlite.source import Source

T = TypeVar("T")

SHADOW_LIMIT = 64 * 1024 * 1024
"""Bytes of shadow WAL that are kept for a replica that is down, and more for a database, or a WAL, that is larger."""
SHADOW_WALS = 4
"""WALs of the present size that are kept for it."""
QUIET = 0.05
"""Seconds without a change after which the application's writer is taken to be still."""
INLINE_LIMIT = 256 * 1024
"""Bytes that are copied on the event loop itself: cheaper than a change of threads."""


class DB:
    """A database under replication. Opens nothing until `sync_now`.

    Args:
        path: the database file; a symbolic link is followed.
        meta_path: directory of the local state; `.<file>-litestream` beside the database by default.
        min_checkpoint_page_count: pages in the WAL at which a checkpoint is tried.
        max_checkpoint_page_count: pages at which writers are held back for at most 50 ms to finish one; 0: never.
        checkpoint_interval: seconds after which what is in the WAL is checkpointed however little it is; 0: never.
        busy_timeout: seconds to wait for the lock that switching to WAL mode needs.
        compact: whether of what is copied at a time each page is stored once (docs/compact.md).
        clock: wall clock in Unix nanoseconds.
    """

    def __init__(
        self,
        path: str,
        *,
        meta_path: str | None = None,
        min_checkpoint_page_count: int = 1000,
        max_checkpoint_page_count: int = 10000,
        checkpoint_interval: float = 60.0,
        busy_timeout: float = 1.0,
        compact: bool = False,
        logger: logging.Logger | logging.LoggerAdapter[logging.Logger] | None = None,
        clock: Callable[[], int] = time.time_ns,
        lane: Executor | None = None,
    ) -> None:
        if min_checkpoint_page_count <= 0:
            raise ValueError("minimum checkpoint page count required")
        self._path = os.path.abspath(path)
        self._real_path = os.path.realpath(self._path)
        self.meta_path = meta_path or default_meta_path(self._real_path)
        self.min_checkpoint_page_count = min_checkpoint_page_count
        self.max_checkpoint_page_count = max_checkpoint_page_count
        self.checkpoint_interval, self.busy_timeout, self.compact = checkpoint_interval, busy_timeout, compact
        self.logger = logger or logging.getLogger("litestream.db")
        self.writer = secrets.token_bytes(16)
        self.followers, self.keep_until = 0, 0.0  # streams now; until when (monotonic) the shadow WAL is kept for them
        self.stats = Stats()
        self.clock = clock
        self._lane = lane
        self._own_lane: ThreadPoolExecutor | None = None
        self._lock, self._maintenance = threading.RLock(), threading.Lock()
        self._attached: Attachment | None = None
        self._lost = ""
        self._snapshots: set[DatabaseSnapshot] = set()
        self.readings = Readings()
        self._subscribers: list[Callable[[], None]] = []
        self._acknowledged: dict[str, Pos | None] = {}
        self._notes = Notes(self.meta_path)
        self._notified = Pos()
        self._change_ns, self._changed_at = 0, float("-inf")
        self._checkpoints = Checkpoints(self.stats, self.logger, self._path)
        self._guard: Guard | None = None
        self.stopping = False  # what takes long gives up

    # -- what a replica sees (WALSource)

    @property
    def path(self) -> str:
        """The database's path as configured, absolute."""
        return self._path

    @property
    def wal_path(self) -> str:
        return self._real_path + "-wal"

    @property
    def real_path(self) -> str:
        """The path with symbolic links followed: where `-wal` is."""
        return self._real_path

    def pos(self) -> Pos:
        """How far the WAL has been copied; the zero position before the first attach. No I/O."""
        attached = self._attached
        return attached.capture.cursor.pos if attached is not None else Pos()

    def end(self) -> tuple[Pos, bytes]:
        """`pos()`, and the running checksum of the WAL there as a stamp carries it. No I/O."""
        attached = self._attached
        if attached is None:
            return Pos(), bytes(8)
        cursor = attached.capture.cursor
        return cursor.pos, pack_checksum(cursor.checksum)

    @property
    def copied(self) -> Pos:
        """How far the WAL was copied last, also after the files were closed or went away. No I/O."""
        return self._notified

    def page_size(self) -> int:
        """Bytes per page; 0 before the first attach."""
        attached = self._attached
        return attached.source.page_size if attached is not None else 0

    def current_generation(self) -> str:
        """The generation that is being written; empty before the first attach. No I/O."""
        return self.pos().generation

    def updated_at(self) -> float:
        """When the database file or its WAL last changed, in Unix seconds. `DatabaseAbsentError` if there is none."""
        return changed_at(self._real_path, self._path)

    @property
    def shadow(self) -> ShadowWAL | None:
        """What was copied and is kept for the replicas; None before the first attach."""
        return self._attached.shadow if self._attached is not None else None

    def uncopied(self) -> int | None:
        """Bytes of the WAL that are committed and not copied yet; None while another thread is at work. Cheap."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._attached.capture.pending() if self._attached is not None else 0
        finally:
            self._lock.release()

    def wants_overlap(self) -> bool:
        """Whether somebody waits for our reader to move on: a checkpoint, of another process or of our own. Cheap."""
        attached = self._attached
        if attached is None or self._lost or attached.source.is_checkpointed():
            return True
        return self._choose(attached) is Action.SEAL

    def wal_segments(self, generation: str) -> list[WALSegmentInfo]:
        """Shadow segments of a generation that are kept, in order; empty for any but the current one."""
        attached = self._attached
        if attached is None or attached.shadow.generation != generation:
            return []
        return attached.shadow.segments()

    def read_wal_segment(self, pos: Pos) -> bytes:
        """A shadow object verbatim. Raises `GenerationChangedError` if it is of a generation that is over."""
        attached = self._attached
        if attached is None or attached.shadow.generation != pos.generation:
            raise GenerationChangedError(f"generation is over: {pos.generation}")
        try:
            return attached.shadow.read(pos)
        except CorruptObjectError:
            self._lose(NO_SHADOW)
            raise

    async def sync(self, *, whole: bool = False) -> None:
        """Copy what is committed by now, on the event loop if it is little; `whole`: only what fills segments.

        Does nothing while not attached.
        """
        if self._attached is None:
            return
        if self._lock.acquire(blocking=False):
            try:
                attached = self._attached
                if attached is None:
                    return
                if not self._lost and attached.capture.pending() <= INLINE_LIMIT:
                    if not whole:
                        self.copy()
                    return
            finally:
                self._lock.release()
        await self.call(self.copy, whole)

    async def call(self, fn: Callable[..., T], *args: object) -> T:
        """Run blocking work in this database's lane. A cancelled call goes on running there; its result is dropped."""
        if self._lane is None:
            self._lane = self._own_lane = ThreadPoolExecutor(2, thread_name_prefix="litestream-db")
        return await asyncio.get_running_loop().run_in_executor(self._lane, fn, *args)

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called, in any thread, whenever the position has moved. Returns how to stop that."""
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    def acknowledge(self, name: str, pos: Pos | None) -> None:
        """Replica `name` has everything up to `pos` (the zero position: it starts over; None: there is no such one)."""
        self._acknowledged[name] = pos

    def note(self, name: str) -> str:
        """What `write_note` kept under a name last; empty if nothing. Outlives a kill, and perhaps not a power cut."""
        with local_errors(self.meta_path):
            return self._notes.read(name)

    def write_note(self, name: str, text: str) -> None:
        """Keep a line of ASCII under a name, without an fsync. Raises `LocalStateError`."""
        with local_errors(self.meta_path):
            self._notes.write(name, text, local_access(self._real_path))

    def new_generation(self, reason: str) -> None:
        """Begin a new generation at the next maintenance: what the replica holds does not fit what is here."""
        self._lose(reason)
        self._tell()

    def open_snapshot(self) -> DatabaseSnapshot:
        """Begin reading the database file. Raises `NoGenerationError` while not attached."""
        with self._lock:
            attached = self._copied(self._ready())
            reader = attached.source.begin_reader()
            snapshot = DatabaseSnapshot(
                attached.source,
                reader,
                attached.capture.cursor.pos,
                self._finish_snapshot,
                lambda: self._check_generation(attached),
                self._snapshots.discard,
            )
            self._snapshots.add(snapshot)
        self._notify()
        return snapshot

    def open_pages(self) -> tuple[LivePages, Pos]:
        """Begin reading one committed state, and its position; `readings.end` ends it. Errors as in `open_snapshot`."""
        with self._lock:
            attached = self._ready()
            return self.readings.begin(attached.source, position(attached.capture, lambda: self._copied(attached)))

    # -- the work

    def noticed(self) -> None:
        """The file system said that something changed: what is copied next is not older than this."""
        self._changed_at = time.monotonic()
        if not self._change_ns:
            self._change_ns = self.clock()

    def claim(self) -> None:
        """Be the one that replicates this database on this host, before anything is opened. Cheap; may be repeated.

        Raises `DatabaseHeldError` while another process is, `LocalStateError` if that cannot be told.
        """
        with self._lock, local_errors(self.meta_path):
            if self._guard is None:
                self._guard = Guard.take(self.meta_path, local_access(self._real_path))

    def sync_now(self) -> bool:
        """Attach if need be and copy every committed frame. True if the position moved.

        Raises `DatabaseAbsentError`, `DatabaseBusyError` (try again), or another `DatabaseError` that says what the
        matter is; a lost continuity is no error but a new generation.
        """
        before = self.pos()
        idle = self._attached is not None and not self._lost
        if self._maintenance.acquire(blocking=not idle):  # what runs there may take long, and looks at the files itself
            try:
                self._check_files()
                if self._attached is None or self._lost:
                    self._reattach()
            finally:
                self._maintenance.release()
        self.copy()
        return self.pos() != before

    def maintain(self) -> None:
        """Overlap the readers, and checkpoint if it is time. Raises as `sync_now` does."""
        with self._maintenance:
            self._check_files()
            self._overlap_and_checkpoint(self._choose)

    def checkpoint(self, *, seal: bool = False) -> None:
        """Checkpoint now: PASSIVE, or with the write lock held for at most a moment so that the WAL can restart."""
        with self._maintenance:
            self._overlap_and_checkpoint(lambda _: Action.SEAL if seal else Action.PASSIVE)

    @property
    def lost(self) -> str:
        """Why the next maintenance begins a new generation; empty if it does not."""
        return self._lost

    @property
    def at_rest(self) -> bool:
        """Whether everything is backfilled and our reader holds nobody up: nothing to do until something changes."""
        attached = self._attached
        return attached is not None and not self._lost and attached.reader.at_rest

    def needs_maintenance(self) -> bool:
        """Whether something moved that no event told of: files replaced, frames committed, a reader in the way.

        Cheap, for the sweep that backs the watcher up. False while another thread is at work anyway.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            attached = self._attached
            if attached is None or self._lost or not attached.reader.at_rest:
                return True
            return attached.capture.pending() > 0 or bool(attached.source.replaced())
        finally:
            self._lock.release()

    def all_copied(self) -> bool:
        """Whether everything committed is copied. Cheap, and waits for nobody: False where it cannot be told."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            attached = self._attached
            if attached is None or self._lost or attached.source.wal_index() is None:
                return False
            return attached.capture.pending() == 0 and not attached.source.replaced()
        finally:
            self._lock.release()

    @property
    def wants_hashing(self) -> bool:
        """Whether there are pages of which no hash is known. No I/O."""
        attached = self._attached
        return attached is not None and not self._lost and attached.capture.hashes.wanted

    def hash_pages(self) -> None:
        """Hash the pages of which nothing is known, so that a lost continuity costs only what differs.

        It reads one committed state while copying goes on. Raises `DatabaseBusyError`, `LocalStateError`.
        """
        with self._lock:
            attached = self._ready()
            self._copied(attached)
            attached.capture.hashes.begin()
            try:
                pages, _ = self.open_pages()
            except BaseException:
                attached.capture.hashes.end(complete=False)
                raise
        try:
            with local_errors(self.meta_path):
                hash_unknown(attached, pages, self._lock, lambda: self.stopping or self._attached is not attached)
        finally:
            self.readings.end(pages)

    def trim(self) -> None:
        """Let go of what only busy times need."""
        if self._lock.acquire(blocking=False):
            try:
                if self._attached is not None:
                    self._attached.source.trim()
                    self._attached.capture.hashes.trim()
            finally:
                self._lock.release()

    def close(self) -> None:
        """End everything, leaving the WAL and the local state as they are. A snapshot that is being read is ended."""
        self.stopping = True
        with self._maintenance, self._lock:
            self.stopping = False
            self._detach(in_order=True)
            if self._guard is not None:
                self._guard.release()
                self._guard = None
        if self._own_lane is not None:
            self._own_lane.shutdown(wait=False)
            self._own_lane = self._lane = None

    # -- inside: copying

    def copy(self, whole: bool = False) -> None:
        started = time.perf_counter()
        with self._lock:
            attached = self._attached
            if attached is None or self._lost:
                return
            attached.capture.noticed_ns = self._change_ns
            before = attached.capture.copied_bytes
            try:
                with local_errors(self.meta_path):
                    if attached.capture.copy(whole=whole):
                        self._change_ns = 0
            except ContinuityLostError as error:
                self._lose(str(error))
            except Exception:
                self.stats.sync_errors += 1
                raise
            finally:
                self.stats.wal_bytes += attached.capture.copied_bytes - before
            self.stats.syncs += 1
            self.stats.sync_seconds += time.perf_counter() - started
        self._notify()

    def _lose(self, reason: str) -> None:
        """Remember that continuity is lost; the next maintenance begins a new generation."""
        self._lost = self._lost or reason

    def _notify(self) -> None:
        """Tell subscribers if the position has moved since they were told last."""
        pos = self.pos()
        if pos != self._notified:
            self._notified = pos
            self._tell()

    def _tell(self) -> None:
        for callback in list(self._subscribers):
            callback()

    def overlap(self, *, hold: bool = False) -> bool:
        """Begin a newer reader, copy everything, end the older one. On any error the older one stays.

        `hold`: a checkpoint of ours follows, others wait. False if continuity turned out to be lost: attach again.
        """
        attached = self._attached
        if attached is None or self._lost:
            return False
        newer = attached.source.begin_reader()
        try:
            self.copy()
            if not self._lost:
                with local_errors(self.meta_path):
                    attached.shadow.persist(least_of(self._acknowledged.values(), self.pos()))
        except CorruptObjectError:
            self._lose(NO_SHADOW)
        except BaseException:
            attached.source.end_reader(newer)
            raise
        if self._lost:
            attached.source.end_reader(newer)
            return False
        older, attached.reader = attached.reader, newer
        if hold:
            attached.source.hold_checkpoints()
        attached.source.end_reader(older)
        self._prune(attached)
        return True

    def _overlap_and_checkpoint(self, choose: Callable[[Attachment], Action]) -> None:
        if self._attached is None or self._lost:
            self._reattach()
        if (attached := self._attached) is None:
            return
        action = choose(attached)
        try:
            with self._lock:
                overlapped = self.overlap(hold=action is not Action.NONE)
            if not overlapped:
                self._reattach()
            elif action is not Action.NONE:
                self._checkpoints.run(self, attached, action)
        finally:
            attached.source.let_checkpoints()

    def _prune(self, attached: Attachment) -> None:
        least, cursor = least_of(self._acknowledged.values(), self.pos()), attached.capture.cursor
        index = least.index if least is not None and time.monotonic() >= self.keep_until else 0
        # Sending more than a snapshot is worth nobody's disk: a replica that is so far behind starts over.
        limit = max(SHADOW_LIMIT, SHADOW_WALS * cursor.pos.offset, attached.source.database_size())
        index = max(index, min(attached.shadow.index_within(limit), cursor.pos.index - 1))
        # A snapshot may end in another thread meanwhile: iterate over a copy.
        attached.shadow.prune(min([index, *(snapshot.pos.index for snapshot in list(self._snapshots))]))

    # -- inside: attaching

    def _check_files(self) -> None:
        """Notice files that were swapped under us: only a new attachment sees what is there now."""
        with self._lock:
            attached = self._attached
            if attached is None:
                return
            reason = attached.source.replaced()
            if not reason:
                return
            self._lose(reason)
            self._detach()

    def _reattach(self) -> None:
        with self._lock:
            if self._attached is not None and not self._lost:
                return
            old, reason = self._attached, self._lost
            source = old.source if old is not None else Source(self._real_path, self.busy_timeout)
            try:
                with local_errors(self.meta_path):
                    self.claim()
                    new = attach(self, source, old, reason)
            except BaseException:
                if old is None:
                    source.close()
                raise
            if old is not None:
                old.capture.hashes.trim()
                source.end_reader(old.reader)
            new.capture.quiet = self._is_quiet
            self._attached, self._lost = new, ""
        self._notify()

    def _is_quiet(self) -> bool:
        return time.monotonic() - self._changed_at > QUIET

    def _detach(self, *, in_order: bool = False) -> None:
        attached, self._attached = self._attached, None
        # What they read is of a history that is over, and their upload may hang: they are not waited for.
        for snapshot in list(self._snapshots):
            snapshot.close()
        self.readings.end_all()
        if attached is not None:
            close_hashes(attached, self.logger, in_order=in_order and not self._lost)
            attached.source.end_reader(attached.reader)
            attached.source.close()

    def _choose(self, attached: Attachment) -> Action:
        return self._checkpoints.choose(
            attached, self.min_checkpoint_page_count, self.max_checkpoint_page_count, self.checkpoint_interval
        )

    # -- what a checkpoint needs (Checkpointed)

    def locked(self) -> AbstractContextManager[object]:
        """Guards the cursor, the shadow and the readers. Held briefly."""
        return self._lock

    def is_current(self, attached: Attachment) -> bool:
        """Whether an attachment is still the one, and not lost. Under the lock."""
        return self._attached is attached and not self._lost

    # -- inside: snapshots

    def _ready(self) -> Attachment:
        if self._attached is None or self._lost:
            raise NoGenerationError
        return self._attached

    def _copied(self, attached: Attachment) -> Attachment:
        """The attachment, with everything copied that is committed by now."""
        self.copy()
        if self._lost:
            raise GenerationChangedError("generation changed during snapshot")
        return attached

    def _check_generation(self, attached: Attachment) -> None:
        if self._attached is not attached or self._lost:
            raise GenerationChangedError("generation changed during snapshot")

    def _finish_snapshot(self, snapshot: DatabaseSnapshot) -> Stamp:
        with self._lock:
            attached = self._attached
            if attached is None or self._lost or attached.shadow.generation != snapshot.pos.generation:
                raise GenerationChangedError("generation changed during snapshot")
            self._copied(attached).remember_base(snapshot.sha256)
            return attached.capture.snapshot_stamp(snapshot.pos.index, attached.state.previous_pos, snapshot.size)

    def __repr__(self) -> str:
        return f"DB({printable(self._path)!r})"
