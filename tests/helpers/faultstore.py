"""A store with faults on order, around any other store.

    store = FaultStore(MemoryStore(), Fault("put", times=2), Fault("get", "cut", match="wal/"))

Each fault waits for operations of its kind whose key (or prefix) contains `match`, lets `skip` of them pass, strikes
`times` times, and is spent. `FaultStore.calls` says what was asked for, faults or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal

from litestream.errors import StorageError
from litestream.storage.keys import check_key
from litestream.storage.protocol import ObjectInfo, Store

Operation = Literal["list", "get", "put", "delete", "*"]
What = Literal[
    "fail",  # an error before anything happened
    "lost",  # done, but the answer is an error (a reset connection, a 500 after storing)
    "hang",  # never answers, until `release()`; nothing is done then
    "slow",  # `seconds` later
    "break",  # put and get: the error comes when half of the bytes went through
    "cut",  # get: half of the object, then an orderly end (a lying store)
    "flip",  # get: one bit in the middle is wrong
    "stale",  # list: the answer of the listing before
]
FOREVER = 1 << 60


@dataclass
class Fault:
    """One fault; see the module."""

    operation: Operation
    what: What = "fail"
    match: str = ""
    skip: int = 0
    times: int = 1
    error: Exception | None = None
    seconds: float = 0.05

    def strikes(self, operation: str, key: str) -> bool:
        """Whether it is this operation's turn. Counts."""
        if self.operation not in {operation, "*"} or self.match not in key or not self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True

    def raised(self, key: str) -> Exception:
        return self.error or StorageError(f"{key}: injected fault: {self.what}", key=key)


class FaultStore:
    """A `Store` that does what `inner` does, but for its faults."""

    def __init__(self, inner: Store, *faults: Fault) -> None:
        self.inner = inner
        self.faults = list(faults)
        self.calls: list[tuple[str, str]] = []
        """(operation, key or prefix), in order; a delete once for each key."""
        self.struck = 0
        self._released = asyncio.Event()
        self._listed: dict[str, list[ObjectInfo]] = {}

    def add(self, *faults: Fault) -> None:
        """Order more faults."""
        self.faults.extend(faults)

    def heal(self) -> None:
        """Forget all faults, and let what hangs go on."""
        self.faults.clear()
        self.release()

    def release(self) -> None:
        """Let what hangs go on (it fails then)."""
        self._released.set()
        self._released = asyncio.Event()

    def count(self, operation: str, match: str = "") -> int:
        """How often an operation was asked for."""
        return sum(1 for name, key in self.calls if name == operation and match in key)

    @property
    def type(self) -> str:
        return self.inner.type

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def conditional(self) -> bool:
        return self.inner.conditional

    async def list(self, prefix: str) -> list[ObjectInfo]:
        fault = await self._begin("list", prefix)
        if fault is not None and fault.what == "stale":
            return self._listed.get(prefix, [])
        infos = await self.inner.list(prefix)
        self._listed[prefix] = infos
        self._end(fault, prefix)
        return infos

    async def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
        fault = await self._begin("get", key)
        data = b"".join([chunk async for chunk in self.inner.get(key, start=start)])
        self._end(fault, key)
        half = len(data) // 2
        if fault is not None and fault.what == "flip" and data:
            data = data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]
        if fault is not None and fault.what in {"break", "cut"}:
            yield data[:half]
            if fault.what == "break":
                raise fault.raised(key)
            return
        yield data

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        fault = await self._begin("put", key)
        if fault is not None and fault.what == "break":
            body = _broken(body, fault.raised(key))
        info = await self.inner.put(key, body, create_only=create_only)
        self._end(fault, key)
        return info

    async def delete(self, keys: Sequence[str]) -> None:
        for key in [check_key(key) for key in keys]:
            fault = await self._begin("delete", key)
            await self.inner.delete([key])
            self._end(fault, key)

    async def close(self) -> None:
        await self.inner.close()

    async def _begin(self, operation: str, key: str) -> Fault | None:
        """What happens before the operation; the fault that the operation itself has to act out, if any."""
        self.calls.append((operation, key))
        fault = next((fault for fault in self.faults if fault.strikes(operation, key)), None)
        if fault is None:
            return None
        self.struck += 1
        match fault.what:
            case "fail":
                raise fault.raised(key)
            case "hang":
                await self._released.wait()
                raise fault.raised(key)
            case "slow":
                await asyncio.sleep(fault.seconds)
        return fault

    def _end(self, fault: Fault | None, key: str) -> None:
        if fault is not None and fault.what == "lost":
            raise fault.raised(key)


async def _broken(body: bytes | AsyncIterator[bytes], error: Exception) -> AsyncIterator[bytes]:
    """The first half of bytes, or the first chunk of a stream, and then the error."""
    if isinstance(body, bytes):
        yield body[: len(body) // 2]
    else:
        async for chunk in body:
            yield chunk
            break
    raise error
