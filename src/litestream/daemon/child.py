"""The command of `-exec`: an application that runs as long as its databases are replicated."""

from __future__ import annotations

import asyncio
import logging
import shlex
import signal
from collections.abc import Mapping

from litestream.errors import ConfigError

KILL_AFTER = 10.0
"""Seconds that the command has to end after it was sent the signal to stop; then it is killed."""


class Child:
    """Starts a command, passes signals on, and says how it ended.

    The command is split into words as a shell would, and run without one. It gets the environment and, as
    `LITESTREAM_DB_PATH`, the path of the first database.
    """

    def __init__(self, command: str, environ: Mapping[str, str], database: str, logger: logging.Logger) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise ConfigError(f"exec: cannot be split into words: {error}: {command!r}") from error
        if not self._words:
            raise ConfigError("exec: the command is empty")
        self._environ = {**environ, "LITESTREAM_DB_PATH": database}
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
        process.send_signal(number)
        try:
            async with asyncio.timeout(KILL_AFTER):
                await process.wait()
        except TimeoutError:
            self._logger.warning("subprocess does not end, killing it", extra={"fields": {"pid": process.pid}})
            process.kill()
        code = await self.wait()
        return 0 if code in (128 + number, 128 + signal.SIGKILL) else code
