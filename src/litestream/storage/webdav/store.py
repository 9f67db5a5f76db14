"""Objects as files of a WebDAV server: written under a temporary name, then moved.

opendal's WebDAV, the library at hand, holds a whole snapshot in memory, cannot move without replacing and sends five
requests for each put; so the six methods needed here are sent by `http1`. A put is PUT and MOVE; the first one into a
directory looks there, makes it if need be, and removes what dead writers left.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from litestream.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from litestream.storage.http1 import Answer
from litestream.storage.keys import MAX_CREATE, check_key, check_prefix, is_key
from litestream.storage.problems import before_the_beginning, comes_and_goes, no_byte, too_large_to_create
from litestream.storage.protocol import ObjectInfo
from litestream.storage.reading import holds, read_head
from litestream.storage.webdav.delete import delete
from litestream.storage.webdav.directories import Directories
from litestream.storage.webdav.requests import BUSY, DAV, DONE, NO_PARENT, REDIRECTS, target
from litestream.storage.webdav.xml import Entry, Parts
from litestream.storage.wrappers.requests import PART, Operation
from litestream.storage.wrappers.wrapper import closed

if TYPE_CHECKING:
    from litestream.storage.webdav import WebDAVConfig

_PIECE = 1 << 20
_WAITS = (0.02, 0.1, 0.3)
"""Seconds before it is tried again."""


class WebDAVStore:
    """A `Store` on a WebDAV server.

    Servers look and rename in two steps, so a create-only put (MOVE with `Overwrite: F`) does not hold against another
    writer at the same moment. Directories that became empty stay: to delete one deletes what was just put into it.
    """

    def __init__(self, config: WebDAVConfig) -> None:
        self._url = config.url
        self._dav = DAV(config)
        self._root: Parts = (*config.base, *filter(None, config.path.split("/")))
        self._place = f"{config.origin.scheme}://{config.origin.authority}"
        self._directories = Directories(self._dav)

    def __repr__(self) -> str:
        return f"WebDAVStore({self._url!r})"

    @property
    def type(self) -> str:
        return "webdav"

    @property
    def url(self) -> str:
        return self._url

    @property
    def conditional(self) -> bool:
        return False

    def requests(self, operation: Operation, *, objects: int = 0, size: int = 0) -> int:
        """Requests of one operation in steady state; a listing has one for each directory, which is not known here."""
        if operation == "PUT":
            return 2 if size <= PART else 3
        return max(1, objects + 1) if operation == "DELETE" else 1

    async def close(self) -> None:
        await self._dav.close()

    # -- reading

    async def list(self, prefix: str) -> list[ObjectInfo]:
        check_prefix(prefix)
        found: list[ObjectInfo] = []
        top = await self._dav.children(self._path(prefix), "list", prefix)
        if top is None:
            await self._dav.check_base("list", prefix)
        pending = [(prefix, top or [])]
        while pending:
            above, entries = pending.pop()
            for entry in entries:
                key = above + entry.parts[-1]
                if "/" in entry.parts[-1] or not is_key(key):
                    continue
                if not entry.directory:
                    found.append(self._info(key, entry))
                elif below := await self._dav.children(entry.parts, "list", key):
                    pending.append((f"{key}/", below))
        return sorted(found, key=lambda info: info.key)

    async def get(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        check_key(key)
        if start < 0:
            raise before_the_beginning(self._url, key, start)
        headers = {"Range": f"bytes={start}-"} if start else {}
        async with self._dav.ask("get", key, "GET", self._path(key), headers) as answer:
            if answer.status == 416 and answer.headers.get("content-range", "").endswith(f"/{start}"):
                return
            if answer.status not in {200, 206}:
                raise await self._no_object(answer, key, start)
            skip = start if answer.status == 200 else 0
            if "content-length" not in answer.headers and "transfer-encoding" not in answer.headers:
                raise self._no_length(key)
            async for chunk in answer.chunks():
                if skip < len(chunk):
                    yield chunk[skip:]
                skip = max(0, skip - len(chunk))
        if skip:
            raise no_byte(self._url, key, start)

    async def _no_object(self, answer: Answer, key: str, start: int) -> StorageError:
        """Why a get was refused."""
        if answer.status == 416:
            return no_byte(self._url, key, start)
        if answer.status in REDIRECTS and answer.headers.get("location", "").endswith("/"):
            return ObjectNotFoundError(key)  # a directory
        if answer.status in {403, 405}:
            entry = await self._dav.entry(self._path(key), "get", key)
            if entry is not None and entry.directory:
                return ObjectNotFoundError(key)
        if answer.status in {404, 409}:
            await self._dav.check_base("get", key)
            return ObjectNotFoundError(key)
        return await self._dav.refused(answer, "get", key)

    # -- writing

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        path = self._path(check_key(key))
        if isinstance(body, bytes):
            return await self._put_bytes(key, path, body, create_only)
        limit = MAX_CREATE if create_only else PART
        try:
            head, whole = await read_head(body, limit)
            if whole:
                return await self._put_bytes(key, path, head, create_only)
            if create_only:
                raise too_large_to_create(self._url, key)
            return await self._put_stream(key, path, head, body)
        finally:
            await closed(body)

    async def _put_bytes(self, key: str, path: Parts, data: bytes | bytearray, create_only: bool) -> ObjectInfo:
        if create_only and len(data) > MAX_CREATE:
            raise too_large_to_create(self._url, key)
        for last in (False, True):
            async with self._temporary(path[:-1], key) as temp:
                async with self._dav.ask("put", key, "PUT", temp, {}, data) as answer:
                    if answer.status not in DONE:
                        self._directories.forget()
                        if answer.status in NO_PARENT and not last:
                            continue
                        raise await self._dav.refused(answer, "put", key)
                moved = await self._move(key, temp, path, replacing=not create_only)
            return ObjectInfo(key, len(data), time.time()) if moved else await self._compare(key, data)
        raise AssertionError

    async def _put_stream(self, key: str, path: Parts, head: bytearray, rest: AsyncIterator[bytes]) -> ObjectInfo:
        size = 0

        async def body() -> AsyncGenerator[bytes, None]:
            nonlocal size, head
            first, head = bytes(head), bytearray()
            for at in range(0, len(first), _PIECE):
                size += len(piece := first[at : at + _PIECE])
                yield piece
            del first
            async for chunk in rest:
                size += len(chunk)
                yield chunk

        async with self._temporary(path[:-1], key) as temp:
            async with self._dav.ask("put", key, "PUT", temp, {}, body()) as answer:
                if answer.status not in DONE:
                    self._directories.forget()
                    raise await self._dav.refused(answer, "put", key)
            # Some servers (PHP behind FastCGI) take a body without a length for an empty one, and say 201.
            stored = await self._dav.entry(temp, "put", key)
            if (has := stored.size if stored else 0) != size:
                message = f"{self._url}: the server stored {has} of {size} bytes of {key}: it takes no chunked uploads"
                raise StorageError(message, key=key, permanent=True, code="IncompleteBody")
            await self._move(key, temp, path, replacing=True)
        return ObjectInfo(key, size, time.time())

    @asynccontextmanager
    async def _temporary(self, directory: Parts, key: str) -> AsyncGenerator[Parts, None]:
        """A name in a directory, which is made; what is still under it afterwards is removed, if quickly done."""
        await self._directories.prepare(directory, key)
        temp = (*directory, f".put.{os.getpid()}-{secrets.token_hex(8)}.tmp")
        try:
            yield temp
        except BaseException:
            await self._dav.discard(temp)
            raise

    async def _move(self, key: str, temp: Parts, path: Parts, *, replacing: bool) -> bool:
        """Give the temporary file its name; False, and it is gone, if the name was taken."""
        waits = iter(_WAITS)
        while True:
            headers = {"Destination": self._place + target(path), "Overwrite": "T" if replacing else "F"}
            async with self._dav.ask("put", key, "MOVE", temp, headers) as answer:
                if answer.status in DONE:
                    return True
                if answer.status == 412 and not replacing:
                    break
                if answer.status in {400, 502} and self._place:
                    # A server behind a proxy takes its own public address for another server's.
                    self._place, wait = "", 0.0
                elif answer.status not in BUSY or (wait := next(waits, 0.0)) == 0.0:
                    raise await self._dav.refused(answer, "put", key)
            await asyncio.sleep(wait)
        await self._dav.discard(temp)
        return False

    async def _compare(self, key: str, data: bytes | bytearray) -> ObjectInfo:
        """What is there, if it has this content."""
        entry = await self._dav.entry(self._path(key), "get", key)
        if entry is None or entry.directory:
            raise comes_and_goes(self._url, key)
        if entry.size != len(data) or not await holds(self.get(key), data):
            raise ObjectExistsError(key)
        return self._info(key, entry)

    async def delete(self, keys: Sequence[str]) -> None:
        groups: dict[Parts, dict[str, str]] = {}
        for key in keys:
            path = self._path(check_key(key))
            groups.setdefault(path[:-1], {})[path[-1]] = key
        for directory, names in groups.items():
            await delete(self._dav, directory, names)

    def _path(self, key: str) -> Parts:
        return (*self._root, *filter(None, key.split("/")))

    def _info(self, key: str, entry: Entry) -> ObjectInfo:
        if entry.size < 0:
            raise self._no_length(key)
        return ObjectInfo(key, entry.size, entry.modified)

    def _no_length(self, key: str) -> StorageError:
        message = f"{self._url}: the server does not say how long {key} is, so its end cannot be known"
        return StorageError(message, key=key, permanent=True, code="NoLength")
