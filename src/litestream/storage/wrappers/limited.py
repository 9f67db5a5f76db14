"""Not more at once, per second and per month than was allowed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Self

from litestream.errors import StorageError
from litestream.storage.protocol import ObjectInfo, Store
from litestream.storage.wrappers.budget import Budget
from litestream.storage.wrappers.requests import requests_of
from litestream.storage.wrappers.wrapper import Wrapper, closed


class Limited(Wrapper):
    """A `Store` that keeps to limits. Who comes first is served first.

    Args:
        concurrency: operations that wait for the service at once. A get counts only while it waits for bytes, and a
            streamed put not while it waits for its body: that body may need the store itself (a snapshot's does).
            Gets and streamed puts leave a quarter to the small operations, at least one if there are two.
        per_second: requests (see `requests_of`); 0: no cap. After a pause as many as fit a second may go at once.
            More are waited for.
        per_month: requests in a month (UTC); 0: no cap. At the cap every operation raises `StorageError`, code
            RequestCap, with `retry_after` until the month's end.
        budget: who counts them. Without one there is no cap: a restore opens its store without.
    """

    def __init__(
        self,
        inner: Store,
        concurrency: int = 16,
        *,
        per_second: float = 0.0,
        per_month: int = 0,
        budget: Budget | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        super().__init__(inner)
        self._any = asyncio.Semaphore(concurrency)
        self._long = asyncio.Semaphore(max(1, concurrency - max(1, concurrency // 4)))
        self._rate = Rate(per_second, clock=clock, sleep=sleep) if per_second else None
        self._limit = per_month
        self._budget = budget

    async def list(self, prefix: str) -> list[ObjectInfo]:
        await self._admit("list", prefix, 1)
        async with self._any:
            infos = await self.inner.list(prefix)
        if (more := requests_of(self.inner, "LIST", objects=len(infos)) - 1) > 0:
            if self._rate is not None:
                self._rate.owe(more)
            if self._budget is not None:
                self._budget.add(more, self._limit)
        return infos

    async def get(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        await self._admit("read", key, requests_of(self.inner, "GET"))
        chunks = aiter(self.inner.get(key, start=start))
        try:
            while True:
                async with self._slot():
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                yield chunk
        finally:
            await closed(chunks)

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        if isinstance(body, bytes):
            await self._admit("write", key, requests_of(self.inner, "PUT", size=len(body)))
            async with self._any:
                return await self.inner.put(key, body, create_only=create_only)
        await self._admit("write", key, 1)
        async with self._slot() as slot:
            return await self.inner.put(key, self._followed(key, body, slot), create_only=create_only)

    async def delete(self, keys: Sequence[str]) -> None:
        if keys:
            await self._admit("delete", keys[0], requests_of(self.inner, "DELETE", objects=len(keys)))
            async with self._any:
                await self.inner.delete(keys)

    async def close(self) -> None:
        try:
            await self.inner.close()
        finally:
            if self._budget is not None:
                self._budget.close()

    def _slot(self) -> _Slot:
        return _Slot((self._long, self._any))

    async def _admit(self, action: str, key: str, count: int) -> None:
        """Wait until requests may be made, and count them."""
        if self._rate is not None:
            await self._rate.take(count)
        budget = self._budget
        if budget is not None and not budget.take(count, self._limit):
            text = (
                f"{self.url}: cannot {action} {key or 'the store'}: max-requests is reached: {budget.used} of "
                f"{self._limit} requests of this month are used, the next one begins {budget.next_month:%Y-%m-%d} UTC: "
                "raise max-requests or make sync-interval longer"
            )
            raise StorageError(text, key=key, code="RequestCap", retry_after=budget.seconds_left)

    async def _followed(self, key: str, body: AsyncIterator[bytes], slot: _Slot) -> AsyncGenerator[bytes, None]:
        """The body's bytes; the slot is free while it is waited for. Counts the requests that its size makes."""
        chunks = aiter(body)
        size, counted = 0, 1
        try:
            while True:
                slot.release()
                chunk = await anext(chunks, None)
                size += len(chunk or b"")
                if (now := requests_of(self.inner, "PUT", size=size)) > counted:
                    await self._admit("write", key, now - counted)
                    counted = now
                await slot.acquire()
                if chunk is None:
                    return
                yield chunk
        finally:
            await closed(body)


class Rate:
    """A token bucket: `per_second` requests on average, as many as fit a second (at least one) at once."""

    def __init__(
        self,
        per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.burst = max(1.0, per_second)
        self._per_second = per_second
        self._clock = clock
        self._sleep = sleep
        self._tokens = self.burst
        self._at = clock()
        self._queue = asyncio.Lock()

    async def take(self, count: int = 1) -> None:
        """Wait for a token. `count` are taken: those that are not there yet are owed by whoever comes next."""
        async with self._queue:
            while (missing := 1 - self._filled()) > 1e-9:
                await self._sleep(missing / self._per_second)
            self._tokens -= count

    def owe(self, count: int) -> None:
        """Take tokens for what was done already."""
        self._tokens -= count

    def _filled(self) -> float:
        now = self._clock()
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        return self._tokens


class _Slot:
    """A place among the long operations and among all, held or not."""

    __slots__ = ("_ended", "_held", "_semaphores")

    def __init__(self, semaphores: tuple[asyncio.Semaphore, ...]) -> None:
        self._semaphores = semaphores
        self._held = 0
        self._ended = False

    async def acquire(self) -> None:
        for semaphore in self._semaphores:
            await semaphore.acquire()
            self._held += 1
        if self._ended:  # an upload that was given up, and does not know: nobody would release what it holds
            self.release()
            raise StorageError("the upload was given up")

    def release(self) -> None:
        """What is held, which may be nothing."""
        while self._held:
            self._held -= 1
            self._semaphores[self._held].release()

    async def __aenter__(self) -> Self:
        try:
            await self.acquire()
        except BaseException:
            self.release()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended = True
        self.release()
