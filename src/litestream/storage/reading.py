"""Reading streams: those that are left before their end, the ends of objects, the beginnings of bodies."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from litestream.storage.protocol import Store
from litestream.storage.wrappers.wrapper import closed


@asynccontextmanager
async def closing(stream: AsyncIterator[bytes]) -> AsyncGenerator[AsyncIterator[bytes], None]:
    """Lets go at once of what a stream holds when it is left before its end."""
    try:
        yield stream
    finally:
        await closed(stream)


async def read_tail(store: Store, key: str, size: int, count: int) -> bytes:
    """The last `count` bytes of an object (all, if it has fewer) whose listing says that it has `size`.

    Of an encrypted store's object, `size` is not that of the content, and no part can be had alone: it is read whole.
    """
    start = 0 if getattr(store, "encrypted", False) else max(0, size - count)
    tail = b""
    async with closing(store.get(key, start=start)) as stream:
        async for chunk in stream:
            tail = (tail + chunk[-count:])[-count:]  # the object may have been replaced by a larger one
    return tail


async def holds(stream: AsyncIterator[bytes], data: bytes | bytearray) -> bool:
    """Whether a stream's content is `data`. It is left, and closed, at the first difference."""
    at, view = 0, memoryview(data)
    async with closing(stream):
        async for chunk in stream:
            if view[at : at + len(chunk)] != chunk:
                return False
            at += len(chunk)
    return at == len(data)


async def read_head(body: AsyncIterator[bytes], limit: int) -> tuple[bytearray, bool]:
    """The beginning of a body, up to the first chunk that makes it longer than `limit`; and whether that is all."""
    head = bytearray()
    async for chunk in body:
        head += chunk
        if len(head) > limit:
            return head, False
    return head, True
