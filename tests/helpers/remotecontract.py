"""`StoreContract` for services over a network. What none of them can keep is replaced by what does hold."""

from __future__ import annotations

import asyncio
import time

import pytest

from helpers.contract import StoreContract, chunks, keys, read
from litestream.errors import ObjectExistsError, StorageError
from litestream.storage.protocol import Store


class RemoteContract(StoreContract):
    """What replaces the tests of the contract that no service can keep to the letter."""

    async def stored(self, store: Store) -> list[str]:
        """All that is stored now, which is more than a listing shows where temporary files can be seen."""
        return await keys(store)

    async def test_put_and_get(self, store: Store) -> None:
        """What is put is what is got. The time in a put's answer is ours, that of a listing the service's."""
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
        assert await self.stored(store) == ["a/b"]


class SentContract(RemoteContract):
    """For services that may complete an object whose put was cancelled."""

    async def test_cancelled_at_any_step(self, store: Store) -> None:
        """A put cancelled at any moment leaves no object or the whole one: what is sent cannot be called back."""
        data = bytes(i % 251 for i in range(self.large))
        absent = 0
        for step in range(40):
            put = asyncio.create_task(store.put("a/b", chunks(data[:1_500_000], data[1_500_000:])))
            for _ in range(step):
                await asyncio.sleep(0.0002)
            put.cancel()
            try:
                await put
            except asyncio.CancelledError:
                await asyncio.sleep(0.05)  # what is under way arrives
            else:
                assert await keys(store) == ["a/b"]
            if await keys(store):
                assert await self._read(store) == data
                await store.delete(["a/b"])
            else:
                absent += 1
        assert absent  # the first is cancelled before it began
        assert set(await self.stored(store)) <= {"a/b"}

    async def _read(self, store: Store) -> bytes:
        """A server may close a connection behind a cancelled request just when the next one takes it."""
        try:
            return await read(store, "a/b")
        except StorageError as error:
            if error.permanent:
                raise
            return await read(store, "a/b")
