"""Fixtures for tests that run programs: nothing they start outlives its test."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("helpers.contract", "helpers.netcontract")  # before anything imports them

# Tests started by nohup or in the background inherit these as ignored, and so would every program that they start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from helpers.app import App  # noqa: E402
from helpers.cli import Daemon, Program  # noqa: E402
from helpers.destinations import destination  # noqa: E402
from helpers.official import V03, V05, official  # noqa: E402
from helpers.rig import Rig  # noqa: E402
from helpers.servers.azurite import azurite  # noqa: E402
from helpers.servers.google import google_place  # noqa: E402
from helpers.servers.nats import nats_server  # noqa: E402
from helpers.servers.rclone_s3 import rclone_s3  # noqa: E402
from helpers.servers.rclone_webdav import rclone_webdav  # noqa: E402
from helpers.servers.seaweedfs import seaweedfs  # noqa: E402
from helpers.servers.sshd import sshd  # noqa: E402

__all__ = [
    "azurite",
    "destination",
    "google_place",
    "nats_server",
    "rclone_s3",
    "rclone_webdav",
    "seaweedfs",
    "sshd",
]  # fixtures: servers once for all tests of a process


def pytest_xdist_auto_num_workers() -> int | None:
    """Two more than there are cores: with one a core, the cores are idle for more than a third of the time."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return len(os.sched_getaffinity(0)) + 2


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A test that sets up the program's logging in this process does not take it from the next one."""
    logger = logging.getLogger("litestream")
    level, propagate, handlers = logger.level, logger.propagate, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.propagate, logger.handlers = propagate, handlers


@pytest.fixture
def apps() -> Iterator[Callable[[], App]]:
    """Starts application processes."""
    started: list[App] = []

    def start() -> App:
        started.append(App())
        return started[-1]

    yield start
    for app in started:
        app.kill()


@pytest.fixture
def app(apps: Callable[[], App]) -> App:
    """One application process."""
    return apps()


@pytest.fixture
def daemons() -> Iterator[Callable[..., Daemon]]:
    """Makes (and does not start) replicators: `daemons(config, args=…)`. A traceback in a log fails the test."""
    made: list[Daemon] = []

    def make(config: Path, **options: object) -> Daemon:
        made.append(Daemon(config, **options))  # type: ignore[arg-type]  # Daemon's own keyword arguments
        return made[-1]

    yield make
    for daemon in made:
        daemon.kill()
    for daemon in made:
        assert "Traceback (most recent call last)" not in daemon.text(), daemon.text()[-4000:]


@pytest.fixture
def rig(tmp_path: Path, apps: Callable[[], App], daemons: Callable[..., Daemon]) -> Rig:
    """One database, one replica, one replicator."""
    return Rig(tmp_path, apps, daemons)


@pytest.fixture(scope="session")
def official_v03() -> Program:
    """The official 0.3.13."""
    return official(V03)


@pytest.fixture(scope="session")
def official_v05() -> Program:
    """The official 0.5.17."""
    return official(V05)
