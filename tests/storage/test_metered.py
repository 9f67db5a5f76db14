"""Metering: requests, bytes, durations and errors under the official names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from helpers.contract import BodyError, chunks, read
from helpers.faultstore import Fault, FaultStore
from litestream.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from litestream.metrics import Metrics, expose
from litestream.storage.memory import MemoryStore
from litestream.storage.protocol import ObjectInfo, Store
from litestream.storage.wrappers.metered import Metered
from litestream.storage.wrappers.requests import PART, Operation, requests_of
from litestream.storage.wrappers.wrapper import Wrapper


class Numbers:
    """What a scrape says of one operation on the memory store."""

    def __init__(self, metrics: Metrics, operation: Operation) -> None:
        labels = {"replica_type": "memory", "operation": operation}
        self.total = metrics.replica_operation_total.labels(**labels).value
        self.bytes = metrics.replica_operation_bytes.labels(**labels).value
        self.seconds = metrics.replica_operation_duration_seconds.labels(**labels)
        self.errors = {
            key[2]: number for key, number in metrics.replica_operation_errors_total.samples() if key[1] == operation
        }


class Clock:
    """Time that passes as told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_counts() -> None:
    """Each operation counts its requests and bytes; nothing is shown of what was never done."""
    metrics = Metrics()
    store = Metered(MemoryStore(), metrics)
    assert b"litestream_replica_operation" not in expose(metrics)
    await store.put("a", b"12345")
    await store.put("b", chunks(b"12", b"", b"3"))
    await store.delete([])
    assert b"DELETE" not in expose(metrics)
    assert await read(store, "a", 2) == b"345"
    await store.list("")
    await store.delete(["a"])
    await store.delete([f"k/{i}" for i in range(1001)])
    found = {name: Numbers(metrics, name) for name in ("PUT", "GET", "LIST", "DELETE")}
    assert {name: number.total for name, number in found.items()} == {"PUT": 2, "GET": 1, "LIST": 1, "DELETE": 3}
    assert {name: number.bytes for name, number in found.items()} == {"PUT": 8, "GET": 3, "LIST": 0, "DELETE": 0}
    assert {name: number.seconds.count for name, number in found.items()} == {
        "PUT": 2,
        "GET": 1,
        "LIST": 1,
        "DELETE": 2,
    }
    text = expose(metrics).decode()
    assert 'litestream_replica_operation_total{replica_type="memory",operation="PUT"} 2\n' in text
    assert 'duration_seconds_bucket{replica_type="memory",operation="GET",le="0.01"} 1\n' in text
    assert "errors_total" not in text


async def test_many_requests() -> None:
    """An operation that is several requests counts as so many: pages of a listing, parts of an upload."""
    metrics = Metrics()
    store = Metered(MemoryStore(), metrics)
    for i in range(2001):
        await store.inner.put(f"k/{i}", b"")
    await store.list("")
    assert Numbers(metrics, "LIST").total == 3
    await store.put("a", chunks(bytes(PART), bytes(PART), b"x"))
    assert Numbers(metrics, "PUT").total == 5
    await store.put("a", bytes(PART))
    assert Numbers(metrics, "PUT").total == 6

    async def body() -> AsyncIterator[bytes]:
        yield bytes(PART + 1)
        raise BodyError

    with pytest.raises(BodyError):
        await store.put("a", body())
    numbers = Numbers(metrics, "PUT")
    assert (numbers.total, numbers.bytes, numbers.errors) == (10, 3 * PART + 1, {})


@pytest.mark.parametrize(
    ("operation", "objects", "size", "requests"),
    [
        ("LIST", 0, 0, 1),
        ("LIST", 1000, 0, 1),
        ("LIST", 1001, 0, 2),
        ("GET", 0, 1 << 40, 1),
        ("PUT", 0, 0, 1),
        ("PUT", 0, PART, 1),
        ("PUT", 0, PART + 1, 4),
        ("DELETE", 1, 0, 1),
        ("DELETE", 2500, 0, 3),
    ],
)
def test_requests(operation: Operation, objects: int, size: int, requests: int) -> None:
    """How many requests an operation is, where the store does not know better."""
    assert requests_of(MemoryStore(), operation, objects=objects, size=size) == requests


def test_requests_of_a_store_that_knows() -> None:
    """A store's own word counts, through all wrappers."""

    class Own(MemoryStore):
        def requests(self, operation: str, *, objects: int = 0, size: int = 0) -> int:
            return 7 * objects + size if operation == "DELETE" else 99

    store: Store = Wrapper(Wrapper(Own()))
    assert requests_of(store, "DELETE", objects=2, size=1) == 15
    assert requests_of(store, "GET") == 99


async def test_errors() -> None:
    """Errors count by their code, and failed requests are requests; that nothing is there is an answer."""
    metrics = Metrics()
    inner = FaultStore(MemoryStore())
    store = Metered(inner, metrics)
    for error in (StorageError("x", code="Throttled"), StorageError("x"), ObjectExistsError("a"), BodyError()):
        inner.add(Fault("put", error=error))
        with pytest.raises(type(error)):
            await store.put("a", b"xyz")
    with pytest.raises(ObjectNotFoundError):
        await read(store, "a")
    inner.add(Fault("get", "break", error=StorageError("x", code="Connection")))
    await inner.put("a", b"1234")
    with pytest.raises(StorageError):
        await read(store, "a")
    put, get = Numbers(metrics, "PUT"), Numbers(metrics, "GET")
    assert (put.total, put.bytes, put.seconds.count) == (4, 0, 4)
    assert put.errors == {"Throttled": 1, "Error": 1, "Exists": 1}
    assert (get.total, get.bytes, get.errors) == (2, 2, {"Connection": 1})


async def test_errors_of_bodies() -> None:
    """A storage error that comes out of a body, as a snapshot's may, was counted where it arose."""
    metrics = Metrics()
    error = StorageError("from another put", code="Timeout")

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        raise error

    with pytest.raises(StorageError) as caught:
        await Metered(MemoryStore(), metrics).put("a", body())
    assert caught.value is error
    assert Numbers(metrics, "PUT").errors == {}


async def test_durations() -> None:
    """Time counts while the store is waited for: not the reader's in a get, nor a body's in a put."""
    metrics, clock = Metrics(), Clock()

    class Slow(MemoryStore):
        async def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
            for _ in range(2):
                clock.now += 1
                yield b"x"
            clock.now += 1

        async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
            clock.now += 1
            return await super().put(key, body)

    async def body() -> AsyncIterator[bytes]:
        clock.now += 100
        yield b"x"
        clock.now += 100

    store = Metered(Slow(), metrics, clock=clock)
    await store.put("a", body())
    assert Numbers(metrics, "PUT").seconds.sum == 1
    async for _ in store.get("a"):
        clock.now += 100
    assert Numbers(metrics, "GET").seconds.sum == 3
    stream = store.get("a")
    await anext(stream)
    clock.now += 100
    await stream.aclose()
    get = Numbers(metrics, "GET")
    assert (get.seconds.sum, get.total, get.bytes) == (4, 2, 3)


async def test_cancelled() -> None:
    """A cancelled operation is a request, but neither an error nor a duration."""
    metrics = Metrics()
    store = Metered(FaultStore(MemoryStore(), Fault("put", "hang")), metrics)
    put = asyncio.create_task(store.put("a", b"x"))
    await asyncio.sleep(0.01)
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    numbers = Numbers(metrics, "PUT")
    assert (numbers.total, numbers.bytes, numbers.seconds.count, numbers.errors) == (1, 0, 0, {})
