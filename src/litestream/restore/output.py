"""The file that a restore makes: refused if something is in the way, whole and durable or not there at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from litestream import fsutil
from litestream.errors import OutputExistsError, RestoreError
from litestream.restore.model import RestoreOptions

_COMPANIONS = ("-wal", "-shm", "-journal")
"""Files that SQLite would take for the new database's own: an old WAL would be applied to it."""


class Output:
    """The restored database while it is made. Blocking.

    `check()` refuses what is in the way; `create()` makes the temporary file beside the target; `publish()` gives it
    its name; `discard()` removes everything that was made, unless it was published.
    """

    def __init__(self, path: str, options: RestoreOptions) -> None:
        if not path or "\0" in path:
            raise RestoreError("no output path given")
        # A link is followed only where a file is to be replaced: SQLite names -wal after the file it leads to.
        self.path = os.path.realpath(path) if options.force else os.path.abspath(path)
        self._options = options
        self._made: list[str] = []
        self._file: fsutil.AtomicFile | None = None

    @property
    def name(self) -> str:
        """The path, printable."""
        return os.fsencode(self.path).decode("utf-8", "backslashreplace")

    @property
    def directory(self) -> str:
        return os.path.dirname(self.path)

    @property
    def fd(self) -> int:
        assert self._file is not None  # create() was called
        return self._file.fd

    @property
    def temp(self) -> str:
        """Path of the temporary file."""
        assert self._file is not None  # create() was called
        return self._file.temp

    def check(self) -> None:
        """Raises `OutputExistsError` if the output, or a file that SQLite would take for part of it, is there."""
        with self.errors():
            if os.path.isdir(self.path):
                raise RestoreError(f"output is a directory: {self.name}")
            if self._options.force:
                return
            if os.path.lexists(self.path):
                raise OutputExistsError(
                    f"output file already exists: {self.name} (choose another with -o, or replace it with -force)"
                )
            for suffix in _COMPANIONS:
                if os.path.lexists(self.path + suffix):
                    raise OutputExistsError(
                        f"output file already exists: {self.name}{suffix} (SQLite would take it for part of the "
                        "restored database; move it away, or remove it with -force)"
                    )

    def create(self) -> None:
        """Make the temporary file, and the directory (0700) if need be."""
        mode, owner = self._access()
        with self.errors():
            self.make_directory()
            fsutil.remove_stale_temps(self.directory)
            self._file = fsutil.AtomicFile(self.path, mode=mode, owner=owner)

    def make_directory(self) -> None:
        """Make the directory if need be; `discard()` removes it again if it is empty then."""
        missing = []
        head = self.directory
        while not os.path.isdir(head):
            missing.append(head)
            head = os.path.dirname(head)
        with self.errors():
            fsutil.make_dirs(self.directory)
        self._made = missing[::-1] or self._made  # the deepest is taken from the end

    def sync(self) -> None:
        """Make the content durable, if it is to stay."""
        if self._options.scratch:
            return
        with self.errors():
            os.fsync(self.fd)

    def publish(self) -> None:
        """Give the file its name, durably. With `force`, old companions go first: they must never meet the new file."""
        assert self._file is not None  # create() was called
        with self.errors():
            if not self._options.force:
                self.check()
                try:
                    self._file.publish(create_only=True, durable=not self._options.scratch)
                except FileExistsError as error:
                    raise OutputExistsError(
                        f"output file already exists: {self.name} (it has just appeared)"
                    ) from error
                return
            moved = self._move_companions()
            try:
                self._file.publish()
            except BaseException:
                for path, aside in moved:
                    os.rename(aside, path)
                raise
            for _, aside in moved:
                os.unlink(aside)

    def discard(self) -> None:
        """Close; remove what was made, unless it was published. May be called twice."""
        if self._file is not None:
            self._file.discard()
            self._file = None
        while self._made:
            try:
                os.rmdir(self._made.pop())
            except OSError:
                self._made.clear()  # not empty: published, or somebody else's file

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns what the operating system says into one of our errors."""
        with disk_errors("the restored database", self.name):
            yield

    # -- inside

    def _access(self) -> tuple[int, fsutil.Owner | None]:
        """Mode and owner: what was asked for, those of the database that this is a copy of, or 0600 and ours."""
        mode, owner = 0o600, None
        for path in (self._options.source_path, self.path if self._options.force else ""):
            if path and _is_file(path):
                access = fsutil.access_of(path)
                mode, owner = access.file_mode, access.owner
                break
        return (mode if self._options.mode is None else self._options.mode), owner

    def _move_companions(self) -> list[tuple[str, str]]:
        moved = []
        for suffix in _COMPANIONS:
            path = self.path + suffix
            if os.path.lexists(path):
                aside = f"{self.temp}{suffix}"
                os.rename(path, aside)
                moved.append((path, aside))
        if moved:
            fsutil.fsync_dir(self.directory)
        return moved


@contextmanager
def disk_errors(what: str, name: str) -> Iterator[None]:
    """Turns what the operating system says of writing `what` into a `RestoreError`; `name` is the path, printable."""
    try:
        yield
    except OSError as error:
        cannot = "no room for" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "cannot write"
        raise RestoreError(f"{cannot} {what}: {name}: {error.strerror or error}") from error


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False
