"""A TCP proxy on loopback that breaks connections on demand, in a thread of its own so that blocking clients work too.

::

    with TCPProxy(server_port) as proxy:
        open_store(f"http://127.0.0.1:{proxy.port}")
        proxy.hang()        # from now on, old connections included
        proxy.forward()     # connections that were broken or hung are reset, new ones work

Byte counts begin when the mode is set and run over all connections together.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Literal, Self

Direction = Literal["client", "server"]
"""Whose bytes they are."""
Mode = Literal["forward", "hang", "reset", "refuse", "cut", "lost", "slow"]

_CHUNK = 64 << 10
_RST = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST
_HARMLESS: frozenset[Mode] = frozenset({"forward", "slow"})


class TCPProxy:
    """The proxy; a context manager. With `tls` it speaks TLS to the client and plain TCP to the server.

    Attributes:
        port: where it listens; stays the same over `refuse()`.
        connections: how many connections were accepted.
        upstream_connections: how many were opened to the server; with `tls`, only after a completed handshake.
        spoke_plain: whether a client sent something else than TLS to a TLS proxy.
    """

    def __init__(self, upstream_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.connections = 0
        self.upstream_connections = 0
        self.spoke_plain = False
        self._upstream_port = upstream_port
        self._tls = tls
        self._mode: Mode = "forward"
        self._left: dict[Direction, int | None] = {"client": None, "server": None}
        self._rate = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcpproxy", daemon=True)
        self._acceptor: asyncio.Task[None] | None = None
        self._links: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._shut(listener=True))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def forward(self) -> None:
        """Pass everything on."""
        self._switch("forward")

    def hang(self) -> None:
        """Accept connections and pass nothing on, in either direction, for ever."""
        self._switch("hang")

    def reset(self) -> None:
        """Reset (RST) all connections, new ones as soon as they are accepted."""
        self._switch("reset")

    def refuse(self) -> None:
        """Reset all connections and stop listening, as if the server were not running."""
        self._switch("refuse")

    def cut_after(self, *, client: int | None = None, server: int | None = None) -> None:
        """Reset each connection that goes beyond so many bytes of the client or of the server."""
        self._switch("cut", client=client, server=server)

    def lost_answer(self, *, skip: int = 0) -> None:
        """Pass requests on; drop the first answer (after `skip` bytes of answers) and close the connection."""
        self._switch("lost", server=skip)

    def slow(self, rate: int) -> None:
        """Pass on at most `rate` bytes a second in each direction of each connection."""
        self._switch("slow", rate=rate)

    def _switch(self, mode: Mode, *, client: int | None = None, server: int | None = None, rate: int = 0) -> None:
        async def switch() -> None:
            broken = self._mode not in _HARMLESS
            self._mode, self._rate = mode, rate
            self._left = {"client": client, "server": server}
            if broken or mode in {"reset", "refuse"}:
                await self._shut(listener=mode == "refuse")
            if mode != "refuse":
                await self._listen()

        self._call(switch())

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        if self._acceptor is not None:
            return
        listener = socket.socket()
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Small buffers (inherited by what is accepted), so that a byte the proxy does not take stays with the client.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CHUNK)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        self.port = listener.getsockname()[1]
        self._acceptor = asyncio.create_task(self._accept(listener))

    async def _shut(self, *, listener: bool) -> None:
        """Reset all connections, and stop listening if asked to."""
        tasks = list(self._links)
        if listener and self._acceptor is not None:
            tasks.append(self._acceptor)
            self._acceptor = None
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        for _ in range(3):
            await asyncio.sleep(0)

    async def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                accepted, _ = await self._loop.sock_accept(listener)
                self.connections += 1
                link = asyncio.create_task(self._link(accepted))
                self._links.add(link)
                link.add_done_callback(self._links.discard)

    async def _link(self, accepted: socket.socket) -> None:
        """One connection, until one side ends it or it is cancelled; what is still open then is reset."""
        ends: list[tuple[asyncio.WriteTransport, socket.socket]] = []
        try:
            if self._mode == "reset":
                return
            if self._mode == "hang":
                await asyncio.Event().wait()
            accepted.setblocking(False)
            reader, writer = await self._server_side(accepted)
            ends.append((writer.transport, accepted))
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port, limit=_CHUNK)
            ends.append((up_writer.transport, up_writer.get_extra_info("socket")))
            self.upstream_connections += 1
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump("client", reader, up_writer))
                group.create_task(self._pump("server", up_reader, writer))
        except* OSError:
            pass  # a side is gone, or the mode breaks the connection: below
        finally:
            for transport, sock in ends:
                if sock.fileno() >= 0:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
                transport.abort()
            if not ends and accepted.fileno() >= 0:
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
                accepted.close()
            for _ in range(3):
                await asyncio.sleep(0)  # what is aborted closes its socket in a later turn
            with contextlib.suppress(OSError):  # gone, as it should be
                accepted.shutdown(socket.SHUT_RDWR)  # a TLS connection that was closing already takes no abort

    async def _server_side(self, accepted: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader = asyncio.StreamReader(limit=_CHUNK)
        protocol = asyncio.StreamReaderProtocol(reader)
        timing = {"ssl_shutdown_timeout": 0.5} if self._tls else {}
        try:
            transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, accepted, ssl=self._tls, **timing)
        except ssl.SSLError as error:
            self.spoke_plain |= error.reason in {"HTTP_REQUEST", "WRONG_VERSION_NUMBER"}
            raise
        return reader, asyncio.StreamWriter(transport, protocol, reader, self._loop)

    async def _pump(self, side: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(min(_CHUNK, max(1, self._rate // 20)) if self._rate else _CHUNK):
            mode, left = self._mode, self._left[side]
            if mode == "hang":
                await asyncio.Event().wait()
            if left is not None:
                data, over = data[:left], len(data) > left
                self._left[side] = left - len(data)
            else:
                over = False
            writer.write(data)
            await writer.drain()
            if over:
                if mode == "lost":
                    writer.close()
                    await writer.wait_closed()
                raise ConnectionResetError
            if self._rate:
                await asyncio.sleep(len(data) / self._rate)
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()  # TLS knows no half-closed connection
            await writer.wait_closed()
