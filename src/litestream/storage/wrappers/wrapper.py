"""What all wrappers of stores share: the store protocol, passed on to the store within."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from litestream.storage.protocol import ObjectInfo, Store


class Wrapper:
    """A `Store` that does what `inner` does. Subclasses change single operations."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    @property
    def type(self) -> str:
        return self.inner.type

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def conditional(self) -> bool:
        return self.inner.conditional

    async def list(self, prefix: str) -> list[ObjectInfo]:
        return await self.inner.list(prefix)

    def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
        return self.inner.get(key, start=start)

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        return await self.inner.put(key, body, create_only=create_only)

    async def delete(self, keys: Sequence[str]) -> None:
        await self.inner.delete(keys)

    async def close(self) -> None:
        await self.inner.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"


def innermost(store: Store) -> Store:
    """The back end within all wrappers: for what only that one has (`innermost(store).clean_up`)."""
    while isinstance(store, Wrapper):
        store = store.inner
    return store


async def closed(stream: AsyncIterator[Any]) -> None:
    """Close a stream that need not be read further, if it can be closed. Not while another task still reads it."""
    close = getattr(stream, "aclose", None)
    if close is not None and not getattr(stream, "ag_running", False):
        await close()
