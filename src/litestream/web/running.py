"""A web application that is served in the daemon's own event loop, on sockets that listen already."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp


class Running:
    """What `run` started. The sockets stay the caller's."""

    def __init__(self, server: uvicorn.Server, task: asyncio.Task[None]) -> None:
        self._server = server
        self._task: asyncio.Task[None] | None = task

    async def close(self) -> None:
        """Stop serving; requests under way have a second to end. May be called twice."""
        self._server.should_exit = True
        task, self._task = self._task, None
        if task is not None:
            await task


def run(app: ASGIApp, sockets: Sequence[socket.socket], name: str, **options: Any) -> Running:  # noqa: ANN401 - uvicorn's
    """Serve `app`; `options` are those of `uvicorn.Config`."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Signals are the daemon's business."""
            yield

    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        **options,
    )
    server = Server(config)
    return Running(server, asyncio.create_task(server.serve(sockets=list(sockets)), name=name))
