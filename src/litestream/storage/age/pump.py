"""Blocking code that copies from a reader to a writer, used on a stream of the event loop.

The code runs in a thread of its own. Thread and loop take turns: one piece in, then all that was made of it out. So
memory is bounded, and the thread only ever waits for its next piece: told to stop, it ends at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from queue import SimpleQueue
from typing import Protocol

from litestream.storage.wrappers.wrapper import closed

PIECE = 256 << 10
"""Bytes of one turn: large beside the cost of the change of threads, under a millisecond of work."""


class Reader(Protocol):
    """What the code reads from."""

    def read(self, size: int, /) -> bytes: ...


class Writer(Protocol):
    """What the code writes to."""

    def write(self, data: bytes, /) -> int: ...
    def flush(self) -> None: ...


Work = Callable[[Reader, Writer], None]
"""Reads to the end, and writes. It is called once, in a thread of its own."""


class WorkError(Exception):
    """The blocking code failed; the text is its reason. Never an exception of the stream that feeds it."""


class _StoppedError(Exception):
    """Ends the code in its thread when nobody wants the rest."""


async def through(work: Work, body: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """What `work` makes of the bytes of `body`. Raises `WorkError`, and what `body` raises as it is.

    However it ends, the thread has ended and `body` is closed when this is. Memory: a few pieces.
    """
    pump = _Pump(work)
    held = bytearray()
    try:
        async for chunk in body:
            held += chunk
            while len(held) >= PIECE:
                piece = bytes(held[:PIECE])
                del held[:PIECE]
                if out := await pump.step(piece):
                    yield out
        for piece in (bytes(held), b"") if held else (b"",):
            if out := await pump.step(piece):
                yield out
        pump.check_ended()
    finally:
        pump.close()
        await closed(body)


class _Pump:
    """The thread, and both ends of the code in it."""

    def __init__(self, work: Work) -> None:
        self._loop = asyncio.get_running_loop()
        self._answered = asyncio.Event()
        self._pieces: SimpleQueue[bytes | None] = SimpleQueue()  # b"": the end; None: stop
        self._piece = memoryview(b"")
        self._working = False
        self._at_end = False
        self._ended = False
        self._error: BaseException | None = None
        self._written: list[bytes] = []
        self._thread = threading.Thread(target=self._run, args=(work,), name="litestream-pump", daemon=True)
        self._thread.start()

    # -- the loop's side

    async def step(self, piece: bytes) -> bytes:
        """Give a piece (an empty one: the end), and get what was written until the next one is asked for."""
        if self._ended:
            raise WorkError("there are bytes behind the end")
        self._answered.clear()
        self._pieces.put(piece)
        await self._answered.wait()
        if self._error is not None:
            raise WorkError(" ".join(str(self._error).split())) from self._error
        written = b"".join(self._written)
        self._written.clear()
        return written

    def check_ended(self) -> None:
        """After the end was given: the code has come to its own."""
        if not self._ended:
            raise WorkError("it does not end")

    def close(self) -> None:
        """End the thread; it has at most a piece of work left to do."""
        self._pieces.put(None)
        self._thread.join()

    # -- the thread's side

    def _run(self, work: Work) -> None:
        try:
            work(self, self)
        except BaseException as error:  # a panic of native code too; it is raised where one waits
            self._error = error
        finally:
            self._ended = True
            self._answer()

    def _answer(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._answered.set)
        except RuntimeError:
            pass  # the loop is closed: nobody waits

    def read(self, size: int, /) -> bytes:
        if not self._piece and not self._at_end:
            if self._working:
                self._answer()
            piece = self._pieces.get()
            if piece is None:
                raise _StoppedError
            self._working = True
            self._piece = memoryview(piece)
            self._at_end = not piece
        data = bytes(self._piece[:size])
        self._piece = self._piece[size:]
        return data

    def write(self, data: bytes, /) -> int:
        self._written.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""
