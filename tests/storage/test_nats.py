"""NATS's object store on nats-server: the two suites, and what only NATS does."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import ObjectStoreConfig

from helpers.contract import chunks, keys, read
from helpers.netcontract import NetworkContract
from helpers.peak import memory_of_a_stream
from helpers.remotecontract import RemoteContract
from helpers.servers.base import free_port
from helpers.servers.nats import NATSServer
from helpers.tcpproxy import TCPProxy
from litestream.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from litestream.storage.nats import NATSConfig
from litestream.storage.nats.store import NATSStore
from litestream.storage.protocol import Store
from litestream.storage.wrappers.wrapper import innermost

pytestmark = pytest.mark.xdist_group("nats")

LOGIN = {"username": "admin", "password": "testsecret"}


class TestNATS(RemoteContract, NetworkContract):
    """With user and password."""

    many = 600  # more than two batches of a listing
    has_tls = False  # with the server's own TLS, in test_nats_login.py
    secrets = ("testsecret", "wrongsecret")

    @pytest.fixture(autouse=True)
    async def place(self, nats_server: NATSServer) -> None:
        """One bucket per test."""
        self.upstream_port = nats_server.port
        self.bucket = await nats_server.bucket()

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        """A store in it."""
        store = self.open_at(self.upstream_port)
        yield store
        await store.close()

    def open_at(self, port: int, *, tls: bool = False, wrong_credentials: bool = False, missing: bool = False) -> Store:
        """The store at a port."""
        settings: dict[str, Any] = {**LOGIN, "path": "some/path", "bucket": "missing" if missing else self.bucket}
        if wrong_credentials:
            settings["password"] = "wrongsecret"
        return NATSConfig.from_url(f"nats://127.0.0.1:{port}", **settings).open()


@asynccontextmanager
async def opened(server: NATSServer, bucket: str, **settings: Any) -> AsyncIterator[Store]:  # noqa: ANN401 - any setting
    """A store, closed afterwards."""
    store = NATSConfig.from_settings({"url": f"nats://127.0.0.1:{server.port}/{bucket}", **LOGIN, **settings}).open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NATSServer]:
    """A server of this test's own."""
    users = "authorization { users: [ { user: admin, password: testsecret } ] }"
    server = NATSServer(tmp_path / "nats", users, {"user": "admin", "password": "testsecret"})
    yield server.start()
    server.stop()


async def test_nothing_is_left(nats_server: NATSServer) -> None:
    """Replaced, deleted, refused, failed and cancelled objects leave no message in the bucket."""
    bucket = await nats_server.bucket()
    large = b"x" * 1_000_000
    async with opened(nats_server, bucket) as store:
        await store.put("a", large)
        await store.put("a", b"small")
        assert await nats_server.messages(bucket) == 2
        with pytest.raises(ObjectExistsError):
            await store.put("a", large, create_only=True)
        await store.put("a", b"small", create_only=True)
        assert await nats_server.messages(bucket) == 2

        async def broken() -> AsyncIterator[bytes]:
            yield large
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await store.put("b", broken())
        for step in range(30):
            put = asyncio.create_task(store.put("b", chunks(large, large)))
            await asyncio.sleep(0.001 * step)
            put.cancel()
            await asyncio.gather(put, return_exceptions=True)
        await store.delete(["a", "b"])
        assert await nats_server.messages(bucket) == 0


async def test_with_another_client(nats_server: NATSServer) -> None:
    """What we store, another client reads and lists, and the reverse, under the same names."""
    bucket = await nats_server.bucket()
    data = bytes(range(256)) * 3000
    async with nats_server.client() as jetstream, opened(nats_server, bucket, path="p") as store:
        theirs = await jetstream.object_store(bucket)
        await store.put("a/1", data)
        await store.put("a/2", b"", create_only=True)
        assert (await theirs.get("p/a/1")).data == data
        assert sorted((info.name, info.size) for info in await theirs.list()) == [("p/a/1", len(data)), ("p/a/2", 0)]
        await theirs.put("p/a/3", data)
        await theirs.put("p/a/4", b"")
        assert await read(store, "a/3") == data
        assert await read(store, "a/3", 300_000) == data[300_000:]
        assert await read(store, "a/4") == b""
        assert [(info.key, info.size) for info in await store.list("a/")][2:] == [("a/3", len(data)), ("a/4", 0)]
        # What they delete leaves a mark, under which a new object can be made.
        await theirs.delete("p/a/1")
        assert await keys(store) == ["a/2", "a/3", "a/4"]
        with pytest.raises(ObjectNotFoundError):
            await read(store, "a/1")
        await store.delete(["a/1"])
        await store.put("a/1", b"new", create_only=True)
        assert (await theirs.get("p/a/1")).data == b"new"
        await store.delete(["a/1", "a/3"])
        assert sorted(info.name for info in await theirs.list(ignore_deletes=True)) == ["p/a/2", "p/a/4"]


async def test_foreign_names(nats_server: NATSServer) -> None:
    """Objects of other paths, names that are no keys, links and messages that are no objects are ignored."""
    bucket = await nats_server.bucket()
    async with nats_server.client() as jetstream, opened(nats_server, bucket, path="p") as store:
        theirs = await jetstream.object_store(bucket)
        for name in ("q/a", "pp/a", "p", "p/", "p/../x", "p//a", "/p/a", "p/a\nb", "p/a\0", "p/é", "p/ok"):
            await theirs.put(name, b"x")
        link = {"name": "p/link", "nuid": "x", "options": {"link": {"bucket": bucket, "name": "q/a"}}}
        junk = [b"", b"[]", b"{}", b'{"name": 7}', b'{"name": "p/j", "nuid": 1, "size": "x"}']
        for number, message in enumerate(junk):
            await jetstream.publish(f"$O.{bucket}.M.junk{number}", message)
        await jetstream.publish(f"$O.{bucket}.M.cC9saW5r", json.dumps(link).encode())  # p/link
        assert await keys(store) == ["ok", "é"]
        with pytest.raises(ObjectNotFoundError):
            await read(store, "link")


async def test_damage(nats_server: NATSServer) -> None:
    """Bytes that are missing or wrong are an error, never a short or another object."""
    bucket = await nats_server.bucket()
    data = bytes(range(256)) * 3000
    async with nats_server.client() as jetstream, opened(nats_server, bucket) as store:
        stream = f"OBJ_{bucket}"
        for key, body in (("large", data), ("small", b"small")):
            await store.put(key, body)
            info = await (await jetstream.object_store(bucket)).get_info(key)
            subject = f"$O.{bucket}.C.{info.nuid}"
            last = await jetstream.get_last_msg(stream, subject)
            assert last.seq is not None
            await jetstream.delete_msg(stream, last.seq)
            for start in (0, 1):
                with pytest.raises(StorageError) as caught:
                    await read(store, key, start)
                assert (caught.value.code, caught.value.key) == ("Damaged", key)
                assert not isinstance(caught.value, ObjectNotFoundError)
            await jetstream.publish(subject, b"!" * len(last.data or b""))
            with pytest.raises(StorageError) as caught:
                await read(store, key)
            assert caught.value.code == "Damaged"


async def test_abandoned_uploads(nats_server: NATSServer) -> None:
    """Chunks that a killed upload of ours left are removed when they are old enough; those of others never."""
    bucket = await nats_server.bucket()
    ours, theirs = f"$O.{bucket}.C.LS{'0' * 20}", f"$O.{bucket}.C.{'0' * 22}"
    async with nats_server.client() as jetstream, opened(nats_server, bucket, path="p") as store:
        await store.put("a", b"x" * 1_000_000)
        for subject in (ours, ours, theirs):
            await jetstream.publish(subject, b"x" * 1000)
        backend = innermost(store)
        assert isinstance(backend, NATSStore)
        assert await backend.clean_up() == 0
        assert await backend.clean_up(older_than=float("inf")) == 0
        assert await nats_server.messages(bucket) == 12
        assert await backend.clean_up(older_than=-5) == 1
        assert await nats_server.messages(bucket) == 10
        assert await read(store, "a") == b"x" * 1_000_000


async def test_small_messages(tmp_path: Path) -> None:
    """A server that takes small messages only gets small ones."""
    server = NATSServer(tmp_path / "nats", "max_payload: 40000").start()
    try:
        bucket = await server.bucket()
        data = bytes(range(256)) * 2000
        async with opened(server, bucket, username="", password="") as store:
            await store.put("a", data)
            assert await read(store, "a") == data
            assert await read(store, "a", 100_000) == data[100_000:]
        assert await server.messages(bucket) == 14
    finally:
        server.stop()


async def test_full_bucket(nats_server: NATSServer) -> None:
    """A bucket that is full is an error that says so, leaves nothing, and is over when there is room again."""
    bucket = await nats_server.bucket(config=ObjectStoreConfig(max_bytes=1_000_000))
    async with opened(nats_server, bucket) as store:
        for create_only in (False, True):
            with pytest.raises(StorageError, match="full") as caught:
                await store.put("a", b"x" * 2_000_000, create_only=create_only)
            assert (caught.value.permanent, caught.value.code) == (False, "DiskFull")
        assert await nats_server.messages(bucket) == 0
        await store.put("a", b"x" * 500_000)


async def test_sealed_bucket(nats_server: NATSServer) -> None:
    """A bucket that nobody may change any more says so."""
    bucket = await nats_server.bucket()
    async with nats_server.client() as jetstream, opened(nats_server, bucket) as store:
        await store.put("a", b"x")
        await (await jetstream.object_store(bucket)).seal()  # type: ignore[no-untyped-call]  # nats-py's own
        for work in (store.put("b", b"x"), store.delete(["a"])):
            with pytest.raises(StorageError) as caught:
                await work
            assert (caught.value.permanent, caught.value.code) == (True, "AccessDenied")
        assert await read(store, "a") == b"x"


async def test_bucket_removed(nats_server: NATSServer) -> None:
    """A bucket that goes away under us is a missing bucket, and the error says how to make one."""
    bucket = await nats_server.bucket()
    async with nats_server.client() as jetstream, opened(nats_server, bucket) as store:
        await store.put("a", b"x")
        await jetstream.delete_object_store(bucket)
        for work in (store.put("b", b"x"), store.list(""), read(store, "a"), store.delete(["a"])):
            with pytest.raises(StorageError, match=f"nats object add {bucket}") as caught:
                await work
            assert (caught.value.permanent, caught.value.code) == (True, "NoSuchBucket")


async def test_one_connection(nats_server: NATSServer) -> None:
    """All operations share one connection, however many begin at once."""
    bucket = await nats_server.bucket()
    with TCPProxy(nats_server.port) as proxy:
        async with opened(nats_server, bucket, url=f"nats://127.0.0.1:{proxy.port}/{bucket}") as store:
            await asyncio.gather(*(store.put(f"a/{number}", b"x") for number in range(40)))
            assert len(await store.list("")) == 40
        assert proxy.connections == 1


async def test_another_server_of_the_cluster(nats_server: NATSServer) -> None:
    """Of several servers in the URL, one that answers is enough."""
    bucket = await nats_server.bucket()
    async with opened(nats_server, bucket, url=f"nats://127.0.0.1:1,127.0.0.1:{nats_server.port}/{bucket}") as store:
        await store.put("a", b"x")


async def test_killed_and_started_again(server: NATSServer, caplog: pytest.LogCaptureFixture) -> None:
    """A server that dies under an upload is an error; when it is back the same store works. Nothing is logged."""
    caplog.set_level(logging.INFO)
    bucket = await server.bucket()

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * (2 << 20)
        await asyncio.to_thread(server.stop)
        while True:
            yield b"x" * (1 << 20)

    async with opened(server, bucket, reconnect_wait=0.1) as store:
        await store.put("old", b"old")
        with pytest.raises(StorageError) as caught:
            await store.put("new", body())
        assert (caught.value.permanent, caught.value.code) == (False, "Connection")
        with pytest.raises(StorageError, match="refused") as caught:
            await store.list("")
        assert not caught.value.permanent
        await asyncio.to_thread(server.start)
        assert await keys(store) == ["old"]
        await store.put("new", b"new")
        assert await read(store, "new") == b"new"
        # And once more while nothing is under way.
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.start)
        assert await read(store, "new") == b"new"
    assert not caplog.records


async def test_reconnect_settings() -> None:
    """Tries are `reconnect-wait` apart, and after `max-reconnects` of them the error is permanent."""
    settings = {"bucket": "b", "url": f"nats://127.0.0.1:{free_port()}/b", "reconnect_wait": 0.3, "max_reconnects": 2}
    store = NATSConfig.from_settings(settings).open()
    began = time.monotonic()
    permanent = []
    for _ in range(4):
        with pytest.raises(StorageError, match="refused") as caught:
            await store.list("")
        permanent.append(caught.value.permanent)
    assert permanent == [False, False, True, True]
    assert 0.9 < time.monotonic() - began < 5
    await store.close()


async def test_memory(nats_server: NATSServer) -> None:
    """64 MiB go there and back in less than 24 MiB of memory."""
    url = f"nats://admin:testsecret@127.0.0.1:{nats_server.port}/{await nats_server.bucket()}"
    assert max(await asyncio.to_thread(memory_of_a_stream, NATSConfig.from_url(url), 64, warm=6)) < 24
