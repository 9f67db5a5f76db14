"""The store with faults does what it is told: tests that rely on it would pass for nothing otherwise."""

from __future__ import annotations

import asyncio

import pytest

from helpers.contract import StoreContract, chunks, keys, read
from helpers.faultstore import FOREVER, Fault, FaultStore
from litestream.errors import StorageError
from litestream.storage.memory import MemoryStore


class TestFaultStore(StoreContract):
    """Without faults it is an ordinary store."""

    @pytest.fixture
    def store(self) -> FaultStore:
        """An empty store."""
        return FaultStore(MemoryStore())


async def test_fail_skip_times_match() -> None:
    """A fault waits for its operation and key, lets some pass, strikes so often, and is spent."""
    store = FaultStore(MemoryStore(), Fault("put", match="wal/", skip=1, times=2))
    await store.put("snapshots/1", b"")
    await store.put("wal/1", b"")
    for _ in range(2):
        with pytest.raises(StorageError, match="injected fault: fail"):
            await store.put("wal/2", b"")
    await store.put("wal/3", b"")
    assert await keys(store) == ["snapshots/1", "wal/1", "wal/3"]
    assert store.struck == 2
    assert store.count("put", "wal/") == 4


async def test_lost() -> None:
    """A lost answer is an error after the deed."""
    store = FaultStore(MemoryStore(), Fault("*", "lost", times=FOREVER, error=StorageError("gone")))
    for operation in (store.put("a", b"x"), store.list(""), store.delete(["b"]), read(store, "a")):
        with pytest.raises(StorageError, match="gone"):
            await operation
    store.heal()
    assert await read(store, "a") == b"x"


async def test_hang_and_slow() -> None:
    """A hanging operation ends, in an error, when it is released; a slow one ends later."""
    store = FaultStore(MemoryStore(), Fault("put", "hang"), Fault("put", "slow", seconds=0.01))
    hanging = asyncio.create_task(store.put("a", b""))
    await asyncio.sleep(0.02)
    assert not hanging.done()
    await store.put("b", b"")
    store.release()
    with pytest.raises(StorageError):
        await hanging
    assert await keys(store) == ["b"]


@pytest.mark.parametrize("stream", [False, True])
async def test_broken_put(stream: bool) -> None:
    """A put that breaks in the middle stores nothing."""
    store = FaultStore(MemoryStore(), Fault("put", "break"))
    with pytest.raises(StorageError):
        await store.put("a", chunks(b"1", b"2") if stream else b"12")
    assert await keys(store) == []


async def test_bad_gets() -> None:
    """Gets that break, are cut, or lie by one bit."""
    store = FaultStore(MemoryStore(), Fault("get", "cut"), Fault("get", "flip"), Fault("get", "break"))
    await store.put("a", b"0000")
    assert await read(store, "a") == b"00"
    assert await read(store, "a") == b"0010"
    with pytest.raises(StorageError):
        await read(store, "a")
    assert await read(store, "a") == b"0000"


async def test_stale_list() -> None:
    """A stale listing is the one before."""
    store = FaultStore(MemoryStore())
    await store.put("a", b"")
    await store.list("")
    await store.put("b", b"")
    store.add(Fault("list", "stale"))
    assert await keys(store) == ["a"]
    assert await keys(store) == ["a", "b"]
