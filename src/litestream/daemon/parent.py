"""The link between a replicator and the program that started it with `litestream.start`.

`LITESTREAM_PARENT_FD` names one end of a socket pair. The replicator writes one line on it: `ready`, or `error TEXT`.
The parent writes nothing: when the socket becomes readable the parent has gone, however it ended, and the replicator
stops in order (last sync included), as on SIGTERM. So no replicator outlives its application.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, MutableMapping

from litestream.errors import ConfigError

VARIABLE = "LITESTREAM_PARENT_FD"


class ParentLink:
    """The replicator's end; without a parent everything here does nothing."""

    def __init__(self, end: socket.socket | None) -> None:
        self._end = end

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> ParentLink:
        """Take over the descriptor that the environment names; the variable is removed, so that no child sees it."""
        text = environ.pop(VARIABLE, "")
        if not text:
            return cls(None)
        try:
            fd = int(text)
            os.set_inheritable(fd, False)
            return cls(socket.socket(fileno=fd))
        except (ValueError, OSError) as e:
            raise ConfigError(f"{VARIABLE} is for litestream.start only, and names no socket: {text}") from e

    def __bool__(self) -> bool:
        """Whether there is a parent."""
        return self._end is not None

    def ready(self) -> None:
        """Tell the parent that everything has been started."""
        self._send("ready")

    def failed(self, reason: str) -> None:
        """Tell the parent why nothing was started."""
        self._send(f"error {reason}")

    def close(self) -> None:
        """Let go of the descriptor."""
        if self._end is not None:
            self._end.close()

    def _send(self, line: str) -> None:
        if self._end is None:
            return
        try:
            self._end.sendall(line.replace("\n", " ").encode("utf-8", "backslashreplace") + b"\n")
        except OSError:
            pass  # the parent has gone; `watch` deals with that

    def watch(self, loop: asyncio.AbstractEventLoop, on_gone: Callable[[], None]) -> None:
        """Call `on_gone` once when the parent's end is closed."""
        if self._end is None:
            return
        end = self._end

        def gone() -> None:
            loop.remove_reader(end)
            on_gone()

        loop.add_reader(end, gone)
