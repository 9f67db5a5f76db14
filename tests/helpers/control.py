"""Requests to a control socket, byte by byte or as JSON, from any user."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

Json = Any


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, target: str, body: Json = None, *, timeout: float = 30) -> tuple[int, Json]:
    """Status and document of one request; `body` is sent as it is if it is bytes."""
    connection = Connection(path, timeout)
    try:
        sent = body if isinstance(body, bytes | type(None)) else json.dumps(body)
        connection.request(method, target, sent)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.getheader("content-type") == "application/json", text
        return answer.status, json.loads(text)
    finally:
        connection.close()


def ask_as(uid: int, path: Path, target: str) -> tuple[int, Json] | str:
    """The same as another user (we are root), or the error of connecting."""
    code = (
        "import os, sys, json; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from helpers.control import ask\n"
        "os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))\n"
        "try: print(json.dumps(ask(Path(sys.argv[3]), 'GET', sys.argv[4])))\n"
        "except OSError as e: print(json.dumps(e.strerror))\n"
    )
    tests = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", code, str(tests), str(uid), str(path), target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    found: Json = json.loads(done.stdout)
    return found if isinstance(found, str) else (found[0], found[1])


@contextmanager
def short_folder(mode: int = 0o700) -> Iterator[Path]:
    """A folder whose name leaves room for a socket's: pytest's own may be too long for the kernel."""
    with TemporaryDirectory(prefix="ls-", dir="/tmp") as name:
        os.chmod(name, mode)
        yield Path(name)
