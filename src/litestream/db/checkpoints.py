"""Checkpoints of ours, so that the WAL does not grow for ever: when, how far, and the moment that writers wait."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager
from typing import Protocol

from litestream.core.checkpoint import Action, choose_checkpoint
from litestream.db.attach import Attachment
from litestream.db.pinned import PinnedWAL
from litestream.db.seal import SEAL_ROUNDS, SEAL_TIMEOUT, tail_is_short, tail_limit
from litestream.db.stats import Stats
from litestream.errors import DatabaseError
from litestream.sqlite.connection import printable


class Checkpointed(Protocol):
    """The database, as a checkpoint needs it."""

    compact: bool

    def locked(self) -> AbstractContextManager[object]: ...
    def is_current(self, attached: Attachment) -> bool: ...
    def copy(self, whole: bool = False) -> None: ...
    def overlap(self, *, hold: bool = False) -> bool: ...


class Checkpoints:
    """The checkpoints of one database. Blocking; the caller keeps them from running into overlaps.

    Attributes:
        pinned: how long a foreign reader has kept them from coming to an end.
    """

    def __init__(self, stats: Stats, logger: logging.Logger | logging.LoggerAdapter[logging.Logger], path: str) -> None:
        self.pinned = PinnedWAL()
        self._stats = stats
        self._logger = logger
        self._path = path
        self._ended_at = time.monotonic()

    def choose(self, attached: Attachment, min_pages: int, max_pages: int, interval: float) -> Action:
        """What is due; see `litestream.core.checkpoint`."""
        parsed = attached.source.wal_index()
        if parsed is None or time.monotonic() < self.pinned.not_before:
            return Action.NONE
        index, backfilled = parsed
        return choose_checkpoint(
            wal_frames=index.max_frame,
            backfilled=backfilled,
            min_pages=min_pages,
            max_pages=max_pages,
            interval=interval,
            since_checkpoint=time.monotonic() - self._ended_at,
        )

    def run(self, db: Checkpointed, attached: Attachment, action: Action) -> None:
        """Backfill (without the lock: copying goes on meanwhile), overlap, and seal if asked to and still needed.

        What a busy writer appends during one round is less than what it appended before, so a seal takes several.
        """
        started = time.perf_counter()
        for number in range(SEAL_ROUNDS if action is Action.SEAL else 1):
            if number:
                with db.locked():
                    if not db.overlap(hold=True):
                        break
            frames = attached.reader.frames
            try:
                complete, _, _ = attached.source.checkpoint_passive()
            except DatabaseError:
                self._stats.checkpoint_failed(action.name)
                raise
            finally:
                attached.source.let_checkpoints()
            parsed = attached.source.wal_index()
            pinned = not complete and parsed is not None and parsed[1] < min(frames, parsed[0].max_frame)
            with db.locked():
                if not db.is_current(attached):
                    return
                # The bulk first: the newer reader's mark is then close to the end. But a batch is better a large one.
                db.copy(whole=db.compact and action is not Action.SEAL)
                # Only for a WAL that can start over. A mark that moves on under load has the application, which tries
                # a checkpoint after each commit, backfill all that came since.
                if complete and (not db.overlap() or attached.reader.at_rest):
                    break
                if pinned or action is not Action.SEAL:
                    break
                if self._seal(db, attached):
                    complete = True
                    break
        if complete:
            self._ended_at = time.monotonic()
        self._note_pinned(complete, pinned)
        self._stats.checkpoint(action.name, time.perf_counter() - started)

    def _note_pinned(self, complete: bool, pinned: bool) -> None:
        """While a foreign reader pins the WAL, try less and less often, and say so from time to time."""
        seconds = self.pinned.note(complete, time.monotonic(), pinned=pinned)
        self._stats.pinned_seconds = self.pinned.seconds(time.monotonic())
        if seconds:
            fields = {"db": printable(self._path), "seconds": round(seconds)}
            self._logger.warning("WAL pinned by a reader", extra={"fields": fields})

    def _seal(self, db: Checkpointed, attached: Attachment) -> bool:
        """Hold writers back for a moment so that everything is backfilled and the next one starts a new WAL."""
        limit = tail_limit(attached)
        if not tail_is_short(attached, limit):
            return False
        lock = attached.source.lock_writers(SEAL_TIMEOUT)
        if lock is None:
            return False
        held = time.perf_counter()
        try:
            if not tail_is_short(attached, limit) or not db.overlap():
                return False
            complete, _, _ = attached.source.checkpoint_passive()
            return db.overlap() and complete
        finally:
            attached.source.unlock_writers(lock)
            self._stats.seal_seconds_max = max(self._stats.seal_seconds_max, time.perf_counter() - held)
