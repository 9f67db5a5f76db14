"""NATS's object store on nats-server: the two suites, ways to log in, and what only NATS does."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from helpers.contract import StoreContract, keys, read
from helpers.netcontract import NetworkContract
from helpers.servers.nats import NATSServer, nats_server
from litestream.errors import ObjectExistsError
from litestream.storage.nats import NATSConfig
from litestream.storage.protocol import Store

__all__ = ["nats_server"]
pytestmark = pytest.mark.xdist_group("nats")

LOGIN = {"username": "admin", "password": "testsecret"}


class TestNATS(StoreContract, NetworkContract):
    """With user and password."""

    has_tls = False  # below, with the server's own TLS
    secrets = ("testsecret", "wrongsecret")

    @pytest.fixture(autouse=True)
    async def server(self, nats_server: NATSServer) -> None:
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

    async def test_put_and_get(self, store: Store) -> None:
        """What is put is what is got. The time of a put is ours, that of a listing the server's."""
        before = time.time()
        info = await store.put("a/b/c.lz4", b"hello")
        assert (info.key, info.size) == ("a/b/c.lz4", 5)
        assert await read(store, "a/b/c.lz4") == b"hello"
        (listed,) = await store.list("a/")
        assert (listed.key, listed.size) == (info.key, info.size)
        assert before - 5 < info.modified < time.time() + 5
        assert abs(listed.modified - info.modified) < 5

    async def test_create_only(self, store: Store) -> None:
        """A create-only put stores; again with the same content is success; other content is refused and not stored."""
        first = await store.put("a/b", b"content", create_only=True)
        again = await store.put("a/b", b"content", create_only=True)
        assert (again.key, again.size) == (first.key, first.size)
        for other in (b"CONTENT", b"content and more", b""):
            with pytest.raises(ObjectExistsError) as caught:
                await store.put("a/b", other, create_only=True)
            assert caught.value.key == "a/b"
            assert caught.value.permanent
        assert await read(store, "a/b") == b"content"
        assert await keys(store) == ["a/b"]
