"""WebDAV on rclone: both suites, and a server that is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.contract import keys, read
from helpers.davsuite import DAVSuite
from helpers.servers.base import free_port
from helpers.servers.dav import PASSWORD, USER, DAVServer
from helpers.servers.rclone_webdav import start_rclone
from litestream.errors import StorageError
from litestream.storage.webdav import WebDAVConfig
from litestream.storage.wrappers.wrap import Limits, wrap

pytestmark = pytest.mark.xdist_group("rclone_webdav")


class TestRclone(DAVSuite):
    """golang.org/x/net/webdav."""

    @pytest.fixture(autouse=True)
    def server(self, rclone_webdav: DAVServer) -> None:
        """One directory per test."""
        self.use(rclone_webdav)


async def test_killed_server(tmp_path: Path) -> None:
    """While the server is down operations fail; once it is back the same store goes on, and has what it was told."""
    port = free_port()
    config = WebDAVConfig(
        webdav_url=f"http://127.0.0.1:{port}", webdav_username=USER, webdav_password=PASSWORD, path="p"
    )
    store = wrap(config.open(), Limits(timeout=2, attempts=1))
    with start_rclone(tmp_path, port):
        await store.put("a", b"x")
    with pytest.raises(StorageError) as caught:
        await store.put("b", b"y")
    assert not caught.value.permanent
    with start_rclone(tmp_path, port):
        assert await read(store, "a") == b"x"
        await store.put("b", b"y", create_only=True)
        assert await keys(store) == ["a", "b"]
        await store.close()
