"""How the C library handles the memory of a process that does one thing with large buffers and then ends."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # <malloc.h>
_LARGEST = 32 << 20
"""Bytes up to which a buffer is used again; glibc takes no greater value."""
_KEPT = 64 << 20
"""Freed bytes that stay with the process."""


def keep_buffers() -> None:
    """From now on freed memory is used again, instead of being given back and asked for anew with every large buffer.

    Each page of fresh memory costs a fault: with buffers of 4 MiB that is more than the work done in them. For short
    programs only: the process keeps what it once had. Call it before threads start. Without effect where the C
    library is not glibc.
    """
    if sys.platform.startswith("linux") and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _KEPT)):
            mallopt(option, value)
