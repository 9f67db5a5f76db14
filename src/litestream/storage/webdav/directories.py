"""The directories that objects are put into: made when they are needed, and cleared of what dead writers left."""

from __future__ import annotations

import asyncio
import time

from litestream.fsutil import is_temp_name
from litestream.storage.webdav.requests import DAV, DONE, target
from litestream.storage.webdav.xml import Parts

_STALE = 3600.0
"""Seconds after which a temporary file is a leftover: another machine may be writing it."""


class Directories:
    """The directories of one server that are known to be there."""

    def __init__(self, dav: DAV) -> None:
        self._dav = dav
        self._ready: set[Parts] = set()
        self._preparing = asyncio.Lock()

    def forget(self) -> None:
        """Look again before the next put: one may have gone."""
        self._ready.clear()

    async def prepare(self, directory: Parts, key: str) -> None:
        """Make sure that a directory exists and holds no leftovers; once for each. Raises `StorageError`."""
        if directory in self._ready:
            return
        async with self._preparing:
            if directory in self._ready:
                return
            entries = await self._dav.children(directory, "put", key)
            if entries is None:
                await self._make(directory, key)
            for entry in entries or ():
                if is_temp_name(entry.parts[-1]) and 0 < entry.modified < time.time() - _STALE:
                    await self._dav.discard(entry.parts)
            self._ready.add(directory)

    async def _make(self, directory: Parts, key: str) -> None:
        """MKCOL, of the directories above too where they are missing."""
        for above in (False, True):
            async with self._dav.ask("put", key, "MKCOL", target(directory) + "/") as answer:
                if answer.status in {*DONE, 405}:  # 405: it is there
                    return
                if above or answer.status not in {404, 409}:
                    raise await self._dav.refused(answer, "put", key)
            if len(directory) - 1 <= len(self._dav.base):
                await self._dav.check_base("put", key)
            else:
                await self._make(directory[:-1], key)
