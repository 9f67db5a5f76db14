"""One connection for all operations of a store: opened by the first, opened again after it broke."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Generic, Protocol, TypeVar


class Link(Protocol):
    """A connection."""

    @property
    def alive(self) -> bool:
        """Whether requests can be sent."""
        ...

    async def close(self) -> None:
        """Let it go, within a second. May be called twice, raises nothing."""
        ...


T = TypeVar("T")
L = TypeVar("L", bound=Link)


class SharedLink(Generic[L]):
    """The connection that `connect` opens. It is opened once, however many ask for it at the same time."""

    def __init__(self, connect: Callable[[], Awaitable[L]]) -> None:
        self._connect = connect
        self._link: L | None = None
        self._opening: asyncio.Task[L] | None = None
        self._waiting = 0

    async def get(self) -> L:
        """A connection that is alive. Raises what `connect` raises.

        When the last that waits for it is cancelled, the attempt is too.
        """
        if self._link is not None and self._link.alive:
            return self._link
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        opening = self._opening
        self._waiting += 1
        try:
            return await asyncio.shield(opening)
        finally:
            self._waiting -= 1
            if not self._waiting and not opening.done():
                await self._give_up(opening)

    async def close(self) -> None:
        """Close the connection. The next `get` opens a new one."""
        if self._opening is not None:
            await self._give_up(self._opening)
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _open(self) -> L:
        try:
            old, self._link = self._link, None
            if old is not None:
                await old.close()
            link = await self._connect()
            if self._opening is not asyncio.current_task():  # given up, and perhaps another one is at it
                await link.close()
                raise asyncio.CancelledError
            self._link = link
            return link
        finally:
            if self._opening is asyncio.current_task():
                self._opening = None

    async def _give_up(self, opening: asyncio.Task[L]) -> None:
        opening.cancel()
        self._opening = None
        await asyncio.wait([opening], timeout=1)
        opening.add_done_callback(_forget)


def _forget(task: asyncio.Task[L]) -> None:
    if not task.cancelled():
        task.exception()


async def gather(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results. The first error, or a cancellation, ends all; none is left running."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await stop(tasks)


async def stop(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """End what nobody wants any more."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    if tasks:  # else it would be a moment at which the caller can be cancelled
        await asyncio.gather(*tasks, return_exceptions=True)
