"""The memory store runs the contract."""

from __future__ import annotations

import pytest

from helpers.contract import StoreContract, read
from litestream.storage import open_store
from litestream.storage.memory import MemoryStore


class TestMemoryStore(StoreContract):
    """The contract, on the memory store."""

    @pytest.fixture
    def store(self) -> MemoryStore:
        """An empty store."""
        return MemoryStore()


async def test_same_name_same_store() -> None:
    """`memory://NAME` is one store for the whole process, and another name another store."""
    await open_store("memory://test-same-name").put("a", b"x")
    assert await read(open_store("memory://test-same-name"), "a") == b"x"
    assert await open_store("memory://test-other-name").list("") == []
