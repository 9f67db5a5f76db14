"""Buffers that are used again."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

CODE = """
import resource, sys
if sys.argv[1] == "keep":
    from litestream.heap import keep_buffers
    keep_buffers()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    buffers = [bytearray(b"x") * (8 << 20) for _ in range(3)]
    del buffers
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""


def _faults(how: str) -> int:
    run = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True)
    return int(run.stdout)


def test_memory_is_used_again() -> None:
    """Buffers that are freed and made again cost the faults of their first use, not one for each page every time."""
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("the C library is not glibc")
    assert _faults("keep") < 3 * (8 << 20) // 4096 * 2
    assert _faults("keep") < _faults("give back") / 5
