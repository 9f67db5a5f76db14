"""WebDAV on nginx: both suites."""

from __future__ import annotations

import pytest

from helpers.contract import keys, read
from helpers.davsuite import TEMP, DAVSuite
from helpers.servers.dav import DAVServer
from helpers.servers.nginx_webdav import nginx_webdav
from litestream.storage.protocol import Store

__all__ = ["nginx_webdav"]
pytestmark = pytest.mark.xdist_group("nginx_webdav")


class TestNginx(DAVSuite):
    """ngx_http_dav_module and ngx_http_dav_ext_module."""

    @pytest.fixture(autouse=True)
    def server(self, nginx_webdav: DAVServer) -> None:
        """One directory per test."""
        self.use(nginx_webdav)

    async def test_long_and_odd_keys(self, store: Store) -> None:
        """Keys may be long and odd. Those that begin with a dot are kept, and are not in nginx's listings."""
        shown = ["/".join(["k" * 127] * 8), "a b/%2e%2e/c", "a../b..", "'\"\\*?[x]#&=+;", "日本/é", "a.tmp"]
        hidden = ["..a/b..", ".hidden"]
        for name in shown + hidden:
            await store.put(name, name.encode())
        assert await keys(store) == sorted(shown)
        for name in shown + hidden:
            assert await read(store, name) == name.encode()
        await store.delete(shown + hidden)
        assert self.files() == []

    async def test_old_leftovers(self) -> None:
        """Temporary files of dead writers stay: nginx's listings leave out what begins with a dot."""
        self.root.mkdir(parents=True)
        (self.root / TEMP).touch()
        store = self.open_at(self.upstream_port)
        await store.put("a", b"x")
        assert await keys(store) == ["a"]
        assert self.files() == [TEMP, "a"]
        await store.close()
