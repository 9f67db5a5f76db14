"""What a service manager is told (`sd_notify` of systemd): ready, stopping, how it goes, and that we are alive.

Datagrams of `NAME=value` lines go to the socket that `NOTIFY_SOCKET` names. The watchdog is fed from the event loop,
and only after a thread of the databases' lane has answered: if either hangs there is no ping, and the manager restarts
us.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, MutableMapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litestream.daemon.server import Server

STATUS_INTERVAL = 5.0
"""Seconds between looks at what the status line says; it is sent only when it has changed."""

BEHIND = 30.0
"""Seconds from which on a database whose commits are not durable counts as behind."""

EXTENSION = 20.0
"""Seconds of more time that are asked for, again and again, while a restore or the last sync goes on."""

_EXTEND_EVERY = 5.0


class Notifier:
    """The service manager's socket; without one everything here does nothing.

    Nothing waits for the manager, and it need not be there any more: what could not be sent is sent again by `run`, or
    is old by then.

    Args:
        address: the socket: a path, or `@name` of the abstract namespace; empty: none.
        watchdog: seconds within which the manager wants a ping; 0: it wants none.
    """

    def __init__(self, address: str = "", watchdog: float = 0.0, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("litestream.server")
        self._socket: socket.socket | None = None
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog = watchdog
        self._unsent = ""
        self._status = ""
        self._stopping = False
        if address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        elif address:
            self._logger.warning("NOTIFY_SOCKET is neither a path nor an abstract name: nobody is notified")

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str], logger: logging.Logger | None = None) -> Notifier:
        """Take over what the environment says; the variables are removed, so that no child speaks in our name."""
        address, usec = environ.pop("NOTIFY_SOCKET", ""), environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        wanted = usec.isascii() and usec.isdigit() and pid in ("", str(os.getpid()))
        return cls(address, int(usec) / 1e6 if wanted else 0.0, logger)

    @property
    def enabled(self) -> bool:
        """Whether somebody is told."""
        return self._socket is not None

    def ready(self) -> None:
        """Everything was started; also the end of `reloading`."""
        if not self._stopping:
            self._state("READY=1")

    def reloading(self) -> None:
        """The configuration is read again; `ready` ends it."""
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._state(f"RELOADING=1\nMONOTONIC_USEC={usec}")

    def stopping(self) -> None:
        """The end has begun. Until then more time is asked for as long as `run` runs."""
        self._stopping = True
        self._state("STOPPING=1")
        self._extend()

    def status(self, text: str) -> None:
        """One line for people; sent only if it is another one than before."""
        text = text.replace("\n", " ")
        if text != self._status and self._send(f"STATUS={text}"):
            self._status = text

    async def starting(self) -> None:
        """Ask for more time until cancelled: for what takes long before anything is ready."""
        while True:
            self._extend()
            await asyncio.sleep(_EXTEND_EVERY)

    async def run(self, server: Server, lane: Executor) -> None:
        """Say when every database was tried, then keep the status line fresh, and feed the watchdog, until cancelled.

        `lane` has the databases' threads.
        """
        if self.enabled:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tell(server))
                if self._watchdog:
                    group.create_task(self._feed(lane))
                starting = group.create_task(self.starting())  # the first look at a large database takes a while
                await server.tried()
                starting.cancel()
                self.ready()

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # -- inside

    async def _tell(self, server: Server) -> None:
        while True:
            if self._unsent:
                self._state(self._unsent)
            if self._stopping:
                self._extend()
            else:
                await self._describe(server)
            await asyncio.sleep(STATUS_INTERVAL)

    async def _describe(self, server: Server) -> None:
        try:
            self.status(await described(server))
        except Exception:
            self._logger.exception("internal error")  # a line for people: the watchdog must not end with it

    async def _feed(self, lane: Executor) -> None:
        """A ping every half of the manager's time, each after a thread has answered."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._watchdog / 2
            await loop.run_in_executor(lane, _nothing)
            self._send("WATCHDOG=1")
            await asyncio.sleep(due - loop.time())

    def _state(self, text: str) -> None:
        self._unsent = "" if self._send(text) else text

    def _extend(self) -> None:
        self._send(f"EXTEND_TIMEOUT_USEC={round(EXTENSION * 1e6)}")

    def _send(self, text: str) -> bool:
        if self._socket is None:
            return True
        try:
            self._socket.sendto(text.encode("utf-8", "backslashreplace"), self._address)
        except (OSError, ValueError) as error:
            self._logger.debug("service manager not notified: %s", error)
            return False
        return True


@asynccontextmanager
async def notifying(notifier: Notifier, server: Server, lane: Executor) -> AsyncIterator[None]:
    """Have the notifier run meanwhile; it is closed in the end."""
    task = asyncio.create_task(notifier.run(server, lane), name="notify")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        notifier.close()


async def described(server: Server) -> str:
    """The status line: how many databases, and how many are behind."""
    count = behind = 0
    for entry in server.entries:
        count += 1
        if entry.observer is not None and not entry.observer.look().within(BEHIND):
            behind += 1
        if count % 100 == 0:
            await asyncio.sleep(0)  # a thousand databases take a while, and uploads go on
    databases = "1 database" if count == 1 else f"{count} databases"
    return f"replicating {databases}, {behind} behind" if behind else f"replicating {databases}, all up to date"


def _nothing() -> None:
    """What a thread that answers does."""
