"""Writing past the page cache: what is written, where it is not possible, and which restores do it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.recorded import history as history
from helpers.recording import GENERATION, Recording, memory_store, replica
from litestream.client import ReplicaClient
from litestream.core.layout import V03
from litestream.direct import ALIGNMENT, SMALLEST, Direct, aligned
from litestream.restore import IntegrityCheck, RestoreOptions, pages, restore
from litestream.restore.pages import MAGIC, PageWriter
from litestream.streams import compress

CONTENT = os.urandom(1 << 20) * 5 + b"the end"
LARGE = 70 << 20


@pytest.fixture(params=["", "/dev/shm"], ids=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk, and one of a file system that may or may not write past the cache."""
    if not request.param:
        yield tmp_path
    elif os.path.isdir(request.param):
        with tempfile.TemporaryDirectory(dir=request.param) as path:
            yield Path(path)
    else:
        pytest.skip("there is none")


class Counted(Direct):
    """Remembers how much it wrote."""

    total = 0

    def write(self, data: memoryview, offset: int) -> int:
        done = super().write(data, offset)
        Counted.total += done
        return done


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counted]:
    """What restores of this test write past the page cache."""
    monkeypatch.setattr(pages, "Direct", Counted)
    monkeypatch.setattr(Counted, "total", 0)
    return Counted


def supported(folder: Path) -> bool:
    try:
        os.close(os.open(folder / "probe", os.O_CREAT | os.O_RDWR | os.O_DIRECT))
    except OSError:
        return False
    return os.path.isdir("/proc/self/fd")


@pytest.mark.parametrize("offset", [0, 3 * ALIGNMENT])
def test_written_past_the_cache(folder: Path, offset: int) -> None:
    """All but what is behind the last whole block is written, more than fits the buffer as well, at its place."""
    with open(folder / "f", "w+b") as file:
        direct = Direct(file.fileno())
        done = direct.write(memoryview(CONTENT), offset)
        direct.close()
        assert done == (5 << 20 if supported(folder) else 0)
        assert file.read() == (bytes(offset) + CONTENT[:done] if done else b"")


def test_written_from_where_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What begins at a page of memory is written without a copy; from an odd place, or read-only, with one."""
    memory = aligned(6 << 20)
    memory[:] = (CONTENT + CONTENT)[: len(memory)]
    wrote: list[object] = []
    write = os.pwrite

    def noting(fd: int, data: memoryview, offset: int) -> int:
        wrote.append(data.obj)
        return write(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", noting)
    with open(folder / "f", "w+b") as file:
        direct = Direct(file.fileno())
        for data, copied in (
            (memory[: 2 << 20], False),
            (memory[8 : (2 << 20) + 8], True),
            (memory.toreadonly(), True),
        ):
            wrote.clear()
            done = direct.write(data, 0)
            assert done == (len(data) if supported(folder) else 0)
            if done:
                assert (wrote[0] is not memory.obj) == copied
                assert os.pread(file.fileno(), done, 0) == data
        direct.close()


def test_what_stays_with_the_cache(tmp_path: Path) -> None:
    """Small writes, odd places, and everything after the end are left to the caller."""
    with open(tmp_path / "f", "w+b") as file:
        direct = Direct(file.fileno())
        assert direct.write(memoryview(CONTENT)[: SMALLEST - 1], 0) == 0
        assert direct.write(memoryview(CONTENT), 512) == 0
        direct.close()
        direct.close()
        assert direct.write(memoryview(CONTENT), 0) == 0
        assert file.read() == b""


@pytest.mark.parametrize("refusal", [errno.EINVAL, errno.EOPNOTSUPP])
def test_refused_at_the_first_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int) -> None:
    """A file system that opens the file so, but takes no such write, gets ordinary writes."""

    def refuse(_fd: int, _data: object, _offset: int) -> int:
        raise OSError(refusal, os.strerror(refusal))

    with open(tmp_path / "f", "w+b") as file:
        direct = Direct(file.fileno())
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", refuse)
            assert direct.write(memoryview(CONTENT), 0) == 0
        assert direct.write(memoryview(CONTENT), 0) == 0  # not tried again
        with PatchedWriter(file.fileno()) as writer:
            writer.fill(0, CONTENT[: 1280 * 4096])
        assert file.read() == CONTENT[: 1280 * 4096]


class PatchedWriter:
    """A writer of 1280 pages, 5 MiB."""

    def __init__(self, fd: int) -> None:
        self.writer = PageWriter(fd, 4096, max_bytes=LARGE)
        self.writer.begin(1280, "k")

    def __enter__(self) -> PageWriter:
        return self.writer

    def __exit__(self, *_: object) -> None:
        self.writer.close()


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk says otherwise is not swallowed."""

    def full(_fd: int, _data: object, _offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if not supported(tmp_path):
        pytest.skip("the file system cannot do it")
    with open(tmp_path / "f", "w+b") as file:
        direct = Direct(file.fileno())
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            direct.write(memoryview(CONTENT), 0)
        direct.close()


async def _restore(objects: dict[str, tuple[bytes, float]], out: Path, check: IntegrityCheck) -> None:
    options = RestoreOptions(integrity_check=check)
    await restore([("r", ReplicaClient(memory_store(objects)))], str(out), options=options)


@pytest.mark.parametrize("check", ["none", "quick"])
async def test_large_database(folder: Path, counted: type[Counted], check: IntegrityCheck) -> None:
    """A large snapshot is restored exactly; past the page cache where SQLite's check does not read it at once."""
    image = _large(folder)

    await _restore({V03.snapshot_key(GENERATION, 0): (compress(image), 1.0)}, folder / "out.db", check)

    assert (folder / "out.db").read_bytes() == image
    assert counted.total == (len(image) if check == "none" and supported(folder) else 0)


def _large(folder: Path) -> bytes:
    """A database of 70 MiB and a page, made by SQLite."""
    code = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1])\n"
        "db.execute('PRAGMA page_size=4096')\n"
        "db.execute('CREATE TABLE t(b)')\n"
        f"db.execute('INSERT INTO t VALUES(zeroblob({LARGE}))')\n"
        "db.commit()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder / "app.db")], check=True)
    image = (folder / "app.db").read_bytes()
    (folder / "app.db").unlink()
    assert image.startswith(MAGIC)
    assert len(image) % (4 << 20)
    return image


async def test_mixed_with_the_cache(
    history: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: type[Counted]
) -> None:
    """Pages of 512 bytes are never written past the cache, whatever the size: two writers would share a block."""
    monkeypatch.setattr(pages, "_LARGE", 0)

    await _restore(replica(history), tmp_path / "out.db", "none")

    assert (tmp_path / "out.db").read_bytes() == history.last.image
    assert history.page_size == 512
    assert counted.total == 0


def test_pages_of_the_wal_stay(folder: Path, monkeypatch: pytest.MonkeyPatch, counted: type[Counted]) -> None:
    """Around pages that the WAL gave, long runs go past the cache and short ones through it; none is overwritten."""
    monkeypatch.setattr(pages, "_LARGE", 0)
    given = [3, 4, 700, 1280]
    with open(folder / "f", "w+b") as file:
        writer = PageWriter(file.fileno(), 4096, max_bytes=LARGE, reread=False)
        writer.begin(1280, "k")
        for number in given:
            writer._seen[number] = 1
            pages.write_at(file.fileno(), memoryview(b"W" * 4096), (number - 1) * 4096)
        writer.fill(0, CONTENT[: 1 << 22])
        writer.fill(1 << 22, CONTENT[1 << 22 : 5 << 20])
        writer.close()
        expected = bytearray(CONTENT[: 5 << 20])
        for number in given:
            expected[(number - 1) * 4096 : number * 4096] = b"W" * 4096
        assert file.read() == expected
    runs = [(699 - 4) * 4096, (1024 - 700) * 4096, (1279 - 1024) * 4096]
    assert counted.total == (sum(run for run in runs if run >= SMALLEST) if supported(folder) else 0)
