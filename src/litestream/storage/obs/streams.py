"""Obstore's streams, which must not be let go of while they wait for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from typing import TypeVar

T = TypeVar("T")

_held: set[tuple[object, object]] = set()
"""What still waits though nobody wants it any more."""


async def pieces(stream: AsyncIterable[T]) -> AsyncGenerator[T]:
    """What `stream` gives. Cancelled while it waits, the stream is kept until its answer has come.

    A stream contains its request. Dropped with that by a thread of Python, the request gives its connection back where
    no event loop of Rust is, which panics and leaves the pool of connections unusable for ever.
    """
    iterator = aiter(stream)
    while True:
        answer = asyncio.ensure_future(anext(iterator))
        try:
            piece = await asyncio.shield(answer)
        except StopAsyncIteration:
            return
        except asyncio.CancelledError:
            if not answer.done():
                _hold(iterator, answer)
            raise
        yield piece


def _hold(iterator: object, answer: asyncio.Future[T]) -> None:
    entry: tuple[object, object] = (iterator, answer)
    _held.add(entry)

    def let_go(ended: asyncio.Future[T]) -> None:
        _held.discard(entry)
        if not ended.cancelled():
            ended.exception()  # nobody waits for it: it is not to be reported as never looked at

    answer.add_done_callback(let_go)
