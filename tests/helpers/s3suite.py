"""`StoreContract` for S3 servers. What no S3 can keep is replaced by what does hold."""

from __future__ import annotations

import asyncio
import time

import pytest

from helpers.contract import StoreContract, chunks, keys, read
from litestream.errors import ObjectExistsError
from litestream.storage.protocol import Store


class S3Suite(StoreContract):
    """What every S3 server must do."""

    async def test_put_and_get(self, store: Store) -> None:
        """What is put is what is got. A put's answer holds no time of the service: ours, a few seconds beside it."""
        before = time.time()
        info = await store.put("a/b/c.lz4", b"hello")
        assert (info.key, info.size) == ("a/b/c.lz4", 5)
        assert before <= info.modified <= time.time()
        assert await read(store, "a/b/c.lz4") == b"hello"
        (listed,) = await store.list("a/")
        assert (listed.key, listed.size) == (info.key, info.size)
        assert abs(listed.modified - info.modified) < 5

    async def test_create_only(self, store: Store) -> None:
        """A create-only put stores; again with the same content is success; other content is refused and not stored."""
        first = await store.put("a/b", b"content", create_only=True)
        again = await store.put("a/b", b"content", create_only=True)
        assert (again.key, again.size) == (first.key, first.size)
        assert abs(again.modified - first.modified) < 5
        for other in (b"CONTENT", b"content and more", b""):
            with pytest.raises(ObjectExistsError) as caught:
                await store.put("a/b", other, create_only=True)
            assert caught.value.key == "a/b"
            assert caught.value.permanent
        assert await read(store, "a/b") == b"content"
        assert await keys(store) == ["a/b"]

    async def test_cancelled_at_any_step(self, store: Store) -> None:
        """A put cancelled at any moment leaves no object or the whole one: the service may have had it all."""
        data = bytes(i % 251 for i in range(self.large))
        cancelled = left = 0
        for step in range(40):
            put = asyncio.create_task(store.put("a/b", chunks(data[:1_500_000], data[1_500_000:])))
            for _ in range(step):
                await asyncio.sleep(0.0002)
            put.cancel()
            try:
                await put
            except asyncio.CancelledError:
                cancelled += 1
                await asyncio.sleep(0.02)  # what is under way arrives
            if await keys(store):
                left += 1
                assert await read(store, "a/b") == data
                await store.delete(["a/b"])
        assert cancelled
        assert left < 40  # the first is cancelled before it began
