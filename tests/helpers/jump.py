"""An event loop on which waiting takes no time: the clock jumps to the next timer when there is nothing to do."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine, Mapping
from typing import TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    jumped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self.jumped += timeout
        return ready

    def get_map(self) -> Mapping[int, selectors.SelectorKey]:  # type: ignore[override]  # narrower, as the class itself
        return super().get_map()  # type: ignore[return-value]  # the same


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, selector: _Selector) -> None:
        super().__init__(selector)
        self._jumping = selector

    def time(self) -> float:
        return time.monotonic() + self._jumping.jumped


def run_jumping(work: Coroutine[object, object, T]) -> T:
    """`asyncio.run` with such a loop. Only for code that waits for timers, not for threads or other processes."""
    with asyncio.Runner(loop_factory=lambda: _Loop(_Selector())) as runner:
        return runner.run(work)
