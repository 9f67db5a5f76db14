"""The command of `-exec`: an application that runs as long as its databases are replicated.

It stays in our process group, so that it can use the terminal, and only it is sent signals, not what it starts in turn.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import signal
from collections.abc import Mapping

from litestream.errors import ConfigError

KILL_AFTER = 10.0
"""Seconds that the command has to end after it was sent the signal to stop; then it is killed."""


class Child:
    """Starts a command, passes signals on, and says how it ended.

    The command is split into words as a shell would, and run without one. It gets the environment and, as
    `LITESTREAM_DB_PATH`, the path of the first database, if there is one.
    """

    def __init__(self, command: str, environ: Mapping[str, str], database: str, logger: logging.Logger) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise ConfigError(f"exec: cannot be split into words: {error}: {command!r}") from error
        if not self._words:
            raise ConfigError("exec: the command is empty")
        self._environ = {**environ, "LITESTREAM_DB_PATH": database} if database else dict(environ)
        self._logger = logger
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it. Raises `ConfigError` if there is no such command."""
        try:
            self._process = await asyncio.create_subprocess_exec(*self._words, env=self._environ)
        except OSError as error:
            raise ConfigError(f"exec: cannot run {self._words[0]!r}: {error.strerror}") from error

    async def wait(self) -> int:
        """Its exit status; 128 and the signal's number if a signal ended it; 0 if it was never started."""
        if self._process is None:
            return 0
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def stop(self, number: int) -> int:
        """Send a signal, wait, and kill it if it does not end; its exit status, 0 if that signal ended it."""
        process = self._process
        if process is None or process.returncode is not None:
            return await self.wait()
        if not _has_it_already(number):
            process.send_signal(number)
        try:
            async with asyncio.timeout(KILL_AFTER):
                await process.wait()
        except TimeoutError:
            self._logger.warning("subprocess does not end, killing it", extra={"fields": {"pid": process.pid}})
            process.kill()
        code = await self.wait()
        return 0 if code == 128 + number else code

    def kill(self) -> None:
        """SIGKILL, if it runs: we are about to be gone, and nothing it commits from now on would be replicated."""
        process = self._process
        if process is not None and process.returncode is None:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def _has_it_already(number: int) -> bool:
    """Whether a terminal has sent the signal to the whole process group, and so to the command: Ctrl-C.

    Many programs take a second SIGINT for the wish to end at once.
    """
    if number != signal.SIGINT:
        return False
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False  # no terminal
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
