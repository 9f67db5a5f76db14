"""Retries: what is transient is repeated, within bounds; everything else comes out as it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.clock import Clock
from helpers.contract import BodyError, chunks, keys, read
from helpers.faultstore import FOREVER, Fault, FaultStore
from litestream.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from litestream.storage.memory import MemoryStore
from litestream.storage.protocol import Store
from litestream.storage.wrappers.retrying import OVERLAP, Retrying
from litestream.storage.wrappers.wrapper import Wrapper


def retrying(inner: Store, clock: Clock | None = None, *, attempts: int = 4, chance: float = 1.0) -> Retrying:
    """A store that waits as long as it may, on a clock of its own."""
    clock = clock or Clock()
    return Retrying(inner, attempts, sleep=clock.sleep, clock=clock, chance=lambda: chance)


OPERATIONS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "list": lambda store: store.list(""),
    "get": lambda store: read(store, "a"),
    "put": lambda store: store.put("a", b"data"),
    "delete": lambda store: store.delete(["a"]),
}
each_operation = pytest.mark.parametrize("name", OPERATIONS)


@each_operation
async def test_transient(name: str) -> None:
    """Three failures are survived, with waits that double; each attempt is one."""
    inner, clock = FaultStore(MemoryStore(), Fault("*", times=3)), Clock()
    await inner.inner.put("a", b"data")
    await OPERATIONS[name](retrying(inner, clock))
    assert inner.count(name) == 4
    assert clock.slept == [0.1, 0.2, 0.4]


@each_operation
async def test_given_up(name: str) -> None:
    """After the last attempt the last error comes, with its attributes and the number of attempts."""
    error = StorageError("s: no luck", key="a", code="Unavailable", retry_after=0.5)
    inner, clock = FaultStore(MemoryStore(), Fault("*", times=FOREVER, error=error)), Clock()
    with pytest.raises(StorageError) as caught:
        await OPERATIONS[name](retrying(inner, clock))
    assert str(caught.value) == "s: no luck (after 4 attempts)"
    assert (caught.value.key, caught.value.code, caught.value.retry_after) == ("a", "Unavailable", 0.5)
    assert not caught.value.permanent
    assert str(error) == "s: no luck"
    assert inner.count(name) == 4
    assert clock.slept == [0.5, 0.5, 0.5]


@each_operation
@pytest.mark.parametrize(
    "error",
    [StorageError("denied", permanent=True), ObjectNotFoundError("a"), ObjectExistsError("a"), BodyError(), OSError()],
    ids=lambda error: type(error).__name__,
)
async def test_not_repeated(name: str, error: Exception) -> None:
    """What is permanent, and what is no storage error, comes at once and unchanged."""
    inner, clock = FaultStore(MemoryStore(), Fault("*", error=error)), Clock()
    with pytest.raises(type(error)) as caught:
        await OPERATIONS[name](retrying(inner, clock))
    assert caught.value is error
    assert (inner.count(name), clock.slept) == (1, [])


async def test_permanent_after_transient() -> None:
    """A permanent error ends the attempts, as it is."""
    inner = FaultStore(MemoryStore(), Fault("get"))
    with pytest.raises(ObjectNotFoundError, match=r"^object not found: a$"):
        await read(retrying(inner), "a")
    assert inner.count("get") == 2


async def test_one_attempt() -> None:
    """Without retries the error comes as it is."""
    error = StorageError("x")
    with pytest.raises(StorageError) as caught:
        await retrying(FaultStore(MemoryStore(), Fault("list", error=error)), attempts=1).list("")
    assert caught.value is error


async def test_stream_is_not_repeated() -> None:
    """A streamed put has one attempt: its bytes are gone."""
    inner = FaultStore(MemoryStore(), Fault("put"))
    with pytest.raises(StorageError, match="injected fault"):
        await retrying(inner).put("a", chunks(b"1", b"2"))
    assert inner.count("put") == 1


@pytest.mark.parametrize("create_only", [False, True])
async def test_lost_answer(create_only: bool) -> None:
    """A put whose answer was lost is repeated, and its own object is no stranger."""
    inner = FaultStore(MemoryStore(), Fault("put", "lost"))
    store = retrying(inner)
    assert (await store.put("a", b"data", create_only=create_only)).size == 4
    assert inner.count("put") == 2
    assert await read(store, "a") == b"data"
    if create_only:
        inner.add(Fault("put"))
        with pytest.raises(ObjectExistsError):
            await store.put("a", b"DATA", create_only=True)


async def test_retry_after() -> None:
    """The service's own wish is honoured up to 30 s, by waiting longer than otherwise; beyond, the caller is told."""
    clock = Clock()
    inner = FaultStore(
        MemoryStore(),
        Fault("list", error=StorageError("x", retry_after=30)),
        Fault("list", error=StorageError("x", retry_after=0.01)),
    )
    await retrying(inner, clock).list("")
    assert clock.slept == [30, 0.2]
    inner.add(Fault("list", error=StorageError("slow down", retry_after=30.1)))
    with pytest.raises(StorageError, match=r"^slow down$") as caught:
        await retrying(inner, clock).list("")
    assert caught.value.retry_after == 30.1
    assert len(clock.slept) == 2


async def test_total_time() -> None:
    """No attempt begins when the total time is over, however few there were: attempts may be long themselves."""
    clock = Clock()

    class Slow(Wrapper):
        async def delete(self, keys: object) -> None:
            clock.now += 29
            raise StorageError("timeout")

    with pytest.raises(StorageError, match=r"\(after 3 attempts\)$"):
        await retrying(Slow(MemoryStore()), clock, attempts=100).delete(["a"])
    assert clock.now == pytest.approx(1000 + 3 * 29 + 0.1 + 0.2)


@given(
    failures=st.integers(0, 12),
    attempts=st.integers(1, 10),
    chances=st.lists(st.floats(0, 1), min_size=12, max_size=12),
    wishes=st.lists(st.floats(0, 40), min_size=12, max_size=12),
)
def test_bounds(failures: int, attempts: int, chances: list[float], wishes: list[float]) -> None:
    """Whatever chance and the service say: attempts, each wait, and all of the time stay within their bounds."""
    clock, chance = Clock(), iter(chances)
    faults = [Fault("list", error=StorageError("x", retry_after=wishes[i])) for i in range(failures)]
    inner = FaultStore(MemoryStore(), *faults)
    store = Retrying(inner, attempts, total=60, sleep=clock.sleep, clock=clock, chance=lambda: next(chance))
    failed = False
    try:
        asyncio.run(store.list(""))
    except StorageError:
        failed = True
    assert inner.count("list") == len(clock.slept) + 1 <= attempts
    assert clock.now - 1000 <= 60
    for i, slept in enumerate(clock.slept):
        assert slept == max(wishes[i], chances[i] * min(2.0, 0.1 * 2**i))
        assert slept <= 30
    if not failed:
        assert len(clock.slept) == failures


async def test_cancelled_while_waiting() -> None:
    """A cancelled caller does not wait for the next attempt."""
    inner = FaultStore(MemoryStore(), Fault("list", error=StorageError("x", retry_after=20)))
    task = asyncio.create_task(Retrying(inner).list(""))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert inner.count("list") == 1


async def test_logged_quietly(caplog: pytest.LogCaptureFixture) -> None:
    """A retry is a line of level debug and nothing louder."""
    caplog.set_level(logging.DEBUG)
    await retrying(FaultStore(MemoryStore(), Fault("list"))).list("")
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]
    assert "list failed, again in 0.100 s (1 of 4): : injected fault: fail" in caplog.text


class Breaking(Wrapper):
    """A store whose gets break off after `limit` bytes. `starts` says where each began."""

    def __init__(self, inner: Store, limit: int, chunk: int = 1000) -> None:
        super().__init__(inner)
        self.limit = limit
        self.chunk = chunk
        self.starts: list[int] = []
        self.closed = 0

    async def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
        self.starts.append(start)
        data = await read(self.inner, key, start)
        try:
            for at in range(0, min(len(data), self.limit), self.chunk):
                yield data[at : min(at + self.chunk, self.limit)]
            if len(data) > self.limit:
                raise StorageError("broke off", key=key)
        finally:
            self.closed += 1


async def read_to_the_error(store: Store) -> tuple[bytes, StorageError]:
    """What a get of `a` gives before it fails."""
    found = b""
    try:
        async for chunk in store.get("a"):
            found += chunk
    except StorageError as error:
        return found, error
    raise AssertionError("the get did not fail")


DATA = bytes(i * i % 251 for i in range(60_000))


@pytest.mark.parametrize("chunk", [1, 999, OVERLAP - 1, OVERLAP, OVERLAP + 1, 20_000])
async def test_get_goes_on(chunk: int) -> None:
    """A get that breaks off goes on behind what it has, again and again as long as it gets on."""
    inner = Breaking(MemoryStore(), 7000, chunk)
    await inner.put("a", DATA)
    clock = Clock()
    assert await read(retrying(inner, clock), "a", 11) == DATA[11:]
    step = 7000 - OVERLAP
    assert inner.starts == [11, *range(11 + step, len(DATA) - OVERLAP, step)]
    assert inner.closed == len(inner.starts)
    assert set(clock.slept) == {0.1}  # each progress begins anew


async def test_get_that_does_not_get_on() -> None:
    """A get that breaks off at the same place each time is given up; what was read before counts for nothing."""
    inner = Breaking(MemoryStore(), OVERLAP, 1000)
    await inner.put("a", DATA)
    found, error = await read_to_the_error(retrying(inner))
    assert str(error) == "broke off (after 4 attempts)"
    assert found == DATA[:OVERLAP]
    assert inner.starts == [0, 0, 0, 0]


@pytest.mark.parametrize("size", [0, 100, 6999, 7000, 7001, 60_000])
async def test_get_of_a_replaced_object(size: int) -> None:
    """An object that was replaced while it was read is no mixture of both: the get fails."""

    class Replaced(Breaking):
        async def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
            async for chunk in super().get(key, start=start):
                yield chunk
                await self.inner.put(key, bytes(reversed(DATA))[:size])

    inner = Replaced(MemoryStore(), 7000, 7000)
    await inner.put("a", DATA)
    found, error = await read_to_the_error(retrying(inner))
    assert found == DATA[:7000]
    assert not isinstance(error, ObjectNotFoundError)
    if size >= 7000 - OVERLAP:
        assert error.code == "Changed"
        assert len(inner.starts) == 2


async def test_get_of_an_object_replaced_by_the_same_beginning() -> None:
    """The bytes at the seam decide: the same object, stored again, is read on."""
    inner = Breaking(MemoryStore(), 7000)
    await inner.put("a", DATA)
    stream = retrying(inner).get("a")
    found = await anext(stream)
    await inner.put("a", DATA)
    async for chunk in stream:
        found += chunk
    assert found == DATA


async def test_abandoned_get_is_closed() -> None:
    """A reader that stops closes the connection, also that of a get which went on."""
    inner = Breaking(MemoryStore(), 7000)
    await inner.put("a", DATA)
    stream = retrying(inner).get("a")
    for _ in range(9):
        await anext(stream)
    assert (len(inner.starts), inner.closed) == (2, 1)
    await stream.aclose()
    assert inner.closed == 2
    assert await keys(inner) == ["a"]
