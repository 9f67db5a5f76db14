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

    Nothing is durable before the file is synced. Where the system or the file system cannot do it, nothing is taken,
    and the caller writes as always.
    """

    def __init__(self, fd: int) -> None:
        self._fd = -1
        self._buffer: memoryview | None = None
        flag = getattr(os, "O_DIRECT", 0)
        if flag:
            try:
                self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC | flag)
            except OSError:
                return  # no /proc, a mode that forbids it, or a file system without it

    def write(self, data: memoryview, offset: int) -> int:
        """Write `data` at `offset`; how much of it was written, from its beginning on. What is left is the caller's.

        Raises `OSError` for what ordinary writes would raise too.
        """
        done, end = 0, len(data) - len(data) % ALIGNMENT
        if len(data) < SMALLEST or offset % ALIGNMENT or self._fd < 0:
            return 0
        if _is_aligned(data):
            return self.write_aligned(data[:end], offset)
        if self._buffer is None:
            self._buffer = aligned(_BUFFER)
        while done < end:
            count = min(end - done, _BUFFER)
            self._buffer[:count] = data[done : done + count]
            written = self.write_aligned(self._buffer[:count], offset + done)
            done += written
            if written < count:
                break  # the disk is full, or the like: an ordinary write says what it is
        return done

    def write_aligned(self, data: memoryview, offset: int) -> int:
        """The same for data that begins at a page of memory, without a copy; length and offset are whole blocks."""
        if self._fd < 0:
            return 0
        try:
            written = os.pwrite(self._fd, data, offset)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            self.close()
            return 0
        return written - written % ALIGNMENT

    def close(self) -> None:
        """May be called twice; afterwards `write` takes nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Appender:
    """Fills an empty file past the page cache, in large pieces gathered from small ones. Blocking; not for two threads.

    Where that is refused the same pieces go through the cache. What `append` took may still be in memory: it is in the
    file after `finish`, and durable after a sync of the file.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._direct = Direct(fd)
        self._buffer = aligned(SMALLEST)
        self._filled = 0
        self._offset = 0

    def append(self, data: bytes | memoryview) -> None:
        """Take `data` in. Raises `OSError` for what ordinary writes would raise too."""
        view = memoryview(data)
        while view:
            count = min(len(view), len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + count] = view[:count]
            self._filled += count
            view = view[count:]
            if self._filled == len(self._buffer):
                self._write()

    def finish(self) -> None:
        """Write what is left, and close the second descriptor."""
        self._write()
        self.close()

    def close(self) -> None:
        """What was not written is dropped. May be called twice."""
        self._direct.close()

    def _write(self) -> None:
        piece = self._buffer[: self._filled]
        done = self._direct.write_aligned(piece, self._offset) if len(piece) == len(self._buffer) else 0
        while done < len(piece):
            done += os.pwrite(self._fd, piece[done:], self._offset + done)
        self._offset += len(piece)
        self._filled = 0


def _is_aligned(data: memoryview) -> bool:
    """Whether it is known to begin at a page of memory; of what is read-only it is not."""
    if data.readonly:
        return False
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(data)) % ALIGNMENT == 0


def aligned(size: int) -> memoryview:
    """Fresh memory that begins at a page."""
    return memoryview(mmap.mmap(-1, size))
