"""`GET /metrics` at the configured address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from litestream.errors import ConfigError
from litestream.metrics import CONTENT_TYPE, Metrics, expose

if TYPE_CHECKING:
    import uvicorn
    from starlette.requests import Request
    from starlette.responses import Response

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


class MetricsServer:
    """A running server. `url` is where the metrics are."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._sockets: list[socket.socket] = []
        self.url = ""

    async def start(self, addr: str) -> None:
        """Begin to serve. Raises `ConfigError` if the address is wrong, taken, or not this host's."""
        import prometheus_client  # noqa: F401 here, so that the first scrape does not stop the loop for it
        import uvicorn
        from starlette.applications import Starlette
        from starlette.routing import Route

        class Server(uvicorn.Server):
            @contextlib.contextmanager
            def capture_signals(self) -> Iterator[None]:
                """Signals are the daemon's business."""
                yield

        self._sockets, host = _listen(addr)
        app = Starlette(routes=[Route("/metrics", self._serve)])
        config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1)
        self._server = Server(config)
        self.url = f"http://{host}:{self._sockets[0].getsockname()[1]}/metrics"
        self._task = asyncio.create_task(self._server.serve(sockets=self._sockets), name="metrics")

    async def close(self) -> None:
        """Stop serving. May be called twice."""
        if self._server is not None:
            self._server.should_exit = True
        task, self._task = self._task, None
        if task is not None:
            await task
        for sock in self._sockets:
            sock.close()

    async def _serve(self, request: Request) -> Response:
        from starlette.responses import Response

        del request
        return Response(expose(self._metrics), headers={"content-type": CONTENT_TYPE})


async def serve_metrics(addr: str, metrics: Metrics) -> MetricsServer:
    """Serve `metrics` at `http://ADDR/metrics` until the result is closed; this host only if `addr` is `:port`."""
    server = MetricsServer(metrics)
    await server.start(addr)
    return server


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
