"""A store like many: no conditions, listings that are behind, and puts that land after their sender is dead."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence

from litestream.errors import ObjectNotFoundError, StorageError
from litestream.storage.memory import MemoryStore
from litestream.storage.protocol import ObjectInfo


class LateStore:
    """A `Store` over memory. A put may fail and land later, at `land`, or land and fail; listings may lag behind.

    Attributes:
        astray: puts that will land: key and content.
        chance: of a put to go wrong.
        stale: whether listings show what was there at the last `freshen`.
    """

    def __init__(self, rng: random.Random, *, conditional: bool, name: str = "") -> None:
        self.inner = MemoryStore()
        self.astray: list[tuple[str, bytes]] = []
        self.chance = 0.0
        self.stale = False
        self._rng = rng
        self._name = name
        self._conditional = conditional
        self._listed: list[ObjectInfo] = []

    @property
    def type(self) -> str:
        return "late"

    @property
    def url(self) -> str:
        return f"late://{self._name}"

    @property
    def conditional(self) -> bool:
        return self._conditional

    async def freshen(self) -> None:
        """Listings show at least what is there now."""
        self._listed = await self.inner.list("")

    async def land(self) -> None:
        """One of the puts that went astray arrives: any, and perhaps not for the last time."""
        key, body = self._rng.choice(self.astray)
        await self._store(key, body)

    async def list(self, prefix: str) -> list[ObjectInfo]:
        if not self.stale:
            await self.freshen()
        return [info for info in self._listed if info.key.startswith(prefix)]

    async def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
        async for chunk in self.inner.get(key, start=start):
            yield chunk

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        data = body if isinstance(body, bytes) else b"".join([chunk async for chunk in body])
        if self._rng.random() < self.chance:
            self.astray.append((key, data))
            if self._rng.random() < 0.4:
                await self._store(key, data)
            raise StorageError("no answer", key=key)
        if self._conditional and create_only:
            return await self.inner.put(key, data, create_only=True)
        return await self.inner.put(key, data)

    async def delete(self, keys: Sequence[str]) -> None:
        await self.inner.delete(keys)

    async def close(self) -> None:
        """Nothing is open."""

    async def _store(self, key: str, body: bytes) -> None:
        if self._conditional and "/wal/" in key:
            try:
                async for _ in self.inner.get(key):
                    return  # the condition holds for whoever comes late
            except ObjectNotFoundError:
                pass
        await self.inner.put(key, body)
