"""What runs beside the databases: the control socket, the directories, the lookout, the heartbeat."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from litestream.daemon.lookout import Lookout
from litestream.daemon.memory import Thrift

if TYPE_CHECKING:
    from litestream.config import Config
    from litestream.daemon.control import Controller
    from litestream.daemon.directories import Directories
    from litestream.daemon.reload import Reloader
    from litestream.daemon.server import Server
    from litestream.daemon.watcher import Watcher
    from litestream.daemon.workshop import Source, Workshop
    from litestream.web.socket import ControlSocket

_PAUSE = 60.0
"""Seconds until what failed unexpectedly is done again."""


class Company:
    """Whatever a configuration asks for beside the databases; what it does not ask for is imported with the first
    SIGHUP only: the first upload does not wait for it, and no memory is taken.

    Args:
        source: where the configuration can be read again.
    """

    def __init__(
        self,
        server: Server,
        config: Config,
        workshop: Workshop,
        source: Source | None,
        watcher: Watcher,
        logger: logging.Logger,
    ) -> None:
        self._server = server
        self._config = config
        self._workshop = workshop
        self._source = source
        self._watcher = watcher
        self._logger = logger
        self._tasks: set[asyncio.Task[None]] = set()
        self._control: Controller | None = None
        self._directories: Directories | None = None
        self._reloader: Reloader | None = None
        self._socket: ControlSocket | None = None
        self._assembling = asyncio.Lock()

    async def begin(self, *, controlled: bool) -> None:
        """Begin what is needed at once; `controlled`: whether anybody but the socket wants `control`.

        Raises `ConfigError` if the control socket cannot be had, or a directory that is not watched has no database.
        """
        config, server = self._config, self._server
        if self._source is not None:
            server.on_hangup = self._on_hangup
        if controlled or config.socket.enabled or config.directories:
            await self._assemble()
        if config.socket.enabled:
            from litestream.web.socket import ControlSocket

            self._socket = ControlSocket(self.control, config.socket.path, config.socket.permissions)
            await self._socket.start()
            self._logger.info("control socket listening on %s", config.socket.path)
        self._go_on(Lookout(server, self._logger).run)
        self._go_on(Thrift().run)
        if config.heartbeat_url is not None:
            from litestream.daemon.heartbeat import Heartbeat

            url, interval = config.heartbeat_url.get_secret_value(), config.heartbeat_interval
            self._go_on(Heartbeat(url, interval, server, self._logger).run)

    @property
    def control(self) -> Controller:
        """What the running server can be asked for; there if `begin` was told that it is wanted."""
        assert self._control is not None
        return self._control

    async def close(self) -> None:
        """End it all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._control is not None:
            await self._control.close()
        if self._directories is not None:
            await self._directories.close()
        if self._socket is not None:
            await self._socket.close()

    async def _assemble(self) -> None:
        from litestream.daemon.control import Controller
        from litestream.daemon.directories import Directories

        server, config, make = self._server, self._config, self._workshop.make
        self._control = control = Controller(server, config, make, self._logger)
        self._directories = directories = Directories(config, server, control, make, self._watcher, self._logger)
        await directories.begin()
        server.expects_more = directories.expects_more
        if self._source is not None:
            from litestream.daemon.reload import Reloader

            workshop, logger = self._workshop, self._logger
            self._reloader = Reloader(server, control, directories, config, self._source, workshop, logger)
            control.on_reload = self._reloader.reload
        self._go_on(directories.run)

    def _on_hangup(self) -> None:
        if self._reloader is not None:
            self._reloader.on_signal()
            return
        task = asyncio.create_task(self._first_hangup(), name="first hangup")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _first_hangup(self) -> None:
        try:
            async with self._assembling:
                if self._reloader is None:
                    await self._assemble()
            self._on_hangup()
        except Exception:
            self._logger.exception("internal error while the configuration was reloaded")

    def _go_on(self, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks.add(asyncio.create_task(_for_ever(work, self._logger)))


@asynccontextmanager
async def accompanied(company: Company, *, controlled: bool) -> AsyncIterator[Company]:
    """Run a company beside a server. Raises `ConfigError` as `Company.begin` does."""
    try:
        await company.begin(controlled=controlled)
        yield company
    finally:
        await company.close()


async def _for_ever(work: Callable[[], Awaitable[None]], logger: logging.Logger) -> None:
    """Do `work` again whenever it fails: an alarm that has died in silence is worse than none."""
    while True:
        try:
            await work()
        except Exception:
            logger.exception("internal error, trying again in %gs", _PAUSE)
        await asyncio.sleep(_PAUSE)
