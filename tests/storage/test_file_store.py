"""The file store runs the contract, in each of its ways to write, and keeps what only files can break."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from helpers.contract import StoreContract, chunks, keys, read
from litestream import fsutil
from litestream.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from litestream.fsutil import is_temp_name
from litestream.storage import file as file_module
from litestream.storage.file import INLINE, FileStore

WAL = "generations/00000000000000aa/wal"


async def rest(reader: AsyncIterator[bytes]) -> bytes:
    """What a reader still gives."""
    return b"".join([chunk async for chunk in reader])


def leftovers(root: Path) -> list[str]:
    """Temporary files below a directory."""
    return [name for _, _, names in os.walk(root) for name in names if is_temp_name(name)]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Where the store is; in the end nothing temporary may be there, nor a thread of an idle store."""
    root = tmp_path / "replica"
    yield root
    assert leftovers(root) == []
    for thread in threading.enumerate():
        if thread.name.startswith("litestream-file"):
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def store(root: Path) -> FileStore:
    """A file store with nothing in it, not even its root."""
    return FileStore(root)


class FileStoreContract(StoreContract):
    """Files are listed all at once, and each is fsynced: fewer say as much."""

    many = 300


class TestFileStore(FileStoreContract):
    """The contract, on files."""


class TestFileStoreInThreads(FileStoreContract):
    """The contract, on a disk that is slow at every write: nothing small is written on the loop's thread."""

    @pytest.fixture(autouse=True)
    def slow(self, store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """Everything counts as slow."""
        monkeypatch.setattr(file_module, "_SLOW", -1.0)
        store._slow = True


class TestFileStoreWithoutHardLinks(FileStoreContract):
    """The contract, on a file system that has no hard links."""

    @pytest.fixture(autouse=True)
    def no_links(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """vfat knows neither RENAME_NOREPLACE nor hard links: it answers link with EPERM."""

        def link(*_: object, **__: object) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(fsutil, "rename_new", lambda *_: False)
        monkeypatch.setattr(os, "link", link)


class TestFileStoreWithHardLinks(FileStoreContract):
    """The contract, on a file system that can only link without replacing (NFS)."""

    @pytest.fixture(autouse=True)
    def links(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """NFS answers renameat2 with EINVAL."""
        monkeypatch.setattr(fsutil, "rename_new", lambda *_: False)


# -- memory, threads --------------------------------------------------------------------------------------------


async def test_64_mib_stream_in_bounded_memory(store: FileStore) -> None:
    """A stream of 64 MiB is written and read with a few MiB of memory."""
    piece = os.urandom(1 << 18)

    async def body() -> AsyncIterator[bytes]:
        for i in range(256):
            yield i.to_bytes(4, "big") + piece[4:]

    tracemalloc.start()
    try:
        assert (await store.put("big", body())).size == 64 << 20
        size = 0
        async for chunk in store.get("big"):
            assert chunk[:4] == (size >> 18).to_bytes(4, "big")
            size += len(chunk)
        assert size == 64 << 20
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


async def test_small_objects_need_no_thread(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small objects are written and read on the loop's thread, larger ones and listings are not."""
    ran: list[str] = []
    original = store._run

    async def run(fn: Callable[..., object], *args: object) -> object:
        ran.append(getattr(fn, "__name__", ""))
        return await original(fn, *args)

    monkeypatch.setattr(store, "_run", run)
    await store.put("small", b"x" * INLINE, create_only=True)
    assert len(await read(store, "small")) == INLINE
    assert ran == []
    await store.put("large", b"x" * (INLINE + 1))
    await read(store, "large")
    await store.list("")
    assert ran == ["large", "pread", "scan"]


async def test_slow_disk_leaves_the_loop(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a slow write the next ones go to a thread, until one of them is fast again."""
    threads: list[bool] = []
    fsync, delay = os.fsync, [0.08, 0.08, 0.0, 0.0]

    def slow_fsync(fd: int) -> None:
        if not os.path.isdir(f"/proc/self/fd/{fd}"):
            threads.append(threading.current_thread() is not threading.main_thread())
            threading.Event().wait(delay[len(threads) - 1])
        fsync(fd)

    await store.put("warm-up", b"")
    monkeypatch.setattr(os, "fsync", slow_fsync)
    for i in range(4):
        await store.put(f"a{i}", b"x")
    assert threads == [False, True, True, False]


# -- durability -------------------------------------------------------------------------------------------------


async def test_order_of_writes(root: Path, store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories are durable in their parents before the object is named, its bytes before, its name after."""
    log: list[str] = []
    fsync, rename, mkdir = os.fsync, fsutil.rename_new, os.mkdir

    def named(path: str) -> str:
        return os.path.relpath(path, root.parent)

    def logged_fsync(fd: int) -> None:
        name = named(os.readlink(f"/proc/self/fd/{fd}"))
        log.append("fsync temp" if name.endswith(".tmp") else f"fsync {name}")
        fsync(fd)

    def logged_rename(source: str, target: str) -> bool:
        log.append(f"rename {named(target)}")
        return rename(source, target)

    def logged_mkdir(path: str, mode: int) -> None:
        log.append(f"mkdir {named(path)}")
        mkdir(path, mode)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(fsutil, "rename_new", logged_rename)
    monkeypatch.setattr(os, "mkdir", logged_mkdir)
    await store.put("a/b/c", b"x", create_only=True)
    for parent, directory in ((".", "replica"), ("replica", "replica/a"), ("replica/a", "replica/a/b")):
        assert log.index(f"mkdir {directory}") < log.index(f"fsync {parent}") < log.index("fsync temp")
    assert log[-3:] == ["fsync temp", "rename replica/a/b/c", "fsync replica/a/b"]
    log.clear()
    await store.put("a/b/d", b"x", create_only=True)
    assert log == ["fsync temp", "rename replica/a/b/d", "fsync replica/a/b"]


async def test_directory_of_a_killed_writer(root: Path, store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories that were there already may not be durable yet: their parents are fsynced once all the same."""
    (root / "a/b").mkdir(parents=True)
    synced: list[str] = []
    fsync = os.fsync

    def logged(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", logged)
    await store.put("a/b/c", b"")
    assert {str(root.parent), str(root), str(root / "a"), str(root / "a/b")} <= set(synced)


class Failing:
    """Makes one function (of `os`, or ours) fail, once or for ever, for a directory's descriptor or a file's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, code: int, *, directory: bool | None = None) -> None:
        self.times = 1
        owner = fsutil if name == "rename_new" else os
        original = getattr(owner, name)

        def replaced(*args: object, **kwargs: object) -> object:
            wanted = directory is None or os.path.isdir(f"/proc/self/fd/{args[0]}") == directory
            if self.times and wanted:
                self.times -= 1
                raise OSError(code, os.strerror(code))
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, replaced)


@pytest.mark.parametrize("size", [10, 3 << 20])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("call", ["write", "fsync", "rename_new", "mkdir", "open"])
async def test_failing_call(
    store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, size: int
) -> None:
    """Any failing call is a StorageError with key and reason; nothing is left, and the next try succeeds."""
    failing = Failing(monkeypatch, call, code)
    with pytest.raises(StorageError) as caught:
        await store.put(f"{WAL}/x", b"x" * size, create_only=True)
    assert failing.times == 0
    assert caught.value.key == f"{WAL}/x"
    assert caught.value.permanent == (code in {errno.EACCES, errno.EROFS})
    assert os.strerror(code) in str(caught.value)
    assert f"{WAL}/x" in str(caught.value)
    assert str(root) in str(caught.value)
    assert await keys(store) == []
    assert leftovers(root) == []
    await store.put(f"{WAL}/x", b"x" * size, create_only=True)
    assert await keys(store) == [f"{WAL}/x"]


async def test_failed_fsync_of_the_directory(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that may not be durable is taken back, so that a second try cannot mistake it for success."""
    await store.put("a/first", b"")
    Failing(monkeypatch, "fsync", errno.EIO, directory=True)
    with pytest.raises(StorageError):
        await store.put("a/second", b"x", create_only=True)
    assert await keys(store) == ["a/first"]
    Failing(monkeypatch, "fsync", errno.EIO, directory=True)
    with pytest.raises(StorageError):
        await store.put("a/first", b"new")
    assert await read(store, "a/first") == b"new"  # replaced: the old content cannot come back


async def test_failed_unlink_of_the_temp_name(store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object whose second, temporary name cannot be removed is stored all the same; the name goes later."""
    monkeypatch.setattr(fsutil, "rename_new", lambda *_: False)
    Failing(monkeypatch, "unlink", errno.EIO)
    await store.put("a", b"x", create_only=True)
    assert await keys(store) == ["a"]
    assert len(leftovers(root)) == 1
    await FileStore(root).put("b", b"y")
    assert leftovers(root) == []
    assert await read(store, "a") == b"x"


async def test_short_writes(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may take fewer bytes than it was given."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:7])))
    await store.put("a", bytes(range(100)))
    assert await read(store, "a") == bytes(range(100))


@pytest.mark.parametrize("create_only", [True, False])
async def test_cancelled_while_publishing(store: FileStore, monkeypatch: pytest.MonkeyPatch, create_only: bool) -> None:
    """A put that is cancelled while its object gets its name is taken back when the thread is done."""
    entered, leave = threading.Event(), threading.Event()
    owner, name = (fsutil, "rename_new") if create_only else (os, "rename")
    original = getattr(owner, name)

    def waiting(source: str, target: str) -> object:
        entered.set()
        assert leave.wait(30)
        return original(source, target)

    monkeypatch.setattr(owner, name, waiting)
    put = asyncio.create_task(store.put("a", b"x" * (INLINE + 1), create_only=create_only))
    assert await asyncio.to_thread(entered.wait, 30)
    put.cancel()
    await asyncio.sleep(0.01)
    put.cancel()  # and the second one must not make us undo under the thread's hands
    await asyncio.sleep(0.01)
    assert not put.done()
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await put
    assert await keys(store) == []


async def test_body_is_closed_when_the_disk_is_full(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that is not read to its end is closed at once: what it holds is let go."""
    closed = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            while True:
                yield b"x" * 100_000
        finally:
            closed = True

    Failing(monkeypatch, "pwrite", errno.ENOSPC)
    with pytest.raises(StorageError, match="No space left on device"):
        await store.put("a", body())
    assert closed


# -- other processes --------------------------------------------------------------------------------------------

RACE = """
import asyncio, sys
from litestream.errors import ObjectExistsError
from litestream.storage.file import FileStore
async def main():
    store = FileStore(sys.argv[1])
    for i in range(100):
        try:
            await store.put(f"a/{i:03}", sys.argv[2].encode() * 1000, create_only=True)
            print(i)
        except ObjectExistsError:
            pass
asyncio.run(main())
"""

HANGING = """
import asyncio, sys
from litestream.storage.file import FileStore
async def body():
    yield b"x" * (3 << 20)
    print("written", flush=True)
    await asyncio.sleep(3600)
async def main():
    await FileStore(sys.argv[1]).put("a/b", body(), create_only=True)
asyncio.run(main())
"""


def program(text: str, *arguments: str) -> subprocess.Popen[str]:
    """A Python process that runs `text`."""
    return subprocess.Popen([sys.executable, "-c", text, *arguments], stdout=subprocess.PIPE, text=True)


async def test_race_of_processes(store: FileStore, root: Path) -> None:
    """Of create-only puts in several processes exactly one wins each key."""
    processes = [program(RACE, str(root), name) for name in "ABC"]
    won = {name: process.communicate(timeout=60)[0].split() for name, process in zip("ABC", processes, strict=True)}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(int(i) for numbers in won.values() for i in numbers) == list(range(100))
    for name, numbers in won.items():
        for i in numbers:
            assert await read(store, f"a/{int(i):03}") == name.encode() * 1000


async def test_killed_writer(store: FileStore, root: Path) -> None:
    """kill -9 in the middle of a put leaves no object, and what it leaves the next put there removes."""
    process = program(HANGING, str(root))
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        assert await keys(store) == []
        assert len(leftovers(root)) == 1
        await FileStore(root).put("a/beside", b"")
        assert len(leftovers(root)) == 1  # its writer lives
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    assert await keys(store) == ["a/beside"]
    assert len(leftovers(root)) == 1  # listing changes nothing
    await FileStore(root).put("a/b", b"whole")
    assert leftovers(root) == []


# -- what may be there ------------------------------------------------------------------------------------------


async def test_root_that_is_a_file(tmp_path: Path) -> None:
    """A root that is a file, or below one, is an error for every operation; it is no empty replica."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        store = FileStore(path)
        for prefix in ("", "generations/"):
            with pytest.raises(StorageError, match="Not a directory") as caught:
                await store.list(prefix)
            assert caught.value.permanent
        with pytest.raises(StorageError, match="Not a directory"):
            await store.put("a", b"")


async def test_unreadable_directory(store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be read, at any depth, is an error and never taken for an empty one."""
    await store.put("a/b/c", b"")
    await store.put("a/d", b"")
    scandir = os.scandir
    for closed in (root, root / "a" / "b"):

        def denied(path: str, closed: Path = closed) -> object:
            if Path(path) == closed:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return scandir(path)

        monkeypatch.setattr(os, "scandir", denied)
        with pytest.raises(StorageError, match="Permission denied") as caught:
            await store.list("")
        assert caught.value.permanent


async def test_root_appears_later(store: FileStore, root: Path) -> None:
    """A root that does not exist lists as empty, has no objects, and is not made by looking."""
    assert await store.list("") == []
    assert await store.list("generations/") == []
    with pytest.raises(ObjectNotFoundError):
        await read(store, "a")
    await store.delete(["a/b"])
    assert not root.exists()


async def test_root_removed_meanwhile(store: FileStore, root: Path) -> None:
    """A root or directory that somebody removes is made again by the next put."""
    await store.put("a/b/c", b"1")
    shutil.rmtree(root / "a")
    await store.put("a/b/c", b"2")
    shutil.rmtree(root)
    await store.put("a/b/d", b"3", create_only=True)
    assert await keys(store) == ["a/b/d"]


@pytest.mark.parametrize("name", [b"with space", b"per%20cent%", b"\xff\xfe", "ä".encode(), b"new\nline", b"#?*"])
async def test_odd_root_names(tmp_path: Path, name: bytes) -> None:
    """A root may have any name that a directory can have."""
    store = FileStore(os.fsdecode(os.fsencode(tmp_path) + b"/" + name + b"/r"))
    await store.put("a/b", b"x")
    assert await read(store, "a/b") == b"x"
    assert await keys(store) == ["a/b"]
    assert os.path.exists(os.fsencode(tmp_path) + b"/" + name + b"/r/a/b")
    assert store.url.encode()  # can be printed


async def test_relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative root is meant from the directory of the start, whatever happens later."""
    monkeypatch.chdir(tmp_path)
    store = FileStore("r")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    await store.put("a", b"")
    assert (tmp_path / "r" / "a").exists()


@pytest.mark.parametrize("bad", ["", "a\0b"])
def test_root_that_is_no_path(bad: str) -> None:
    """An empty path, and one with NUL, are refused."""
    with pytest.raises(StorageError):
        FileStore(bad)


@pytest.mark.timeout(30)
async def test_odd_files(store: FileStore, root: Path, tmp_path: Path) -> None:
    """Pipes, sockets, dangling and looping links, empty directories and impossible names are passed over."""
    await store.put("a/object", b"x")
    os.mkfifo(root / "a" / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(root / "a" / "socket"))
    (root / "a" / "nowhere").symlink_to("missing")
    (root / "a" / "self").symlink_to("self")
    (root / "a" / "up").symlink_to("..")
    (root / "other").symlink_to(tmp_path / "other")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "back").symlink_to(root / "a")
    (root / "a" / "empty").mkdir()
    (root / "a" / "two\nlines").write_text("")
    (root / "a" / ".x.1-0123456789abcdef.tmp").write_text("")
    os.close(os.open(os.fsencode(root) + b"/a/\xff", os.O_CREAT))
    found = await keys(store)
    assert [key for key in found if key.count("/") == 1] == ["a/object", "a/\udcff"]
    assert set(found) == {"a/object", "a/\udcff", "other/back/object", "other/back/\udcff"}
    for key in ("a/pipe", "a/socket", "a/nowhere", "a/empty"):
        with pytest.raises((ObjectNotFoundError, StorageError)):
            await read(store, key)
    with pytest.raises(StorageError, match="symbolic links"):
        await read(store, "a/self")
    (root / "a" / ".x.1-0123456789abcdef.tmp").unlink()


async def test_linked_directory(store: FileStore, root: Path, tmp_path: Path) -> None:
    """A directory, or an object, may be a link to another disk; deleting never removes the linked directory."""
    (tmp_path / "disk").mkdir()
    root.mkdir()
    (root / "generations").symlink_to(tmp_path / "disk")
    await store.put("generations/a", b"x")
    (tmp_path / "elsewhere").write_bytes(b"12345")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    assert [(info.key, info.size) for info in await store.list("")] == [("b", 5), ("generations/a", 1)]
    await store.delete(["generations/a"])
    assert (root / "generations").is_symlink()


async def test_directory_in_the_way(store: FileStore, root: Path) -> None:
    """A directory where the object should be is an error that says so, and stays."""
    (root / "a" / "full").mkdir(parents=True)
    for create_only in (True, False):
        with pytest.raises((StorageError, ObjectExistsError)) as caught:
            await store.put("a", b"x" * os.stat(root / "a").st_size, create_only=create_only)
        assert caught.value.permanent
    assert (root / "a" / "full").is_dir()


async def test_shrinking_object(store: FileStore, root: Path) -> None:
    """An object that shrinks while it is read is an error, never a short object."""
    await store.put("a", b"x" * (4 << 20))
    reader = store.get("a")
    size = len(await anext(reader))
    os.truncate(root / "a", size + 10)
    with pytest.raises(StorageError, match="shrank") as caught:
        await rest(reader)
    assert caught.value.key == "a"


async def test_replaced_while_read(store: FileStore) -> None:
    """Who reads an object while it is replaced or deleted gets the old one whole."""
    await store.put("a", b"1" * (4 << 20))
    reader = store.get("a")
    got = await anext(reader)
    await store.put("a", b"2" * (4 << 20))
    await store.delete(["a"])
    got += await rest(reader)
    assert got == b"1" * (4 << 20)


# -- deleting ---------------------------------------------------------------------------------------------------


async def test_empty_directories_go(store: FileStore, root: Path) -> None:
    """Directories that a delete leaves empty are removed, but not the root: official programs list directories."""
    await store.put(f"{WAL}/1", b"")
    await store.put("generations/00000000000000bb/wal/1", b"")
    await store.delete([f"{WAL}/1"])
    assert os.listdir(root / "generations") == ["00000000000000bb"]
    await store.delete(["generations/00000000000000bb/wal/1"])
    assert os.listdir(root) == []
    await store.put(f"{WAL}/1", b"")


async def test_delete_with_a_leftover(store: FileStore, root: Path) -> None:
    """A dead writer's temporary file does not keep a deleted directory alive."""
    await store.put("a/b", b"")
    (root / "a" / f".x.{os.getpid()}-0123456789abcdef.tmp").write_text("")
    await store.delete(["a/b"])
    assert not (root / "a").exists()


async def test_put_beside_deletes(store: FileStore) -> None:
    """Puts succeed while deletes remove the very directories they need."""
    done = False

    async def deletes() -> None:
        while not done:
            await store.delete(["a/b/old"])
            await asyncio.sleep(0)

    remover = asyncio.create_task(deletes())
    for i in range(40):
        await store.put("a/b/old", b"")
        await store.put(f"c{i}/d", chunks(b"x" * (INLINE + 1)))
        await store.put("a/b/old", b"y" * (INLINE + 1))
    done = True
    await remover
    assert len([key for key in await keys(store) if key.startswith("c")]) == 40


async def test_failed_delete(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delete that the system refuses names the object."""
    await store.put("a/b", b"")
    Failing(monkeypatch, "unlink", errno.EPERM)
    with pytest.raises(StorageError, match="cannot delete a/b: Operation not permitted") as caught:
        await store.delete(["a/b"])
    assert (caught.value.key, caught.value.permanent) == ("a/b", True)


async def test_object_that_comes_and_goes(store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that is deleted before it can be compared is tried again, but not for ever."""
    rename, gone = fsutil.rename_new, [2]

    def taken(source: str, target: str) -> bool:
        if gone[0]:
            gone[0] -= 1
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        return rename(source, target)

    monkeypatch.setattr(fsutil, "rename_new", taken)
    await store.put("a", b"x", create_only=True)
    gone[0] = 1000
    with pytest.raises(StorageError, match="comes and goes"):
        await store.put("b", b"x", create_only=True)
    assert await keys(store) == ["a"]


async def test_directory_that_never_stays(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is gone again each time it was made ends in an error, not in a loop."""
    prepare = store._prepare

    def pruned(directory: str) -> None:
        prepare(directory)
        os.rmdir(directory)

    monkeypatch.setattr(store, "_prepare", pruned)
    with pytest.raises(StorageError, match="No such file or directory"):
        await store.put("a/b", b"")


async def test_closed_directory_above_the_root(store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory above an existing root need not be readable."""
    root.mkdir()
    original = os.open

    def closed(path: str, flags: int, mode: int = 0o777) -> int:
        if Path(path) == root.parent:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return original(path, flags, mode)

    monkeypatch.setattr(os, "open", closed)
    await store.put("a/b", b"")
    assert await keys(store) == ["a/b"]


# -- modes ------------------------------------------------------------------------------------------------------


def modes(root: Path) -> tuple[set[int], set[int]]:
    """The modes of the directories and of the files below and including `root`."""
    dirs, files = {os.stat(root).st_mode & 0o7777}, set[int]()
    for path in root.rglob("*"):
        (dirs if path.is_dir() else files).add(os.stat(path).st_mode & 0o7777)
    return dirs, files


@pytest.fixture
def no_umask() -> Iterator[None]:
    """The widest umask: what is narrow then is narrow by our own will."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
async def test_default_modes(store: FileStore, root: Path) -> None:
    """Directories are 0700 and files 0600, temporary ones too, whatever the umask."""

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * (INLINE + 1)
        yield b"x" * (2 << 20)
        assert leftovers(root)
        assert modes(root) == ({0o700}, {0o600})
        yield b"y"

    await store.put("a/b/c", body())
    assert modes(root) == ({0o700}, {0o600})


async def test_given_modes(root: Path) -> None:
    """Modes that are given hold also against a narrower umask."""
    before = os.umask(0o077)
    try:
        await FileStore(root, dir_mode=0o750, file_mode=0o640).put("a/b", b"")
    finally:
        os.umask(before)
    assert modes(root) == ({0o750}, {0o640})


async def test_owner_that_may_not_be_given(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the owner cannot be given the group and others get nothing: it is not the same group."""

    def fchown(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchown", fchown)
    store = FileStore(root, dir_mode=0o755, file_mode=0o644, owner=(os.getuid() + 1, os.getgid() + 1))
    await store.put("a/b", b"")
    assert modes(root) == ({0o700}, {0o600})


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
async def test_owner(root: Path) -> None:
    """New directories and files belong to the owner that was given."""
    await FileStore(root, dir_mode=0o750, file_mode=0o640, owner=(12345, 23456)).put("a/b", b"")
    for path in (root, root / "a", root / "a" / "b"):
        status = os.stat(path)
        assert (status.st_uid, status.st_gid) == (12345, 23456)
    assert modes(root) == ({0o750}, {0o640})
