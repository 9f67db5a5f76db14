"""Obstore's streams are kept while they wait, and connections that a panic has broken are not used again."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Self

import obstore
import pytest

from helpers.servers.s3 import S3Server
from litestream.errors import StorageError
from litestream.storage.obs.streams import pieces
from litestream.storage.s3 import S3Config


class Slow:
    """A stream whose answers come when they are told to."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[int]] = []

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> asyncio.Future[int]:
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]


async def _all(stream: Slow, got: list[int]) -> None:
    got.extend([piece async for piece in pieces(stream)])


async def test_what_a_stream_gives() -> None:
    """Each piece, up to the end."""
    stream, got = Slow(), list[int]()
    task = asyncio.create_task(_all(stream, got))
    for answer in (1, 2):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        stream.answers[-1].set_result(answer)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    stream.answers[-1].set_exception(StopAsyncIteration())
    await task
    assert got == [1, 2]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelled_wait_keeps_the_stream(fails: bool) -> None:
    """Until the answer has come, and no longer; an error that nobody waits for is not reported."""
    stream = Slow()
    kept = weakref.ref(stream)
    task = asyncio.create_task(_all(stream, []))
    await asyncio.sleep(0.01)
    answer = stream.answers[-1]
    del stream
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    gc.collect()
    assert kept() is not None
    assert not answer.cancelled()
    if fails:
        answer.set_exception(OSError("the connection broke"))
    else:
        answer.set_result(1)
    del answer
    await asyncio.sleep(0.01)
    gc.collect()
    assert kept() is None


class RustPanic(Exception):  # noqa: N818 a foreign name
    """What a request that panicked raises, by this name."""


@pytest.mark.xdist_group("seaweedfs")
async def test_connections_after_a_panic_are_new(seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request fails for the time being, and the next one does not use what may be broken."""
    store = S3Config.from_settings(seaweedfs.settings(seaweedfs.new_bucket(), path="p")).open()
    await store.put("a", b"x")
    head, used = obstore.get_async, []

    async def broken(on: object, *_: object, **__: object) -> None:
        used.append(on)
        raise RustPanic("rust future panicked: unknown error")

    async def whole(key: str) -> bytes:
        return b"".join([chunk async for chunk in store.get(key)])

    monkeypatch.setattr(obstore, "get_async", broken)
    with pytest.raises(StorageError, match="panicked") as caught:
        await whole("a")
    assert not caught.value.permanent
    with pytest.raises(StorageError):
        await whole("a")
    assert used[0] is not used[1]
    monkeypatch.setattr(obstore, "get_async", head)
    assert await whole("a") == b"x"
    await store.close()
