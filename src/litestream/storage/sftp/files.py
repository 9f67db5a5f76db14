"""Objects as files of an SFTP server: reading ahead, listing, leftovers."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TYPE_CHECKING

from litestream.fsutil import is_temp_name
from litestream.storage.keys import is_key
from litestream.storage.protocol import ObjectInfo
from litestream.storage.sftp.errors import ABSENT
from litestream.storage.sftp.link import SFTPLink
from litestream.storage.shared_link import gather, stop

if TYPE_CHECKING:
    import asyncssh

WINDOW = 4 << 20
"""Bytes of one object under way at once: enough for 100 ms there and back at 40 MB/s."""
_BLOCK = 256 << 10
"""Bytes of one request, where the server takes so much."""
_STALE = 3600.0
"""Seconds after which a temporary file is a leftover: nobody writes one object for so long without a byte."""
_AT_ONCE = 8
"""Directories that are read at once."""
_REGULAR, _DIRECTORY = 1, 2  # file types of the protocol


def encode(name: str) -> bytes:
    """A name as the server has it: bytes, in UTF-8 as a rule."""
    return name.encode("utf-8", "surrogateescape")


def _decode(name: bytes | str) -> str:
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name


def modified(attrs: asyncssh.SFTPAttrs) -> float:
    """Seconds since 1970."""
    return float(attrs.mtime or 0) + (attrs.mtime_ns or 0) / 1e9


def is_regular(attrs: asyncssh.SFTPAttrs) -> bool:
    """Whether it is a plain file."""
    return attrs.type == _REGULAR


async def _next(listing: AsyncIterator[asyncssh.SFTPName]) -> asyncssh.SFTPName | None:
    return await anext(listing, None)


def block_size(largest: int) -> int:
    """Bytes of one request to a server that takes at most `largest`."""
    return min(largest or _BLOCK, _BLOCK)


async def open_file(link: SFTPLink, path: bytes, *, new: bool = False) -> asyncssh.SFTPClientFile:
    """A file to read, or a new one to write. It makes just the requests that it is told to."""
    import asyncssh

    async def opened() -> asyncssh.SFTPClientFile:
        flags = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | asyncssh.FXF_EXCL if new else asyncssh.FXF_READ
        attrs = asyncssh.SFTPAttrs(permissions=0o600) if new else asyncssh.SFTPAttrs()
        return await link.sftp.open(path, flags, attrs, encoding=None, block_size=0)

    return await link.ask(opened())


async def read_ahead(
    link: SFTPLink, file: asyncssh.SFTPClientFile, start: int, end: int
) -> AsyncGenerator[bytes, None]:
    """The bytes from `start` to `end`, in order, with several requests under way. `EOFError` if there are fewer."""
    size = block_size(link.sftp.limits.max_read_len)
    pending: deque[asyncio.Task[bytes]] = deque()
    try:
        while start < end or pending:
            while start < end and len(pending) * size < WINDOW:
                count = min(size, end - start)
                pending.append(asyncio.create_task(_read(file, start, count)))
                start += count
            yield await link.ask(_result(pending[0]))
            pending.popleft()
    finally:
        await stop(pending)


async def _read(file: asyncssh.SFTPClientFile, offset: int, count: int) -> bytes:
    data: bytes = await file.read(count, offset)
    while len(data) < count:  # a server may give less than it was asked for
        more: bytes = await file.read(count - len(data), offset + len(data))
        if not more:
            raise EOFError
        data += more
    return data


async def _result(task: asyncio.Task[bytes]) -> bytes:
    return await task


async def walk(link: SFTPLink, root: bytes, prefix: str) -> list[ObjectInfo]:
    """The objects below `root` whose keys begin with `prefix`, sorted. Directories that are not there are empty."""
    found: list[ObjectInfo] = []
    level = [prefix]
    while level:
        batch, level = level[:_AT_ONCE], level[_AT_ONCE:]
        for infos, below in await gather(_directory(link, root, name) for name in batch):
            found += infos
            level += below
    return sorted(found, key=lambda info: info.key)


async def _directory(link: SFTPLink, root: bytes, prefix: str) -> tuple[list[ObjectInfo], list[str]]:
    infos, below = [], []
    for entry in await entries(link, root + encode(prefix)):
        name = prefix + _decode(entry.filename)
        if not is_key(name):
            continue
        if entry.attrs.type == _DIRECTORY:
            below.append(name + "/")
        elif is_regular(entry.attrs):
            infos.append(ObjectInfo(name, entry.attrs.size or 0, modified(entry.attrs)))
    return infos, below


async def entries(link: SFTPLink, path: bytes) -> Sequence[asyncssh.SFTPName]:
    """What is in a directory; nothing if it is not there."""
    listing = aiter(link.sftp.scandir(path.rstrip(b"/") or (b"/" if path else b".")))
    found = []
    try:
        while (entry := await link.ask(_next(listing))) is not None:
            found.append(entry)
    except ABSENT():
        return []
    return found


async def remove_leftovers(link: SFTPLink, directory: bytes, now: float) -> bool:
    """Remove what writers that were killed left there. `now` is the server's time. Whether that was all there was."""
    rest = 0
    for entry in await entries(link, directory):
        name = _decode(entry.filename)
        if name in {".", ".."}:
            continue
        stale = is_temp_name(name) and is_regular(entry.attrs) and now - modified(entry.attrs) > _STALE
        if not stale or not await link.tidy(link.sftp.remove(os.path.join(directory, encode(name)))):
            rest += 1
    return not rest


async def prune(link: SFTPLink, root: bytes, directory: bytes) -> list[bytes]:
    """Remove a directory below `root` that became empty, and those above it; which ones are gone.

    The official programs take an empty generation directory for a generation.
    """
    import asyncssh

    gone: list[bytes] = []
    while len(directory) > len(root) and directory != b"/":
        try:
            await link.ask(link.sftp.rmdir(directory))
        except ABSENT():
            pass
        except asyncssh.SFTPError:
            # Not empty, most likely, or not ours to remove.
            if not await remove_leftovers(link, directory, time.time()) or not await link.tidy(
                link.sftp.rmdir(directory)
            ):
                return gone
        gone.append(directory)
        directory = os.path.dirname(directory)
    return gone


async def make_directories(link: SFTPLink, directory: bytes) -> None:
    """Make a directory and the missing ones above it. It may exist."""
    import asyncssh

    if await is_directory(link, directory):
        return
    above = os.path.dirname(directory)
    if above not in {b"", b"/"}:
        await make_directories(link, above)
    try:
        await link.ask(link.sftp.mkdir(directory, asyncssh.SFTPAttrs(permissions=0o700)))
    except asyncssh.SFTPError:
        if not await is_directory(link, directory):  # else another made it first
            raise


async def is_directory(link: SFTPLink, path: bytes) -> bool:
    import asyncssh

    try:
        return (await link.ask(link.sftp.stat(path))).type == asyncssh.FILEXFER_TYPE_DIRECTORY
    except ABSENT():
        return False
