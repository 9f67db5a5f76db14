"""Limits: never more at once, per second and per month, and never a deadlock on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.contract import chunks, keys, read
from helpers.faultstore import FOREVER, Fault, FaultStore
from litestream.errors import StorageError
from litestream.metrics import Metrics
from litestream.storage.memory import MemoryStore
from litestream.storage.protocol import ObjectInfo, Store
from litestream.storage.wrappers import timed
from litestream.storage.wrappers.budget import Budget
from litestream.storage.wrappers.limited import Limited, Rate
from litestream.storage.wrappers.requests import PART
from litestream.storage.wrappers.timed import Timed
from litestream.storage.wrappers.wrapper import Wrapper


class Clock:
    """Time that passes only in sleep."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Counting(Wrapper):
    """A store that takes a moment for everything, and knows how many wait for it at once."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.now = self.most = 0

    async def _busy(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.002)
        finally:
            self.now -= 1

    async def list(self, prefix: str) -> list[ObjectInfo]:
        await self._busy()
        return await self.inner.list(prefix)

    async def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
        async for chunk in self.inner.get(key, start=start):
            for byte in chunk:
                await self._busy()
                yield bytes([byte])

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        if isinstance(body, bytes):
            await self._busy()
            return await self.inner.put(key, body)
        taken = []
        async for chunk in body:
            await self._busy()
            taken.append(chunk)
        return await self.inner.put(key, b"".join(taken))

    async def delete(self, keys: Sequence[str]) -> None:
        await self._busy()
        await self.inner.delete(keys)


@pytest.mark.parametrize("concurrency", [1, 2, 3, 16])
async def test_concurrency(concurrency: int) -> None:
    """Of any mixture of operations no more than so many wait for the service at once; all get their turn."""
    inner = Counting(MemoryStore())
    store = Limited(inner, concurrency)
    await inner.inner.put("a", b"123")
    work = [
        operation
        for i in range(20)
        for operation in (
            store.put(f"s/{i}", b"x"),
            store.put(f"t/{i}", chunks(b"1", b"2")),
            read(store, "a"),
            store.list("none/"),
            store.delete(["none"]),
        )
    ]
    await asyncio.wait_for(asyncio.gather(*work), 30)
    assert inner.most == concurrency
    assert len(await store.list("")) == 41
    assert await read(store, "t/7") == b"12"


@pytest.mark.parametrize("concurrency", [2, 4, 16])
async def test_small_operations_are_not_starved(concurrency: int) -> None:
    """However many gets and streamed puts hang in the service, small operations go through."""
    inner = FaultStore(
        MemoryStore(), Fault("get", "hang", times=FOREVER), Fault("put", "hang", "stream", times=FOREVER)
    )
    store = Limited(inner, concurrency)
    hanging = [asyncio.create_task(read(store, "a")) for _ in range(20)]
    hanging += [asyncio.create_task(store.put("stream", chunks(b"x"))) for _ in range(20)]  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    await asyncio.wait_for(store.put("b", b"x"), 1)
    assert await asyncio.wait_for(keys(store), 1) == ["b"]
    assert inner.count("get") + inner.count("put", "stream") == concurrency - max(1, concurrency // 4)
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
    assert store._any._value == concurrency


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_body_that_needs_the_store(concurrency: int) -> None:
    """A streamed put whose body reads, lists and writes in the same store, as a snapshot's does, is no deadlock."""
    store = Limited(MemoryStore(), concurrency)
    await store.put("a", b"x")

    async def body(depth: int) -> AsyncIterator[bytes]:
        async for chunk in store.get("a"):
            assert await keys(store)
            await store.put("wal", b"w")
            if depth:
                await store.put(f"deep/{depth}", body(depth - 1))
            yield chunk

    await asyncio.wait_for(store.put("b", body(5)), 5)
    assert await read(store, "deep/1") == b"x"


async def test_slow_reader_takes_no_place() -> None:
    """Open gets whose readers do something else do not count."""
    store = Limited(MemoryStore(), 1)
    await store.put("a", b"x")
    streams = [store.get("a") for _ in range(5)]
    assert [await anext(stream) for stream in streams] == [b"x"] * 5
    await asyncio.wait_for(store.put("b", b"y"), 1)
    for stream in streams:
        await stream.aclose()


async def test_upload_that_is_left_alone_takes_no_place() -> None:
    """An upload whose body is deaf to its cancellation is left alone; when the body goes on later it takes no place."""
    let_go, waiting = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"1"
        waiting.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        yield b"2"

    inner = MemoryStore()
    store = Limited(Timed(inner, 5, grace=0.01), 1)
    put = asyncio.create_task(store.put("a", body()))
    await waiting.wait()
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    (task,) = timed._abandoned
    let_go.set()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert str(task.exception()) == "the upload was given up"
    assert await keys(inner) == []
    assert store._any._value == store._long._value == 1


async def test_rate() -> None:
    """The first second's worth goes at once, the rest in its rhythm; idle time is not saved up beyond that."""
    clock = Clock()
    inner = FaultStore(MemoryStore())
    store = Limited(inner, per_second=5, clock=clock, sleep=clock.sleep)
    for i in range(15):
        await store.put("a", b"%d" % i)
    assert clock.now == pytest.approx(52)
    clock.now += 1000
    for _ in range(10):
        await read(store, "a")
    assert clock.now == pytest.approx(1053)
    await store.delete([])
    await store.delete([f"k/{i}" for i in range(4001)])  # five requests: what comes next waits for them
    await store.list("")
    assert clock.now == pytest.approx(1054.2)


async def test_rate_of_large_operations() -> None:
    """Pages of a listing and parts of a stream count, once it is known how many there are."""
    clock = Clock()
    inner = MemoryStore()
    for i in range(2500):
        await inner.put(f"k/{i}", b"")
    store = Limited(inner, per_second=1, clock=clock, sleep=clock.sleep)
    await store.list("")
    assert clock.now == 50
    await store.list("")
    assert clock.now == pytest.approx(53)
    clock.now = 100
    await store.put("s", chunks(bytes(PART), bytes(1), bytes(1)))  # two parts, begin and end
    assert clock.now == pytest.approx(101)
    await store.put("t", b"x")
    assert clock.now == pytest.approx(104)


@given(
    per_second=st.floats(0.05, 200),
    wants=st.lists(st.tuples(st.integers(1, 4), st.floats(0, 3)), min_size=1, max_size=60),
)
def test_token_bucket(per_second: float, wants: list[tuple[int, float]]) -> None:
    """In no stretch of time are there more requests than a burst and the rate allow, but for what the last operation
    of it needs beyond its first; and nobody waits longer than that makes necessary.
    """
    clock = Clock()
    rate = Rate(per_second, clock=clock, sleep=clock.sleep)
    done: list[tuple[float, int]] = []

    async def run() -> None:
        for count, pause in wants:
            clock.now += pause
            await rate.take(count)
            done.append((clock.now, count))

    asyncio.run(run())
    for i, (begin, _) in enumerate(done):
        total = 0
        for at, count in done[i:]:
            total += count
            assert total <= rate.burst + per_second * (at - begin) + (count - 1) + 1e-6
    needed = max(0.0, sum(count for count, _ in wants) - rate.burst) / per_second
    assert clock.now - 50 <= needed + sum(pause for _, pause in wants) + 1e-6


async def test_rate_is_fair_and_cancellable() -> None:
    """Who comes first goes first; who is cancelled while waiting takes nothing along."""
    rate = Rate(50)
    order: list[int] = []

    async def take(i: int) -> None:
        await rate.take()
        order.append(i)

    await asyncio.gather(*(rate.take() for _ in range(50)))
    tasks = [asyncio.create_task(take(i)) for i in range(6)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[3].cancel()
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 2)
    assert order == [1, 2, 4, 5]


async def test_cap(tmp_path: Path) -> None:
    """At the month's cap every operation is refused, as an error that says what to do; nothing of it is sent."""
    inner = FaultStore(MemoryStore())
    metrics = Metrics()
    budget = Budget(tmp_path / "count.json", metrics=metrics)
    store = Limited(inner, per_month=10, budget=budget)
    await store.put("a", b"x")
    for _ in range(7):
        await store.list("")
    await read(store, "a")
    await store.delete(["b"])
    calls = len(inner.calls)
    for key, operation in (
        ("a", store.put("a", b"x")),
        ("a", store.put("a", chunks(b"x"))),
        ("a", read(store, "a")),
        ("", store.list("")),
        ("b", store.delete(["b"])),
    ):
        with pytest.raises(StorageError) as caught:
            await operation
        error = caught.value
        assert (error.code, error.permanent, error.key) == ("RequestCap", False, key)
        assert "max-requests is reached: 10 of 10 requests of this month are used" in str(error)
        assert 0 < error.retry_after <= 31 * 86400
    assert len(inner.calls) == calls
    assert metrics.request_budget_used.labels(budget="count.json").value == 10
    await store.delete([])  # asks for nothing
    await store.close()
    assert b'"requests": 10' in (tmp_path / "count.json").read_bytes()


async def test_cap_within_an_upload(tmp_path: Path) -> None:
    """A streamed put that would pass the cap with its parts is broken off, and stores nothing."""
    inner = MemoryStore()
    budget = Budget(tmp_path / "count.json", metrics=Metrics())
    store = Limited(inner, per_month=5, budget=budget)
    closed = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            for _ in range(5):
                yield bytes(PART)
        finally:
            closed.set()

    with pytest.raises(StorageError, match="max-requests"):
        await store.put("s", body())
    assert closed.is_set()
    assert await inner.list("") == []
    assert budget.used == 5  # three parts, begin and end


async def test_counts_without_cap(tmp_path: Path) -> None:
    """A budget without a cap counts; pages beyond the first are counted even at the cap, since they were sent."""
    inner = MemoryStore()
    for i in range(1001):
        await inner.put(f"k/{i}", b"")
    budget = Budget(tmp_path / "count.json", metrics=Metrics())
    await Limited(inner, budget=budget).list("")
    assert budget.used == 2
    await Limited(inner, budget=budget, per_month=3).list("")
    assert budget.used == 4
    # Without a budget there is no cap: restore must work.
    free = Limited(inner, per_month=1)
    for _ in range(3):
        await free.list("")
