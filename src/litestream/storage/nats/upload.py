"""One put into a JetStream object store: chunks under a new number, then the message that makes an object of them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING

from litestream.errors import ObjectExistsError, StorageError
from litestream.storage.nats.errors import WRONG_SEQUENCE, ApiError
from litestream.storage.nats.objects import CHUNK, Entry, chunk_subject, find, meta_message, meta_subject, new_nuid
from litestream.storage.protocol import ObjectInfo

if TYPE_CHECKING:
    from litestream.storage.nats.link import NATSLink

_WINDOW = 16
"""Chunks under way at once."""
_UNDO = 0.5
"""Seconds for which a put that is given up waits for the server."""
_ROLLUP = {"Nats-Rollup": "sub"}
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"

Errors = Callable[[], AbstractContextManager[None]]


class Upload:
    """The object on its way. `errors` makes foreign exceptions ours, around everything but the reading of the body."""

    def __init__(self, link: NATSLink, bucket: str, name: str, key: str, errors: Errors, *, create_only: bool) -> None:
        self._link = link
        self._bucket = bucket
        self._name = name
        self._key = key
        self._errors = errors
        self._create_only = create_only
        self._nuid = new_nuid()
        self._subject = chunk_subject(bucket, self._nuid)
        self.chunk = min(CHUNK, link.client.max_payload)
        self._pending: deque[asyncio.Task[int]] = deque()
        self._last = 0
        self._size = self._chunks = 0
        self._digest = hashlib.sha256()
        self._stored: int | None = None
        self._replaced: Entry | None = None

    async def write(self, data: bytes) -> None:
        """Append `data`, which is no larger than `chunk`; returns when it is sent."""
        self._digest.update(data)
        self._size += len(data)
        self._chunks += 1
        with self._errors():
            self._pending.append(asyncio.create_task(self._link.publish(self._subject, data)))
            while len(self._pending) >= _WINDOW:
                await self._settle()

    async def publish(self) -> ObjectInfo:
        """Make the object, or replace the one of its name."""
        with self._errors():
            while self._pending:
                await self._settle()
        task = asyncio.create_task(self._publish())
        try:
            info = await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task], timeout=_UNDO)
            if not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=_UNDO)
            task.add_done_callback(_ignore)
            if self._stored is not None and self._replaced is None and self._link.alive:
                await bounded(self._link.api(f"STREAM.MSG.DELETE.{self._link.stream}", {"seq": self._stored}))
                self._stored = None
            raise
        return info

    async def discard(self) -> None:
        """Remove the chunks that no object has. Raises nothing, and takes no longer than a second."""
        pending, self._pending = self._pending, deque()
        if self._stored is None and self._link.alive and self._chunks:
            # Chunks that are still on their way would be stored after the purge.
            if pending:
                await asyncio.wait(pending, timeout=_UNDO)
            await bounded(purge(self._link, self._subject))
        for task in pending:
            task.cancel()
            task.add_done_callback(_ignore)

    async def _settle(self) -> None:
        seq = await self._pending[0]
        self._pending.popleft()
        if seq <= self._last:
            raise ApiError({"description": "the chunks are stored in another order"})
        self._last = seq

    async def _publish(self) -> ObjectInfo:
        with self._errors():
            for _ in range(5):  # somebody else may be replacing it too
                there, last = (None, 0) if self._create_only else await find(self._link, self._bucket, self._name)
                now = time.time()
                try:
                    self._stored = await self._store(now, last)
                except ApiError as error:
                    if error.code != WRONG_SEQUENCE:
                        raise
                    there, last = await find(self._link, self._bucket, self._name)
                    if not self._create_only:
                        continue
                    if there is not None:
                        return self._compared(there)
                    # Something else is under the name: what official clients leave of an object that was deleted.
                    self._stored = await self._store(now, last)
                self._replaced = there
                if there is not None:
                    await bounded(purge(self._link, chunk_subject(self._bucket, there.nuid)))
                return ObjectInfo(self._key, self._size, now)
        raise StorageError(f"{self._key} is replaced again and again: is there a second writer?", key=self._key)

    async def _store(self, now: float, last: int) -> int:
        digest = self._digest.digest()
        entry = Entry(self._name, self._nuid, self._size, self._chunks, digest, self.chunk, now)
        subject = meta_subject(self._bucket, self._name)
        return await self._link.publish(subject, meta_message(self._bucket, entry), {**_ROLLUP, _EXPECTED: str(last)})

    def _compared(self, there: Entry) -> ObjectInfo:
        """The object that is there already, if it is the same. `ObjectExistsError` otherwise."""
        if (there.size, there.digest) != (self._size, self._digest.digest()):
            raise ObjectExistsError(self._key)
        return ObjectInfo(self._key, there.size, there.modified)


async def purge(link: NATSLink, subject: str) -> None:
    """Remove all messages on a subject."""
    await link.api(f"STREAM.PURGE.{link.stream}", {"filter": subject})


async def bounded(work: object) -> None:
    """Something whose failure harms nobody, within half a second."""
    with suppress(Exception):
        await asyncio.wait_for(work, _UNDO)  # type: ignore[arg-type]  # any awaitable


def _ignore(task: asyncio.Task[object]) -> None:
    if not task.cancelled():
        task.exception()
