"""What runs beside the databases: the control socket, the lookout, the heartbeat."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from litestream.config import Config
from litestream.daemon.control import Controller
from litestream.daemon.directories import Directories
from litestream.daemon.lookout import Lookout
from litestream.daemon.reload import Reloader, Source, Workshop
from litestream.daemon.server import Server
from litestream.daemon.watcher import Watcher

_PAUSE = 60.0
"""Seconds until what failed unexpectedly is done again."""


@asynccontextmanager
async def accompanied(
    server: Server,
    config: Config,
    workshop: Workshop,
    source: Source | None,
    watcher: Watcher,
    logger: logging.Logger,
) -> AsyncIterator[Controller]:
    """Run beside a server whatever the configuration asks for; `source` is where it can be read again.

    Raises `ConfigError` if the control socket cannot be had, or a directory that is not watched has no database.
    """
    control = Controller(server, config, workshop.make, logger)
    directories = Directories(config, server, control, workshop.make, watcher, logger)
    await directories.begin()
    server.expects_more = directories.expects_more
    if source is not None:
        reloader = Reloader(server, control, directories, config, source, workshop, logger)
        control.on_reload, server.on_hangup = reloader.reload, reloader.on_signal
    socket = None
    if config.socket.enabled:
        from litestream.web.socket import ControlSocket

        socket = ControlSocket(control, config.socket.path, config.socket.permissions)
        await socket.start()
        logger.info("control socket listening on %s", config.socket.path)
    works: list[Callable[[], Awaitable[None]]] = [Lookout(server, logger).run, directories.run]
    if config.heartbeat_url is not None:
        from litestream.daemon.heartbeat import Heartbeat

        heartbeat = Heartbeat(config.heartbeat_url.get_secret_value(), config.heartbeat_interval, server, logger)
        works.append(heartbeat.run)
    tasks = [asyncio.create_task(_for_ever(work, logger)) for work in works]
    try:
        yield control
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await control.close()
        await directories.close()
        if socket is not None:
            await socket.close()


async def _for_ever(work: Callable[[], Awaitable[None]], logger: logging.Logger) -> None:
    """Do `work` again whenever it fails: an alarm that has died in silence is worse than none."""
    while True:
        try:
            await work()
        except Exception:
            logger.exception("internal error, trying again in %gs", _PAUSE)
        await asyncio.sleep(_PAUSE)
