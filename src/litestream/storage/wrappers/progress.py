"""How a store says that the server is alive while one operation takes many requests.

`Timed` gives up an operation when nothing is heard of it for some seconds. A back end calls `progress()` whenever the
server answered: after each page of a listing, each batch of a delete, each part of an upload.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

watcher: ContextVar[Callable[[], None] | None] = ContextVar("litestream_watcher", default=None)
"""Who waits for the operation that runs in this context."""


def progress() -> None:
    """The server answered. Costs next to nothing; without effect where nobody watches."""
    tell = watcher.get()
    if tell is not None:
        tell()
