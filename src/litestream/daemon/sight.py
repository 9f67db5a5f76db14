"""What a running replicator shows at its address: whether it is well, and the status page."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from litestream.daemon.board import Board
from litestream.daemon.control import Controller
from litestream.daemon.server import Server
from litestream.daemon.status import OK, STOPPED, WITHIN, DatabaseStatus
from litestream.metrics import DEFAULT
from litestream.web.api import Answer

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

HUNG = 60.0
"""Seconds without an answer after which the databases' threads count as hung: reading a large WAL may take a while."""

_PATIENCE = 0.5
"""Seconds for which one answer is waited for: whoever asks has little time."""

REASONS = 20
"""Reasons that are told; the rest are counted."""


class LaneProbe:
    """Whether the databases' threads answer: a task of nothing, one at a time, however many ask."""

    def __init__(self, lane: Executor, clock: Callable[[], float] = time.monotonic) -> None:
        self._lane = lane
        self._clock = clock
        self._asked_at = 0.0
        self._asked: asyncio.Future[None] | None = None

    async def waited(self) -> float:
        """For how long the threads have not answered, in seconds; 0.0 if they have just done so."""
        if self._asked is None:
            self._asked_at = self._clock()
            self._asked = asyncio.get_running_loop().run_in_executor(self._lane, _nothing)
        await asyncio.wait([self._asked], timeout=_PATIENCE)
        if self._asked is None or self._asked.done():
            self._asked = None
            return 0.0
        return self._clock() - self._asked_at


class Sight:
    """`litestream.web.site.Sight` of a `Server`."""

    def __init__(self, server: Server, control: Controller, lane: Executor) -> None:
        self._server = server
        self._control = control
        self._lane = LaneProbe(lane)
        self._board = Board(server, control)

    async def status(self, path: str, within: float | None) -> Answer:
        """The document of `litestream status`."""
        return await self._control.status(path, within)

    async def changes(self, since: str, detail: int) -> str:
        """What the page is told."""
        return await self._board.changes(since, detail)

    async def health(self) -> Answer:
        """That this is answered proves the event loop; the threads are asked."""
        waited = await self._lane.waited()
        found: Answer = {"ok": waited < HUNG, "threads_waited_seconds": round(waited, 3)}
        if not found["ok"]:
            found["error"] = f"the databases' threads have not answered for {waited:.0f} s"
        return found

    async def readiness(self, within: float | None) -> Answer:
        """Whether every database is attached, and everything committed `within` seconds ago durable everywhere."""
        bound = WITHIN if within is None else within
        reasons = [] if self._server.running else ["the replicator is starting or shutting down"]
        databases = await self._control.statuses()
        for database in databases:
            reasons += _reasons(database, bound)
        found: Answer = {"ok": not reasons, "within_seconds": bound, "databases": len(databases)}
        more = len(reasons) - REASONS
        return {**found, "reasons": reasons[:REASONS] + ([f"and {more} more"] if more > 0 else [])}


@asynccontextmanager
async def visible(
    addr: str,
    server: Server,
    control: Controller,
    lane: Executor,
    logger: logging.Logger,
    routes: Sequence[BaseRoute] = (),
    tls: tuple[str, str] | None = None,
) -> AsyncIterator[None]:
    """Serve metrics, status page and `routes` at `addr` meanwhile. `tls`: see `WebServer`.

    Raises `ConfigError` if the address cannot be had.
    """
    from litestream.web import serve_metrics
    from litestream.web.site import routes as site

    web = await serve_metrics(addr, DEFAULT, [*site(Sight(server, control, lane)), *routes], tls)
    logger.info("serving metrics on %s", web.url)
    logger.info("status page at %s", web.page)
    try:
        yield
    finally:
        await web.close()


def _reasons(database: DatabaseStatus, within: float) -> list[str]:
    if database.status == STOPPED:
        return [f"{database.path}: stopped by request"]
    if database.status != OK:
        return [f"{database.path}: {database.error or database.status}"]
    found = []
    for replica in database.replicas:
        if not replica.within(within):
            name = f"{database.path}({replica.name})"
            found.append(f"{name}: {replica.error or f'{replica.status}, {replica.lag_seconds:.0f} s behind'}")
    return found


def _nothing() -> None:
    """What a thread that answers does."""
