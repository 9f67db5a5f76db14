"""Restores from a directory: segments are read there in groups, each in one hop to a thread."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path

import pytest

from helpers.recorded import history as history
from helpers.recording import GENERATION, Recording, replica, write_tree
from litestream.client import open_client
from litestream.core.layout import V03
from litestream.errors import CorruptObjectError
from litestream.restore import RestoreOptions, fetch, restore
from litestream.restore import segment as segment_module
from litestream.storage.file import FileStore


def _first_only(recording: Recording, *, stamped: bool = True) -> dict[str, tuple[bytes, float]]:
    """A replica with the first snapshot alone, so that all of the WAL is needed; a segment for every commit."""
    first = V03.snapshot_key(GENERATION, 0)
    return {k: v for k, v in replica(recording, stamped=stamped).items() if ".snapshot" not in k or k == first}


@pytest.mark.parametrize(
    ("count", "content", "spooled"), [(1, 1 << 20, False), (3, 1 << 20, False), (64, 9000, False), (64, 9000, True)]
)
@pytest.mark.parametrize("stamped", [True, False])
async def test_in_groups(
    count: int,
    content: int,
    spooled: bool,
    stamped: bool,
    history: Recording,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However the segments are grouped, and wherever a group ends for its content: the same database, all counted."""
    monkeypatch.setattr(fetch, "_GROUP", count)
    monkeypatch.setattr(fetch, "_GROUP_CONTENT", content)
    monkeypatch.setattr(fetch, "_INLINE", 100)
    monkeypatch.setattr(segment_module, "IN_MEMORY", 3000 if spooled else 6 << 20)
    objects = _first_only(history, stamped=stamped)
    client = open_client(str(write_tree(objects, tmp_path / "replica")))
    told: list[int] = []

    result = await restore(
        [("file", client)], str(tmp_path / "out.db"), progress=lambda done, _total: told.append(done)
    )

    assert (tmp_path / "out.db").read_bytes() == history.last.image
    read = sum(len(data) for data, _ in objects.values())
    assert result.fetched == read if stamped else result.fetched >= read
    assert told == sorted(told)


async def test_damage_in_a_group(history: Recording, tmp_path: Path) -> None:
    """Of a group with several damaged segments the newest is named, as if they had been read one by one."""
    objects = _first_only(history)
    keys = sorted(key for key in objects if ".wal" in key)
    for key in (keys[2], keys[-3]):
        data, when = objects[key]
        objects[key] = data[:20] + bytes([data[20] ^ 1]) + data[21:], when
    client = open_client(str(write_tree(objects, tmp_path / "replica")))

    with pytest.raises(CorruptObjectError, match=keys[-3]):
        await restore([("file", client)], str(tmp_path / "out.db"))

    assert not (tmp_path / "out.db").exists()


async def test_given_up_while_a_group_is_read(
    history: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a thread has unpacked for a restore that was cancelled meanwhile is let go: no file stays open."""
    monkeypatch.setattr(segment_module, "IN_MEMORY", 3000)
    read, begun = FileStore.read_blocking, asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(store: FileStore, key: str) -> bytes:
        loop.call_soon_threadsafe(begun.set)
        time.sleep(0.05)
        return read(store, key)

    monkeypatch.setattr(FileStore, "read_blocking", slow)
    client = open_client(str(write_tree(_first_only(history), tmp_path / "replica")))
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    task = asyncio.create_task(
        restore([("file", client)], str(tmp_path / "out.db"), options=RestoreOptions(integrity_check="none"))
    )
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gc.collect()

    assert not before or len(os.listdir("/proc/self/fd")) <= len(before)
    assert os.listdir(tmp_path) == ["replica"]
