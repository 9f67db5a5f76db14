"""Starting a real server on loopback, waiting until it answers, and stopping it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from helpers.official import cache

__all__ = ["Server", "cache", "free_port", "free_ports", "listening", "program", "wait_for_http"]

BIN = Path(sys.executable).parent
"""Where the wheels of servers put their programs."""


def program(name: str) -> str:
    """The path of a server that came as a wheel."""
    path = BIN / name
    assert path.exists(), f"{path} is not there: run `uv sync`"
    return str(path)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on right now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def free_port() -> int:
    """One such port."""
    return free_ports(1)[0]


class Server:
    """A server process in a group of its own; its output goes to `log`. A context manager."""

    def __init__(self, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "server.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    def wait_until(self, ready: Callable[[], bool], seconds: float = 60.0) -> Server:
        """Poll until `ready` says so. Fails with the end of the log if the server dies or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self.process.args!r} did not start: {self.tail()}")
            time.sleep(0.05)
        return self

    def tail(self) -> str:
        """The end of what it said."""
        return self.log.read_text(errors="replace")[-2000:]

    def stop(self, signum: int = signal.SIGKILL) -> None:
        """End the whole group and wait for it. May be called twice."""
        try:
            os.killpg(self.process.pid, signum)
        except ProcessLookupError:
            pass
        self.process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def wait_for_http(url: str) -> Callable[[], bool]:
    """A check whether something answers HTTP there with anything but a server error."""

    def ready() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status < 500)
        except urllib.error.HTTPError as error:
            return error.code < 500
        except OSError:
            return False

    return ready


def listening(port: int) -> Callable[[], bool]:
    """A check whether something listens on a port of loopback."""

    def ready() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    return ready
