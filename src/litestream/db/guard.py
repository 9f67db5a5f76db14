"""One replicator per database and host: two would tear each other's generations apart."""

from __future__ import annotations

import fcntl
import os

from litestream import fsutil
from litestream.errors import DatabaseBusyError

_NAME = "lock"


class Guard:
    """A lock (flock) on a file in the local state, held until `release` or the death of the process.

    Not on the database file: where flock is made of POSIX locks (NFS) it would meet SQLite's own.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, meta: str, access: fsutil.Access) -> Guard:
        """Take the lock. Raises `DatabaseBusyError`, naming the process that has it."""
        fsutil.make_dirs(meta, mode=access.dir_mode, owner=access.owner)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(os.path.join(meta, _NAME), flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise DatabaseBusyError(
                f"another litestream replicates this database already (process {holder}): stop that one first"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def release(self) -> None:
        """Let go. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
