"""Memory that is no longer needed goes back to the system once a process has come to rest.

glibc keeps what was freed, in an arena for each thread and below whatever is still in use: after a thousand databases
have begun, that is half of the process. Asking for it costs milliseconds, and touching it anew costs more, so it is
done only when the work is over.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import time
from collections.abc import Callable

INTERVAL = 5.0
"""Seconds between looks."""

WORKED = 0.1
"""Seconds of processor time from which on there may be something to give back."""

AT_REST = 0.02
"""The share of a processor below which a process is at rest."""


class Thrift:
    """Gives memory back after work. `trim` and `clock` (processor time, in seconds) are those of this process."""

    def __init__(self, trim: Callable[[], None] | None = None, clock: Callable[[], float] = time.process_time) -> None:
        self._trim = trim or trim_heap
        self._clock = clock
        self._trimmed_at = 0.0
        self._looked_at = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            self.look(INTERVAL)

    def look(self, seconds: float) -> None:
        """Give back what can be, if it is time; the last look was `seconds` ago."""
        now = self._clock()
        at_rest = now - self._looked_at < AT_REST * seconds
        self._looked_at = now
        if at_rest and now - self._trimmed_at >= WORKED:
            self._trim()
            self._trimmed_at = self._looked_at = self._clock()


def trim_heap() -> None:
    """Give freed memory back to the system; without effect where the C library is not glibc."""
    if sys.platform.startswith("linux") and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
