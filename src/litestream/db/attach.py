"""Attaching: from nothing, or after lost continuity, to an anchored reader with everything copied.

A reader begins; a second one begins; between the second's begin and the first's end everything committed is copied
(the rule of docs/capture.md). The write lock, if it can be had at once, only keeps a writer from restarting the WAL
at just this moment, which would cost a generation; the rule itself does not need it, and a large WAL is copied
without it. Whatever may take long (reading the local state, hashing the database file) is done before it is taken.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from litestream import fsutil
from litestream.core.continuity import PAGE_SIZE_CHANGED, Lost
from litestream.core.position import Pos
from litestream.db import state as states
from litestream.db.capture import Base, Capture, Cursor, last_frame_of, resumed_cursor
from litestream.db.catchup import CatchUp, tell
from litestream.db.compact import Compact, settle
from litestream.db.hashes import PageHashes
from litestream.db.paths import local_access
from litestream.db.shadow import ShadowWAL, remove_generation
from litestream.errors import ContinuityLostError, DatabaseBusyError, JournalModeError
from litestream.sqlite.connection import printable
from litestream.sqlite.pages import LivePages
from litestream.sqlite.source import Reader, Source

LOCK_TIMEOUT = 0.05
"""Seconds to wait for the write lock."""

LOCKED_COPY_LIMIT = 1024 * 1024
"""Bytes that are copied while writers are held back."""

_ATTEMPTS = 5
_HASH_CHUNK = 1024 * 1024

NO_GENERATION = "no generation exists"
NO_SHADOW = "no shadow wal"
REPLACED = "database file replaced"


class Settings(Protocol):
    """What attaching needs to know of the database."""

    meta_path: str
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger]
    writer: bytes
    clock: Callable[[], int]
    compact: bool

    @property
    def path(self) -> str: ...

    @property
    def stopping(self) -> bool:
        """Whether what takes long is to be given up."""
        ...


@dataclass(slots=True)
class Attachment:
    """An anchored reader and the copier that belongs to it."""

    source: Source
    reader: Reader
    capture: Capture
    shadow: ShadowWAL
    state: states.State
    meta: str
    access: fsutil.Access

    def remember_base(self, sha256: str) -> None:
        """Keep the hash of a database file whose WAL has held nothing since the generation began.

        It is what proves at the next start that nothing was written in between, where there is no WAL to prove it.
        """
        cursor = self.capture.cursor
        if sha256 and not cursor.header and self.reader.at_rest and self.state.base_sha256 != sha256:
            self.state.base_sha256 = sha256
            states.store(self.meta, self.state, self.access)


def attach(settings: Settings, source: Source, old: Attachment | None, reason: str) -> Attachment:
    """Begin a reader and copy everything, in the generation that goes on or in a new one.

    Where the database may only have gone on unseen, what differs from the last copy is published instead of a new
    generation, if that can be told (`litestream.db.catchup`).

    `old` is the attachment whose continuity was lost for `reason` (its reader is still held); None at the start.
    Raises `DatabaseBusyError` to try again, `JournalModeError`, and other `DatabaseError`s. On an error all readers
    begun here have been ended.
    """
    _require_wal(settings, source)
    passed = False
    for _ in range(_ATTEMPTS):
        if passed:
            attached = _catch_up(settings, source, reason)
            if attached is not None:
                return attached
        first = source.begin_reader()
        try:
            if reason:
                prepared = _begin_generation(settings, source, first, old, reason)
            else:
                prepared = _continue(settings, source, first)
            return _attach_once(source, prepared)
        except ContinuityLostError as lost:
            passed, reason = lost.passed and not reason, str(lost)
        finally:
            source.end_reader(first)
    raise DatabaseBusyError(f"the WAL changes too fast to attach ({reason}): {printable(source.path)}")


def _catch_up(settings: Settings, source: Source, reason: str) -> Attachment | None:
    """The attachment behind a catch-up, everything copied; None if there can be none. Errors as in `attach`."""
    source.checkpoint_passive()  # what is in the file need not be published twice
    pages = LivePages.begin(source)
    reader: Reader | None = None
    try:
        reader = source.begin_reader()
        attached = _caught_up(settings, source, reader, pages, reason)
        if attached is not None:
            reader = None
        return attached
    except ContinuityLostError:
        return None
    finally:
        if reader is not None:
            source.end_reader(reader)
        pages.close()


def _caught_up(settings: Settings, source: Source, reader: Reader, pages: LivePages, reason: str) -> Attachment | None:
    """The same under `pages`, the older of two readers."""
    attached = _local(settings, source, reader)
    if not attached.capture.hashes.loaded:
        return None
    done = CatchUp(attached.capture, pages, lambda: settings.stopping).run()
    if done is None:
        return None
    cursor = attached.capture.cursor
    if cursor.base is not None:
        attached.state.base = cursor.base.pack(cursor.pos)
        states.store(attached.meta, attached.state, attached.access)
    tell(settings.logger, printable(settings.path), cursor.pos, done, reason)
    attached.capture.copy()
    return attached


def _attach_once(source: Source, attached: Attachment) -> Attachment:
    """One attempt, under the older reader that `attached` has. Raises `ContinuityLostError`: try again for that."""
    lock = source.lock_writers(LOCK_TIMEOUT)
    second: Reader | None = None
    try:
        second = attached.reader = source.begin_reader()
        salts = _salts(source)
        _prove(attached)
        if lock is not None and attached.capture.pending() > LOCKED_COPY_LIMIT:
            held, lock = lock, None
            source.unlock_writers(held)
        attached.capture.copy()
        if lock is None and _salts(source) != salts:
            raise ContinuityLostError("wal restarted while attaching", passed=True)
        return attached
    except BaseException:
        attached.capture.hashes.trim()
        if second is not None:
            source.end_reader(second)
        raise
    finally:
        if lock is not None:
            source.unlock_writers(lock)


def _prove(attached: Attachment) -> None:
    """That the WAL goes on where the attachment's cursor is. Raises `ContinuityLostError`; a cursor at the beginning
    stands for itself, or for the database file that `_continue` compared.
    """
    if attached.capture.cursor.header or attached.capture.cursor.base is not None:
        verdict = attached.capture.judge(anchored=False)
        if isinstance(verdict, Lost):
            raise ContinuityLostError(verdict.reason, passed=verdict.passed)
    elif attached.state.base_sha256 and (not attached.reader.at_rest or _has_frames(attached.source)):
        raise ContinuityLostError(NO_SHADOW, passed=True)


def _continue(settings: Settings, source: Source, reader: Reader) -> Attachment:
    """The attachment that goes on where the local state ends, still to be proved.

    Raises `ContinuityLostError` with what speaks against it by now.
    """
    attached = _local(settings, source, reader)
    cursor, base_sha256 = attached.capture.cursor, attached.state.base_sha256
    if cursor.header or cursor.base is not None:
        return attached
    if not base_sha256 or _has_frames(source) or _hash(source) != base_sha256:
        raise ContinuityLostError(NO_SHADOW, passed=True)
    return attached


def _local(settings: Settings, source: Source, reader: Reader) -> Attachment:
    """The attachment where the local state ends, whatever stands in the WAL. Raises `ContinuityLostError`."""
    state = states.load(settings.meta_path)
    if not state.generation:
        raise ContinuityLostError(NO_GENERATION)
    if (state.device, state.inode) != source.identity():
        raise ContinuityLostError(REPLACED)
    attached = _attachment(settings, source, reader, state)
    capture = attached.capture
    last, base = settle(settings.meta_path, attached.shadow)
    if last is not None:
        stamp, data = last
        if stamp.page_size != source.page_size:
            raise ContinuityLostError(PAGE_SIZE_CHANGED)
        capture.cursor = resumed_cursor(stamp, last_frame_of(data, stamp.page_size))
        capture.last_commit_ns = max(state.last_commit_ns, stamp.last_commit_ns)
    # A catch-up in which nothing differed ends where the batch before it did: it is the newer one.
    capture.cursor.base = Base.unpack(state.base, capture.cursor.pos) or base
    capture.hashes = PageHashes.load(settings.meta_path, capture.cursor.pos, source.page_size, attached.access)
    return attached


def _begin_generation(
    settings: Settings, source: Source, reader: Reader, old: Attachment | None, reason: str
) -> Attachment:
    """A generation that begins with the WAL as it is now, recorded before anything is copied into it."""
    stored = states.load(settings.meta_path)
    before = old.state if old is not None else stored
    previous = _ended(settings, old, before)
    last_commit_ns = max(before.last_commit_ns, old.capture.last_commit_ns if old is not None else 0)
    generation = secrets.token_hex(8)
    device, inode = source.identity()
    # Also those of attempts that did not come to an end, and of a process that was killed before it had removed them.
    over = [name for name in dict.fromkeys(before.generations + stored.generations) if _has_shadow(settings, name)]
    state = states.State(
        generation, str(previous), device, inode, max(last_commit_ns, settings.clock()), generations=[generation, *over]
    )
    attached = _attachment(settings, source, reader, state)
    access = attached.access
    fsutil.make_dirs(settings.meta_path, mode=access.dir_mode, owner=access.owner)
    states.store(settings.meta_path, state, access)
    for name in over:
        remove_generation(settings.meta_path, name)
    settings.logger.info(
        'sync: new generation "%s", %s',
        generation,
        reason,
        extra={"fields": {"db": printable(settings.path), "generation": generation, "reason": reason}},
    )
    return attached


def _has_shadow(settings: Settings, generation: str) -> bool:
    return os.path.isdir(os.path.join(settings.meta_path, "generations", generation))


def _ended(settings: Settings, old: Attachment | None, before: states.State) -> Pos:
    """Where the generation before ended, as far as it is known."""
    if old is not None:
        return old.capture.cursor.pos
    if not before.generation:
        return Pos()
    last, _ = settle(settings.meta_path, ShadowWAL(settings.meta_path, before.generation, fsutil.Access()))
    return Pos(before.generation, *last[0].required) if last is not None else Pos(before.generation, 0, 0)


def _attachment(settings: Settings, source: Source, reader: Reader, state: states.State) -> Attachment:
    access = local_access(source.path)
    shadow = ShadowWAL(settings.meta_path, state.generation, access)
    capture = Capture(
        source,
        shadow,
        PageHashes(settings.meta_path, state.generation, source.page_size, access),
        Cursor(Pos(state.generation, 0, 0), source.page_size),
        writer=settings.writer,
        clock=settings.clock,
        last_commit_ns=state.last_commit_ns,
    )
    capture.compact = Compact(capture, settings.meta_path, access, lambda: settings.compact)
    return Attachment(source, reader, capture, shadow, state, settings.meta_path, access)


def _require_wal(settings: Settings, source: Source) -> None:
    """Switch to WAL mode at the first attach of this file only: an application that left it later is not overruled."""
    if source.is_wal:
        return
    state = states.load(settings.meta_path)
    if state.generation and (state.device, state.inode) == source.identity():
        raise JournalModeError(
            f"the application switched the database out of WAL mode, replication waits until it is WAL again "
            f"(PRAGMA journal_mode = wal): {printable(source.path)}"
        )
    source.switch_to_wal()
    settings.logger.info("switched to WAL mode", extra={"fields": {"db": printable(settings.path)}})


def _salts(source: Source) -> bytes:
    parsed = source.wal_index()
    if parsed is None:
        raise DatabaseBusyError("the wal-index is being written or recovered")
    return parsed[0].salts


def _has_frames(source: Source) -> bool:
    parsed = source.wal_index()
    return parsed is None or parsed[0].max_frame > 0


def _hash(source: Source) -> str:
    """SHA-256 of the database file, which nobody can write to while a reader at rest is held."""
    digest, offset = hashlib.sha256(), 0
    while data := source.read_database(offset, _HASH_CHUNK):
        digest.update(data)
        offset += len(data)
    return digest.hexdigest()
