"""HTTP/1.1 to one server: h11 speaks the protocol, asyncio moves the bytes, so that every request can be cancelled.

For services that no library serves as we need. Connections are kept and used again; a request that is cancelled or
goes wrong closes its own. Nothing is retried, no redirect followed, and no proxy of the environment used. Certificates
are checked against the system's authorities, or those that SSL_CERT_FILE and SSL_CERT_DIR name.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h11

_CHUNK = 256 << 10
"""Bytes asked from, and handed to, a connection at once."""
_IDLE = 45.0
"""Seconds after which a connection is not used again: servers and routers on the way drop it unseen."""
_KEPT = 8
"""Idle connections kept."""
_CONTINUE = 1.0
"""Seconds to wait for a server to say that it wants a streamed body; old ones never say."""
_LAST_WORDS = 1.0
"""Seconds in which a server that closed the connection on our body may still have told why."""
_SHORT = 4 << 20
"""Bytes of an answer that is read whole."""

Body = bytes | bytearray | AsyncIterator[bytes]


class BodyError(Exception):
    """Carries what a request's body raised, so that it is not taken for a fault of the network."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests go: scheme (http, https), host without brackets, port."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """`HOST[:PORT]`, as in URLs."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"


class Answer:
    """Status and headers (lower case) of an answer; the body is read from the connection."""

    def __init__(self, connection: _Connection, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection
        self._ended = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body. `OSError` if it ends before its time."""
        import h11

        while not self._ended:
            event = await self._connection.event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                self._ended = True

    async def read(self, limit: int = _SHORT) -> bytes:
        """The body, of which what is beyond `limit` bytes is dropped."""
        held = bytearray()
        async for chunk in self.chunks():
            held += chunk[: max(0, limit - len(held))]
        return bytes(held)


class HTTPClient:
    """Requests to one origin. `headers` go with each.

    `context` is for a server that other authorities vouch for. With `keepalive` the system finds out within a minute
    that a server which has nothing to say is gone.
    """

    def __init__(
        self,
        origin: Origin,
        headers: Mapping[str, str],
        *,
        context: ssl.SSLContext | None = None,
        keepalive: bool = False,
    ) -> None:
        self._origin = origin
        self._headers = {"Host": origin.authority, "Accept-Encoding": "identity", **headers}
        self._idle: list[_Connection] = []
        self._context = context
        self._keepalive = keepalive

    @asynccontextmanager
    async def request(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: Body = b""
    ) -> AsyncGenerator[Answer, None]:
        """Send one request; within the context its answer can be read.

        Raises `OSError` (`ssl.SSLError` among them) when there is no answer, and `BodyError` with what a body raised.
        A body that is an iterator goes out chunked, once the server has said that it wants it.
        """
        connection = await self._connection()
        sound = False
        try:
            status, got = await connection.send(method, target, {**self._headers, **(headers or {})}, body)
            yield Answer(connection, status, got)
            sound = connection.reusable()
        finally:
            if sound and len(self._idle) < _KEPT:
                self._idle.append(connection)
            else:
                connection.abort()

    async def close(self) -> None:
        """Let the idle connections go."""
        while self._idle:
            self._idle.pop().abort()
        await asyncio.sleep(0)  # asyncio closes the sockets in its next turn

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.alive():
                return connection
            connection.abort()
        context = None
        if self._origin.scheme == "https":
            context = self._context = self._context or ssl.create_default_context()
        host, port = self._origin.host, self._origin.port
        try:
            reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=_CHUNK)
        except OSError as error:
            if f"[Errno {errno.ECONNREFUSED}]" in str(error):  # of several addresses, asyncio tells all in one text
                raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused") from None
            raise
        if self._keepalive:
            _keep_alive(writer.get_extra_info("socket"))
        return _Connection(reader, writer)


class _Connection:
    """One connection and the state of the protocol on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        import h11

        self._reader, self._writer = reader, writer
        self._state = h11.Connection(h11.CLIENT)
        self._used = time.monotonic()

    def alive(self) -> bool:
        return not self._reader.at_eof() and not self._writer.is_closing() and time.monotonic() - self._used < _IDLE

    def abort(self) -> None:
        self._writer.transport.abort()

    def reusable(self) -> bool:
        """Whether the exchange is over, and both sides want another one."""
        import h11

        if self._state.our_state is not h11.DONE or self._state.their_state is not h11.DONE:
            return False
        self._state.start_next_cycle()
        self._used = time.monotonic()
        return True

    async def send(self, method: str, target: str, headers: dict[str, str], body: Body) -> tuple[int, dict[str, str]]:
        """Send a request; the status and headers of the answer."""
        import h11

        streamed = not isinstance(body, bytes | bytearray)
        if isinstance(body, bytes | bytearray):
            if body or method in {"PUT", "POST"}:
                headers["Content-Length"] = str(len(body))
        else:
            headers |= {"Transfer-Encoding": "chunked", "Expect": "100-continue"}
        self._write(h11.Request(method=method, target=target, headers=list(headers.items())))
        if streamed:
            try:
                async with asyncio.timeout(_CONTINUE):
                    answer = await self._head()
            except TimeoutError:
                answer = None
            if answer is not None:
                return answer
        try:
            await self._send_body(body)
        except OSError:
            try:
                async with asyncio.timeout(_LAST_WORDS):
                    return await self._final()
            except (OSError, TimeoutError):
                pass
            raise
        return await self._final()

    async def _send_body(self, body: Body) -> None:
        import h11

        if isinstance(body, bytes | bytearray):
            for at in range(0, len(body), _CHUNK):
                self._write(h11.Data(data=bytes(body[at : at + _CHUNK])))
                await self._writer.drain()
        else:
            while chunk := await _next(body):
                self._write(h11.Data(data=chunk))
                await self._writer.drain()
        self._write(h11.EndOfMessage())
        await self._writer.drain()

    async def _final(self) -> tuple[int, dict[str, str]]:
        """The answer itself, after any interim ones."""
        while True:
            if (answer := await self._head()) is not None:
                return answer

    async def _head(self) -> tuple[int, dict[str, str]] | None:
        """The next answer; None for an interim one (100 Continue)."""
        import h11

        event = await self.event()
        if isinstance(event, h11.InformationalResponse):
            return None
        if not isinstance(event, h11.Response):
            raise ConnectionResetError("the server closed the connection")
        return event.status_code, {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}

    async def event(self) -> h11.Event | type[h11.PAUSED]:
        """What comes next from the server."""
        import h11

        try:
            while (event := self._state.next_event()) is h11.NEED_DATA:
                self._state.receive_data(await self._reader.read(_CHUNK))
        except h11.RemoteProtocolError as error:
            raise OSError(f"no HTTP answer: {error}") from None
        if isinstance(event, h11.ConnectionClosed):
            raise ConnectionResetError("the server closed the connection")
        assert not isinstance(event, type) or event is h11.PAUSED
        return event

    def _write(self, event: h11.Event) -> None:
        for piece in self._state.send_with_data_passthrough(event) or ():
            self._writer.write(piece)


def _keep_alive(sock: socket.socket) -> None:
    """Have the system ask after 20 s of silence whether the other side is there, and give up after three more tries."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _next(body: AsyncIterator[bytes]) -> bytes:
    """The next chunk that has bytes; none at the end."""
    try:
        async for chunk in body:
            if chunk:
                return chunk
    except Exception as error:
        raise BodyError(error) from error
    return b""
