"""SIGINT, SIGTERM and SIGHUP: the first asks for an orderly end, the second ends the process at once.

Where there is a configuration file to read again, SIGHUP asks for that instead.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False  # this is the first module of all that is loaded, and has to be quick about it
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, Self

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """Context manager that turns the stopping signals into one call of `on_stop`.

    The handlers are Python-level ones, so that a second signal also ends a process whose event loop is stuck.
    SIGHUP stays ignored where it was (nohup). Works in the main thread only, as all signal handling. One that takes
    over from another has received what that one has.

    Args:
        hold_hangups: whether a SIGHUP waits until `reload_in` or `stop_on_hangup` says what it means.

    Attributes:
        received: the number of the first signal, 0 before.
    """

    def __init__(self, on_stop: Callable[[], object] | None = None, *, hold_hangups: bool = False) -> None:
        self.received = 0
        self._on_stop = on_stop
        self._holds = hold_hangups
        self._held = False
        self._on_reload: Callable[[], object] | None = None
        self._before_end: Callable[[], object] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Handle the signals from now on; `with` does so for a time."""
        for number in _STOPPING:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue
            before = self._before[number] = signal.signal(number, self._handle)
            earlier = getattr(before, "__self__", None)
            if isinstance(earlier, StopSignals):
                self.received = self.received or earlier.received
                self._held = self._held or earlier._held

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.received:
            return  # the process is about to end; another signal still ends it at once
        for number, before in self._before.items():
            signal.signal(number, before)

    def on_stop(self, callback: Callable[[], object]) -> None:
        """Set what the first signal calls; at once if it has come already."""
        self._on_stop = callback
        if self.received:
            callback()

    def on_stop_in(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
        """The same, with the callback called by `loop`; not at all once that has been closed."""

        def call() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(callback)

        self.on_stop(call)

    def before_end(self, callback: Callable[[], object]) -> None:
        """Have a second signal call `callback` before it ends the process."""
        self._before_end = callback

    def stop_on_hangup(self) -> None:
        """From now on SIGHUP is as good as the others, and so is one that was held."""
        self._holds = False
        if self._held and not self.received:
            self._handle(signal.SIGHUP, None)

    def reload_in(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
        """From now on SIGHUP has `loop` call `callback`; one that was held does so at once."""

        def call() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(callback)

        self._on_reload = call
        if self._held:
            call()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and self._holds:
            self._held = True
            if self._on_reload is not None and not self.received:
                self._on_reload()
            return
        if self.received:
            try:
                if self._before_end is not None:
                    self._before_end()
            finally:
                os._exit(1)
        self.received = number
        if self._on_stop is not None:
            self._on_stop()
