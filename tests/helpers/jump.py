"""An event loop on which waiting can take no time: its clock jumps to the next timer when there is nothing to do."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    jumping = False
    jumped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if not self.jumping or not timeout:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            self.jumped += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, selector: _Selector) -> None:
        super().__init__(selector)
        self._jumping = selector

    def time(self) -> float:
        return time.monotonic() + self._jumping.jumped


def run_jumping(work: Callable[[Callable[[float], Awaitable[None]]], Coroutine[object, object, T]]) -> T:
    """`asyncio.run(work(pass_time))` on such a loop: `await pass_time(600)` lets 600 s of its clock pass at once.

    Everything else takes the time it takes; threads and other processes know nothing of the jump.
    """
    selector = _Selector()

    async def pass_time(seconds: float) -> None:
        selector.jumping = True
        try:
            await asyncio.sleep(seconds)
        finally:
            selector.jumping = False

    with asyncio.Runner(loop_factory=lambda: _Loop(selector)) as runner:
        return runner.run(work(pass_time))
