"""The store protocol on top of obstore: what S3 and Azure have in common.

A body up to one part is one request. A longer one is a multipart upload: a few parts in memory, aborted if the body
fails or the put is cancelled, so that no object appears. obstore retries nothing but parts, whose body cannot be
played again; all else is retried above us. Only obstore's asynchronous functions are used: they can be cancelled.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from litestream.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from litestream.storage.keys import MAX_CREATE, MAX_KEY, check_key, check_prefix, is_key
from litestream.storage.obs.ending import settle_at_exit
from litestream.storage.obs.errors import Failure, Words, explain, read_failure
from litestream.storage.obs.upload import upload_parts
from litestream.storage.protocol import ObjectInfo
from litestream.storage.wrappers.progress import progress
from litestream.storage.wrappers.requests import PART

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta, PutResult
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

PART_SIZE = PART
"""Bytes of a part, and of the largest body that is sent in one request."""
CONCURRENCY = 2
"""Parts of one upload under way at once; the memory of an upload is about `(CONCURRENCY + 2) * PART_SIZE`."""
_CHUNK = 1 << 20
_BATCH = 1000
"""Keys in one delete request, and objects in one page of a listing."""

Buffer = bytes | bytearray


def client_options() -> ClientConfig:
    """What all back ends ask of obstore's HTTP client. Whole requests have no limit here: wrappers watch the time."""
    return {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(days=365), "user_agent": "litestream-python"}


class ObstoreStore(ABC):
    """A `Store` over an obstore store. A back end gives `_open`, the words of its errors, and what is special.

    `root` is empty or ends with `/`: what all keys begin with. `url` has no secrets. Nothing is contacted before the
    first operation.
    """

    def __init__(
        self,
        *,
        kind: str,
        url: str,
        root: str,
        words: Words,
        conditional: bool = True,
        part_size: int = PART_SIZE,
        concurrency: int = CONCURRENCY,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        self._kind, self._url, self._root, self._words = kind, url, root, words
        self._conditional, self._part_size, self._concurrency = conditional, part_size, concurrency
        self._attributes = dict(attributes or {})
        self._opening = asyncio.Lock()
        self._stores: tuple[ObjectStore, ObjectStore] | None = None
        self._ending: set[asyncio.Future[PutResult]] = set()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._url!r})"

    @abstractmethod
    async def _open(self, retry_config: RetryConfig) -> ObjectStore:
        """An obstore store of the bucket (without the root) that retries as told."""

    async def _store(self, *, parts: bool = False) -> ObjectStore:
        """The obstore store for single requests, or the one for the parts of an upload."""
        async with self._opening:
            if self._stores is None:
                settle_at_exit()
                once: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}
                again: RetryConfig = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
                self._stores = await self._open(once), await self._open(again)
            return self._stores[1 if parts else 0]

    @property
    def type(self) -> str:
        return self._kind

    @property
    def url(self) -> str:
        return self._url

    @property
    def conditional(self) -> bool:
        return self._conditional

    async def close(self) -> None:
        """Connections go when obstore's stores are collected."""
        self._stores = None
        for upload in list(self._ending):
            upload.cancel()

    def _name(self, key: str) -> str:
        """The object's name in the bucket. `StorageError` for a key that is none, or too long below the root."""
        name = self._root + check_key(key)
        if len(name.encode()) > MAX_KEY:
            message = f"{self._url}: invalid object key {key!a}: longer than {MAX_KEY} bytes with the replica's path"
            raise StorageError(message, key=key, permanent=True)
        return name

    @contextmanager
    def _errors(self, doing: str, key: str) -> Iterator[None]:
        """Give what obstore raises as ours. Only obstore's calls belong inside: a body's exceptions are its own."""
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            raise self._explain(read_failure(error), doing, key) from None

    def _explain(self, failure: Failure, doing: str, key: str) -> StorageError:
        return explain(failure, doing, key, self._url, self._words)

    async def list(self, prefix: str) -> list[ObjectInfo]:
        check_prefix(prefix)
        with self._errors("list", prefix):
            listed = await self._list(prefix)
        found = [info for info in listed if is_key(info.key) and info.key.startswith(prefix)]
        # obstore takes the slash off the marker of a folder, an empty object: it would pass for one of ours.
        parents = {info.key[:at] for info in found for at, char in enumerate(info.key) if char == "/"}
        found = [info for info in found if info.size or info.key not in parents]
        return sorted(found, key=lambda info: info.key)

    async def _list(self, prefix: str) -> Sequence[ObjectInfo]:
        """What is below `prefix`, in any order, foreign objects too. May raise what obstore raises."""
        import obstore

        found: list[ObjectInfo] = []
        async for page in obstore.list(await self._store(), self._root + prefix or None, chunk_size=_BATCH):
            found += map(self._info, page)
            progress()
        return found

    def _info(self, meta: ObjectMeta) -> ObjectInfo:
        return ObjectInfo(meta["path"][len(self._root) :], meta["size"], meta["last_modified"].timestamp())

    async def get(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        self._name(key)
        if start < 0:
            raise StorageError(f"{self._url}: cannot read {key} from {start}", key=key, permanent=True)
        found, skip = await self._found(key, start)
        if found is None:
            return
        left = found.meta["size"] - start
        # What is gathered for a chunk is lost if the connection is: of small objects each piece counts.
        stream = aiter(found.stream(min_chunk_size=_CHUNK if left > _CHUNK else 1))
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
            failure = read_failure(error)
        if "non-partial response" in failure.text:  # a service that does not know ranges
            with self._errors("get", key):
                return await obstore.get_async(store, name), start
        if failure.status != 416:
            raise self._explain(failure, "get", key)
        if await self._size(key) == start:
            return None, 0
        message = f"{self._url}: {key} has no byte {start}: it is not the object that was expected"
        raise StorageError(message, key=key, permanent=True, code="InvalidRange")

    async def _size(self, key: str) -> int:
        import obstore

        with self._errors("get", key):
            return (await obstore.head_async(await self._store(), self._root + key))["size"]

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        self._name(key)
        limit = MAX_CREATE if create_only else self._part_size
        if isinstance(body, bytes):
            if len(body) <= limit:
                return await self._put_whole(key, body, create_only)
            body = _pieces(body)
        async with _closing(body):
            head = bytearray()
            async for chunk in body:
                head += chunk
                if len(head) > limit:
                    break
            else:
                return await self._put_whole(key, head, create_only)
            if create_only:
                message = f"{self._url}: {key} is larger than {MAX_CREATE} bytes, too large for a create-only put"
                raise StorageError(message, key=key, permanent=True)
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
                failure = read_failure(error)
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
            fault = self._explain(read_failure(error), "get", key)
            if isinstance(fault, ObjectNotFoundError):
                message = f"{self._url}: {key} comes and goes: is there a second writer?"
                raise StorageError(message, key=key, code="Conflict") from None
            raise fault from None
        info = self._info(found.meta)
        if info.size != len(data):
            raise ObjectExistsError(key)
        at, view = 0, memoryview(data)
        with self._errors("get", key):
            async for chunk in found.stream(min_chunk_size=_CHUNK):
                if view[at : at + len(chunk)] != chunk:
                    raise ObjectExistsError(key)
                at += len(chunk)
        if at != len(data):
            raise StorageError(f"{self._url}: {key} broke off at {at}", key=key, code="Connection")
        return info

    async def delete(self, keys: Sequence[str]) -> None:
        paths = [self._name(key) for key in keys]
        for at in range(0, len(paths), _BATCH):
            await self._delete(paths[at : at + _BATCH])

    async def _delete(self, paths: Sequence[str]) -> None:
        """Delete at most 1,000 objects, given by their names in the bucket; absent ones are no error."""
        import obstore

        with self._errors("delete", paths[0][len(self._root) :]):
            await obstore.delete_async(await self._store(), paths)
        progress()


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
