"""The end of a replicator as a process, with stores that do not answer, or answer late."""

from __future__ import annotations

import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.cli import OURS, Daemon, Database, Yaml, write_config


@pytest.fixture
def database(tmp_path: Path) -> Path:
    connection = sqlite3.connect(tmp_path / "app.db")
    connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t(x)")
    connection.close()
    return tmp_path / "app.db"


@pytest.fixture
def mute() -> Iterator[dict[str, Yaml]]:
    """A replica whose store accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        yield {
            "type": "s3", "bucket": "b", "endpoint": endpoint, "access-key-id": "a", "secret-access-key": "b",
            "timeout": "5m",
        }  # fmt: skip


def test_the_time_is_bounded(
    database: Path, mute: dict[str, Yaml], tmp_path: Path, daemons: Callable[..., Daemon]
) -> None:
    """A store that never answers costs shutdown-sync-timeout; the other replica has everything, that one is named."""
    config = write_config(
        tmp_path / "c.yml", [Database(database, [mute, tmp_path / "rep"])], shutdown_sync_timeout="1s"
    )
    daemon = daemons(config).start()
    daemon.wait_for_objects(tmp_path / "rep")
    began = time.monotonic()
    assert daemon.stop() == 1
    assert 0.9 < time.monotonic() - began < 8
    assert f"Error: not everything reached the replicas: {database}(s3)\n" in daemon.text()
    assert "(gave up after 1s)" in daemon.text()
    assert OURS.restore(f"file://{tmp_path}/rep", tmp_path / "out.db").code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_wait(
    number: int, database: Path, mute: dict[str, Yaml], tmp_path: Path, daemons: Callable[..., Daemon]
) -> None:
    """While an upload hangs, with most of the 30 s to go."""
    daemon = daemons(write_config(tmp_path / "c.yml", [Database(database, [mute])])).start()
    daemon.wait_until_ready()
    daemon.send(signal.SIGTERM)
    daemon.wait_for_log("signal received, litestream shutting down")
    time.sleep(0.2)
    assert daemon.alive
    began = time.monotonic()
    assert daemon.stop(number) == 1
    assert time.monotonic() - began < 3


def test_it_is_tried_again_until_the_store_is_back(
    database: Path, tmp_path: Path, daemons: Callable[..., Daemon]
) -> None:
    """A store that is away when the signal comes, and back within the time, gets everything; the end is a clean one."""
    (tmp_path / "mnt").symlink_to("/proc")  # where nobody can make a directory
    config = write_config(tmp_path / "c.yml", [Database(database, [tmp_path / "mnt/nowhere"])])
    daemon = daemons(config).start()
    daemon.wait_for_log("monitor error")
    daemon.send(signal.SIGTERM)
    daemon.wait_for_log("signal received, litestream shutting down")
    time.sleep(1.2)  # two attempts
    assert daemon.alive
    (tmp_path / "disk").mkdir()
    (tmp_path / "new").symlink_to(tmp_path / "disk")
    (tmp_path / "new").rename(tmp_path / "mnt")
    assert daemon.wait() == 0
    assert OURS.restore(f"file://{tmp_path}/disk/nowhere", tmp_path / "out.db").code == 0
