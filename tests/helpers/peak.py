"""How much memory a test's program has needed at most.

`ru_maxrss` cannot be used: it begins with what the process that started the program had, and pytest has more than most.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Protocol

from litestream.storage.protocol import Store

PEAK = '''
def peak():
    """The most memory this process had so far, in KiB."""
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1])
'''
"""To be put before a program."""

_STREAM = """
import asyncio, pickle, sys

async def body(count):
    for number in range(count):
        yield bytes([number % 251]) * (1 << 20)

async def main():
    store = pickle.loads(sys.stdin.buffer.read()).open()
    size, warm = int(sys.argv[1]), int(sys.argv[2])
    await store.put("warm", body(warm) if warm else b"x")
    if warm:
        async for chunk in store.get("warm"):
            pass
    before = peak()
    assert (await store.put("large", body(size))).size == size << 20
    up, at = peak() - before, 0
    async for chunk in store.get("large"):
        for number in range(at >> 20, (at + len(chunk) - 1 >> 20) + 1):
            piece = chunk[max(0, (number << 20) - at) : (number + 1 << 20) - at]
            assert piece == bytes([number % 251]) * len(piece)
        at += len(chunk)
    assert at == size << 20
    print(up >> 10, peak() - before >> 10, flush=True)
    await store.close()
    await asyncio.sleep(0.1)  # obstore's threads must have let go of Python before it ends

asyncio.run(main())
"""


class Opens(Protocol):
    """The settings of a store."""

    def open(self) -> Store: ...


def memory_of_a_stream(settings: Opens, mebibytes: int, *, warm: int = 0) -> tuple[int, int]:
    """MiB that a process needs on top of what it has at rest: to put a stream of that size, and to get it back too.

    `warm` MiB go there and back before it counts as being at rest.
    """
    done = subprocess.run(
        [sys.executable, "-c", PEAK + _STREAM, str(mebibytes), str(warm)],
        input=pickle.dumps(settings),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    up, both = map(int, done.stdout.split())
    return up, both
