"""A request every few minutes while every database is safe: whoever misses it raises the alarm."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from litestream.daemon.server import Server
from litestream.errors import LitestreamError
from litestream.storage.plain_http import request
from litestream.version import VERSION

CHECK = 15.0
"""Seconds between looks at whether one is due."""

TIMEOUT = 30.0
"""Seconds for an answer, as in the official program."""

RETRY = 60.0
"""Seconds until the next try after one that failed."""


class Heartbeat:
    """Asks for `url` (GET, an answer of 2xx) once per `interval` seconds.

    Only while every database that is replicated is, no replica lacks anything older than `interval`, and every follower
    follows. The URL is a secret: no text shows more of it than the host.
    """

    def __init__(
        self,
        url: str,
        interval: float,
        server: Server,
        logger: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._host = urlsplit(url).hostname or "?"
        self._interval = interval
        self._server = server
        self._logger = logger
        self._clock = clock
        self._due = clock()
        self._withheld = False

    async def run(self, check: float = CHECK) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(check)
            await self.beat()

    async def beat(self) -> None:
        """Send one, if it is due and everything is safe."""
        if self._clock() < self._due:
            return
        unsafe = self._unsafe()
        if unsafe is not None:
            if not self._withheld:
                self._logger.warning("heartbeat withheld: not every database is safe", extra={"fields": unsafe})
            self._withheld = True
            return
        self._withheld = False
        try:
            await self._send()
        except (LitestreamError, OSError, TimeoutError) as error:
            self._due = self._clock() + min(RETRY, self._interval)
            fields = {"host": self._host, "error": _reason(error)}
            self._logger.warning("heartbeat failed", extra={"fields": fields})
        else:
            self._due = self._clock() + self._interval
            self._logger.debug("heartbeat sent", extra={"fields": {"host": self._host}})

    def _unsafe(self) -> dict[str, object] | None:
        """What is not safe, for the log; None if everything is."""
        ways = [entry.observer.look if entry.observer is not None else entry.look for entry in self._server.entries]
        looks = [look() for look in ways if look is not None]
        paths = [status.path for status in looks if not status.within(self._interval)]
        if not looks:
            return {"databases": 0}
        return {"db": paths[0], "databases": len(paths)} if paths else None

    async def _send(self) -> None:
        headers = {"User-Agent": f"litestream/{VERSION}"}
        async with asyncio.timeout(TIMEOUT):
            answer = await request("GET", self._url, headers, timeout=TIMEOUT)
        if not 200 <= answer.status < 300:
            raise LitestreamError(f"the answer was {answer.status}")


def _reason(error: BaseException) -> str:
    """Why it failed, without anything of the address."""
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
