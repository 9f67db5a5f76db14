"""Clients at the configured address that mean no good: how many there may be, and how long they may keep us waiting."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from helpers.app import App
from helpers.cli import wait_until
from helpers.rig import Rig
from litestream.metrics import Metrics
from litestream.web import protocol, serve_metrics
from litestream.web.server import CONNECTIONS

LARGE = 8 << 20
WHOLE = b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """A server that has little patience."""
    monkeypatch.setattr(protocol, "REQUEST", 0.6)
    monkeypatch.setattr(protocol, "STALLED", 0.8)

    async def large(request: Request) -> Response:
        return Response(bytes(LARGE))

    async def small(request: Request) -> Response:
        return Response(b"small")

    web = await serve_metrics("127.0.0.1:0", Metrics(), [Route("/large", large), Route("/small", small)])
    try:
        yield urlsplit(web.page).port or 0
    finally:
        await web.close()


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"GET /small HT"],
        [b"G", b"E", b"T", b" ", b"/"] * 100,
        [WHOLE.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n"), *[b"x"] * 3],
        [WHOLE, b"GET /small"],
    ],
    ids=["nothing", "half", "drops", "body", "second"],
)
async def test_a_request_has_to_arrive_in_time(port: int, pieces: list[bytes]) -> None:
    """Who sends no request, or one without an end, is let go, however busy it seems."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.1)

    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(3):  # uvicorn by itself ends an idle connection after 5 s
            while await reader.read(1000):
                pass
    except ConnectionResetError:
        pass
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()


async def test_connections_that_are_used_stay(port: int) -> None:
    """One connection makes requests for longer than a request may take."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(5):
        writer.write(WHOLE[:10])
        await asyncio.sleep(0.2)
        writer.write(WHOLE[10:])
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(5) == b"small"
    writer.close()


async def receive(port: int, pause: float) -> int:
    """Bytes that come when the client waits first, then reads slowly."""
    loop, found = asyncio.get_running_loop(), 0
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.sock_sendall(sock, b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        await asyncio.sleep(pause)
        try:
            while data := await loop.sock_recv(sock, 200 << 10):
                found += len(data)
                await asyncio.sleep(0.02)
        except ConnectionResetError:
            pass
    return found


async def test_an_answer_has_to_be_taken(port: int) -> None:
    """Who takes nothing of its answer is cut off; who takes it slowly gets all of it."""
    stalled, slow = await asyncio.gather(receive(port, 2.0), receive(port, 0.3))
    assert stalled < LARGE
    assert slow > LARGE


def test_crowds_do_not_stop_the_replication(rig: Rig, app: App) -> None:
    """However many connect and say nothing or nonsense, a bounded number is kept, and the log stays readable."""
    app.create(rig.db)
    daemon = rig.start(top={"addr": "127.0.0.1:0"})
    daemon.wait_until_ready()
    address = ("127.0.0.1", urlsplit(daemon.wait_for_log(r"status page at (http://\S+/)")[1]).port)

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{daemon.pid}/fd"))

    before = descriptors()
    with ExitStack() as stack:
        crowd = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(CONNECTIONS + 50)]
        assert crowd[-1].recv(1000).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        most = before + CONNECTIONS + 25  # the replication opens files meanwhile
        wait_until(lambda: descriptors() <= most, "those over the bound are let go")
        app.sql("CREATE TABLE t(x)")
        rig.converge()
        for sock in crowd[:20]:
            sock.sendall(b"\x16\x03\x01 no request\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 400")
    text = daemon.text()
    assert "Invalid HTTP" not in text
    assert "uvicorn" not in text
