"""SFTP on asyncssh's own server: the suites with a password, and a server that makes no hard links."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from helpers.contract import StoreContract, keys
from helpers.netcontract import NetworkContract
from helpers.servers.asyncssh_server import AsyncSSHServer, asyncssh_server, plain_sftp_server
from litestream.errors import StorageError
from litestream.storage.protocol import Store
from litestream.storage.sftp import SFTPConfig

__all__ = ["asyncssh_server", "plain_sftp_server"]
pytestmark = pytest.mark.xdist_group("asyncssh")

MANY = 600
"""Names of a directory: six times what a server gives at once."""


def open_at(server: AsyncSSHServer, path: str, *, port: int = 0, password: str = "") -> Store:
    """A store in a directory of that server."""
    return SFTPConfig.from_settings(
        {
            "host": f"127.0.0.1:{port or server.port}",
            "user": server.user,
            "password": password or server.password,
            "path": path,
            "host_key": server.host_key,
        }
    ).open()


class TestSFTPPassword(StoreContract, NetworkContract):
    """With a password."""

    many = MANY
    has_tls = False
    has_missing = False
    secrets = (AsyncSSHServer.password, "wrongsecret")

    @pytest.fixture(autouse=True)
    def server(self, asyncssh_server: AsyncSSHServer) -> None:
        """One directory per test."""
        self.sftp = asyncssh_server
        self.upstream_port = asyncssh_server.port
        self.path = asyncssh_server.folder()

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        """A store in it."""
        store = self.open_at(self.upstream_port)
        yield store
        await store.close()

    def open_at(self, port: int, *, tls: bool = False, wrong_credentials: bool = False, missing: bool = False) -> Store:
        """The store at a port."""
        return open_at(self.sftp, self.path, port=port, password="wrongsecret" if wrong_credentials else "")


class TestSFTPWithoutLinks(StoreContract):
    """Where the server makes no hard links, a name is looked at before it is taken."""

    many = MANY

    @pytest.fixture
    async def store(self, plain_sftp_server: AsyncSSHServer) -> AsyncIterator[Store]:
        """A store in a new directory."""
        store = open_at(plain_sftp_server, plain_sftp_server.folder())
        yield store
        await store.close()

    async def test_no_longer_conditional(self, store: Store) -> None:
        """After the first put it is known that the server decides nothing; nothing is left of the attempt."""
        assert store.conditional
        await store.put("a/b", b"x", create_only=True)
        assert not store.conditional
        assert await keys(store) == ["a/b"]


async def test_no_sftp_there(asyncssh_server: AsyncSSHServer) -> None:
    """A path that is a file is an error that names the object, and no endless attempt."""
    path = asyncssh_server.folder()
    outer, inner = open_at(asyncssh_server, path), open_at(asyncssh_server, f"{path}/file")
    await outer.put("file", b"x")
    with pytest.raises(StorageError) as caught:
        await inner.put("a", b"x")
    assert caught.value.key == "a"
    assert await keys(inner) == []
    await outer.close()
    await inner.close()
