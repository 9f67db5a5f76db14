"""Objects as files on an SSH server, in the same tree as the official programs write.

One connection serves all operations at once, and is opened again when it broke. New files have mode 0600, new
directories 0700.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from litestream.errors import ObjectNotFoundError, StorageError
from litestream.storage.keys import check_key, check_prefix
from litestream.storage.protocol import ObjectInfo
from litestream.storage.sftp.errors import ABSENT, shown, storage_error
from litestream.storage.sftp.files import (
    encode,
    is_directory,
    is_regular,
    make_directories,
    open_file,
    prune,
    read_ahead,
    remove_leftovers,
    walk,
)
from litestream.storage.sftp.link import SFTPLink, connect
from litestream.storage.sftp.upload import Upload
from litestream.storage.shared_link import SharedLink, gather
from litestream.storage.wrappers.wrapper import closed

if TYPE_CHECKING:
    import asyncssh

    from litestream.storage.sftp import SFTPConfig

_PIECE = 1 << 20
"""Bytes of a body that are collected before they are sent."""
_AT_ONCE = 32
"""Deletions under way at once."""
_TRIES = 4
"""Attempts at a file in a directory that another writer prunes again and again."""


class SFTPStore:
    """A `Store` below a directory of an SSH server, which is made by the first put; absent, it lists as empty.

    Durable as far as the server's fsync goes, which SFTP has for files only. Create-only holds against other writers
    where the server makes hard links, as OpenSSH does. A put that is cancelled while it replaces an object has
    either replaced it or not; a new object is taken back.
    """

    def __init__(self, config: SFTPConfig) -> None:
        self._config = config
        self._root = encode(config.path.rstrip("/") + "/") if config.path else b""
        self._shared: SharedLink[SFTPLink] = SharedLink(partial(connect, config))
        self._ready: set[bytes] = set()  # directories known to exist
        self._clean: set[bytes] = set()  # directories without leftovers of dead writers
        self._hardlinks = True

    @property
    def type(self) -> str:
        return "sftp"

    @property
    def url(self) -> str:
        return self._config.url

    @property
    def conditional(self) -> bool:
        return self._hardlinks

    async def list(self, prefix: str) -> list[ObjectInfo]:
        check_prefix(prefix)
        link = await self._shared.get()
        with self._errors("list", prefix):
            return await walk(link, self._root, prefix)

    async def get(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        path = self._path(key)
        link = await self._shared.get()
        with self._errors("read", key):
            file = await self._open(link, path, key)
        try:
            with self._errors("read", key):
                size = await self._size(link, file, key)
            if not 0 <= start <= size:
                raise StorageError(f"{self.url}: {key} has {size} bytes, none at {start}", key=key)
            chunks = read_ahead(link, file, start, size)
            try:
                while True:
                    with self._errors("read", key):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        return
                    yield chunk
            finally:
                await chunks.aclose()
        finally:
            if link.alive:
                await link.tidy(file.close())

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        path = self._path(key)
        directory = os.path.dirname(path)
        pieces = _pieces(body)
        upload: Upload | None = None
        try:
            link = await self._shared.get()
            upload = Upload(
                link,
                self.url,
                path,
                key,
                partial(self._errors, "write", key),
                create_only=create_only,
                concurrent=self._config.concurrent_writes,
            )
            upload.hardlinks = self._hardlinks
            await self._create(link, upload, directory, key)
            async for piece in pieces:
                await upload.write(piece)
            info = await upload.publish()
            self._hardlinks = upload.hardlinks
        finally:
            await pieces.aclose()
            if not isinstance(body, bytes):
                await closed(body)
            if upload is not None:
                await upload.discard()
        return info

    async def delete(self, keys: Sequence[str]) -> None:
        paths = {self._path(key): key for key in keys}
        if not paths:
            return
        link = await self._shared.get()
        items = list(paths.items())
        for at in range(0, len(items), _AT_ONCE):
            await gather(self._remove(link, path, key) for path, key in items[at : at + _AT_ONCE])
        directories = {os.path.dirname(path) for path in paths}
        for directory in sorted(directories, key=len, reverse=True):
            with self._errors("delete", ""):
                self._ready.difference_update(await prune(link, self._root.rstrip(b"/"), directory))

    async def close(self) -> None:
        await self._shared.close()

    def _path(self, key: str) -> bytes:
        return self._root + encode(check_key(key))

    @contextmanager
    def _errors(self, action: str, key: str, hint: str = "") -> Iterator[None]:
        """The exceptions of the library and of the network as `StorageError`; never around a body."""
        import asyncssh

        try:
            yield
        except EOFError:
            text = f"{self.url}: {shown(key)} shrank while it was read"
            raise StorageError(text, key=key, code="Connection") from None
        except (asyncssh.Error, OSError) as error:
            raise storage_error(error, self.url, action, key, hint=hint) from error

    async def _open(self, link: SFTPLink, path: bytes, key: str) -> asyncssh.SFTPClientFile:
        import asyncssh

        try:
            return await open_file(link, path)
        except ABSENT():
            raise ObjectNotFoundError(key) from None
        except asyncssh.SFTPFailure:
            if await is_directory(link, path):
                raise ObjectNotFoundError(key) from None
            raise

    async def _size(self, link: SFTPLink, file: asyncssh.SFTPClientFile, key: str) -> int:
        attrs = await link.ask(file.stat())
        if not is_regular(attrs):
            raise ObjectNotFoundError(key)
        return attrs.size or 0

    async def _create(self, link: SFTPLink, upload: Upload, directory: bytes, key: str) -> None:
        with self._errors("write", key):
            for left in reversed(range(_TRIES)):
                try:
                    if directory and directory not in self._ready:
                        await make_directories(link, directory)
                        self._ready.add(directory)
                    await upload.create()
                    break
                except ABSENT():  # pruned between being made ready and being used
                    if not left:
                        raise
                    self._ready.clear()
            if directory not in self._clean:
                await remove_leftovers(link, directory, await upload.began())
                self._clean.add(directory)

    async def _remove(self, link: SFTPLink, path: bytes, key: str) -> None:
        import asyncssh

        with self._errors("delete", key):
            try:
                await link.ask(link.sftp.remove(path))
            except ABSENT():
                return
            except asyncssh.SFTPError:
                if await is_directory(link, path):
                    return  # no object
                raise


async def _pieces(body: bytes | AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The body's bytes in pieces of about `_PIECE`. Closes a body that is not read to its end."""
    if isinstance(body, bytes):
        for at in range(0, len(body), _PIECE):
            yield body[at : at + _PIECE]
        return
    held = bytearray()
    try:
        async for chunk in body:
            held += chunk
            if len(held) >= _PIECE:
                yield bytes(held)
                held.clear()
        if held:
            yield bytes(held)
    finally:
        await closed(body)
