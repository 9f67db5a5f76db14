"""Objects as files below a directory, in the same tree as the official programs write.

Bytes are fsynced before a file gets its name, and directories after it, new directories in their parents too. Small
objects are written on the caller's thread: a hop to another costs as much as the write. All else, and everything on
a disk that proved slow, runs in threads that the store starts when needed and ends when idle.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from typing import Protocol, TypeVar

from litestream.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from litestream.fsutil import (
    AtomicFile,
    FileBytes,
    Owner,
    StrPath,
    fsync_dir,
    make_dirs,
    remove_stale_temps,
)
from litestream.storage.keys import check_key, check_prefix
from litestream.storage.protocol import ObjectInfo
from litestream.storage.tree import scan

T = TypeVar("T")

INLINE = 256 << 10
"""Bytes up to which an object is read or written on the event loop's own thread."""
_CHUNK = 1 << 20
"""Bytes handed to a thread at once: large beside the cost of the hop, small beside our memory."""
_THREADS = 4
_SLOW = 0.05
"""Seconds; after a small write that took longer, the next ones leave the loop's thread until one is fast again."""
_PERMANENT = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
_HINTS = {
    errno.EACCES: "check the owner and the mode",
    errno.EPERM: "check the owner, the mode and the attributes",
    errno.EROFS: "mount the file system for writing",
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space there",
    errno.ENOTDIR: "a file stands where a directory is needed",
    errno.EISDIR: "a directory stands where an object should",
}


class _Run(Protocol):
    def __call__(self, fn: Callable[..., T], *args: object) -> Awaitable[T]: ...


class FileStore:
    """A `Store` below the directory `root`, which is made by the first put.

    A root that does not exist lists as empty; one that is no directory or cannot be read is an error. New
    directories and files get `dir_mode`, `file_mode` and `owner` (what `litestream.fsutil.access_of` says of the
    database). Symbolic links are followed. A put that is cancelled while it replaces an object has either replaced
    it or not; a new object is taken back.
    """

    def __init__(
        self, root: StrPath, dir_mode: int = 0o700, file_mode: int = 0o600, owner: Owner | None = None
    ) -> None:
        path = os.fspath(root)
        if not path or "\0" in path:
            raise StorageError(f"no path for a file replica: {path!a}", permanent=True)
        self.root = os.path.abspath(path)
        self._dir_mode = dir_mode
        self._file_mode = file_mode
        self._owner = owner
        self._ready: set[str] = set()  # directories known to exist, durably
        self._slow = False
        self._pool: ThreadPoolExecutor | None = None
        self._users = 0

    @property
    def type(self) -> str:
        return "file"

    @property
    def url(self) -> str:
        return f"file://{self.root}".encode("utf-8", "backslashreplace").decode()

    @property
    def conditional(self) -> bool:
        return True

    async def list(self, prefix: str) -> list[ObjectInfo]:
        check_prefix(prefix)
        with self._lane() as run, self._errors("list", prefix):
            return await run(scan, self.root, prefix)

    async def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
        path = self._path(key)
        with self._lane() as run, self._errors("read", key):
            fd = -1
            try:
                fd, size = _open_object(path, key)
                if not 0 <= start <= size:
                    raise StorageError(f"{self.url}: {key} has {size} bytes, none at {start}", key=key)
                inline = size - start <= INLINE and not self._slow
                while start < size:
                    count = min(_CHUNK, size - start)
                    chunk = os.pread(fd, count, start) if inline else await run(os.pread, fd, count, start)
                    if not chunk:
                        raise StorageError(f"{self.url}: {key} shrank while it was read", key=key)
                    start += len(chunk)
                    yield chunk
            finally:
                if fd >= 0:
                    os.close(fd)

    def read_blocking(self, key: str) -> bytes:
        """All of an object. Blocking: for those who have threads of their own, and objects that fit into memory."""
        path = self._path(key)
        with self._errors("read", key):
            fd, size = _open_object(path, key)
            try:
                data = os.pread(fd, size, 0)
                if len(data) < size:
                    raise StorageError(f"{self.url}: {key} shrank while it was read", key=key)
                return data
            finally:
                os.close(fd)

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        upload = _Upload(self, key, self._path(key), create_only)
        try:
            if isinstance(body, bytes) and len(body) <= INLINE and not self._slow:
                return self._timed(upload.whole, body)
            with self._lane() as run:
                if isinstance(body, bytes) and len(body) > INLINE:
                    return await run(upload.large, body)
                if isinstance(body, bytes):
                    return await run(self._timed, upload.whole, body)
                async with aclosing(_coalesced(body)) as pieces:
                    return await self._put_pieces(run, upload, pieces)
        except BaseException:
            upload.undo()
            raise
        finally:
            upload.close()

    async def delete(self, keys: Sequence[str]) -> None:
        paths = {self._path(key): key for key in keys}
        if paths:
            with self._lane() as run:
                await run(self._delete, paths)

    async def close(self) -> None:
        """Nothing stays open between calls."""

    async def _put_pieces(self, run: _Run, upload: _Upload, pieces: AsyncIterator[Sequence[bytes]]) -> ObjectInfo:
        first: Sequence[bytes] = await anext(pieces, [])
        size = sum(map(len, first))
        if size < _CHUNK:  # it is all there is
            data = b"".join(first)
            return await (run(self._timed, upload.whole, data) if size <= INLINE else run(upload.whole, data))
        await run(upload.stream, first)
        async for piece in pieces:
            await run(upload.stream, piece)
        return await run(upload.publish)

    def _path(self, key: str) -> str:
        return os.path.join(self.root, check_key(key))

    def _timed(self, write: Callable[[bytes], ObjectInfo], data: bytes) -> ObjectInfo:
        began = time.monotonic()
        try:
            return write(data)
        finally:
            self._slow = time.monotonic() - began > _SLOW

    @contextmanager
    def _lane(self) -> Iterator[_Run]:
        """Threads for the time of one operation; none stay when no operation is under way."""
        self._users += 1
        try:
            yield self._run
        finally:
            self._users -= 1
            if not self._users and self._pool is not None:
                self._pool.shutdown(wait=False)
                self._pool = None

    async def _run(self, fn: Callable[..., T], *args: object) -> T:
        """Call `fn` in a thread. Cancelled, it still waits for the thread: what that holds is then safe to undo."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="litestream-file")
        future = asyncio.get_running_loop().run_in_executor(self._pool, fn, *args)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                try:
                    await asyncio.wait([future])
                except asyncio.CancelledError:
                    continue
            future.exception()  # the cancellation is what the caller hears of
            raise

    @contextmanager
    def _errors(self, action: str, key: str) -> Iterator[None]:
        """Any `OSError` as a `StorageError` that names the object."""
        try:
            yield
        except OSError as e:
            shown = key.encode("utf-8", "backslashreplace").decode() or "the directory"
            hint = _HINTS.get(e.errno or 0, "")
            text = f"{self.url}: cannot {action} {shown}: {e.strerror or e}{f' ({hint})' if hint else ''}"
            raise StorageError(text, key=key, permanent=e.errno in _PERMANENT) from e

    def _create(self, path: str, *, past_cache: bool) -> AtomicFile:
        attempts = 4
        while True:
            try:
                self._prepare(os.path.dirname(path))
                return AtomicFile(path, mode=self._file_mode, owner=self._owner, past_cache=past_cache)
            except FileNotFoundError:  # pruned between being made ready and being used
                attempts -= 1
                if not attempts:
                    raise
                self._ready.clear()

    def _link(self, path: str, data: FileBytes) -> AtomicFile | None:
        """The file of `data` under a temporary name beside `path`; None if it is not one for here."""
        self._prepare(os.path.dirname(path))
        return AtomicFile.linked(path, data, mode=self._file_mode, owner=self._owner)

    def _prepare(self, directory: str) -> None:
        """Make sure that a directory exists, durably, and holds no leftovers; once for each."""
        if directory in self._ready:
            return
        make_dirs(directory, self._dir_mode, self._owner)
        # A writer that was killed may have made directories whose names are not durable yet.
        level = directory
        while level != self.root:
            level = os.path.dirname(level)
            fsync_dir(level)
        try:
            fsync_dir(os.path.dirname(self.root))
        except PermissionError:
            pass  # the directory above is closed to us, so the root was there before
        remove_stale_temps(directory)
        self._ready.add(directory)

    def _delete(self, paths: dict[str, str]) -> None:
        touched = set()
        for path, key in paths.items():
            with self._errors("delete", key):
                try:
                    os.unlink(path)
                    touched.add(os.path.dirname(path))
                except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    continue  # no object there
        for directory in sorted(touched):
            with self._errors("delete below", os.path.relpath(directory, self.root)):
                self._prune(directory)

    def _prune(self, directory: str) -> None:
        """Remove a directory that became empty, and those above it; make the deletion durable in the first that stays.

        The official programs take an empty generation directory for a generation.
        """
        while True:
            try:
                if directory != self.root:
                    remove_stale_temps(directory)
                    os.rmdir(directory)
                    self._ready.discard(directory)
                else:
                    fsync_dir(directory)
                    return
            except FileNotFoundError:
                pass  # pruned already
            except OSError:
                fsync_dir(directory)  # not empty, a link, or we may not: it stays
                return
            directory = os.path.dirname(directory)


class _Upload:
    """One put: a temporary file on its way to its name. Its methods block, and run one at a time."""

    def __init__(self, store: FileStore, key: str, path: str, create_only: bool) -> None:
        self._store = store
        self._key = key
        self._path = path
        self._create_only = create_only
        self.file: AtomicFile | None = None

    def stream(self, pieces: Sequence[bytes]) -> None:
        """The next pieces of a large object. Past the page cache: nobody reads it soon, and it costs much less."""
        with self._store._errors("write", self._key):
            if self.file is None:
                self.file = self._store._create(self._path, past_cache=True)
            for piece in pieces:
                self.file.write(piece)

    def publish(self) -> ObjectInfo:
        assert self.file is not None
        with self._store._errors("write", self._key):
            for _ in range(3):  # an object in the way may be deleted before we can look at it
                try:
                    status = self.file.publish(create_only=self._create_only)
                except FileExistsError:
                    found = _same_content(self.file.fd, self._path)
                    if found is None:
                        continue
                    if not found:
                        raise ObjectExistsError(self._key) from None
                    status = os.stat(self._path)
                return ObjectInfo(self._key, status.st_size, status.st_mtime)
        raise StorageError(f"{self._store.url}: {self._key} comes and goes: is there a second writer?", key=self._key)

    def whole(self, data: bytes) -> ObjectInfo:
        with self._store._errors("write", self._key):
            self.file = self._store._create(self._path, past_cache=False)
            self.file.write(data)
        return self.publish()

    def large(self, data: bytes) -> ObjectInfo:
        """The same; what stands in a file of this file system already gets a second name instead of a copy."""
        if isinstance(data, FileBytes):
            with self._store._errors("write", self._key):
                self.file = self._store._link(self._path, data)
        return self.publish() if self.file is not None else self.whole(data)

    def undo(self) -> None:
        if self.file is not None:
            self.file.retract()

    def close(self) -> None:
        if self.file is not None:
            self.file.discard()


def _same_content(fd: int, path: str) -> bool | None:
    """Whether the file at `path` has the content of `fd`; None if it is gone. If so it is durable afterwards."""
    try:
        other = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        size = os.fstat(fd).st_size
        if os.fstat(other).st_size != size:
            return False
        for offset in range(0, size, _CHUNK):
            if os.pread(fd, _CHUNK, offset) != os.pread(other, _CHUNK, offset):
                return False
        # It may be the work of a writer that died between the name and the fsync.
        os.fsync(other)
        fsync_dir(os.path.dirname(path))
        return True
    finally:
        os.close(other)


def _open_object(path: str, key: str) -> tuple[int, int]:
    """A descriptor and the size. `ObjectNotFoundError`; anything but a regular file counts as no object."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not make us wait
    except (FileNotFoundError, NotADirectoryError):
        raise ObjectNotFoundError(key) from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise ObjectNotFoundError(key)
    return fd, status.st_size


async def _coalesced(body: AsyncIterator[bytes]) -> AsyncGenerator[Sequence[bytes], None]:
    """The same bytes in lists of at least `_CHUNK`, but for the last. Closes `body` when it is not read to its end."""
    held: list[bytes] = []
    size = 0
    try:
        async for chunk in body:
            held.append(chunk)
            size += len(chunk)
            if size >= _CHUNK:
                yield held
                held, size = [], 0
        if held:
            yield held
    finally:
        if isinstance(body, AsyncGenerator):
            await body.aclose()
