"""Blocking work of a verification: in a thread of its own, which ends soon when nobody wants the result any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from litestream.errors import RestoreError
from litestream.priority import lower_priority
from litestream.sqlite.check import Check

T = TypeVar("T")


class Work:
    """One thread. An asynchronous context manager: at its end whatever runs is told to stop, and waited for."""

    def __init__(self, *, background: bool) -> None:
        self._stop = threading.Event()
        self._check: Check | None = None
        self._pool = ThreadPoolExecutor(
            1, thread_name_prefix="litestream-verify", initializer=lower_priority if background else None
        )

    async def run(self, fn: Callable[..., T], *args: object) -> T:
        """Run `fn`, which asks `go_on` now and then."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, fn, *args)

    async def integrity_check(self, path: str) -> list[str]:
        """What SQLite's full check finds wrong with a file that nobody else has open."""
        self._check = Check(path, full=True)
        return await self.run(self._check.run)

    def go_on(self) -> None:
        """Raises `RestoreError` once the result is not wanted any more."""
        if self._stop.is_set():
            raise RestoreError("the verification was ended")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._check is not None:
            self._check.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
