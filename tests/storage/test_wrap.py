"""All wrappers together: the contract, their order, and what they cost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from helpers.contract import StoreContract, chunks, keys, read
from litestream.storage.file import FileStore
from litestream.storage.memory import MemoryStore
from litestream.storage.protocol import Store
from litestream.storage.wrap import Limits, wrap

LIMITS = Limits(timeout=10)


class WrappedContract(StoreContract):
    """The contract, but for one moment that a wrapper cannot undo."""

    async def test_cancelled_at_any_step(self, store: Store) -> None:
        """A put cancelled at any moment leaves no object or all of it. All, if the store within was done already and
        only the news was under way: as with any service that got every byte before it was told to stop.
        """
        data = bytes(i % 251 for i in range(self.large))
        nothing = 0
        for step in range(40):
            put = asyncio.create_task(store.put("a/b", chunks(data[:1_500_000], data[1_500_000:])))
            for _ in range(step):
                await asyncio.sleep(0.0002)
            put.cancel()
            await asyncio.wait([put])
            if await keys(store) == []:
                assert put.cancelled()
                nothing += 1
            else:
                assert await read(store, "a/b") == data
                await store.delete(["a/b"])
        assert nothing  # the first is cancelled before it began


class TestWrappedMemoryStore(WrappedContract):
    """The contract through all wrappers."""

    @pytest.fixture
    def store(self) -> Store:
        """An empty store."""
        return wrap(MemoryStore(), LIMITS)


class TestWrappedFileStore(WrappedContract):
    """The same where operations run in threads."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        """An empty store."""
        return wrap(FileStore(tmp_path / "root"), LIMITS)
