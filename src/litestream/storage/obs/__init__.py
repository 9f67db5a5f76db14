"""The store protocol on top of obstore: what S3 and Azure have in common.

A body up to one part is one request. A longer one is a multipart upload: a few parts in memory, aborted if the body
fails or the put is cancelled, so that no object appears. obstore retries nothing but parts, whose body cannot be
played again; all else is retried above us. Only obstore's asynchronous functions are used: they can be cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from litestream.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from litestream.storage.keys import MAX_CREATE
from litestream.storage.obs.bucket import CONCURRENCY, PART_SIZE, ObstoreBucket, client_options
from litestream.storage.obs.streams import pieces
from litestream.storage.obs.upload import upload_parts
from litestream.storage.problems import before_the_beginning, comes_and_goes, no_byte, too_large_to_create
from litestream.storage.protocol import ObjectInfo
from litestream.storage.reading import read_head

if TYPE_CHECKING:
    from obstore import GetResult

__all__ = ["CONCURRENCY", "PART_SIZE", "ObstoreStore", "client_options"]

Buffer = bytes | bytearray
_CHUNK = 1 << 20


class ObstoreStore(ObstoreBucket):
    """A `Store` over an obstore store. A back end gives `_open`, the words of its errors, and what is special."""

    async def get(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        self._name(key)
        if start < 0:
            raise before_the_beginning(self._url, key, start)
        found, skip = await self._found(key, start)
        if found is None:
            return
        left = found.meta["size"] - start
        # What is gathered for a chunk is lost if the connection is: of small objects each piece counts.
        stream = pieces(found.stream(min_chunk_size=_CHUNK if left > _CHUNK else 1))
        while True:
            with self._errors("get", key):
                chunk = await anext(stream, None)
            if chunk is None:
                break
            data = bytes(chunk)
            if skip:
                data, skip = data[skip:], max(0, skip - len(data))
            left -= len(data)
            if data:
                yield data
        if left:
            message = f"{self._url}: {key} broke off {left} bytes before its end"
            raise StorageError(message, key=key, code="Connection")

    async def _found(self, key: str, start: int) -> tuple[GetResult | None, int]:
        """The answer to a get, None if nothing is there from `start` on; and how many of its bytes are not wanted."""
        import obstore

        store, name = await self._store(), self._root + key
        try:
            return await obstore.get_async(store, name, options={"range": {"offset": start}} if start else {}), 0
        except Exception as error:
            failure = self._failure(error)
        if "non-partial response" in failure.text:  # a service that does not know ranges
            with self._errors("get", key):
                return await obstore.get_async(store, name), start
        if failure.status != 416:
            raise self._explain(failure, "get", key)
        if await self._size(key) == start:
            return None, 0
        raise no_byte(self._url, key, start)

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        self._name(key)
        limit = MAX_CREATE if create_only else self._part_size
        if isinstance(body, bytes):
            if len(body) <= limit:
                return await self._put_whole(key, body, create_only)
            body = _pieces(body)
        async with _closing(body):
            head, whole = await read_head(body, limit)
            if whole:
                return await self._put_whole(key, head, create_only)
            if create_only:
                raise too_large_to_create(self._url, key)
            return await self._put_parts(key, head, body)

    async def _put_whole(self, key: str, data: Buffer, create_only: bool) -> ObjectInfo:
        if create_only:
            return await self._create(key, data)
        return await self._put_one(key, data)

    async def _put_one(self, key: str, data: Buffer) -> ObjectInfo:
        with self._errors("put", key):
            await self._send(key, data, "overwrite")
        return _stored(key, len(data))

    async def _send(self, key: str, data: Buffer, mode: Literal["create", "overwrite"]) -> None:
        """One request. Raises what obstore raises."""
        import obstore

        store = await self._store()
        path, attributes = self._root + key, self._attributes
        await obstore.put_async(store, path, data, mode=mode, use_multipart=False, attributes=attributes)

    async def _put_parts(self, key: str, head: bytearray, rest: AsyncIterator[bytes]) -> ObjectInfo:
        store = await self._store(parts=True)
        size = 0

        async def counted() -> AsyncGenerator[Buffer, None]:
            nonlocal size, head
            first, head = head, bytearray()
            size += len(first)
            yield first
            del first
            async for chunk in rest:
                size += len(chunk)
                yield chunk

        await upload_parts(
            store,
            self._root + key,
            counted(),
            part_size=self._part_size,
            concurrency=self._concurrency,
            attributes=self._attributes,
            errors=lambda: self._errors("put", key),
            ending=self._ending,
        )
        return _stored(key, size)

    async def _create(self, key: str, data: Buffer) -> ObjectInfo:
        """A create-only put. Where the service has no conditions, look first."""
        import obstore

        if self._conditional:
            try:
                await self._send(key, data, "create")
            except StorageError:
                raise
            except obstore.exceptions.AlreadyExistsError:
                return await self._compare(key, data)
            except Exception as error:
                failure = self._failure(error)
                if failure.status != 501:
                    raise self._explain(failure, "put", key) from None
                self._conditional = False  # the service says that it has no such condition
            else:
                return _stored(key, len(data))
        try:
            await self._size(key)
        except ObjectNotFoundError:
            return await self._put_one(key, data)
        return await self._compare(key, data)

    async def _compare(self, key: str, data: Buffer) -> ObjectInfo:
        """What is there, if it has this content. One request, and no byte of the body if the sizes differ."""
        import obstore

        try:
            found = await obstore.get_async(await self._store(), self._root + key)
        except Exception as error:
            fault = self._explain(self._failure(error), "get", key)
            if isinstance(fault, ObjectNotFoundError):
                raise comes_and_goes(self._url, key) from None
            raise fault from None
        info = self._info(found.meta)
        if info.size != len(data):
            raise ObjectExistsError(key)
        at, view = 0, memoryview(data)
        with self._errors("get", key):
            async for chunk in pieces(found.stream(min_chunk_size=_CHUNK)):
                if view[at : at + len(chunk)] != chunk:
                    raise ObjectExistsError(key)
                at += len(chunk)
        if at != len(data):
            raise StorageError(f"{self._url}: {key} broke off at {at}", key=key, code="Connection")
        return info


def _stored(key: str, size: int) -> ObjectInfo:
    """The answer to a put carries no time, and asking for it would be a second request."""
    import time

    return ObjectInfo(key, size, time.time())


async def _pieces(data: bytes) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(data), _CHUNK):
        yield data[at : at + _CHUNK]


@asynccontextmanager
async def _closing(body: AsyncIterator[bytes]) -> AsyncIterator[None]:
    """Close a body that is a generator, also when it is not read to its end."""
    try:
        yield
    finally:
        if isinstance(body, AsyncGenerator):
            await body.aclose()
