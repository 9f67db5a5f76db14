"""An HTTP server that writes down what it is asked and answers as told: what was sent, and answers no server gives."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Asked:
    """One request; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Said:
    """One answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def error(cls, status: int, code: str, message: str = "because", **headers: str) -> Said:
        """An error of S3."""
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        return cls(status, text.encode(), {name.replace("_", "-"): value for name, value in headers.items()})

    @classmethod
    def json(cls, value: object) -> Said:
        """A document."""
        return cls(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


@dataclass
class Fake:
    """A running server. `answer` decides; `asked` is what came, in order."""

    port: int
    answer: Callable[[Asked], Said]
    asked: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"


def object_store(asked: Asked) -> Said:
    """Success for everything, as much of S3 as obstore needs."""
    headers = {"ETag": '"abc"', "Last-Modified": "Mon, 23 Nov 2026 00:00:00 GMT"}
    if asked.method == "POST" and asked.path.endswith("?uploads="):
        return Said(200, b"<R><UploadId>u1</UploadId></R>", headers)
    if asked.method == "POST" and "uploadId=" in asked.path:
        return Said(200, b'<R><Location>x</Location><Bucket>b</Bucket><Key>k</Key><ETag>"e"</ETag></R>', headers)
    if asked.method == "POST" and asked.path.endswith("?delete"):
        return Said(200, b"<DeleteResult><Deleted><Key>k</Key></Deleted></DeleteResult>", headers)
    if asked.method == "GET" and "list-type=2" in asked.path:
        return Said(200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>", headers)
    return Said(200, b"", headers)


@contextmanager
def fake(answer: Callable[[Asked], Said] = object_store) -> Iterator[Fake]:
    """Run one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            self.close_connection = True
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                return
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            found.asked.append(asked)
            said = found.answer(asked)
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(said.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Fake(server.server_port, answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
