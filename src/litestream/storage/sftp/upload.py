"""One put over SFTP: a temporary file on its way to its name.

The order is that of every file here: bytes into a temporary file beside the target, fsync where the server has it,
then the name. A new object gets its name by a hard link, which no server makes over a file that is there.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from litestream.errors import ObjectExistsError, StorageError
from litestream.storage.protocol import ObjectInfo
from litestream.storage.sftp.errors import ABSENT, shown
from litestream.storage.sftp.files import WINDOW, block_size, is_regular, modified, open_file, read_ahead
from litestream.storage.sftp.link import SFTPLink
from litestream.storage.shared_link import gather, stop

if TYPE_CHECKING:
    import asyncssh

_NAME_MAX = 255
_UNDO = 0.5
"""Seconds for which a cancelled put waits to learn whether its file got its name."""

Errors = Callable[[], AbstractContextManager[None]]


class Upload:
    """The file. `errors` makes the library's exceptions ours, around everything but the reading of the body."""

    def __init__(
        self, link: SFTPLink, url: str, path: bytes, key: str, errors: Errors, *, create_only: bool, concurrent: bool
    ) -> None:
        self.hardlinks = True
        """Whether the server has them, as far as is known; to be set before `publish`, and asked after it."""
        self._link = link
        self._url = url
        self._path = path
        self._key = key
        self._errors = errors
        self._create_only = create_only
        self._temp = _temp_path(path)
        self._file: asyncssh.SFTPClientFile | None = None
        self._block = block_size(link.sftp.limits.max_write_len)
        self._window = WINDOW // self._block if concurrent else 1
        self._pending: deque[asyncio.Task[Any]] = deque()
        self._size = 0
        self._digest = hashlib.sha256()
        self._gone = False  # whether the temporary name is
        self._new = False

    async def create(self) -> None:
        """Make the temporary file. Raises the library's own exceptions."""
        self._file = await open_file(self._link, self._temp, new=True)

    async def began(self) -> float:
        """When that was, by the server's clock."""
        assert self._file is not None
        return modified(await self._link.ask(self._file.stat()))

    async def write(self, data: bytes) -> None:
        """Append `data`; returns when it is sent, and not more than a window waits for its answer."""
        assert self._file is not None
        self._digest.update(data)
        with self._errors():
            for at in range(0, len(data), self._block):
                block = data[at : at + self._block]
                self._pending.append(asyncio.create_task(self._file.write(block, self._size)))
                self._size += len(block)
                while len(self._pending) >= self._window:
                    await self._settle()

    async def publish(self) -> ObjectInfo:
        """Make the bytes durable and give the file its name."""
        assert self._file is not None
        with self._errors():
            while self._pending:
                await self._settle()
            attrs, _ = await gather([self._link.ask(self._file.stat()), self._synced()])
        if attrs is None or attrs.size != self._size:
            raise StorageError(
                f"{self._url}: the server has not all bytes of {shown(self._key)}", key=self._key, code="Connection"
            )
        info = ObjectInfo(self._key, self._size, modified(attrs))
        with self._errors():
            return await self._undone_if_cancelled(self._finish(info))

    async def discard(self) -> None:
        """Leave nothing behind, but for a named file. May be called twice; raises nothing."""
        await stop(self._pending)
        self._pending.clear()
        await self._close()
        if self._link.alive:
            await self._drop_temp()

    async def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None and self._link.alive:
            await self._link.tidy(file.close())

    async def _settle(self) -> None:
        import asyncssh

        try:
            await self._link.ask(_result(self._pending[0]))
        except asyncssh.SFTPFailure:  # OpenSSH has no word for a disk that is full
            space = await self._link.ask(self._link.sftp.statvfs(os.path.dirname(self._path) or b"."))
            if space.bavail * space.frsize > WINDOW:
                raise
            raise asyncssh.SFTPNoSpaceOnFilesystem("") from None
        self._pending.popleft()

    async def _synced(self) -> None:
        import asyncssh

        assert self._file is not None
        try:
            await self._link.ask(self._file.fsync())
        except asyncssh.SFTPOpUnsupported:
            pass  # durable when the server's system writes it down

    async def _undone_if_cancelled(self, naming: Coroutine[Any, Any, ObjectInfo]) -> ObjectInfo:
        """Give the name, and take it back if that is cancelled and the name was new.

        The put ends with this: nothing after it may be cancelled.
        """
        task = asyncio.create_task(naming)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task], timeout=_UNDO)
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
            if not task.cancelled():
                task.exception()
            if self._new and self._link.alive:
                await self._link.tidy(self._link.sftp.remove(self._path))
            raise

    async def _finish(self, info: ObjectInfo) -> ObjectInfo:
        stored = await self._named_as(info)
        await gather([self._close(), self._drop_temp()])
        return stored

    async def _drop_temp(self) -> None:
        if not self._gone and await self._link.tidy(self._link.sftp.remove(self._temp)):
            self._gone = True

    async def _named_as(self, info: ObjectInfo) -> ObjectInfo:
        """The name, by the best means that the server has."""
        import asyncssh

        sftp = self._link.sftp
        for _ in range(3):  # an object in the way may be deleted before we can look at it
            try:
                if self.hardlinks:
                    await self._link.ask(sftp.link(self._temp, self._path))
                else:
                    await self._rename_new()
                self._new = True
                self._gone = not self.hardlinks
                return info
            except asyncssh.SFTPError as error:
                there = await self._there()
                if there is None:
                    if not self.hardlinks or isinstance(error, (*ABSENT(), asyncssh.SFTPConnectionLost)):
                        raise
                    self.hardlinks = False  # or the server's file system has them not
                elif self._create_only:
                    return await self._compared(there)
                else:
                    await self._replace()
                    self._gone = True
                    return info
        raise StorageError(f"{self._url}: {shown(self._key)} comes and goes: is there a second writer?", key=self._key)

    async def _rename_new(self) -> None:
        """Rename to a name that is free. Some servers rename over a file, so we look first."""
        import asyncssh

        if await self._there() is not None:
            raise asyncssh.SFTPFailure("there is one")
        await self._link.ask(self._link.sftp.rename(self._temp, self._path))

    async def _replace(self) -> None:
        import asyncssh

        sftp = self._link.sftp
        try:
            await self._link.ask(sftp.posix_rename(self._temp, self._path))
        except asyncssh.SFTPOpUnsupported:  # the oldest servers: without the object for a moment
            await self._link.ask(sftp.remove(self._path))
            await self._link.ask(sftp.rename(self._temp, self._path))

    async def _there(self) -> asyncssh.SFTPAttrs | None:
        try:
            return await self._link.ask(self._link.sftp.stat(self._path))
        except ABSENT():
            return None

    async def _compared(self, there: asyncssh.SFTPAttrs) -> ObjectInfo:
        """The object that is there already, if it is the same. `ObjectExistsError` otherwise."""
        if not is_regular(there) or there.size != self._size:
            raise ObjectExistsError(self._key)
        digest = hashlib.sha256()
        file = await open_file(self._link, self._path)
        try:
            async for data in read_ahead(self._link, file, 0, self._size):
                digest.update(data)
        except EOFError:
            raise ObjectExistsError(self._key) from None
        finally:
            await self._link.tidy(file.close())
        if digest.digest() != self._digest.digest():
            raise ObjectExistsError(self._key)
        return ObjectInfo(self._key, self._size, modified(there))


async def _result(task: asyncio.Task[Any]) -> None:
    await task


def _temp_path(path: bytes) -> bytes:
    """A name beside `path` that `litestream.fsutil.is_temp_name` knows."""
    directory, slash, name = path.rpartition(b"/")
    tail = f".{os.getpid()}-{secrets.token_hex(8)}.tmp".encode()
    return directory + slash + b"." + name[: _NAME_MAX - len(tail) - 1] + tail
