"""asyncssh's own server in a process of its own: a second SFTP server, which takes passwords and needs no root.

    python asyncssh_server.py PORT FOLDER [--no-hardlinks]

The user is `me`, the password that of the variable PASSWORD. FOLDER is the root of what the user sees, and holds the
host key.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import asyncssh

if __name__ != "__main__":
    import pytest

    from helpers.servers.base import Server, free_port, listening

USER = "me"
PASSWORD = "testsecret"


class Passwords(asyncssh.SSHServer):
    """Knows one user."""

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == (USER, os.environ["PASSWORD"])


async def serve(port: int, folder: Path, options: list[str]) -> None:
    """Until the process ends."""

    class Files(asyncssh.SFTPServer):
        def __init__(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
            super().__init__(channel, chroot=str(folder / "root").encode())

        if "--no-hardlinks" in options:

            def link(self, oldpath: bytes, newpath: bytes) -> None:
                raise asyncssh.SFTPOpUnsupported("no links here")

    (folder / "root").mkdir(exist_ok=True)
    await asyncssh.listen(
        "127.0.0.1",
        port,
        server_host_keys=[str(folder / "host_key")],
        server_factory=Passwords,
        sftp_factory=Files,
        encoding=None,
    )
    await asyncio.Event().wait()


class AsyncSSHServer:
    """The running server. `host_key` is its public key, as in known_hosts without the host."""

    user, password = USER, PASSWORD

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.version = version("asyncssh")
        self.root = folder / "root"
        key = asyncssh.generate_private_key("ssh-ed25519")
        folder.mkdir(parents=True, exist_ok=True)
        key.write_private_key(str(folder / "host_key"))
        self.host_key = key.export_public_key().decode().strip()
        command = [sys.executable, __file__, str(self.port), str(folder), *options]
        self._server = Server(command, folder, {"PASSWORD": PASSWORD}).wait_until(listening(self.port))

    def folder(self) -> str:
        """A path at which nothing is yet."""
        return f"/{secrets.token_hex(8)}"

    def stop(self) -> None:
        """Kill it."""
        self._server.stop()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
else:

    @pytest.fixture(scope="session")
    def asyncssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsyncSSHServer]:
        """One server for all tests of the process."""
        server = AsyncSSHServer(tmp_path_factory.mktemp("asyncssh"))
        yield server
        server.stop()

    @pytest.fixture(scope="session")
    def plain_sftp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsyncSSHServer]:
        """One that makes no hard links, as on many network storages."""
        server = AsyncSSHServer(tmp_path_factory.mktemp("asyncssh-plain"), "--no-hardlinks")
        yield server
        server.stop()
