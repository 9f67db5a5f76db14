"""Deleting many files of one directory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from litestream.storage.webdav.requests import DAV, DONE
from litestream.storage.webdav.xml import Parts
from litestream.storage.wrappers.progress import progress

_FEW = 4
"""Keys in one directory up to which each is looked up by itself before it is deleted."""
_AT_ONCE = 8
"""Deletes under way at once."""


async def delete(dav: DAV, directory: Parts, names: Mapping[str, str]) -> None:
    """Delete the files of a directory that have these names, of these keys; what is not there is nothing to delete.

    DELETE of a directory takes all that is in it, so everything is looked at first. Raises `StorageError` when all
    have been tried.
    """
    look = len(names) <= _FEW
    if not look:
        entries = await dav.children(directory, "delete", next(iter(names.values())))
        files = {entry.parts[-1] for entry in entries or () if not entry.directory}
        names = {name: key for name, key in names.items() if name in files}
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(path: Parts, key: str) -> None:
        async with gate:
            if look:
                entry = await dav.entry(path, "delete", key)
                if entry is None or entry.directory:
                    return
            async with dav.ask("delete", key, "DELETE", path) as answer:
                if answer.status not in {*DONE, 404, 410}:
                    raise await dav.refused(answer, "delete", key)
            progress()

    deletes = (one((*directory, name), key) for name, key in names.items())
    for result in await asyncio.gather(*deletes, return_exceptions=True):
        if result is not None:
            raise result
