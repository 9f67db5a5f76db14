"""Large writes past the page cache: several times less work, and nothing that others have there is pushed out."""

from __future__ import annotations

import errno
import mmap
import os

SMALLEST = 1 << 20
"""Bytes below which a write goes to the page cache: the disk is waited for each time."""
ALIGNMENT = 4096
"""Of offset, length and memory; no disk in use asks for more."""
_BUFFER = 4 << 20
_REFUSED = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}


class Direct:
    """A second descriptor of an open file, for writes that go to the disk at once. Blocking; not for two threads.

    Nothing is durable before the file is synced. Where the system or the file system cannot do it, `write` takes
    nothing, and the caller writes as always.
    """

    def __init__(self, fd: int) -> None:
        self._fd = -1
        flag = getattr(os, "O_DIRECT", 0)
        if flag:
            try:
                self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC | flag)
            except OSError:
                return  # no /proc, a mode that forbids it, or a file system without it
            self._buffer = memoryview(mmap.mmap(-1, _BUFFER))  # begins at a page of memory

    def write(self, data: memoryview, offset: int) -> int:
        """Write `data` at `offset`; how much of it was written, from its beginning on. What is left is the caller's.

        Raises `OSError` for what ordinary writes would raise too.
        """
        done, end = 0, len(data) - len(data) % ALIGNMENT
        if len(data) < SMALLEST or offset % ALIGNMENT:
            return 0
        while done < end and self._fd >= 0:
            count = min(end - done, _BUFFER)
            self._buffer[:count] = data[done : done + count]
            try:
                written = os.pwrite(self._fd, self._buffer[:count], offset + done)
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
                self.close()
                break
            done += written - written % ALIGNMENT
            if written < count:
                break  # the disk is full, or the like: an ordinary write says what it is
        return done

    def close(self) -> None:
        """May be called twice; afterwards `write` takes nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
