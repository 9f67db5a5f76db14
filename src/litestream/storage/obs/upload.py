"""A multipart upload with obstore whose body is read by the caller's own task.

obstore would read the body in tasks of its own, where the body's exceptions lose their type and a cancellation never
arrives. So the caller reads, and hands chunks over one at a time; a body that fails makes obstore abort the upload.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore import PutResult
    from obstore.store import ObjectStore

ABORT = 0.8
"""Seconds for which a caller waits while an abandoned upload tells the service so; then that goes on alone."""
_END = 30.0
"""Seconds after which it is dropped."""

_Chunk = bytes | bytearray


class _AbandonedError(Exception):
    """Given to obstore in place of the next chunk: abort."""


async def upload_parts(
    store: ObjectStore,
    path: str,
    body: AsyncIterator[_Chunk],
    *,
    part_size: int,
    concurrency: int,
    attributes: dict[str, str],
    errors: Callable[[], AbstractContextManager[None]],
    ending: set[asyncio.Future[PutResult]],
) -> None:
    """Upload `body`, whole or not at all. Its exceptions come out as they are, obstore's through `errors`.

    If it fails or is cancelled the upload is aborted; what takes longer than `ABORT` seconds is left in `ending`.
    """
    import obstore

    queue: asyncio.Queue[_Chunk | _AbandonedError | None] = asyncio.Queue(1)
    upload = asyncio.ensure_future(
        obstore.put_async(
            store,
            path,
            _handed_over(queue),
            use_multipart=True,
            chunk_size=part_size,
            max_concurrency=concurrency,
            attributes=attributes,
        )
    )
    upload.add_done_callback(lambda _: _make_room(queue))
    whole = False
    try:
        async for chunk in body:
            await queue.put(chunk)
            if upload.done():
                break
        else:
            await queue.put(None)
            whole = True
        with errors():
            await asyncio.shield(upload)
    except BaseException:
        if not whole:
            _make_room(queue)
            queue.put_nowait(_AbandonedError())
        try:
            await asyncio.wait({upload}, timeout=ABORT)
        finally:
            _let_go(upload, ending, seconds=0.0 if whole else _END)
        raise


async def _handed_over(queue: asyncio.Queue[_Chunk | _AbandonedError | None]) -> AsyncGenerator[_Chunk, None]:
    while (item := await queue.get()) is not None:
        if isinstance(item, _AbandonedError):
            raise item
        yield item


def _make_room(queue: asyncio.Queue[_Chunk | _AbandonedError | None]) -> None:
    """Whoever waits to hand over a chunk goes on, and sees that nobody takes it."""
    if queue.full():
        queue.get_nowait()


def _let_go(upload: asyncio.Future[PutResult], ending: set[asyncio.Future[PutResult]], seconds: float) -> None:
    """Nobody waits for the upload any more. One that has its whole body is dropped: it would make an object."""
    ending.add(upload)
    timer = upload.get_loop().call_later(seconds, upload.cancel)

    def ended(done: asyncio.Future[PutResult]) -> None:
        timer.cancel()
        ending.discard(done)
        if not done.cancelled():
            done.exception()

    upload.add_done_callback(ended)
