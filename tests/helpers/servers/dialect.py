"""A gateway that lets a real S3 server speak another cloud's dialect of the same protocol.

The XML interfaces of Google's and Alibaba's stores are those of S3 (PUT, GET with ranges, listings in pages, multipart
uploads, DELETE) with other signatures and other names for a few headers. No server of theirs can be installed. So what
our stores send is checked here (signature, condition), signed anew, and answered by SeaweedFS: storing, listing,
ranges, parts and atomic conditions are a real server's, and nothing of it is played here.
"""

from __future__ import annotations

import http.client
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from helpers.servers.s3 import S3Server

_KEPT = {"content-type", "range", "if-none-match", "if-match", "content-md5"}
"""Headers that mean the same everywhere."""
_HOP = {"connection", "transfer-encoding", "content-length", "date", "server"}


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came: the path is decoded."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    size: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer of the cloud itself, before anything is stored: an error, unless it has `content`."""

    status: int
    code: str
    message: str = "no"
    content: bytes = b""

    def body(self) -> bytes:
        if self.content:
            return self.content
        return f"<?xml version='1.0'?><Error><Code>{self.code}</Code><Message>{self.message}</Message></Error>".encode()


class Dialect(ABC):
    """How a cloud differs from S3."""

    @abstractmethod
    def refusal(self, seen: Seen) -> Refusal | None:
        """Why the cloud would not take the request."""

    @abstractmethod
    def headers(self, seen: Seen) -> dict[str, str]:
        """What its own headers are in S3."""

    def bucket_path(self, seen: Seen) -> str:
        """`/BUCKET/KEY`, decoded."""
        return seen.path

    def failed(self, seen: Seen, status: int) -> Refusal | None:
        """What the cloud says where S3 says `status`; None: the same."""
        return None


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go in the middle are what some tests are about."""


class Gateway:
    """A running gateway; a context manager. `seen` are all requests so far, `fail` the next answers instead."""

    def __init__(self, upstream: S3Server, dialect: Dialect) -> None:
        self.upstream, self.dialect = upstream, dialect
        self.seen: list[Seen] = []
        self.fail: list[Refusal] = []
        self._server = _Quiet(("127.0.0.1", 0), self._handler())
        self.port = self._server.server_port

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # status, headers and a short body in one packet
            disable_nagle_algorithm = True

            def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - do_GET, do_PUT, …
                if name.startswith("do_"):
                    return self._serve
                raise AttributeError(name)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
                pass

            def _serve(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(size)
                if len(body) < size:
                    self.close_connection = True  # cut on the way: nothing is passed on
                    return
                path, _, query = self.path.partition("?")
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen = Seen(self.command, unquote(path), query, headers, size)
                gateway.seen.append(seen)
                refusal = gateway.fail.pop(0) if gateway.fail else gateway.dialect.refusal(seen)
                if refusal is not None:
                    self._answer(refusal.status, {"Content-Type": "application/xml"}, refusal.body())
                else:
                    self._pass_on(seen, body)

            def _pass_on(self, seen: Seen, body: bytes) -> None:
                upstream = gateway._ask(seen, body)
                try:
                    answer = upstream.getresponse()
                    given = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
                    if changed := gateway.dialect.failed(seen, answer.status):
                        self._answer(changed.status, {"Content-Type": "application/xml"}, changed.body())
                    elif seen.method == "HEAD":
                        given["Content-Length"] = answer.getheader("Content-Length") or "0"
                        self._answer(answer.status, given, None)
                    else:
                        self._answer(answer.status, given, answer.read())
                finally:
                    upstream.close()

            def _answer(self, status: int, headers: Mapping[str, str], body: bytes | None) -> None:
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    if body is not None:
                        self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    if body and self.command != "HEAD":
                        self.wfile.write(body)
                    self.wfile.flush()
                except OSError:
                    self.close_connection = True  # the client has gone

        return Handler

    def _ask(self, seen: Seen, body: bytes) -> http.client.HTTPConnection:
        """The request to the S3 server, signed."""
        headers = {name: value for name, value in seen.headers.items() if name in _KEPT}
        headers |= self.dialect.headers(seen)
        path = quote(self.dialect.bucket_path(seen), safe="/~")
        url = f"{self.upstream.endpoint}{path}" + (f"?{seen.query}" if seen.query else "")
        request = AWSRequest(seen.method, url, headers, body)
        S3SigV4Auth(Credentials(self.upstream.key, self.upstream.secret), "s3", "us-east-1").add_auth(request)
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream.port, timeout=60)
        target = path + (f"?{seen.query}" if seen.query else "")
        connection.request(seen.method, target, body, dict(request.headers.items()))
        return connection
