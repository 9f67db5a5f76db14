"""What is served at the configured address: `GET /metrics`, and whatever else there is to show. Nothing here changes
anything."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from litestream.errors import ConfigError
from litestream.metrics import CONTENT_TYPE, Metrics, expose_in_turns
from litestream.web.guard import Guard
from litestream.web.protocol import bounded
from litestream.web.running import Running, run

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

_LARGE = 64 * 1024
"""Bytes of metrics from which on they are compressed for those who want that."""

CONNECTIONS = 256
"""Connections at a time, followers among them: more are told to come back."""

LOOPBACK = "localhost"
"""Where to listen when the address names a port alone: metrics carry paths, and nobody asked for the network."""


def parse_addr(addr: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[ipv6]:port` or `:port`.

    Raises `ConfigError` (the official text) if there is no port, or none that is a number below 65536.
    """
    host, colon, port = addr.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port or (":" in host and not bracketed):
        raise ConfigError(f'must specify port for bind address: "{addr}"')
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ConfigError(f'addr: "{addr}": the port must be a number from 0 to 65535')
    return host.removeprefix("[").removesuffix("]") or LOOPBACK, int(port)


class WebServer:
    """A running server. `url` is where the metrics are, `page` the address itself.

    `routes` are served beside `/metrics`; with `tls`, files of a certificate and its key, over TLS alone.
    """

    def __init__(self, metrics: Metrics, routes: Sequence[BaseRoute] = (), tls: tuple[str, str] | None = None) -> None:
        self._tls = tls
        self._metrics = metrics
        self._routes = list(routes)
        self._running: Running | None = None
        self._sockets: list[socket.socket] = []
        self.url = ""
        self.page = ""

    async def start(self, addr: str) -> None:
        """Begin to serve. Raises `ConfigError` if the address is wrong, taken, or not this host's."""
        import prometheus_client  # noqa: F401 here, so that the first scrape does not stop the loop for it
        from starlette.applications import Starlette
        from starlette.routing import Route

        options = _tls_options(*self._tls) if self._tls is not None else {}
        self._sockets, host = _listen(addr)
        local = all(ipaddress.ip_address(sock.getsockname()[0]).is_loopback for sock in self._sockets)
        self.page = f"http{'s' if self._tls else ''}://{host}:{self._sockets[0].getsockname()[1]}/"
        self.url = f"{self.page}metrics"
        app = Starlette(routes=[Route("/metrics", self._serve), *self._routes])
        guarded = Guard(app, parse_addr(addr)[0] if local else None)
        self._running = run(guarded, self._sockets, "web", http=bounded(CONNECTIONS), **options)

    async def close(self) -> None:
        """Stop serving. May be called twice."""
        if self._running is not None:
            await self._running.close()
        for sock in self._sockets:
            sock.close()

    async def _serve(self, request: Request) -> Response:
        from starlette.responses import Response

        body, headers = await expose_in_turns(self._metrics), {"content-type": CONTENT_TYPE, "vary": "accept-encoding"}
        if len(body) > _LARGE and "gzip" in request.headers.get("accept-encoding", ""):
            body = await asyncio.to_thread(gzip.compress, body, 1)
            headers["content-encoding"] = "gzip"
        return Response(body, headers=headers)


async def serve_metrics(
    addr: str, metrics: Metrics, routes: Sequence[BaseRoute] = (), tls: tuple[str, str] | None = None
) -> WebServer:
    """Serve `metrics` at `http://ADDR/metrics` until the result is closed; this host only if `addr` is `:port`."""
    server = WebServer(metrics, routes, tls)
    await server.start(addr)
    return server


def _tls_options(cert: str, key: str) -> dict[str, str]:
    """What uvicorn is told. Raises `ConfigError` if the two files do not make a certificate with its key."""
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"tls-cert: cannot use {cert} with the key in {key}: {error.strerror or error}") from error
    return {"ssl_certfile": cert, "ssl_keyfile": key}


def _listen(addr: str) -> tuple[list[socket.socket], str]:
    """Listening sockets, on one port, and the host as a URL shows it."""
    host, port = parse_addr(addr)
    sockets: list[socket.socket] = []
    try:
        # A name such as localhost may be two addresses, IPv4 and IPv6.
        found = {info[4][0]: info for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        for family, kind, protocol, _, address in found.values():
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address[0], port, *address[2:]))
            sock.listen(128)
            port = sock.getsockname()[1]
    except OSError as error:
        if host != LOOPBACK or len(sockets) < 2:  # without IPv6, localhost is the first address alone
            for sock in sockets:
                sock.close()
            raise ConfigError(f'addr: cannot listen on "{addr}": {error.strerror or error}') from error
        sockets.pop().close()
    return sockets, f"[{host}]" if ":" in host else host
