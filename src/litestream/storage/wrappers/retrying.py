"""What failed for a moment is done again."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from litestream.errors import StorageError
from litestream.storage.protocol import ObjectInfo, Store
from litestream.storage.wrappers.wrapper import Wrapper, closed

T = TypeVar("T")

FIRST = 0.1
"""Seconds of the first wait, at most."""
LONGEST = 2.0
"""Seconds of any wait, at most; callers have a slower pace of their own for what lasts."""
PATIENCE = 30.0
"""Seconds, wanted by the service, that are waited for here; more is the caller's business."""
OVERLAP = 256
"""Bytes read again when a get goes on, to see that it is still the same object. So few that even a small object that is
always cut in the middle makes progress; readers check the whole of what they got by its hash."""

_logger = logging.getLogger("litestream.storage")


class Retrying(Wrapper):
    """A `Store` that repeats what failed and may succeed: `StorageError`s that are not permanent, and nothing else.

    Waits grow from 0.1 s to 2 s, each a random part of that. A service that says how long to leave it alone is left
    alone so long, up to 30 s; beyond, the error goes to the caller, `retry_after` in it. The last error is raised
    with "(after N attempts)".

    * `list`, `delete`, and `put` of bytes are done again whole. A create-only put whose first answer was lost meets its
      own object, which every store takes for success by its content.
    * `get` goes on where it broke off. It reads the last 256 bytes again: if they are others, the object was replaced
      meanwhile and the get fails (code Changed). Each progress begins the count anew.
    * `put` of a stream is not repeated: its bytes are gone.

    Args:
        attempts: per operation, the first included.
        total: seconds after the begin of an operation's first attempt, after which no other one begins.
    """

    def __init__(
        self,
        inner: Store,
        attempts: int = 4,
        *,
        total: float = 60.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner)
        self._attempts = attempts
        self._total = total
        self._sleep = sleep
        self._chance = chance
        self._clock = clock

    async def list(self, prefix: str) -> list[ObjectInfo]:
        return await self._repeat("list", lambda: self.inner.list(prefix))

    async def delete(self, keys: Sequence[str]) -> None:
        keys = tuple(keys)
        await self._repeat("delete", lambda: self.inner.delete(keys))

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        if not isinstance(body, bytes):
            return await self.inner.put(key, body, create_only=create_only)
        return await self._repeat("put", lambda: self.inner.put(key, body, create_only=create_only))

    async def get(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        tries = _Tries(self._clock())
        at, tail = start, b""
        while True:
            chunks = self._resumed(key, at, tail) if tail else self.inner.get(key, start=at)
            try:
                async for chunk in chunks:
                    yield chunk
                    at += len(chunk)
                    tail = (tail + chunk[-OVERLAP:])[-OVERLAP:]
                    tries.failed = 0
                return
            except StorageError as error:
                if not tries.failed:
                    tries.began = self._clock()
                await self._wait("get", tries, error)
            finally:
                await closed(chunks)

    async def _resumed(self, key: str, at: int, tail: bytes) -> AsyncGenerator[bytes, None]:
        """The object from `at` on, if what is before is `tail`."""
        chunks = self.inner.get(key, start=at - len(tail))
        again = b""
        try:
            async for chunk in chunks:
                if len(again) < len(tail):
                    again += chunk
                    if again[: len(tail)] != tail[: len(again)]:
                        break
                    chunk = again[len(tail) :]
                if chunk:
                    yield chunk
            if again[: len(tail)] != tail:
                raise StorageError(
                    f"{self.url}: {key} changed while it was read: read it anew", key=key, code="Changed"
                )
        finally:
            await closed(chunks)

    async def _repeat(self, action: str, operation: Callable[[], Awaitable[T]]) -> T:
        tries = _Tries(self._clock())
        while True:
            try:
                return await operation()
            except StorageError as error:
                await self._wait(action, tries, error)

    async def _wait(self, action: str, tries: _Tries, error: StorageError) -> None:
        """Wait before the next attempt, or raise if there is none."""
        tries.failed += 1
        if error.permanent or error.code == "Changed":
            raise error
        delay = self._chance() * min(LONGEST, FIRST * 2 ** (tries.failed - 1))
        delay = max(delay, error.retry_after)
        late = self._clock() + delay > tries.began + self._total
        if tries.failed >= self._attempts or error.retry_after > PATIENCE or late:
            if tries.failed == 1:
                raise error
            text = f"{error} (after {tries.failed} attempts)"
            raise StorageError(text, key=error.key, code=error.code, retry_after=error.retry_after) from error
        _logger.debug("%s failed, again in %.3f s (%d of %d): %s", action, delay, tries.failed, self._attempts, error)
        await self._sleep(delay)


class _Tries:
    """How often one operation failed in a row, and when that row began."""

    __slots__ = ("began", "failed")

    def __init__(self, began: float) -> None:
        self.began = began
        self.failed = 0
