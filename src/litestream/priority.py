"""Threads that others go before."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

LOWEST = 19


def lower_priority(nice: int = LOWEST) -> None:
    """Let the calling thread, and no other, be behind those of less `nice` where processors are scarce.

    19: it runs only when nobody else wants one. Linux; elsewhere nothing happens.
    """
    if sys.platform == "linux":  # there a thread has a priority of its own
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
