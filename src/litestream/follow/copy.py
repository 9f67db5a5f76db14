"""The local copy and the note of where it stands, kept in step."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from litestream import fsutil
from litestream.core.position import Pos
from litestream.db.guard import Guard
from litestream.db.paths import local_access, local_errors
from litestream.errors import DatabaseError
from litestream.follow.note import Note, NoteFile, Place, load, trusted
from litestream.sqlite.connection import printable
from litestream.sqlite.follower import LocalCopy, file_header

if TYPE_CHECKING:
    from litestream.follow.assemble import Assembler
    from litestream.sqlite.walwriter import Mark

CHECKPOINT_FRAMES = 1000
"""Frames in the copy's WAL from which it is checkpointed."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
"""Seconds until a checkpoint that a reader was in the way of is tried again."""


class Copy:
    """The copy at `path`, with its local state in `meta`. Blocking; the caller serialises.

    Attributes:
        place: where the copy is; its position is zero if that is not known, or there is no copy yet.
        shown: the position before which nothing may be shown: readers may have seen it.
    """

    def __init__(self, path: str, meta: str) -> None:
        self.path = path
        self.meta = meta
        self.place = Place()
        self.shown = Pos()
        self._local: LocalCopy | None = None
        self._note: NoteFile | None = None
        self._guard: Guard | None = None
        self._pause = 0.0
        self._not_before = 0.0

    @property
    def page_size(self) -> int:
        """Bytes of a page; 0 while there is no copy."""
        return self._local.page_size if self._local is not None else 0

    def open(self) -> None:
        """Open the copy if there is one, and find out where it is. Does nothing if that is done.

        Raises `DatabaseError` for a database that was not made by following, `DatabaseBusyError` if another process
        follows it, and `LocalStateError`.
        """
        if self._note is not None:
            return
        try:
            with local_errors(self.meta):
                self._open()
        except BaseException:
            self.close(clean=False)
            raise

    def _open(self) -> None:
        there = _has_content(self.path)
        note = load(self.meta)
        if note is None and (there or _has_content(self.path + "-wal")):
            raise DatabaseError(
                f"is there already, and was not made by following: {printable(self.path)} (move it, its -wal and -shm "
                "away, or follow into another file)"
            )
        access = local_access(self.path) if there else fsutil.Access()
        if self._guard is None:
            self._guard = Guard.take(self.meta, access)
        self._note = NoteFile(self.meta, access)
        if there:
            self._local = LocalCopy(self.path)
            self._settle(trusted(note) if note is not None else Note())

    def _settle(self, note: Note) -> None:
        """What the note and the copy's own WAL tell together."""
        assert self._local is not None  # there is a copy
        mark = _plain(self._local.mark)
        if not note.known or self._local.identity() != (note.device, note.inode):
            return
        if mark[1] and mark in (note.next.mark, note.at.mark):
            self.place = note.next if mark == note.next.mark else note.at
            self.shown = self.place.pos
        elif not mark[1] and note.at.pos.generation == note.next.pos.generation:
            self.place, self.shown = note.at, note.next.pos

    def apply(self, batch: Assembler) -> None:
        """Commit what the assembler holds. Raises `ContinuityLostError` if somebody else wrote to the copy."""
        assert self._local is not None  # an assembler has something to build on
        with local_errors(self.meta):
            self._local.commit(batch.pieces(), batch.db_pages, self._intent(batch.at, batch.salts))
        self._moved(batch.at, batch.salts)

    def replace(self, temp: str, pos: Pos) -> None:
        """Make the copy the database in the file `temp`, which stands at `pos`; all at once for its readers.

        `temp` is beside the copy: where there is none yet, it becomes the copy. Whoever has it open closes it before
        `replaced` is called, which is the second half. Raises `NotADatabaseError`, and `DatabaseError` if it cannot
        take the place of the copy.
        """
        with open(temp, "rb") as content, local_errors(self.meta):
            page_size, is_wal = file_header(content)
            pages = os.fstat(content.fileno()).st_size // page_size
            if not is_wal:
                raise DatabaseError("the database that is followed is not in WAL mode")
            if self._local is None:
                self._create(temp)
            elif page_size != self._local.page_size:
                raise DatabaseError(
                    f"the database that is followed has pages of {page_size} bytes now, its copy of "
                    f"{self._local.page_size}: end the readers and remove {printable(self.path)}, its -wal and -shm"
                )
            else:
                self._local.replace(content, pages, self._intent(pos, ""))

    def replaced(self, pos: Pos) -> None:
        """After `replace`: open the copy if it is new, and note where it stands.

        Not before: to close any descriptor on the file would drop the locks that keep its WAL from being deleted.
        """
        assert self._note is not None  # opened
        with local_errors(self.meta):
            if self._local is None:
                self._local = LocalCopy(self.path)
            self._moved(pos, "")
            self._note.write(self._written(self.place, self.place))

    def checkpoint(self) -> None:
        """Empty the copy's WAL if it has grown, and no reader needs it."""
        local = self._local
        if local is None or local.frames < CHECKPOINT_FRAMES or time.monotonic() < self._not_before:
            return
        if local.checkpoint():
            self._pause = 0.0
            self._moved(self.place.pos, self.place.salts)
        else:
            self._pause = min(2 * self._pause or _FIRST_PAUSE, _LONGEST_PAUSE)
            self._not_before = time.monotonic() + self._pause

    def lose(self) -> None:
        """Nobody knows what the copy is any more: close it, and have a snapshot taken also after a kill."""
        if self._note is not None:
            self._note.write(Note())
        self.forget()
        self.close(clean=False)

    def forget(self) -> None:
        """The copy can no longer be continued: it needs a snapshot."""
        self.place, self.shown = Place(), Pos()

    def close(self, *, clean: bool = True) -> None:
        """Close everything; `clean`: make the copy durable before, as far as its readers let us."""
        local, self._local = self._local, None
        note, self._note = self._note, None
        try:
            if local is not None and note is not None and clean and self.place.pos.generation and local.checkpoint():
                place = Place(self.place.pos, self.place.salts, _plain(local.mark))
                note.write(Note(place, place, *local.identity()), durable=True)
        finally:
            if local is not None:
                local.close()
            if note is not None:
                note.close()
            if self._guard is not None:
                self._guard.release()
                self._guard = None

    def _create(self, temp: str) -> None:
        """The first content. The note is there before it, as a claim: a file without one is somebody else's."""
        assert self._note is not None  # opened
        self._note.write(Note(), durable=True)
        for suffix in ("-wal", "-shm", "-journal"):
            if os.path.lexists(self.path + suffix):
                os.unlink(self.path + suffix)
        fsutil.fsync_file(temp)
        os.rename(temp, self.path)
        fsutil.fsync_dir(os.path.dirname(self.path))

    def _intent(self, pos: Pos, salts: str) -> Callable[[Mark], None]:
        """Writes down where the copy is about to be, before anybody can see it there."""

        def write(mark: Mark) -> None:
            assert self._note is not None  # opened
            self._note.write(self._written(self.place, Place(pos, salts, _plain(mark))))

        return write

    def _written(self, at: Place, then: Place) -> Note:
        assert self._local is not None  # there is a copy
        return Note(at, then, *self._local.identity())

    def _moved(self, pos: Pos, salts: str) -> None:
        assert self._local is not None  # it was written to
        self.place = Place(pos, salts, _plain(self._local.mark))
        self.shown = pos


def _plain(mark: Mark) -> tuple[str, int, int, int]:
    return (mark.salts, mark.frames, *mark.checksum)


def _has_content(path: str) -> bool:
    try:
        return os.stat(path).st_size > 0
    except FileNotFoundError:
        return False
