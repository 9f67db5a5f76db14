"""Large objects pass through the encryption in a few pieces, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyrage")

SIZE = 64
"""MiB."""
LIMIT = 16
"""MiB of memory that put and get may take beside what the process has before."""

CODE = """
import asyncio, hashlib, re, sys
import pyrage
from litestream.storage.age.encrypted import EncryptedStore
from litestream.storage.file import FileStore

key = pyrage.x25519.Identity.generate()
store = EncryptedStore(FileStore(sys.argv[1]), recipients=[str(key.to_public())], identities=[str(key)])
size = int(sys.argv[2])
sent, got = hashlib.sha256(), hashlib.sha256()

async def body():
    for n in range(size):
        chunk = hashlib.shake_128(b"%d" % n).digest(1 << 20)
        sent.update(chunk)
        yield chunk

async def get():
    async for chunk in store.get("large"):
        got.update(chunk)

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

async def main():
    await store.put("warm", b"up")
    before = peak()
    await store.put("large", body())
    await get()
    assert sent.digest() == got.digest()
    print(peak() - before)

asyncio.run(main())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
def test_memory_of_a_large_stream(tmp_path: Path) -> None:
    """Memory for a put and a get of 64 MiB is that of a few pieces, and what comes back is what was sent."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path), str(SIZE)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "large").stat().st_size > SIZE << 20
    assert int(done.stdout) < LIMIT << 10
