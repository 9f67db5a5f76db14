"""The last hour of a replica, by minutes: what was uploaded, and how long commits waited for it.

About 1.5 kB a replica, whatever happens. Nothing runs for it: it is written when something was stored, and when
somebody looks and finds the replica behind.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from typing import TypeVar

from litestream.replica import Replica

N = TypeVar("N", int, float)

MINUTES = 60
"""Minutes that are kept, the present one included."""


class History:
    """The minutes. `newest` is the number (Unix time / 60) of the last one in which something happened; 0: none."""

    __slots__ = ("_bytes", "_delays", "_objects", "newest")

    def __init__(self) -> None:
        self.newest = 0
        self._objects = array("I", bytes(4 * MINUTES))
        self._bytes = array("Q", bytes(8 * MINUTES))
        self._delays = array("f", bytes(4 * MINUTES))

    def uploaded(self, now: float, objects: int, size: int, delay: float) -> None:
        """So many objects with `size` bytes of WAL were stored; the oldest commit had waited for `delay` seconds."""
        at = self._place(now)
        self._objects[at] = min(self._objects[at] + objects, 0xFFFFFFFF)
        self._bytes[at] += size
        self._delays[at] = max(self._delays[at], delay)

    def behind(self, now: float, lag: float) -> None:
        """The oldest commit that is not durable yet has waited for `lag` seconds by now."""
        at = self._place(now)
        self._delays[at] = max(self._delays[at], lag)

    def objects(self) -> list[int]:
        """Objects stored in each minute up to `newest`."""
        return self._in_order(self._objects)

    def bytes(self) -> list[int]:
        """Bytes of WAL stored in each minute up to `newest`."""
        return self._in_order(self._bytes)

    def delays(self) -> list[float]:
        """The longest wait, in seconds, of each minute up to `newest`; 0.0 where nothing waited."""
        return self._in_order(self._delays)

    def _place(self, now: float) -> int:
        """Where the minute of `now` is; what lies between it and the newest one is cleared."""
        minute = max(int(now // 60), self.newest)  # a clock that was set back: the newest one goes on
        for passed in range(max(self.newest + 1, minute - MINUTES + 1), minute + 1):
            at = passed % MINUTES
            self._objects[at] = self._bytes[at] = 0
            self._delays[at] = 0.0
        self.newest = minute
        return minute % MINUTES

    def _in_order(self, values: array[N]) -> list[N]:
        first = (self.newest + 1) % MINUTES
        return (values[first:] + values[:first]).tolist()


class Recorder:
    """Writes a replica's history."""

    __slots__ = ("_clock", "_sent", "history", "replica")

    def __init__(self, replica: Replica, clock: Callable[[], float] = time.time) -> None:
        self.replica = replica
        self.history = History()
        self._clock = clock
        self._sent = replica.sent
        replica.subscribe(self._stored)

    def _stored(self) -> None:
        before, self._sent = self._sent, self.replica.sent
        objects, size = self._sent.objects - before.objects, self._sent.size - before.size
        if objects > 0:
            self.history.uploaded(self._clock(), objects, size, self._sent.delay)
