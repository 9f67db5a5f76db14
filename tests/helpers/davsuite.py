"""What every WebDAV server must do with our store: both suites, and what is special to files on such a server."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from helpers.contract import chunks, keys, read
from helpers.netcontract import NetworkContract
from helpers.remotecontract import SentContract
from helpers.servers.dav import PASSWORD, USER, DAVServer
from litestream.errors import ObjectExistsError, StorageError
from litestream.storage.keys import is_key
from litestream.storage.protocol import Store
from litestream.storage.webdav import WebDAVConfig

WRONG = "wrong-password-of-webdav"
TEMP = ".put.1-0123456789abcdef.tmp"


class DAVSuite(SentContract, NetworkContract):
    """Subclasses give the autouse fixture `server`, which calls `use`."""

    secrets = (PASSWORD, quote(PASSWORD, safe=""), WRONG)
    credential_hint = r"webdav-username.*webdav-password"
    part = 16 << 20
    many = 600  # a directory is listed in one answer

    place: Path

    def use(self, server: DAVServer) -> None:
        """Work in a new directory of the server."""
        self.dav = server
        self.upstream_port = server.port
        self.place = server.new_place()

    def open_at(self, port: int, *, tls: bool = False, wrong_credentials: bool = False, missing: bool = False) -> Store:
        """A store in `some/path` below the place of the test."""
        return self.config(
            port,
            scheme="https" if tls else "http",
            folder=f"{self.place.name}/not/there" if missing else self.place.name,
            password=WRONG if wrong_credentials else PASSWORD,
        ).open()

    def config(
        self,
        port: int = 0,
        *,
        scheme: str = "http",
        folder: str = "",
        password: str = PASSWORD,
        path: str = "some/path",
    ) -> WebDAVConfig:
        """The settings of a store in this test's place."""
        return WebDAVConfig(
            webdav_url=f"{scheme}://127.0.0.1:{port or self.upstream_port}/{quote(folder or self.place.name)}/",
            webdav_username=USER,
            webdav_password=password,
            path=path,
        )

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        """A store in this test's place."""
        store = self.open_at(self.upstream_port)
        yield store
        await store.close()

    @property
    def root(self) -> Path:
        """Where the server keeps the store's files."""
        return self.place / "some" / "path"

    async def stored(self, _: Store) -> list[str]:
        """All files: no temporary one is left."""
        return self.files()

    def files(self) -> list[str]:
        """All files below the store's root, temporary ones too."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())

    async def test_no_leftovers(self, store: Store) -> None:
        """Neither a put that worked, nor one whose body failed, nor one that was refused leaves a file."""

        async def failing() -> AsyncIterator[bytes]:
            yield b"x" * (self.part + 1)
            yield b"x" * (4 << 20)
            raise BufferError

        await store.put("a", chunks(b"x" * (self.part + 1), b"y"))
        with pytest.raises(BufferError):
            await store.put("b", failing())
        with pytest.raises(ObjectExistsError):
            await store.put("a", b"other", create_only=True)
        assert self.files() == ["a"], self.files()

    async def test_old_leftovers(self) -> None:
        """The first put into a directory removes temporary files an hour old, and no younger or other ones."""
        self.root.mkdir(parents=True)
        self.open_up()
        hour = time.time() - 3700
        for name, age in ((TEMP, hour), (f".put.2{TEMP[5:]}", None), ("note.tmp", hour), (".put.tmp", hour)):
            (self.root / name).write_bytes(b"x")
            (self.root / name).chmod(0o666)
            if age:
                os.utime(self.root / name, (age, age))
        self.dav.forget()
        store = self.open_at(self.upstream_port)
        assert await keys(store) == [".put.tmp", "note.tmp"]
        await store.put("a", b"x")
        assert self.files() == sorted([f".put.2{TEMP[5:]}", "note.tmp", ".put.tmp", "a"])
        await store.close()

    def open_up(self) -> None:
        """Let a server that runs as another user write what the test made."""
        for folder in (self.place, *self.place.rglob("*")):
            if folder.is_dir():
                folder.chmod(0o777)

    async def test_foreign_files(self, store: Store) -> None:
        """Names that cannot be keys are passed over, and so is what lies beside the root."""
        await store.put("a/b", b"x")
        (self.place / "some" / "pathological").write_bytes(b"x")
        for name in (b"line\nbreak", b"not-utf8-\xff", b"a<b>&amp;\"c'"):
            (self.root / "a" / os.fsdecode(name)).touch()
        self.dav.forget()
        found = await keys(store)
        assert "a/b" in found and "a/a<b>&amp;\"c'" in found
        assert all(is_key(key) and key.startswith("a/") for key in found), found

    async def test_directories_are_not_deleted(self, store: Store) -> None:
        """Deleting a key below which there are objects deletes nothing, alone or among others."""
        for key in ("a/b", "c/d", "e"):
            await store.put(key, b"x")
        await store.delete(["a"])
        await store.delete(["a", "c", "e", "f", "g", "h"])
        assert await keys(store) == ["a/b", "c/d"]

    async def test_directory_that_went(self, store: Store) -> None:
        """A directory that somebody removes between two puts is made again."""
        import shutil

        await store.put("a/b/c", b"x")
        shutil.rmtree(self.root / "a")
        self.dav.forget()
        await store.put("a/b/d", b"y")
        assert await keys(store) == ["a/b/d"]

    async def test_absent_root(self) -> None:
        """A store that nobody wrote to lists as empty and makes nothing; a wrong address is no empty store."""
        store = self.open_at(self.upstream_port)
        assert await store.list("") == []
        assert await store.list("generations/") == []
        await store.delete(["a", "b/c"])
        assert list(self.place.iterdir()) == []
        wrong = self.open_at(self.upstream_port, missing=True)
        for work in (wrong.list(""), wrong.list("generations/"), read(wrong, "a"), wrong.put("a", b"x")):
            with pytest.raises(StorageError, match=r"webdav-url") as caught:
                await work
            assert caught.value.code == "NoSuchBucket"
        await store.close()
        await wrong.close()
