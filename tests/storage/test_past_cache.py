"""Streams that the file store writes past the page cache: where that is possible, refused, or the disk is full."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from litestream.direct import Appender, Direct
from litestream.errors import StorageError
from litestream.fsutil import is_temp_name
from litestream.storage.file import FileStore

CONTENT = os.urandom(1 << 20) * 4 + b"the end of it"
"""Four times what is written at once, and an odd rest."""
MIB = 1 << 20


@pytest.fixture(params=["", "/dev/shm"], ids=["disk", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk, and one of a file system that may or may not write past the cache."""
    if request.param and not os.path.isdir(request.param):
        pytest.skip("there is none")
    with tempfile.TemporaryDirectory(dir=request.param or tmp_path) as path:
        yield Path(path)
        assert not [name for _, _, names in os.walk(path) for name in names if is_temp_name(name)]


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each write past the cache has taken."""
    taken: list[int] = []
    original = Direct.write_aligned

    def counted(self: Direct, data: memoryview, offset: int) -> int:
        taken.append(original(self, data, offset))
        return taken[-1]

    monkeypatch.setattr(Direct, "write_aligned", counted)
    return taken


async def body(size: int = 300_001) -> AsyncIterator[bytes]:
    """The content in pieces that fit nothing."""
    for at in range(0, len(CONTENT), size):
        yield CONTENT[at : at + size]


def supported(folder: Path) -> bool:
    """Whether the file system takes such writes."""
    fd = os.open(folder / "probe", os.O_CREAT | os.O_RDWR)
    try:
        with open(folder / "probe", "r+b") as file:
            probe = Direct(file.fileno())
            appender = Appender(file.fileno())
            done = probe.write_aligned(appender._buffer, 0)
            probe.close()
            appender.close()
            return done > 0
    finally:
        os.close(fd)
        os.unlink(folder / "probe")


@pytest.mark.parametrize("size", [4, 300_001, MIB, 3 * MIB])
async def test_streamed_past_the_cache(root: Path, direct: list[int], size: int) -> None:
    """A large stream is stored exactly, its odd end too, and all whole pieces of it past the cache."""
    past = supported(root)
    direct.clear()
    pieces = body(size) if size > 4 else _tiny()
    info = await FileStore(root, file_mode=0o640).put("a/b", pieces)
    assert (root / "a/b").read_bytes() == CONTENT
    assert stat.S_IMODE((root / "a/b").stat().st_mode) == 0o640
    assert info.size == len(CONTENT)
    assert sum(direct) == (4 * MIB if past else 0)


async def _tiny() -> AsyncIterator[bytes]:
    """A large piece between small ones, as in a snapshot."""
    yield CONTENT[:4]
    yield CONTENT[4:-4]
    yield CONTENT[-4:]


@pytest.mark.parametrize("size", [1, MIB - 1])
async def test_small_streams_stay_with_the_cache(root: Path, direct: list[int], size: int) -> None:
    """What is less than one piece is written as any other small object."""

    async def small() -> AsyncIterator[bytes]:
        yield CONTENT[:size]

    await FileStore(root).put("a", small())
    assert (root / "a").read_bytes() == CONTENT[:size]
    assert direct == []


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
async def test_refused_when_opened(root: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A file system that opens no file so gets ordinary writes."""
    refused = 0
    original = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, **more: int) -> int:
        nonlocal refused
        if flags & os.O_DIRECT:
            refused += 1
            raise OSError(code, os.strerror(code), path)
        return original(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", refuse)
    await FileStore(root).put("a", body())
    assert refused == 1
    assert (root / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("at", [0, 2])
async def test_refused_when_written(root: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The same where a write is refused, the first one or a later one; it is not tried again."""
    if not supported(root):
        pytest.skip("the file system cannot do it")
    asked = _pwrite(monkeypatch, at, lambda _fd, _data, _offset: _raise(errno.EINVAL))
    await FileStore(root).put("a", body())
    assert (root / "a").read_bytes() == CONTENT
    assert asked() == 6  # four pieces and the end, and the one that was refused


async def test_short_write(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a write did not take, in the middle of a block even, is written after it."""
    original = os.pwrite
    _pwrite(monkeypatch, 1, lambda fd, data, offset: original(fd, data[: 5 * 4096], offset) - 100)
    await FileStore(root).put("a", body())
    assert (root / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("at", [0, 2, 4])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_full_disk(root: Path, monkeypatch: pytest.MonkeyPatch, at: int, code: int) -> None:
    """A disk or a quota that is full, at the beginning, in the middle or at the odd end, leaves no object."""
    store = FileStore(root)
    with monkeypatch.context() as patched:
        _pwrite(patched, at, lambda _fd, _data, _offset: _raise(code))
        with pytest.raises(StorageError, match=f"cannot write a/b: {os.strerror(code)} .free space there"):
            await store.put("a/b", body())
    assert await store.list("") == []
    await store.put("a/b", body())
    assert (root / "a/b").read_bytes() == CONTENT


async def test_durable_and_closed_before_its_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the file gets its name all of it was synced after the last write, and nothing has it open for writing."""
    calls: list[str] = []
    open_for_writing: list[str] = []
    original: dict[str, Callable[..., object]] = {"pwrite": os.pwrite, "fsync": os.fsync}
    for name, call in original.items():

        def logged(fd: int, *rest: object, name: str = name, call: Callable[..., object] = call) -> object:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                calls.append(name)
            return call(fd, *rest)

        monkeypatch.setattr(os, name, logged)
    rename = os.rename

    def renamed(temp: str, path: str) -> None:
        calls.append("rename")
        for fd in os.listdir("/proc/self/fd"):
            flags = _flags(fd, temp)
            if flags is not None and flags & os.O_ACCMODE != os.O_RDONLY:
                open_for_writing.append(fd)
        rename(temp, path)

    monkeypatch.setattr(os, "rename", renamed)
    await FileStore(root).put("a", body())
    assert calls[-3:] == ["pwrite", "fsync", "rename"]
    assert open_for_writing == []


def _flags(fd: str, path: str) -> int | None:
    """The flags of a descriptor of this process; None if it is of another file."""
    try:
        if os.readlink(f"/proc/self/fd/{fd}") != path:
            return None
        with open(f"/proc/self/fdinfo/{fd}") as file:
            return int(dict(line.split(":\t") for line in file)["flags"], 8)
    except FileNotFoundError:
        return None


def _raise(code: int) -> int:
    raise OSError(code, os.strerror(code))


def _pwrite(
    monkeypatch: pytest.MonkeyPatch, at: int, instead: Callable[[int, memoryview, int], int]
) -> Callable[[], int]:
    """Replace one call of pwrite, the one after `at` others. Returns how many there were."""
    calls = 0
    original = os.pwrite

    def replaced(fd: int, data: memoryview, offset: int) -> int:
        nonlocal calls
        calls += 1
        return instead(fd, data, offset) if calls == at + 1 else original(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", replaced)
    return lambda: calls
