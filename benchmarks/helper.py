"""A process of our own beside what is measured, which says when it is ready and then does what it is asked."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self


class Helper:
    """The process, from here; a context manager that kills it if it lives.

    `target` gets one end of a pipe and `arguments`, and sends something through the pipe once it is ready.
    """

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe: Connection[Any, Any]
        self.pipe, child = context.Pipe()
        self._process = context.Process(target=target, args=(child, *arguments), daemon=True)
        self._process.start()
        child.close()
        self.pipe.recv()

    def ended(self) -> None:
        """Wait for its end."""
        self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()
        self.pipe.close()
