"""SFTP on OpenSSH: the two suites, host keys, ways to log in, and what only files on a server can do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from helpers.contract import StoreContract
from helpers.netcontract import NetworkContract
from helpers.servers.sshd import SSHD, sshd
from litestream.storage.protocol import Store
from litestream.storage.sftp import SFTPConfig

__all__ = ["sshd"]
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
