"""All wrappers together: the contract, their order, and what they cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from helpers.contract import StoreContract, chunks, keys, read
from helpers.faultstore import FOREVER, Fault, FaultStore
from litestream.errors import StorageError, StoreConfigError
from litestream.metrics import Metrics, expose
from litestream.storage.file import FileStore
from litestream.storage.memory import MemoryStore
from litestream.storage.protocol import Store
from litestream.storage.wrappers.limited import Limited
from litestream.storage.wrappers.metered import Metered
from litestream.storage.wrappers.retrying import Retrying
from litestream.storage.wrappers.timed import Timed
from litestream.storage.wrappers.wrap import Budget, Limits, innermost, wrap
from litestream.storage.wrappers.wrapper import Wrapper

LIMITS = Limits(timeout=10, concurrency=15, requests_per_second=100_000, requests_per_month=10_000_000)


def wrapped(inner: Store, directory: Path) -> Store:
    """A store in all wrappers, of which nothing leaves the test."""
    metrics = Metrics()
    return wrap(inner, LIMITS, metrics=metrics, budget=Budget(directory / "count.json", metrics=metrics))


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
    def store(self, tmp_path: Path) -> Store:
        """An empty store."""
        return wrapped(MemoryStore(), tmp_path)


class TestWrappedFileStore(WrappedContract):
    """The same where operations run in threads."""

    many = 300  # as without the wrappers

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        """An empty store."""
        return wrapped(FileStore(tmp_path / "root"), tmp_path)


def test_order(tmp_path: Path) -> None:
    """Each attempt has its place and is counted; time in the queue is not the server's. What only the back end has is
    within reach.
    """
    inner = MemoryStore()
    store = wrapped(inner, tmp_path)
    layers = []
    while isinstance(store, Wrapper):
        layers.append(type(store))
        assert innermost(store) is inner
        store = store.inner
    assert layers == [Retrying, Limited, Metered, Timed]
    assert innermost(inner) is store is inner


def test_local_stores_stay_as_they_are(tmp_path: Path) -> None:
    """A file or memory store gets no wrapper unless somebody asks for one."""
    for store in (MemoryStore(), FileStore(tmp_path)):
        assert wrap(store) is store
        assert wrap(store, Limits(timeout=3)) is not store
        assert wrap(store, budget=Budget(tmp_path / "count.json", metrics=Metrics())) is not store


def test_passed_on(tmp_path: Path) -> None:
    """What a store is, it is in its wrappers too."""

    class Remote(MemoryStore):
        type = "s3"
        conditional = False

    store = wrap(Remote("x"), metrics=Metrics())
    assert isinstance(store, Retrying)
    assert (store.type, store.url, store.conditional) == ("s3", "memory://x", False)
    assert repr(store).startswith("Retrying(Limited(Metered(Timed(<")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("timeout", 0),
        ("timeout", float("inf")),
        ("timeout", float("nan")),
        ("attempts", 0),
        ("concurrency", 0),
        ("requests-per-second", -1),
        ("requests-per-month", -1),
        ("slowest", 0),
    ],
)
def test_senseless_limits(setting: str, value: float) -> None:
    """A limit with which nothing could work is an error that names it."""
    with pytest.raises(StoreConfigError, match=f"^{setting} must be at least ") as caught:
        Limits(**{setting.replace("-", "_"): value})  # type: ignore[arg-type]
    assert caught.value.setting == setting


async def test_everything_at_once(tmp_path: Path) -> None:
    """A put that hangs, fails and loses its answer arrives in the end, and each attempt is counted everywhere."""
    metrics = Metrics()
    inner = FaultStore(
        MemoryStore(),
        Fault("put", "hang"),
        Fault("put", error=StorageError("x", code="Throttled", retry_after=0.01)),
        Fault("put", "lost", error=StorageError("x", code="Connection")),
    )
    budget = Budget(tmp_path / "count.json", metrics=metrics)
    store = wrap(inner, Limits(timeout=0.05, requests_per_month=1000), metrics=metrics, budget=budget)
    assert (await store.put("a", b"data", create_only=True)).size == 4
    assert inner.count("put") == budget.used == 4
    text = expose(metrics).decode()
    labels = 'replica_type="memory",operation="PUT"'
    assert f"litestream_replica_operation_total{{{labels}}} 4\n" in text
    assert f"litestream_replica_operation_bytes{{{labels}}} 4\n" in text
    for code in ("Timeout", "Throttled", "Connection"):
        assert f'litestream_replica_operation_errors_total{{{labels},code="{code}"}} 1\n' in text
    assert 'litestream_request_budget_used{budget="count.json"} 4\n' in text


@pytest.mark.parametrize("operation", ["list", "get", "put", "stream", "delete"])
async def test_dead_server_ends(operation: str) -> None:
    """A server that never answers: every operation ends, within its attempts."""
    inner = FaultStore(MemoryStore(), Fault("*", "hang", times=FOREVER))
    store = wrap(inner, Limits(timeout=0.05), metrics=Metrics())
    operations: dict[str, Callable[[], Awaitable[object]]] = {
        "list": lambda: store.list(""),
        "get": lambda: read(store, "a"),
        "put": lambda: store.put("a", b"x"),
        "stream": lambda: store.put("a", chunks(b"x")),
        "delete": lambda: store.delete(["a"]),
    }
    began = time.monotonic()
    with pytest.raises(StorageError) as caught:
        await operations[operation]()
    assert caught.value.code == "Timeout"
    assert time.monotonic() - began < 3


async def test_idle(tmp_path: Path) -> None:
    """Between operations there is nothing: no task, no timer, no request, whatever the time."""
    inner = FaultStore(MemoryStore(), Fault("put"))
    loop = asyncio.get_running_loop()
    store = wrapped(inner, tmp_path)
    await store.put("a", b"x")
    await store.put("b", chunks(b"x", b"y"))
    assert await read(store, "a") == b"x"
    await store.list("")
    await store.delete(["a"])
    calls, written = list(inner.calls), (tmp_path / "count.json").stat().st_mtime_ns
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    timers = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    now = loop.time()
    try:
        loop.time = lambda: now + 600  # type: ignore[method-assign]
        for _ in range(5):
            await asyncio.sleep(0)
    finally:
        del loop.time
    assert timers == []
    assert inner.calls == calls
    assert (tmp_path / "count.json").stat().st_mtime_ns == written


async def test_overhead(tmp_path: Path) -> None:
    """All wrappers together cost a small put some tens of microseconds (a wide bound: the machine may be busy)."""
    bare = MemoryStore()
    store = wrapped(MemoryStore(), tmp_path)

    async def best(store: Store) -> float:
        fastest = 1.0
        for _ in range(20):
            began = time.perf_counter()
            for _ in range(50):
                await store.put("a", b"x")
            fastest = min(fastest, (time.perf_counter() - began) / 50)
        return fastest

    assert await best(store) - await best(bare) < 500e-6
