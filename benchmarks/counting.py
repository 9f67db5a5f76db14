"""A proxy on loopback that counts HTTP requests and the bytes that clients send, and an S3 server behind it."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.measure import wait_for
from benchmarks.programs import S3_KEY, S3_SECRET, BenchError

_REQUEST = re.compile(rb"(GET|PUT|POST|HEAD|DELETE) (\S+) HTTP/1\.1\r\n")
_LONGEST = 4096
"""Bytes that the line of a request may have, and still be found where two reads meet."""


class CountingProxy:
    """Passes everything on; a context manager.

    Attributes:
        port: where it listens.
        counts: requests by kind: PUT, GET, LIST, DELETE, HEAD, POST.
        sent: bytes from the clients, headers included.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.counts: Counter[str] = Counter()
        self.sent = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def reset(self) -> None:
        """Count from zero."""
        self.counts.clear()
        self.sent = 0

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._link, args=(client,), daemon=True).start()

    def _link(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._upstream)) as server:
            answers = threading.Thread(target=_pump, args=(server, client), daemon=True)
            answers.start()
            self._requests(client, server)
            answers.join()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        kept = b""
        with contextlib.suppress(OSError):
            while received := client.recv(1 << 16):
                self.sent += len(received)
                kept += received
                end = 0
                for found in _REQUEST.finditer(kept):
                    self.counts[kind_of(found[1].decode(), found[2].decode())] += 1
                    end = found.end()
                kept = kept[max(end, len(kept) - _LONGEST) :]
                server.sendall(received)
        _shut(server)


def kind_of(method: str, target: str) -> str:
    """What a request is billed as: a GET of a bucket with a query is a LIST."""
    path, _, query = target.partition("?")
    is_bucket = path.strip("/").count("/") == 0
    if method == "GET" and (is_bucket or "list-type" in query or "prefix=" in query):
        return "LIST"
    return "DELETE" if method == "POST" and "delete" in query else method


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while received := source.recv(1 << 16):
            target.sendall(received)
    _shut(target)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_WR)


def rclone() -> str:
    """The program rclone, which brings an S3 server: beside the running Python (group `test`), or on the path.

    Raises:
        BenchError: there is none.
    """
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if not found:
        raise BenchError("requests are not counted: there is no rclone (it comes with the group `test`)")
    return found


class S3Server:
    """An empty S3 server on loopback with one bucket `bench`, behind a `CountingProxy`; a context manager."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.root = folder / "served"
        (self.root / "bench").mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        command = [rclone(), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{S3_KEY},{S3_SECRET}"]
        environment = {"XDG_CACHE_HOME": str(folder / "cache"), "RCLONE_CONFIG": "/dev/null"}
        self._process = subprocess.Popen(
            [*command, str(self.root)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_for("the S3 server", lambda: _listens(port), 30)
            self.proxy = CountingProxy(port)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.proxy.__exit__(kind, error, trace)
        self._process.kill()
        self._process.wait()

    @property
    def bucket(self) -> tuple[str, str]:
        """Endpoint and bucket, as a configuration takes them."""
        return f"http://127.0.0.1:{self.proxy.port}", "bench"


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
