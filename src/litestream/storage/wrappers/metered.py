"""What a store is asked for, how long it takes and what fails, under the official names."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Self

from litestream.errors import StorageError
from litestream.metrics import DEFAULT, Metrics
from litestream.storage.protocol import ObjectInfo, Store
from litestream.storage.wrappers.requests import Operation, requests_of
from litestream.storage.wrappers.wrapper import Wrapper, closed


class Metered(Wrapper):
    """A `Store` whose operations are counted, with the labels replica_type and operation (LIST, GET, PUT, DELETE).

    * `litestream_replica_operation_total`: requests (see `requests_of`), those that fail too.
    * `litestream_replica_operation_bytes`: bytes of bodies, stored or received.
    * `litestream_replica_operation_duration_seconds`: time in which the store was waited for, per operation, failed or
      not. Neither the reader's time in a get nor that of a streamed body is in it. Cancelled operations are left out.
    * `litestream_replica_operation_errors_total` with the label code: the error's `code`, or `Error`. That there is no
      such object is an answer, and what the body of a put raises is not the store's error.
    """

    def __init__(
        self, inner: Store, metrics: Metrics = DEFAULT, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(inner)
        self._metrics = metrics
        self._clock = clock
        self._numbers: dict[Operation, _Numbers] = {}

    @property
    def requests(self) -> dict[Operation, int]:
        """Requests of this store alone, by operation, those that failed too."""
        return {operation: numbers.requests for operation, numbers in self._numbers.items()}

    async def list(self, prefix: str) -> list[ObjectInfo]:
        with self._measure("LIST") as measure:
            infos = await self.inner.list(prefix)
            measure.requests = requests_of(self.inner, "LIST", objects=len(infos))
            return infos

    async def get(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        chunks = self.inner.get(key, start=start)
        with self._measure("GET") as measure:
            measure.requests = requests_of(self.inner, "GET")
            try:
                async for chunk in chunks:
                    measure.bytes += len(chunk)
                    measure.pause()
                    yield chunk
                    measure.resume()
            finally:
                await closed(chunks)

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        with self._measure("PUT") as measure:
            if isinstance(body, bytes):
                measure.size = len(body)
            else:
                body = _followed(body, measure)
            try:
                info = await self.inner.put(key, body, create_only=create_only)
                measure.bytes = info.size
                return info
            finally:
                measure.requests = requests_of(self.inner, "PUT", size=measure.size)

    async def delete(self, keys: Sequence[str]) -> None:
        if keys:
            with self._measure("DELETE") as measure:
                measure.requests = requests_of(self.inner, "DELETE", objects=len(keys))
                await self.inner.delete(keys)

    def _measure(self, operation: Operation) -> _Measure:
        if operation not in self._numbers:
            self._numbers[operation] = _Numbers(self._metrics, self.type, operation)
        return _Measure(self._numbers[operation], self._clock)


class _Numbers:
    """The numbers of one operation."""

    def __init__(self, metrics: Metrics, kind: str, operation: Operation) -> None:
        self.labels = {"replica_type": kind, "operation": operation}
        self.total = metrics.replica_operation_total.labels(**self.labels)
        self.bytes = metrics.replica_operation_bytes.labels(**self.labels)
        self.seconds = metrics.replica_operation_duration_seconds.labels(**self.labels)
        self.errors = metrics.replica_operation_errors_total
        self.requests = 0


class _Measure:
    """One operation under way.

    Attributes:
        requests: how many it is.
        bytes: how many went through.
        size: how many of a body were taken.
        foreign: what the body raised.
    """

    __slots__ = ("_began", "_clock", "_numbers", "_seconds", "bytes", "foreign", "requests", "size")

    def __init__(self, numbers: _Numbers, clock: Callable[[], float]) -> None:
        self._numbers = numbers
        self._clock = clock
        self._seconds = 0.0
        self._began: float | None = None
        self.requests = 1
        self.bytes = 0
        self.size = 0
        self.foreign: BaseException | None = None

    def pause(self) -> None:
        """Somebody else is waited for."""
        if self._began is not None:
            self._seconds += self._clock() - self._began
            self._began = None

    def resume(self) -> None:
        self._began = self._clock()

    def __enter__(self) -> Self:
        self.resume()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.pause()
        numbers = self._numbers
        numbers.total.inc(self.requests)
        numbers.requests += self.requests
        numbers.bytes.inc(self.bytes)
        if isinstance(error, asyncio.CancelledError):
            return
        numbers.seconds.observe(self._seconds)
        if isinstance(error, StorageError) and error is not self.foreign and error.code != "NotFound":
            numbers.errors.labels(**numbers.labels, code=error.code or "Error").inc()


def requests_made(store: Store) -> dict[Operation, int] | None:
    """Requests that a store has made within all its wrappers; None where they are not counted."""
    while isinstance(store, Wrapper):
        if isinstance(store, Metered):
            return store.requests
        store = store.inner
    return None


async def _followed(body: AsyncIterator[bytes], measure: _Measure) -> AsyncGenerator[bytes, None]:
    """The body's bytes, while the store is not waited for."""
    chunks = aiter(body)
    try:
        while True:
            measure.pause()
            try:
                chunk = await anext(chunks, None)
            except BaseException as error:
                measure.foreign = error
                raise
            measure.resume()
            if chunk is None:
                return
            measure.size += len(chunk)
            yield chunk
    finally:
        await closed(body)
