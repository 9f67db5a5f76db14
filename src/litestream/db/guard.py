"""One replicator per database and host: two would tear each other's generations apart."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

from litestream import fsutil
from litestream.errors import DatabaseHeldError

_NAME = "lock"
_SIZE = 21
_LOOKS = 20
_PAUSE = 0.005
"""Seconds between looks at a file whose owner has the lock and has not said so yet."""


class Guard:
    """A lock (flock) on a file in the local state, held until `release` or the death of the process.

    Not on the database file: where flock is made of POSIX locks (NFS) it would meet SQLite's own.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, meta: str, access: fsutil.Access) -> Guard:
        """Take the lock, and clean up after who had it. Raises `DatabaseHeldError`, naming the process that has it."""
        fsutil.make_dirs(meta, mode=access.dir_mode, owner=access.owner)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(os.path.join(meta, _NAME), flags, 0o600)
        try:
            _lock(descriptor)
            os.pwrite(descriptor, b"%*d\n" % (_SIZE - 1, os.getpid()), 0)
            os.ftruncate(descriptor, _SIZE)
            fsutil.remove_stale_temps(meta)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def release(self) -> None:
        """Let go. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def holder(meta: str) -> int | None:
    """The process that has the lock of the local state in `meta`; 0 if it is not known, None if there is none."""
    try:
        descriptor = os.open(os.path.join(meta, _NAME), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None  # whoever attaches meets it too, and says so
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = _holder(descriptor)
        if not pid:  # somebody may only have looked
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
        raise DatabaseHeldError(
            f"another litestream replicates this database already (process {pid or 'unknown'}): "
            "stop that one first, or wait for its end with replicate -takeover",
            pid,
        ) from None


def _holder(descriptor: int) -> int:
    """The process that the file names; 0 if that is none. One that was killed may still stand there for a moment."""
    for look in range(_LOOKS):
        if look:
            time.sleep(_PAUSE)
        text = os.pread(descriptor, _SIZE, 0).strip()
        if text.isdigit() and int(text) > 0 and is_there(int(text)):
            return int(text)
    return 0


def is_there(pid: int) -> bool:
    """Whether there is a process of that id."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
