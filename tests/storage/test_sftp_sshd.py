"""SFTP on OpenSSH: the two suites, and what only files on a server can do."""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from helpers.contract import StoreContract, chunks, keys, read
from helpers.netcontract import NetworkContract
from helpers.peak import memory_of_a_stream
from helpers.servers.sshd import SSHD
from helpers.tcpproxy import TCPProxy
from litestream.errors import ObjectExistsError, StorageError
from litestream.storage.protocol import Store
from litestream.storage.sftp import SFTPConfig

pytestmark = pytest.mark.xdist_group("sshd")


def config(sshd: SSHD, **settings: Any) -> SFTPConfig:  # noqa: ANN401 - each setting has a type of its own
    """The server, a new directory, and the right key."""
    defaults = {
        "host": f"127.0.0.1:{sshd.port}",
        "user": sshd.user,
        "path": str(sshd.folder()),
        "key_path": str(sshd.key),
        "host_key": sshd.host_key,
    }
    return SFTPConfig.from_settings({**defaults, **settings})


class TestSFTP(StoreContract, NetworkContract):
    """With a key, and the server's key pinned."""

    many = 600  # six times what a server gives of a directory at once
    has_tls = False
    has_missing = False
    credential_hint = r"key-path"

    @pytest.fixture(autouse=True)
    def server(self, sshd: SSHD) -> None:
        """One directory per test."""
        self.sshd = sshd
        self.upstream_port = sshd.port
        self.path = str(sshd.folder())

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        """A store in it."""
        store = self.open_at(self.upstream_port)
        yield store
        await store.close()

    def open_at(self, port: int, *, tls: bool = False, wrong_credentials: bool = False, missing: bool = False) -> Store:
        """The store at a port."""
        key = self.sshd.stranger if wrong_credentials else self.sshd.key
        return config(self.sshd, host=f"127.0.0.1:{port}", path=self.path, key_path=str(key)).open()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., SSHD]]:
    """Starts servers of this test's own."""
    started: list[SSHD] = []

    def start(**options: Any) -> SSHD:  # noqa: ANN401 - those of the server
        started.append(SSHD(tmp_path / f"sshd{len(started)}", kinds=["ed25519"], **options))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.stop()


@asynccontextmanager
async def opened(config: SFTPConfig) -> AsyncIterator[Store]:
    """A store, closed afterwards without leaving a task."""
    before = asyncio.all_tasks()
    store = config.open()
    try:
        yield store
    finally:
        await store.close()
        await asyncio.sleep(0)
        assert not asyncio.all_tasks() - before


def files(root: Path) -> list[str]:
    """All files and directories there, relative, directories with a slash."""
    return sorted(str(path.relative_to(root)) + "/" * path.is_dir() for path in root.rglob("*"))


async def test_tree(sshd: SSHD) -> None:
    """Objects are files of their keys' names, private to the user; no temporary file stays."""
    setup = config(sshd)
    async with opened(setup) as store:
        await store.put("generations/g/wal/1", b"x", create_only=True)
        await store.put("generations/g/snapshots/1", chunks(b"x" * 3_000_000))
        await store.put("generations/g/wal/1", b"x", create_only=True)
        await store.put("generations/g/wal/1", b"yy")
        assert store.conditional
    root = Path(setup.path)
    assert files(root) == [
        "generations/",
        "generations/g/",
        "generations/g/snapshots/",
        "generations/g/snapshots/1",
        "generations/g/wal/",
        "generations/g/wal/1",
    ]
    modes = {oct(path.stat().st_mode & 0o777) for path in root.rglob("*") if path.is_file()}
    assert modes == {"0o600"}
    assert {oct(path.stat().st_mode & 0o777) for path in [root, *root.rglob("*")] if path.is_dir()} == {"0o700"}


async def test_directories_go_when_empty(sshd: SSHD) -> None:
    """The official programs take an empty directory for a generation, so none stays; the replica's own does."""
    setup = config(sshd)
    async with opened(setup) as store:
        for key in ("generations/g/wal/1", "generations/g/wal/2", "generations/h/wal/1"):
            await store.put(key, b"x")
        await store.delete(["generations/g/wal/1", "generations/g/wal/2"])
        assert files(Path(setup.path)) == [
            "generations/",
            "generations/h/",
            "generations/h/wal/",
            "generations/h/wal/1",
        ]
        await store.delete(["generations/h/wal/1"])
        assert files(Path(setup.path)) == []
        await store.put("generations/g/wal/3", b"x")  # its directory was known, and is gone
        assert await keys(store) == ["generations/g/wal/3"]


async def test_leftovers(sshd: SSHD) -> None:
    """What a killed writer left is removed by the first put beside it after an hour; no other file ever."""
    setup = config(sshd)
    folder = Path(setup.path) / "d"
    folder.mkdir(parents=True)
    old, young, foreign = (folder / name for name in (f".a.1-{16 * '0'}.tmp", f".a.2-{16 * '1'}.tmp", ".a.tmp"))
    for path in (old, young, foreign):
        path.write_bytes(b"x")
        os.utime(path, (time.time() - 3700, time.time() - 3700))
    os.utime(young)
    async with opened(setup) as store:
        assert await keys(store) == ["d/.a.tmp"]
        await store.put("d/b", b"x")
        assert sorted(path.name for path in folder.iterdir()) == [".a.2-1111111111111111.tmp", ".a.tmp", "b"]
        os.utime(young, (1, 1))
        foreign.unlink()
        await store.delete(["d/b"])
        assert not folder.exists()


async def test_foreign_files(sshd: SSHD) -> None:
    """Links, pipes, directories and names that are no keys are ignored in a listing, and harm nothing."""
    setup = config(sshd)
    root = Path(setup.path)
    (root / "a" / "empty").mkdir(parents=True)
    (root / "a" / "file").write_bytes(b"1")
    (root / "a" / "link").symlink_to("file")
    (root / "loop").symlink_to(".")
    (root / "a\nb").write_bytes(b"x")
    os.mkfifo(root / "pipe")
    (root / os.fsdecode(b"\xff\xfe")).write_bytes(b"22")
    async with opened(setup) as store:
        assert [(info.key, info.size) for info in await store.list("")] == [("a/file", 1), ("\udcff\udcfe", 2)]
        assert await read(store, "\udcff\udcfe") == b"22"
        await store.delete(["a", "a/empty", "a/none"])
        assert await keys(store, "a/") == ["a/file"]


async def test_relative_path(sshd: SSHD) -> None:
    """A relative path begins where the user arrives, and `/~/` in a URL is the same."""
    name = f"litestream-test-{secrets.token_hex(8)}"
    setup = config(sshd, path=f"{name}/x")
    home = Path.home() if sshd.user == getpass.getuser() else Path("/root")
    try:
        async with opened(setup) as store:
            await store.put("a", b"x")
        assert (home / name / "x" / "a").read_bytes() == b"x"
        again = SFTPConfig.from_url(setup.url, key_path=setup.key_path, host_key=setup.host_key)
        async with opened(again) as store:
            assert await keys(store) == ["a"]
    finally:
        shutil.rmtree(home / name, ignore_errors=True)


async def test_one_piece_at_a_time(sshd: SSHD) -> None:
    """With concurrent-writes off, files are the same."""
    data = os.urandom(3_000_000)
    async with opened(config(sshd, concurrent_writes=False)) as store:
        await store.put("a", chunks(data[:100], data[100:]))
        assert await read(store, "a") == data


async def test_one_connection(sshd: SSHD) -> None:
    """All operations share one connection, however many begin at once."""
    with TCPProxy(sshd.port) as proxy:
        async with opened(config(sshd, host=f"127.0.0.1:{proxy.port}")) as store:
            await asyncio.gather(*(store.put(f"a/{number}", b"x") for number in range(40)))
            assert len(await store.list("")) == 40
        assert proxy.connections == 1


async def test_killed_and_started_again(server: Callable[..., SSHD], caplog: pytest.LogCaptureFixture) -> None:
    """A server that dies under an upload is an error; when it is back the same store works. Nothing is logged."""
    caplog.set_level(logging.INFO)
    sshd = server()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b"x" * (1 << 20)
        await asyncio.to_thread(sshd.stop)
        while True:
            yield b"x" * (1 << 20)

    async with opened(config(sshd)) as store:
        await store.put("old", b"old")
        with pytest.raises(StorageError) as caught:
            await store.put("new", body())
        assert not caught.value.permanent
        assert caught.value.code == "Connection"
        with pytest.raises(StorageError, match="refused") as caught:
            await store.list("")
        assert not caught.value.permanent
        await asyncio.to_thread(sshd.start)
        assert await keys(store) == ["old"]
        await store.put("new", b"new")
        assert await read(store, "new") == b"new"
        # And once more while nothing is under way.
        await asyncio.to_thread(sshd.stop)
        await asyncio.sleep(0.1)
        await asyncio.to_thread(sshd.start)
        assert await read(store, "new") == b"new"
    assert not caplog.records


async def test_read_only_server(server: Callable[..., SSHD]) -> None:
    """A server that lets us read only: a permanent error that names the object and what to look at."""
    sshd = server(subsystem="sftp internal-sftp -R")
    setup = config(sshd)
    Path(setup.path).mkdir(parents=True)
    (Path(setup.path) / "a").write_bytes(b"x")
    async with opened(setup) as store:
        assert await read(store, "a") == b"x"
        for work in (store.put("b", b"x"), store.put("d/b", b"x", create_only=True), store.delete(["a"])):
            with pytest.raises(StorageError, match="permission denied") as caught:
                await work
            assert (caught.value.permanent, caught.value.code) == (True, "AccessDenied")
            assert caught.value.key in {"a", "b", "d/b"}
        assert await keys(store) == ["a"]


async def test_forbidden_links(server: Callable[..., SSHD]) -> None:
    """Where hard links are forbidden, objects are renamed into place, and no other is ever overwritten."""
    sshd = server(subsystem="sftp internal-sftp -P hardlink")
    setup = config(sshd)
    async with opened(setup) as store:
        await store.put("a/b", b"1", create_only=True)
        await store.put("a/b", b"1", create_only=True)
        with pytest.raises(ObjectExistsError):
            await store.put("a/b", b"2", create_only=True)
        await store.put("a/c", b"3")
        await store.put("a/c", b"4")
        assert not store.conditional
        assert (await read(store, "a/b"), await read(store, "a/c")) == (b"1", b"4")
    assert files(Path(setup.path)) == ["a/", "a/b", "a/c"]


async def test_no_sftp(server: Callable[..., SSHD]) -> None:
    """A server that lets us in and offers no SFTP says so."""
    sshd = server(subsystem="")
    async with opened(config(sshd)) as store:
        with pytest.raises(StorageError, match="no SFTP session") as caught:
            await store.list("")
        assert caught.value.code == "Unavailable"


async def test_no_ssh(sshd: SSHD) -> None:
    """Something else than SSH on the port is an error of one line, in time."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        async with opened(config(sshd, host=f"127.0.0.1:{port}")) as store:
            with pytest.raises(StorageError) as caught:
                await asyncio.wait_for(store.list(""), 20)
            assert caught.value.code in {"Connection", "Handshake"}
            assert "\n" not in str(caught.value)


async def test_unknown_name(sshd: SSHD) -> None:
    """A host name that does not exist is a temporary error: name servers fail."""
    async with opened(config(sshd, host="no-such-host.invalid")) as store:
        with pytest.raises(StorageError, match="resolved") as caught:
            await store.list("")
        assert (caught.value.permanent, caught.value.code) == (False, "Connection")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system of this test's own can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_full_disk(sshd: SSHD, small: Path) -> None:
    """A full disk is an error that says so, leaves no file, and is over when there is room again."""
    async with opened(config(sshd, path=str(small))) as store:
        with pytest.raises(StorageError, match="full") as caught:
            await store.put("a", b"x" * (3 << 20))
        assert (caught.value.permanent, caught.value.code) == (False, "DiskFull")
        assert files(small) == []
        await store.put("a", b"x" * 1000)


def test_memory(sshd: SSHD) -> None:
    """64 MiB go there and back in less than 24 MiB of memory."""
    assert max(memory_of_a_stream(config(sshd), 64, warm=6)) < 24
