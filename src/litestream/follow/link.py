"""The follower's end of `GET /stream`: one connection, and the records that come on it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

from litestream.core.live import PAGE_SIZE_HEADER, POSITION_HEADER, RECORD_SIZE, Record
from litestream.core.position import Pos
from litestream.core.wal import is_page_size
from litestream.errors import CorruptObjectError, InvalidNameError, UpstreamError
from litestream.storage.http1 import Answer, HTTPClient, Origin

SEGMENT_LIMIT = 64 << 20
"""Bytes of a segment as it is sent; ours have little more than 4 MiB, those of 0.4 what was committed at once."""

_REASON = 200
"""Characters of a refusal that are shown."""


@dataclass(frozen=True, slots=True, repr=False)
class Upstream:
    """What is followed. The token is in no text."""

    url: str
    """`http://HOST:PORT` or `https://…`; a path is kept."""
    path: str
    """The database's path on that host."""
    token: str = ""
    ca: str = ""
    """File with the authorities that vouch for the server; empty: the system's."""

    def __str__(self) -> str:
        return f"{self.url} ({self.path})"


class Stream:
    """An answer that is being read.

    Attributes:
        page_size: of the database.
        position: the exact position of the snapshot that comes first; zero if the server did not say.
    """

    def __init__(self, answer: Answer, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._held = bytearray()
        size = answer.headers.get(PAGE_SIZE_HEADER.lower(), "")
        self.page_size = int(size) if size.isascii() and size.isdigit() and len(size) < 6 else 0
        if not is_page_size(self.page_size):
            raise UpstreamError(f"the upstream gives no page size ({PAGE_SIZE_HEADER}): is it a litestream?")
        try:
            self.position = Pos.parse(answer.headers.get(POSITION_HEADER.lower(), ""))
        except InvalidNameError as error:
            raise UpstreamError(f"the upstream gives a wrong position: {error}") from error

    @property
    def more(self) -> bool:
        """Whether the next record has begun to come."""
        return len(self._held) > 0

    async def record(self) -> Record | None:
        """The next record's header; None at the end of the stream."""
        if not self._held and not await self._fill():
            return None
        return Record.unpack(await self.read(RECORD_SIZE))

    async def read(self, size: int) -> bytes:
        """So many bytes."""
        while len(self._held) < size:
            if not await self._fill():
                raise UpstreamError("the upstream ended the stream inside a record")
        data = bytes(self._held[:size])
        del self._held[:size]
        return data

    async def segment(self, record: Record) -> bytes:
        """A segment's payload. Raises `CorruptObjectError` for one that is too large to be one."""
        if record.size > SEGMENT_LIMIT:
            raise CorruptObjectError(f"a segment of {record.size} bytes is more than is taken", key=str(record.pos))
        return await self.read(record.size)

    async def pieces(self, size: int) -> AsyncGenerator[bytes, None]:
        """So many bytes, as they come."""
        while size:
            if not self._held and not await self._fill():
                raise UpstreamError("the upstream ended the stream inside a snapshot")
            piece = await self.read(min(size, len(self._held)))
            size -= len(piece)
            yield piece

    async def _fill(self) -> bool:
        async for chunk in self._chunks:
            self._held += chunk
            return True
        return False


@asynccontextmanager
async def open_stream(upstream: Upstream, known: Pos) -> AsyncGenerator[Stream, None]:
    """Ask for everything from the index of `known` on; a zero position asks for a snapshot.

    Raises `UpstreamError` when the server cannot be reached, refuses, or the connection breaks.
    """
    client = HTTPClient(_origin(upstream), _headers(upstream), context=_context(upstream), keepalive=True)
    try:
        async with client.request("GET", _target(upstream, known)) as answer:
            if answer.status != 200:
                text = (await answer.read(_REASON)).decode("utf-8", "replace").split("\n")[0]
                shown = "".join(c if c.isprintable() else "?" for c in text)
                raise UpstreamError(f"the upstream answers {answer.status}: {shown}")
            async with aclosing(answer.chunks()) as chunks:
                yield Stream(answer, chunks)
    except ssl.SSLCertVerificationError as error:
        raise UpstreamError(
            f"the upstream's certificate is not trusted: {error.verify_message} (ca of upstream names authorities)"
        ) from error
    except OSError as error:
        raise UpstreamError(f"cannot reach the upstream: {error.strerror or error}") from error
    finally:
        await client.close()


def _origin(upstream: Upstream) -> Origin:
    parts = urlsplit(upstream.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Origin(parts.scheme, parts.hostname or "", port)


def _headers(upstream: Upstream) -> dict[str, str]:
    return {"Authorization": f"Bearer {upstream.token}"} if upstream.token else {}


def _context(upstream: Upstream) -> ssl.SSLContext | None:
    if not upstream.ca:
        return None
    try:
        return ssl.create_default_context(cafile=upstream.ca)
    except (OSError, ssl.SSLError) as error:
        raise UpstreamError(f"cannot read the authorities of the upstream: {upstream.ca}: {error}") from error


def _target(upstream: Upstream, known: Pos) -> str:
    query = {"path": upstream.path}
    if known.generation:
        query |= {"generation": known.generation, "index": f"{known.index:08x}"}
    return urlsplit(upstream.url).path.rstrip("/") + "/stream?" + urlencode(query, quote_via=quote)
