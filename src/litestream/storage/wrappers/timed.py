"""No operation waits for ever: whatever the server does, each one ends."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextvars import copy_context
from typing import Any, TypeVar

from litestream.errors import StorageError
from litestream.storage.keys import check_key
from litestream.storage.protocol import ObjectInfo, Store
from litestream.storage.wrappers.progress import watcher
from litestream.storage.wrappers.wrapper import Wrapper, closed

T = TypeVar("T")

SLOWEST = 32 << 10
"""Bytes per second below which a transfer counts as stalled."""
WINDOW = 32 << 20
"""Bytes of a streamed body that a store may have taken without having sent them: parts under way."""
BATCH = 1000
"""Keys deleted at once: what the large services take in one request."""
_PER_KEY = 0.1
"""Seconds more for each key of a batch: some services delete one by one."""
_SLOWER = 8
"""How many times slower than so far a streamed upload may become before it counts as stalled."""
_GRACE = 1.0

_logger = logging.getLogger("litestream.storage")
_abandoned: set[asyncio.Task[Any]] = set()
"""Operations that did not react to their cancellation. Kept so that nobody collects them before they end."""


class Timed(Wrapper):
    """A `Store` whose operations end in `StorageError` (code Timeout, not permanent) when the server is silent.

    Args:
        timeout: seconds without an answer or progress. A listing, and each batch of 1,000 deletes (and 0.1 s for each
            key), are one answer, unless the back end calls `progress()` in between. A get has as long for each chunk;
            the reader's own time does not count.
        slowest: bytes per second. A put of bytes may take `timeout` and the time that its size takes at this rate. So
            may a streamed one, for what the store may hold of it (`WINDOW`); the time in which the body itself keeps
            the store waiting does not count.
        grace: seconds for which a cancelled operation is waited for. After that it is left to itself.

    A put that is cancelled, or timed out, leaves no object, or (when it was done at that very moment, or the server
    had everything already) the whole one.
    """

    def __init__(self, inner: Store, timeout: float = 15.0, *, slowest: float = SLOWEST, grace: float = _GRACE) -> None:
        super().__init__(inner)
        self._timeout = timeout
        self._slowest = slowest
        self._grace = grace

    async def list(self, prefix: str) -> list[ObjectInfo]:
        return await self._bounded("list", prefix, self.inner.list(prefix), self._watch())

    async def get(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        chunks = aiter(self.inner.get(key, start=start))
        try:
            while (chunk := await self._bounded("read", key, _next(chunks), self._watch())) is not None:
                yield chunk
        finally:
            await self._close(key, chunks)

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        watch = self._watch()
        if isinstance(body, bytes):
            watch.expect(self._timeout + len(body) / self._slowest)
            return await self._bounded("write", key, self.inner.put(key, body, create_only=create_only), watch)
        body = self._followed(body, watch)
        try:
            return await self._bounded("write", key, self.inner.put(key, body, create_only=create_only), watch)
        finally:
            if not watch.abandoned:  # a put that still runs would take a closed body for one at its end
                await closed(body)

    async def delete(self, keys: Sequence[str]) -> None:
        keys = [check_key(key) for key in keys]  # all of them, before the first batch goes
        for at in range(0, len(keys), BATCH):
            batch = keys[at : at + BATCH]
            watch = self._watch()
            watch.expect(self._timeout + _PER_KEY * (len(batch) - 1))
            await self._bounded("delete", batch[0], self.inner.delete(batch), watch)

    async def close(self) -> None:
        try:
            await self._bounded("close", "", self.inner.close(), self._watch())
        except StorageError as error:
            _logger.debug("%s", error)  # nothing depends on it

    def _watch(self) -> _Watch:
        return _Watch(self._timeout)

    async def _bounded(self, action: str, key: str, operation: Coroutine[Any, Any, T], watch: _Watch) -> T:
        """The result of `operation`, which runs in a task of its own, so that it can be left alone."""
        context = copy_context()
        context.run(watcher.set, watch.progress)
        task = watch.loop.create_task(operation, context=context)
        task.add_done_callback(watch.wake)
        watch.start()
        try:
            await watch.woken
        except asyncio.CancelledError:
            await self._stop(task, watch, action, key)
            raise
        finally:
            watch.stop()
        if not task.done():
            await self._stop(task, watch, action, key)
            if not task.done() or task.cancelled() or task.exception() is not None:
                raise self._silence(action, key, watch.allowed) from None
        return task.result()

    async def _stop(self, task: asyncio.Task[Any], watch: _Watch, action: str, key: str) -> None:
        """Cancel; wait for the end, but not for long."""
        task.cancel()
        try:
            await asyncio.wait([task], timeout=self._grace)
        finally:
            if task.done():
                _forget(task)
            else:
                watch.abandoned = True
                _abandoned.add(task)
                task.add_done_callback(_forget)
                _logger.warning("%s: cannot stop to %s %s, left to itself", self.url, action, key or "the store")

    async def _close(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """End a get. The bytes are read or not wanted: what goes wrong here is nobody's concern."""
        if getattr(chunks, "ag_frame", chunks) is None:
            return  # at its end already
        try:
            await self._bounded("close", key, closed(chunks), self._watch())
        except StorageError as error:
            _logger.debug("%s", error)

    async def _followed(self, body: AsyncIterator[bytes], watch: _Watch) -> AsyncGenerator[bytes, None]:
        """The body's bytes. The watch runs only while the store does not ask for more of them."""
        taken, busy = 0, 0.0
        chunks = aiter(body)
        try:
            while True:
                busy += watch.pause()
                chunk = None if watch.abandoned else await _next(chunks)
                if watch.abandoned:
                    raise StorageError("the upload was given up")
                # How fast it was so far, counting what must have been sent: the rest may lie in memory.
                rate = max(self._slowest, (taken - WINDOW) / _SLOWER / busy if busy else 0.0)
                taken += len(chunk or b"")
                watch.expect(self._timeout + min(taken, WINDOW) / rate)
                if chunk is None:
                    return
                yield chunk
        finally:
            await closed(body)

    def _silence(self, action: str, key: str, seconds: float) -> StorageError:
        what = f"{self.url}: cannot {action} {key or 'the store'}"
        text = f"{what}: no answer for {seconds:.4g} s (is the server there, and the network fast enough?)"
        return StorageError(text, key=key, code="Timeout")


class _Watch:
    """When an operation has been silent for too long. Cheap to postpone: the timer looks again when it fires.

    Attributes:
        allowed: seconds of silence.
        woken: done when the operation has ended or the time is up.
        abandoned: whether nobody waits for the operation any more.
    """

    __slots__ = ("_began", "_deadline", "_timer", "abandoned", "allowed", "loop", "timeout", "woken")

    def __init__(self, timeout: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.woken: asyncio.Future[None] = self.loop.create_future()
        self.timeout = self.allowed = timeout
        self.abandoned = False
        self._timer: asyncio.TimerHandle | None = None
        self._began = 0.0
        self._deadline = math.inf

    def wake(self, _: object = None) -> None:
        if not self.woken.done():
            self.woken.set_result(None)

    def start(self) -> None:
        """From now on it is the store's turn."""
        self._began = self.loop.time()
        self._deadline = self._began + self.allowed
        if self._timer is not None and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None and not self.woken.done():
            self._timer = self.loop.call_at(self._deadline, self._look)

    def expect(self, seconds: float) -> None:
        """Allow so much; a turn that was paused begins now."""
        self.allowed = seconds
        if self._began:
            self.start()

    def progress(self) -> None:
        """The server answered something."""
        if self._deadline < math.inf:
            self._deadline = max(self._deadline, self.loop.time() + self.timeout)

    def pause(self) -> float:
        """It is not the store's turn now. Returns for how many seconds it was."""
        self._deadline = math.inf
        return self.loop.time() - self._began

    def stop(self) -> None:
        self._deadline = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._deadline <= self.loop.time():
            self.wake()
        elif self._deadline < math.inf:
            self._timer = self.loop.call_at(self._deadline, self._look)


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(chunks, None)


def _forget(task: asyncio.Task[Any]) -> None:
    """Nobody wants to know how an operation ended that was given up."""
    _abandoned.discard(task)
    if not task.cancelled():
        task.exception()
