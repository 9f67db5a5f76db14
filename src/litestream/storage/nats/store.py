"""Objects in a bucket of NATS's JetStream, with the names that the official program gives them.

Names are the path and the key with a slash between. Deleted objects leave nothing behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractContextManager
from functools import partial

from litestream.errors import ObjectNotFoundError, StorageError
from litestream.storage.keys import check_key, check_prefix, is_key
from litestream.storage.nats import NATSConfig
from litestream.storage.nats.errors import GONE, ApiError, DamagedError, translated
from litestream.storage.nats.link import NATSLink, connect
from litestream.storage.nats.objects import Entry, abandoned, chunk_subject, chunks, entries, find
from litestream.storage.nats.upload import Upload, purge
from litestream.storage.protocol import ObjectInfo
from litestream.storage.shared_link import SharedLink, gather
from litestream.storage.wrappers.wrapper import closed

_AT_ONCE = 32
"""Deletions under way at once."""
_LARGE = 8 << 20
"""Bytes beyond which an object is worth a look for what earlier uploads of its kind left."""
ABANDONED = 24 * 3600.0
"""Seconds after which chunks without an object are nobody's any more."""
_logger = logging.getLogger("litestream")


class NATSStore:
    """A `Store` in an object store bucket, which must exist.

    Durable as the bucket is (`--storage file`, replicas). Create-only holds against other writers. One listing reads
    the names of the whole bucket, whatever the path: NATS cannot search in them.
    """

    def __init__(self, config: NATSConfig) -> None:
        self._config = config
        self._prefix = f"{config.path}/" if config.path else ""
        self._shared: SharedLink[NATSLink] = SharedLink(self._connect)
        self._cleaned = False
        self._failures = 0
        self._failed = float("-inf")

    @property
    def type(self) -> str:
        return "nats"

    @property
    def url(self) -> str:
        return self._config.url

    @property
    def conditional(self) -> bool:
        return True

    async def list(self, prefix: str) -> list[ObjectInfo]:
        check_prefix(prefix)
        link = await self._shared.get()
        with self._errors("list", prefix):
            found = await entries(link, self._config.bucket)
        begin = self._prefix + prefix
        keys = ((entry.name.removeprefix(self._prefix), entry) for entry in found if entry.name.startswith(begin))
        infos = (ObjectInfo(key, entry.size, entry.modified) for key, entry in keys if key and is_key(key))
        return sorted(infos, key=lambda info: info.key)

    async def get(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        name = self._name(key)
        link = await self._shared.get()
        with self._errors("read", key):
            entry, _ = await find(link, self._config.bucket, name)
        if entry is None:
            raise ObjectNotFoundError(key)
        if not 0 <= start <= entry.size:
            raise StorageError(f"{self.url}: {key} has {entry.size} bytes, none at {start}", key=key)
        if start == entry.size:
            return
        check = _Check(entry, start)
        pieces = chunks(link, self._config.bucket, entry, start)
        try:
            while (piece := await self._next(pieces, key)) is not None:
                check.add(piece)
                yield piece
        finally:
            await pieces.aclose()
        with self._errors("read", key):
            if not check.whole:
                raise DamagedError("its bytes are not those that were stored")

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        name = self._name(key)
        upload: Upload | None = None
        try:
            link = await self._shared.get()
            errors = partial(self._errors, "write", key)
            upload = Upload(link, self._config.bucket, name, key, errors, create_only=create_only)
            written = 0
            async for piece in _pieces(body, upload.chunk):
                await upload.write(piece)
                written += len(piece)
                if written >= _LARGE and not self._cleaned:
                    self._cleaned = True
                    await self._clean_quietly()
            return await upload.publish()
        finally:
            if not isinstance(body, bytes):
                await closed(body)
            if upload is not None:
                await upload.discard()

    async def delete(self, keys: Sequence[str]) -> None:
        names = {self._name(key): key for key in keys}
        if not names:
            return
        link = await self._shared.get()
        items = list(names.items())
        for at in range(0, len(items), _AT_ONCE):
            await gather(self._delete(link, name, key) for name, key in items[at : at + _AT_ONCE])

    async def clean_up(self, older_than: float = ABANDONED) -> int:
        """Remove chunks of uploads that were killed more than `older_than` seconds ago; of how many uploads.

        Looks at the whole bucket, and removes only what this program wrote. Raises `StorageError`.
        """
        link = await self._shared.get()
        with self._errors("clean up", ""):
            found = await abandoned(link, self._config.bucket, time.time() - older_than)
            for subject in found:
                await purge(link, subject)
        return len(found)

    async def _clean_quietly(self) -> None:
        try:
            if removed := await self.clean_up():
                _logger.info("%s: what %d abandoned uploads left is removed", self.url, removed)
        except StorageError as error:
            _logger.debug("abandoned uploads are not removed: %s", error)

    async def close(self) -> None:
        await self._shared.close()

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _errors(self, action: str, key: str) -> AbstractContextManager[None]:
        return translated(self.url, self._config.bucket, action, key)

    async def _next(self, pieces: AsyncGenerator[bytes, None], key: str) -> bytes | None:
        with self._errors("read", key):
            return await anext(pieces, None)

    async def _connect(self) -> NATSLink:
        """A connection, no sooner than `reconnect_wait` after the last try that failed."""
        config = self._config
        await asyncio.sleep(max(0.0, self._failed + config.reconnect_wait - time.monotonic()))
        try:
            link = await connect(config)
            try:
                with self._errors("use", ""):
                    await link.api(f"STREAM.INFO.{link.stream}")
            except BaseException:
                await link.close()
                raise
        except StorageError as error:
            if not error.permanent:
                self._failures += 1
                self._failed = time.monotonic()
                error.permanent = 0 <= config.max_reconnects < self._failures
            raise
        self._failures = 0
        return link

    async def _delete(self, link: NATSLink, name: str, key: str) -> None:
        with self._errors("delete", key):
            while True:
                entry, _ = await find(link, self._config.bucket, name)
                if entry is None:
                    return
                try:
                    await link.api(f"STREAM.MSG.DELETE.{link.stream}", {"seq": entry.seq, "no_erase": True})
                except ApiError as error:
                    if error.code not in GONE:
                        raise
                    continue  # replaced meanwhile: that one is to go too
                await purge(link, chunk_subject(self._config.bucket, entry.nuid))
                return


class _Check:
    """Whether all bytes came, and, if the object is read from its beginning, whether they are the right ones."""

    def __init__(self, entry: Entry, start: int) -> None:
        self._entry = entry
        self._left = entry.size - start
        self._digest = None if start else hashlib.sha256()

    def add(self, data: bytes) -> None:
        self._left -= len(data)
        if self._digest is not None:
            self._digest.update(data)

    @property
    def whole(self) -> bool:
        return not self._left and (self._digest is None or self._digest.digest() == self._entry.digest)


async def _pieces(body: bytes | AsyncIterator[bytes], size: int) -> AsyncGenerator[bytes, None]:
    """The body's bytes in pieces of `size`, but for the last."""
    if isinstance(body, bytes):
        for at in range(0, len(body), size):
            yield body[at : at + size]
        return
    held = bytearray()
    async for chunk in body:
        held += chunk
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)
