"""rclone's WebDAV server: golang.org/x/net/webdav over local files. Comes as a wheel."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.servers.base import Server, free_port, listening, program
from helpers.servers.dav import PASSWORD, USER, DAVServer


def start_rclone(folder: Path, port: int) -> Server:
    """The server of `folder/data` on a port."""
    (folder / "data").mkdir(exist_ok=True)
    command = [program("rclone"), "serve", "webdav", "--addr", f"127.0.0.1:{port}"]
    command += ["--user", USER, "--pass", PASSWORD, str(folder / "data")]
    env = {"RCLONE_CONFIG": "/dev/null", "XDG_CACHE_HOME": str(folder / "cache")}
    server = Server(command, folder, env)
    server.wait_until(listening(port))
    return server


@pytest.fixture(scope="session")
def rclone_webdav(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DAVServer]:
    """One server for all tests of the process."""
    folder = tmp_path_factory.mktemp("rclone-webdav")
    said = subprocess.run([program("rclone"), "version"], capture_output=True, text=True, check=True).stdout
    with start_rclone(folder, port := free_port()) as server:
        yield DAVServer("rclone", port, folder / "data", said.split()[1], server.process.pid)
