"""Which process this is, and whether another one that was on this machine still is."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import time

from litestream.core.lease import Record


def host_name() -> str:
    """What this host calls itself."""
    return socket.gethostname()


@functools.cache
def boot() -> str:
    """This boot and this namespace of process ids; empty where that cannot be told."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def started(pid: int) -> int:
    """When a process started, in ticks since the boot; 0 if there is no such process, or it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # the name before it may hold anything
        return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, IndexError, ValueError):
        return 0


def has_ended(record: Record) -> bool:
    """Whether it is certain that the process of a record is no more: it was on this machine, in this boot."""
    return bool(record.boot) and record.boot == boot() and record.started > 0 and started(record.pid) != record.started


def uptime() -> float:
    """Seconds that go on while the machine sleeps; never slower than the wall clock where that can be told."""
    with contextlib.suppress(AttributeError, OSError):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
