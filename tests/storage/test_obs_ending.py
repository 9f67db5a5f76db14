"""Programs that use a store of obstore end with their own status."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio
from obstore.store import MemoryStore
from litestream.storage.obs import ObstoreStore
from litestream.storage.obs.errors import Words

class Memory(ObstoreStore):
    async def _open(self, retry_config):
        return MemoryStore()

async def main():
    store = Memory(kind="memory", url="memory://", root="", words=Words("bucket", {}))
    await store.put("a", b"x" * 1000)
    assert [len(chunk) async for chunk in store.get("a")] == [1000]

asyncio.run(main())
"""


def test_the_end_is_no_crash() -> None:
    """None of 40 programs that end right after their last request is aborted (one in 16 was, without the pause)."""
    codes = []
    for _ in range(10):
        batch = [subprocess.Popen([sys.executable, "-c", PROGRAM]) for _ in range(4)]
        codes += [program.wait(timeout=60) for program in batch]
    assert codes == [0] * 40
