"""Objects in this process's memory: for tests, and the reference of what the other stores do."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence

from litestream.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from litestream.storage.keys import check_key, check_prefix
from litestream.storage.protocol import ObjectInfo

_CHUNK = 1 << 20
_named: dict[str, MemoryStore] = {}


class MemoryStore:
    """A `Store` whose objects are gone with the process."""

    def __init__(self, name: str = "") -> None:
        self._name = name
        self._objects: dict[str, tuple[bytes, float]] = {}

    @classmethod
    def named(cls, name: str) -> MemoryStore:
        """The store of that name, the same one for every caller in this process."""
        return _named.setdefault(name, cls(name))

    @property
    def type(self) -> str:
        return "memory"

    @property
    def url(self) -> str:
        return f"memory://{self._name}"

    @property
    def conditional(self) -> bool:
        return True

    async def list(self, prefix: str) -> list[ObjectInfo]:
        check_prefix(prefix)
        return [
            ObjectInfo(key, len(data), modified)
            for key, (data, modified) in sorted(self._objects.items())
            if key.startswith(prefix)
        ]

    async def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
        check_key(key)
        if key not in self._objects:
            raise ObjectNotFoundError(key)
        data, _ = self._objects[key]
        if not 0 <= start <= len(data):
            raise StorageError(f"{self.url}: {key} has {len(data)} bytes, none at {start}", key=key)
        for offset in range(start, len(data), _CHUNK):
            yield data[offset : offset + _CHUNK]

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        check_key(key)
        data = bytes(body) if isinstance(body, bytes) else b"".join([chunk async for chunk in body])
        if create_only and key in self._objects:
            there, modified = self._objects[key]
            if there != data:
                raise ObjectExistsError(key)
        else:
            modified = time.time()
            self._objects[key] = (data, modified)
        return ObjectInfo(key, len(data), modified)

    async def delete(self, keys: Sequence[str]) -> None:
        for key in [check_key(key) for key in keys]:
            self._objects.pop(key, None)

    async def close(self) -> None:
        """Nothing to let go: the objects stay for the next user of the name."""
