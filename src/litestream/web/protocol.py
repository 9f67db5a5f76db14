"""Bounds for whoever connects: how many there may be, and how long one may keep us waiting.

A connection is a file descriptor, and the databases need theirs: without a bound, clients that open connections and say
nothing would stop the replication.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST = 30.0
"""Seconds in which a request has to arrive: from the connection or, later on, its first byte until its end."""

STALLED = 60.0
"""Seconds without a byte taken after which a client that is being answered has gone."""

_FULL = b"too many connections: try again later\n"

_log = logging.getLogger("litestream.http")


class Patience:
    """For how long one connection has kept us waiting. Times are those of its event loop, in seconds."""

    def __init__(self, now: float) -> None:
        self._incomplete_since: float | None = now
        self._stalled_since: float | None = None
        self._left = 0

    def received(self, now: float, *, complete: bool) -> None:
        """Something came; `complete` if no end of a request is missing now."""
        if complete:
            self._incomplete_since = None
        elif self._incomplete_since is None:
            self._incomplete_since = now

    def taken(self) -> None:
        """The client took some of what it is sent: a buffer that is as full as before was emptier in between."""
        self._stalled_since = None

    def is_over(self, now: float, left: int) -> bool:
        """Whether that was long enough, with `left` bytes that the client has not taken."""
        if not left or left != self._left:
            self._stalled_since = None
        elif self._stalled_since is None:
            self._stalled_since = now
        self._left = left
        late = self._incomplete_since is not None and now - self._incomplete_since >= REQUEST
        return late or (self._stalled_since is not None and now - self._stalled_since >= STALLED)


def bounded(connections: int) -> type[H11Protocol]:
    """uvicorn's protocol for at most so many connections of one server; more are told to come back."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    if _quiet not in _log.filters:
        _log.addFilter(_quiet)

    class Protocol(H11Protocol):
        _patience: Patience
        _look: asyncio.TimerHandle

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
            super().connection_made(transport)
            self.logger = _log  # uvicorn's own may be another application's, or write to stderr
            self._patience = Patience(self.loop.time())
            self._watch()
            if len(self.connections) > connections:
                transport.write(answer(503, "Service Unavailable", "text/plain; charset=utf-8", _FULL))
                transport.close()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            complete = self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)
            self._patience.received(self.loop.time(), complete=complete)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._patience.taken()

        def connection_lost(self, exc: Exception | None) -> None:
            self._look.cancel()
            super().connection_lost(exc)

        def _watch(self) -> None:
            """Look after the connection now and then, until it is lost; end it if it waited in vain."""
            if self._patience.is_over(self.loop.time(), self.transport.get_write_buffer_size()):
                self.transport.abort()  # a close would wait for what it does not take
                return
            self._look = self.loop.call_later(min(REQUEST, STALLED) / 4, self._watch)

    return Protocol


def answer(status: int, phrase: str, kind: str, body: bytes) -> bytes:
    """A whole answer, after which the connection is closed."""
    head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: {kind}\r\nconnection: close\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def _quiet(record: logging.LogRecord) -> bool:
    """What clients do wrong is told at level debug alone, and waiters that the end cuts off are no errors."""
    if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
        return False
    if record.levelno >= logging.ERROR:
        return True
    record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    return _log.isEnabledFor(logging.DEBUG)
