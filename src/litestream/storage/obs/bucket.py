"""A bucket by way of obstore: how it is opened, named, listed and deleted from, and the errors of all that."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from litestream.errors import StorageError
from litestream.storage.keys import MAX_KEY, check_key, check_prefix, is_key
from litestream.storage.obs.ending import settle_at_exit
from litestream.storage.obs.errors import Failure, Words, explain, read_failure
from litestream.storage.obs.streams import pieces
from litestream.storage.protocol import ObjectInfo
from litestream.storage.wrappers.progress import progress
from litestream.storage.wrappers.requests import PART

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutResult
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

PART_SIZE = PART
"""Bytes of a part, and of the largest body that is sent in one request."""
CONCURRENCY = 2
"""Parts of one upload under way at once; the memory of an upload is about `(CONCURRENCY + 2) * PART_SIZE`."""
_BATCH = 1000
"""Keys in one delete request, and objects in one page of a listing."""


def client_options() -> ClientConfig:
    """What all back ends ask of obstore's HTTP client. Whole requests have no limit here: wrappers watch the time."""
    return {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(days=365), "user_agent": "litestream-python"}


class ObstoreBucket(ABC):
    """All of a store but the bodies of its objects. A back end gives `_open`, and the words of its errors.

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
            raise self._explain(self._failure(error), doing, key) from None

    def _failure(self, error: Exception) -> Failure:
        """What obstore says. A panic may have broken what all requests share: the next one has connections anew."""
        if type(error).__name__ == "RustPanic":
            self._stores = None
        return read_failure(error)

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
        pages = obstore.list(await self._store(), self._root + prefix or None, chunk_size=_BATCH)
        async for page in pieces(pages):
            found += map(self._info, page)
            progress()
        return found

    def _info(self, meta: ObjectMeta) -> ObjectInfo:
        return ObjectInfo(meta["path"][len(self._root) :], meta["size"], meta["last_modified"].timestamp())

    async def _size(self, key: str) -> int:
        import obstore

        with self._errors("get", key):
            return (await obstore.head_async(await self._store(), self._root + key))["size"]

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
