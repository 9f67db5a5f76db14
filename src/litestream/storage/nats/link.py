"""The connection of a `nats` store: requests that end when it does, and a socket that can be held to TLS."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.errors import Error as ClientError
from nats.errors import NoRespondersError, NoServersError

from litestream.storage.nats.errors import ApiError, NoTLSError, RefusedError, connect_error, refused_subject
from litestream.storage.nats.login import login, tls_context
from litestream.storage.wrappers.progress import progress

if TYPE_CHECKING:
    import ssl

    from nats.aio.msg import Msg

    from litestream.storage.nats import NATSConfig

T = TypeVar("T")

_PING = 30
"""Seconds without a word after which the server is asked whether it is there; two silences end the connection."""
_GRACE = 0.5
"""Seconds for which the end of something is waited for that nobody wants any more."""
_SILENCE = 1.0
"""Seconds; who gives up after a longer silence of the server takes the connection with him: it may be dead."""


class Socket(TcpTransport):
    """nats-py's transport, and what it lacks.

    It can be broken off, knows when the server was last heard, and where TLS is asked for it writes nothing before
    the handshake: nats-py goes on in plain if the server says so.
    """

    def __init__(self, ended: Callable[[], None], *, encrypted: bool) -> None:
        self.ended = ended
        super().__init__()  # type: ignore[no-untyped-call]  # nats-py has types, but not here
        self.heard = time.monotonic()
        self._may_write = not encrypted

    async def connect_tls(self, uri: Any, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int) -> None:  # noqa: ANN401 - the type of nats-py
        await super().connect_tls(uri, ssl_context, buffer_size, connect_timeout)
        self._may_write = True

    def write(self, payload: bytes) -> None:
        self._check()
        super().write(payload)  # type: ignore[no-untyped-call]  # as above

    def writelines(self, payload: list[bytes]) -> None:
        self._check()
        super().writelines(payload)  # type: ignore[no-untyped-call]  # as above

    async def read(self, buffer_size: int) -> bytes:
        try:
            data: bytes = await super().read(buffer_size)
        except OSError:
            self.ended()
            raise
        self.heard = time.monotonic()
        if not data:
            self.ended()
        return data

    async def drain(self) -> None:
        with suppress(OSError):  # nats-py would raise it where nobody hears it; the reader notices too
            await super().drain()  # type: ignore[no-untyped-call]  # as above

    def close(self) -> None:
        self.ended()
        super().close()  # type: ignore[no-untyped-call]  # as above

    async def wait_closed(self) -> None:
        """Nothing is waited for: `abort` ends it."""

    def abort(self) -> None:
        """Close the socket at once."""
        for writer in (self._io_writer, self._bare_io_writer):
            if writer is not None:
                writer.transport.abort()

    def __bool__(self) -> bool:
        return True  # otherwise nats-py would make one of its own

    def _check(self) -> None:
        if not self._may_write:
            raise NoTLSError("no TLS")


class NATSLink:
    """A connection to one server, for any number of requests at once."""

    def __init__(self, stream: str, timeout: float, *, encrypted: bool) -> None:
        self.client = Client()
        self.stream = stream
        self._socket = Socket(self.lost, encrypted=encrypted)
        self.client._transport = self._socket  # there is no public way to say which
        self._timeout = timeout
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)

    @property
    def alive(self) -> bool:
        return self.client.is_connected and not self._lost.done()

    async def api(self, name: str, body: object = None) -> dict[str, Any]:
        """A request to JetStream. Raises `ApiError` for its own errors, the client's exceptions for the rest."""
        data = b"" if body is None else json.dumps(body).encode()
        return _checked((await self.request(f"$JS.API.{name}", data)).data)

    async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> int:
        """Store a message; its sequence number."""
        try:
            answer = await self.request(subject, data, headers)
        except NoRespondersError:
            await self.api(f"STREAM.INFO.{self.stream}")  # says so if the bucket is not there
            raise
        return int(_checked(answer.data)["seq"])

    async def request(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> Msg:
        """The answer to a message. Raises the client's exceptions."""
        return await self.wait(subject, self.client.request(subject, data, timeout=self._timeout, headers=headers))

    async def wait(self, subject: str, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which asks `subject`, unless the connection ends or the server refuses that first.

        Cancelled, it ends within about half a second, whatever the server does.
        """
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked[subject.lower()].add(refused)
        task = asyncio.ensure_future(work)
        began = time.monotonic()
        ends: list[asyncio.Future[Any]] = [task, self._lost, refused]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if time.monotonic() - max(began, self._socket.heard) > _SILENCE:
                self.abort()
            raise
        finally:
            self._forget(subject.lower(), refused)
            ended = task.done()
            task.cancel()
            task.add_done_callback(_ignore)
            if not ended:
                await asyncio.wait([task], timeout=_GRACE)
        if ended:
            progress()
            return task.result()
        raise RefusedError(subject) if refused.done() else ConnectionResetError

    def told(self, error: Exception) -> None:
        """What the server says without being asked: it may be that a permission is missing."""
        for refused in self._asked.get(refused_subject(error), ()):
            if not refused.done():
                refused.set_result(None)

    def lost(self) -> None:
        """The connection has ended."""
        if not self._lost.done():
            self._lost.set_result(None)

    def abort(self) -> None:
        """Break the connection off; what waits for an answer gets an error."""
        self.lost()
        self._socket.abort()

    async def close(self) -> None:
        self.lost()
        with suppress(Exception):  # whatever nats-py makes of a connection that is half open
            await asyncio.wait_for(self.client.close(), _GRACE)
        self._socket.abort()

    def _forget(self, subject: str, refused: asyncio.Future[None]) -> None:
        waiting = self._asked[subject]
        waiting.discard(refused)
        if not waiting:
            del self._asked[subject]


async def connect(config: NATSConfig) -> NATSLink:
    """Connect and log in. Raises `StorageError`."""
    arguments, way = login(config)
    context = tls_context(config)
    link = NATSLink(f"OBJ_{config.bucket}", config.timeout, encrypted=config.encrypted)
    errors: list[Exception] = []

    async def error_cb(error: Exception) -> None:
        errors[:] = [error]
        link.told(error)

    try:
        async with asyncio.timeout(config.timeout):
            await link.client.connect(
                config.servers,
                error_cb=error_cb,
                name="litestream",
                allow_reconnect=False,  # what was under way must fail, and not be sent later
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=max(1, int(config.timeout)),
                ping_interval=_PING,
                pending_size=-1,  # never waits within a publish, where a cancellation would be lost
                tls=context,
                **arguments,
            )
    except BaseException as error:
        await link.close()
        if not isinstance(error, ClientError | OSError | TimeoutError | ValueError):
            raise
        cause = errors[-1] if errors and isinstance(error, NoServersError) else error
        raise connect_error(cause, config.url, way) from cause
    return link


def _checked(data: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(data)
    if "error" in answer:
        raise ApiError(answer["error"])
    return answer


def _ignore(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()
