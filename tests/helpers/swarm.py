"""Many databases of one directory: their configuration, restores of all of them, and what the replicator costs."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from helpers import ledger
from helpers.cli import Yaml
from litestream.client import open_client
from litestream.errors import LitestreamError
from litestream.restore import restore

AT_ONCE = 4
"""Restores that run at the same time."""


def write_directory(
    path: Path, data: Path, replica: Path, *, top: dict[str, Yaml] | None = None, **options: Yaml
) -> Path:
    """A configuration with one watched directory; options are the entry's, with _ for -."""
    entry = {"dir": str(data), "pattern": "*.db", "watch": True}
    entry |= {name.replace("_", "-"): value for name, value in options.items()}
    entry["replicas"] = [{"type": "file", "path": str(replica), "sync-interval": "50ms"}]
    path.write_text(json.dumps({**(top or {}), "dbs": [entry]}, indent=1) + "\n")
    return path


def restored(replica: Path, names: Iterable[str], scratch: Path, *, big: int = ledger.BIG) -> dict[str, int]:
    """The ledger transaction that a restore of each database gives; -1 where there is nothing to restore."""
    scratch.mkdir(exist_ok=True)
    return asyncio.run(_restored(replica, list(names), scratch, big))


async def _restored(replica: Path, names: list[str], scratch: Path, big: int) -> dict[str, int]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, name: str) -> int:
        out = scratch / f"{number}.db"
        async with turn:
            client = open_client(str(replica / name))
            try:
                await restore([("file", client)], str(out))
                return await asyncio.to_thread(ledger.check, out, big)
            except LitestreamError:
                return -1
            finally:
                await client.close()
                for suffix in ("", "-wal", "-shm"):
                    out.with_name(out.name + suffix).unlink(missing_ok=True)

    return dict(
        zip(names, await asyncio.gather(*(one(number, name) for number, name in enumerate(names))), strict=True)
    )


def wait_restored(replica: Path, wanted: dict[str, int], scratch: Path, timeout: float = 30) -> None:
    """Wait until each database restores to just that transaction."""
    end = time.monotonic() + timeout
    left = dict(wanted)
    while left:
        found = restored(replica, left, scratch)
        left = {name: n for name, n in left.items() if found[name] != n}
        assert not left or time.monotonic() < end, {name: (n, found[name]) for name, n in list(left.items())[:5]}
        time.sleep(0.1 if left else 0)


def remove(path: Path) -> None:
    """Delete a database as a person would: what is beside it too."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@dataclass(frozen=True)
class Cost:
    """What a process has now."""

    descriptors: int
    watches: int
    """Directories that inotify watches for it."""
    threads: int
    cpu: float
    """Seconds since it began."""
    rss: float
    """MB of memory."""


def cost_of(pid: int) -> Cost:
    """Look at a living process."""
    proc = Path(f"/proc/{pid}")
    watches = 0
    for number in os.listdir(proc / "fd"):
        try:
            watches += (proc / "fdinfo" / number).read_text().count("inotify wd:")
        except FileNotFoundError:
            pass  # closed since it was listed
    times = (proc / "stat").read_text().rsplit(")", 1)[1].split()
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    return Cost(
        len(os.listdir(proc / "fd")),
        watches,
        int(status["Threads"]),
        (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK"),
        int(status["VmRSS"].split()[0]) * 1024 / 1e6,
    )
