"""Time limits: every operation ends, whatever the store does, and nothing that is merely slow is given up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from helpers.contract import BodyError, chunks, keys, read
from helpers.faultstore import FOREVER, Fault, FaultStore
from litestream.errors import StorageError
from litestream.storage.memory import MemoryStore
from litestream.storage.protocol import ObjectInfo, Store
from litestream.storage.wrappers import timed
from litestream.storage.wrappers.progress import progress
from litestream.storage.wrappers.timed import Timed
from litestream.storage.wrappers.wrapper import Wrapper

OPERATIONS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "list": lambda store: store.list("a/"),
    "get": lambda store: read(store, "a/b"),
    "put": lambda store: store.put("a/b", b"new"),
    "stream": lambda store: store.put("a/b", chunks(b"n", b"ew")),
    "delete": lambda store: store.delete(["a/b"]),
}
each_operation = pytest.mark.parametrize("name", OPERATIONS)


class Stubborn(Wrapper):
    """A store whose puts and gets take no notice of their cancellation, until `let_go` is set."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.let_go = asyncio.Event()
        self.ended = 0

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        await self._hang()
        return await self.inner.put(key, body, create_only=create_only)

    async def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
        await self._hang()
        yield b""

    async def _hang(self) -> None:
        while not self.let_go.is_set():
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                continue
        self.ended += 1


class Slow(Wrapper):
    """A store that takes `pause` for each step of an operation, and says so if `telling`."""

    def __init__(self, inner: Store, pause: float, steps: int = 1, *, telling: bool = False) -> None:
        super().__init__(inner)
        self.pause = pause
        self.steps = steps
        self.telling = telling
        self.batches: list[int] = []

    async def _step(self) -> None:
        for _ in range(self.steps):
            await asyncio.sleep(self.pause)
            if self.telling:
                progress()

    async def list(self, prefix: str) -> list[ObjectInfo]:
        await self._step()
        return await self.inner.list(prefix)

    async def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
        async for chunk in self.inner.get(key, start=start):
            for byte in chunk:
                await self._step()
                yield bytes([byte])

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        if isinstance(body, bytes):
            await self._step()
            return await self.inner.put(key, body)
        taken = []
        async for chunk in body:
            taken.append(chunk)
            await self._step()
        return await self.inner.put(key, b"".join(taken))

    async def delete(self, keys: Sequence[str]) -> None:
        await self._step()
        self.batches.append(len(keys))


@each_operation
async def test_silence(name: str) -> None:
    """A server that never answers: the operation ends in time, as an error that says what, where, how long."""
    inner = FaultStore(MemoryStore(), Fault("*", "hang", times=FOREVER))
    await inner.inner.put("a/b", b"old")
    before = asyncio.all_tasks()
    began = time.monotonic()
    with pytest.raises(StorageError) as caught:
        await OPERATIONS[name](Timed(inner, 0.05))
    assert 0.05 <= time.monotonic() - began < 1
    error = caught.value
    assert (error.code, error.permanent) == ("Timeout", False)
    assert error.key == ("a/" if name == "list" else "a/b")
    what = {"stream": "write", "put": "write", "get": "read"}.get(name, name)
    assert f"memory://: cannot {what} {error.key}: no answer for 0.05" in str(error)
    assert "\n" not in str(error)
    assert await read(inner.inner, "a/b") == b"old"
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("name", ["put", "stream", "get"])
async def test_deaf_operation_is_left_alone(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """An operation that does not react to its cancellation is not waited for; it is kept until it ends, and an upload
    among them stores nothing any more.
    """
    inner = Stubborn(MemoryStore())
    began = time.monotonic()
    with pytest.raises(StorageError, match="no answer"):
        await OPERATIONS[name](Timed(inner, 0.05, grace=0.05))
    assert time.monotonic() - began < 1
    assert len(timed._abandoned) == 1
    assert "left to itself" in caplog.text
    inner.let_go.set()
    (task,) = timed._abandoned
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert not timed._abandoned
    assert inner.ended == 1
    if name == "stream":
        assert await keys(inner) == []


async def test_deaf_upload_in_the_middle() -> None:
    """An upload that was left alone in the middle gets no end of its body, which it would take for the whole."""
    inner = MemoryStore()
    let_go = asyncio.Event()

    class Deaf(Wrapper):
        async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
            assert not isinstance(body, bytes)
            first = await anext(body)
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    continue
            return await self.inner.put(key, first + b"".join([chunk async for chunk in body]))

    with pytest.raises(StorageError, match="no answer"):
        await Timed(Deaf(inner), 0.05, grace=0.05).put("a", chunks(b"1", b"2"))
    let_go.set()
    (task,) = timed._abandoned
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert isinstance(task.exception(), StorageError)
    assert await keys(inner) == []


async def test_deaf_operation_of_a_cancelled_caller() -> None:
    """A caller that is cancelled gets away in time too, even if it is cancelled twice."""
    for again in (False, True):
        inner = Stubborn(MemoryStore())
        put = asyncio.create_task(Timed(inner, 10, grace=10 if again else 0.05).put("a", b"x"))
        await asyncio.sleep(0.01)
        put.cancel()
        if again:
            await asyncio.sleep(0.01)
            assert not put.done()
            put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(put, 1)
        (task,) = timed._abandoned
        inner.let_go.set()
        await asyncio.wait([task])
        await asyncio.sleep(0)
        assert not timed._abandoned


async def test_result_at_the_last_moment() -> None:
    """What is done when the time is up, because it could not be stopped any more, is done."""

    class Late(Wrapper):
        async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                return await self.inner.put(key, body)
            raise AssertionError

    assert (await Timed(Late(MemoryStore()), 0.02).put("a", b"xyz")).size == 3


async def test_errors_and_bodies_pass() -> None:
    """The store's own errors, those of bodies and a cancelled caller's come out as they are."""
    inner = FaultStore(MemoryStore(), Fault("list", error=StorageError("no", permanent=True)))
    store = Timed(inner, 1)
    with pytest.raises(StorageError, match=r"^no$"):
        await store.list("")

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        raise BodyError

    with pytest.raises(BodyError):
        await store.put("a", body())
    inner.add(Fault("put", "hang"))
    put = asyncio.create_task(store.put("a", b"x"))
    await asyncio.sleep(0.01)
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    assert await keys(store) == []


async def test_slow_body_is_no_silence() -> None:
    """A body may keep the store waiting for longer than the limit: in the middle, at first and at the end."""

    async def body() -> AsyncIterator[bytes]:
        for chunk in (b"a", b"b"):
            await asyncio.sleep(0.15)
            yield chunk
        await asyncio.sleep(0.15)

    store = Timed(MemoryStore(), 0.05)
    assert (await store.put("a", body())).size == 2


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_store_that_stops_taking_bytes(at: int) -> None:
    """A streamed put whose store stops: before the first chunk, between two, or before its answer. The body is closed,
    even if the store itself did not care.
    """

    class Stops(Wrapper):
        async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
            assert not isinstance(body, bytes)
            if at:
                await anext(body)
            if at == 2:
                assert await anext(body, None) is None
            await asyncio.sleep(3600)
            raise AssertionError

    closed = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            await asyncio.sleep(0.1)
            yield b"x" * 1000
            if at < 2:
                yield b"y"
        finally:
            closed.set()

    began = time.monotonic()
    with pytest.raises(StorageError, match=r"cannot write a: no answer for 0\.1"):
        await Timed(Stops(MemoryStore()), 0.1, slowest=100_000).put("a", body())
    # 0.1 s, for the chunk another 0.01 s, and what the body itself took
    assert 0.1 <= time.monotonic() - began < 1
    assert at == 0 or closed.is_set()


async def test_size_gives_time() -> None:
    """A put may take as long as its size needs on a slow line, as bytes and as a stream; a small one may not."""
    store = Timed(Slow(MemoryStore(), 0.15), 0.05, slowest=1000)
    assert (await store.put("a", b"x" * 400)).size == 400
    assert (await store.put("a", chunks(b"x" * 400, b"y"))).size == 401
    with pytest.raises(StorageError, match=r"no answer for 0\.06"):
        await store.put("a", b"x" * 10)
    with pytest.raises(StorageError, match=r"no answer for 0\.06"):
        await store.put("a", chunks(b"x" * 10))


async def test_fast_upload_that_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The faster a long upload was, the sooner a stall is noticed: not only at the slowest rate."""
    monkeypatch.setattr(timed, "WINDOW", 1000)

    class Stalls(Wrapper):
        async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
            assert not isinstance(body, bytes)
            async for _ in body:
                await asyncio.sleep(0.001)
            await asyncio.sleep(3600)
            raise AssertionError

    began = time.monotonic()
    with pytest.raises(StorageError) as caught:
        await Timed(Stalls(MemoryStore()), 0.05, slowest=10).put("a", chunks(*[b"x" * 1000] * 50))
    assert caught.value.code == "Timeout"
    assert time.monotonic() - began < 5  # at 10 bytes per second a window would be 100 s


async def test_reader_may_be_slow() -> None:
    """A get has its limit for each chunk; neither the sum of them nor the reader's own time counts."""
    store = Timed(Slow(MemoryStore(), 0.03), 0.1)
    await store.put("a", b"123456")
    found = b""
    async for chunk in store.get("a"):
        found += chunk
        if len(found) == 2:
            await asyncio.sleep(0.2)
    assert found == b"123456"


async def test_get_that_stops_in_the_middle() -> None:
    """A get that falls silent after some bytes ends in an error, and its connection is closed."""
    closed = asyncio.Event()

    class Stops(Wrapper):
        async def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
            try:
                yield b"12"
                await asyncio.sleep(3600)
            finally:
                closed.set()

    stream = Timed(Stops(MemoryStore()), 0.05).get("a")
    assert await anext(stream) == b"12"
    with pytest.raises(StorageError, match="cannot read a: no answer"):
        await anext(stream)
    assert closed.is_set()


async def test_close_of_a_get_may_hang(caplog: pytest.LogCaptureFixture) -> None:
    """A reader that stops in the middle is not held up by a connection that does not close."""

    class Clings(Wrapper):
        async def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
            try:
                yield b"12"
            finally:
                await asyncio.sleep(3600)

    caplog.set_level(logging.DEBUG)
    stream = Timed(Clings(MemoryStore()), 0.05).get("a")
    assert await anext(stream) == b"12"
    await asyncio.wait_for(stream.aclose(), 1)
    assert "cannot close a" in caplog.text


async def test_progress() -> None:
    """A long operation that hears from its server goes on; the same one without a word of it does not."""
    for telling in (True, False):
        store = Timed(Slow(MemoryStore(), 0.04, 5, telling=telling), 0.1)
        for operation in (store.list(""), store.delete(["a"]), store.put("a", b"x")):
            if telling:
                await operation
            else:
                with pytest.raises(StorageError, match="no answer"):
                    await operation
    progress()  # with nobody watching


async def test_delete_in_batches() -> None:
    """Many keys go a thousand at a time, each batch with its own limit; a key that is none stops all of them."""
    inner = Slow(MemoryStore(), 0.05)
    store = Timed(inner, 0.1)
    await store.delete([f"k/{i}" for i in range(3500)])
    assert inner.batches == [1000, 1000, 1000, 500]
    with pytest.raises(StorageError, match="invalid object key"):
        await store.delete([*(f"k/{i}" for i in range(1500)), "../x"])
    assert len(inner.batches) == 4
    await store.delete([])
    assert len(inner.batches) == 4


async def test_close_that_hangs() -> None:
    """Closing ends too, without an error: nothing depends on it."""

    class Clings(Wrapper):
        async def close(self) -> None:
            await asyncio.sleep(3600)

    await asyncio.wait_for(Timed(Clings(MemoryStore()), 0.05).close(), 1)
