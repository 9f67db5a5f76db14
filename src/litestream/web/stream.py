"""`GET /stream`: a database for followers, snapshot and WAL segments as they are copied (`litestream.core.live`).

Nothing waits for a follower: what it has not taken yet is read from the shadow WAL when it does, and one that falls
behind what is kept there is cut off; when it comes back, it gets a snapshot. A snapshot is copied to a temporary file
at the speed of the disk, so that its read transaction does not last as long as the network takes.
"""

from __future__ import annotations

import asyncio
import hmac
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Self

from litestream.core.live import PAGE_SIZE_HEADER, POSITION_HEADER, Record, RecordType
from litestream.core.position import MAX_INDEX, Pos, is_generation
from litestream.errors import GenerationChangedError, LitestreamError
from litestream.streams import read_stamp

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from litestream.db import DB
    from litestream.sqlite.pages import LivePages

STREAMS = 64
"""Followers at a time; more are told to come back."""

STALLED = 60.0
"""Seconds in which a follower has to take what it is sent."""

KEPT = 3600.0
"""Seconds for which the shadow WAL is kept (within its bounds) for a follower that may come back."""

_CHUNK = 256 << 10
_AT_ONCE = 2
"""Snapshots copied at the same time."""

NO_TOKEN = "no followers are served: set stream-token, or stream: true where this host alone can connect\n"  # noqa: S105


class Streams:
    """The endpoint, an ASGI application.

    Args:
        find: the database of a path, None if it is not replicated here.
        token: what followers have to send as a bearer token; empty: none does.
        open_to_all: without a token, whether followers are served all the same.
    """

    def __init__(self, find: Callable[[str], DB | None], *, token: str = "", open_to_all: bool = False) -> None:
        self._find = find
        self._token = token.encode()
        self._open = open_to_all
        self._count = 0
        self._closing = asyncio.Event()
        self._copying = asyncio.Semaphore(_AT_ONCE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """End every stream."""
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse

        status, text, headers, stream = self._accept(Request(scope))
        if stream is None:
            await PlainTextResponse(text, status, headers)(scope, receive, send)
            return
        self._count += 1
        stream.db.followers += 1
        sending = asyncio.create_task(stream.run(send, self._copying))
        others = [asyncio.create_task(_gone(receive)), asyncio.create_task(self._closing.wait())]
        try:
            await asyncio.wait([sending, *others], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._count -= 1
            stream.db.followers -= 1
            for task in (sending, *others):
                task.cancel()
            await asyncio.gather(sending, *others, return_exceptions=True)
        if not sending.cancelled() and (error := sending.exception()) is not None:
            raise error
        if stream.refused:
            await PlainTextResponse(f"{stream.refused}\n", 503)(scope, receive, send)
        elif stream.begun and not stream.stalled:
            await stream.end(send)

    def _accept(self, request: Request) -> tuple[int, str, dict[str, str], _Stream | None]:
        """What is asked for; or status, text and headers of the refusal."""
        if request.method != "GET":
            return 405, "Method not allowed\n", {"Allow": "GET"}, None
        if not self._token and not self._open:
            return 403, NO_TOKEN, {}, None
        if self._token and not self._allowed(request.headers.get("authorization", "")):
            return 401, "wrong or missing bearer token\n", {"WWW-Authenticate": "Bearer"}, None
        path = request.query_params.get("path", "")
        if not path:
            return 400, "Database name required\n", {}, None
        generation, index = request.query_params.get("generation", ""), request.query_params.get("index", "")
        number = _index(index)
        if number is None:
            return 400, "Invalid index query parameter\n", {}, None
        db = self._find(path)
        if db is None:
            return 404, "Database not found\n", {}, None
        if db.pos().is_zero:
            return 503, "no generation yet\n", {}, None
        if self._count >= STREAMS:
            return 503, f"{STREAMS} followers are served already\n", {}, None
        known = Pos(generation, number) if index and is_generation(generation) else Pos()
        return 200, "", {}, _Stream(db, known)

    def _allowed(self, header: str) -> bool:
        scheme, _, given = header.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)


class _Stream:
    """One answer. `known`: from where on the follower wants the WAL; zero: it has nothing."""

    def __init__(self, db: DB, known: Pos) -> None:
        self.db = db
        self.begun = False
        self.stalled = False
        self.refused = ""
        self._known = known

    async def run(self, send: Send, copying: asyncio.Semaphore) -> None:
        """Send until the generation ends or the follower falls behind what is kept; then it has to ask anew."""
        self.db.keep_until = time.monotonic() + KEPT
        changed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def notify() -> None:
            loop.call_soon_threadsafe(changed.set)

        unsubscribe = self.db.subscribe(notify)
        try:
            if self._is_kept(self._known):
                await self._begin(send, {})
                start = self._known
            else:
                async with copying:
                    start = await self._snapshot(send)
            await self._follow(send, start, changed)
        except TimeoutError:
            self.stalled = True
        except (LitestreamError, OSError) as error:
            if not self.begun:
                self.refused = str(error) if isinstance(error, LitestreamError) else f"no snapshot: {error.strerror}"
        finally:
            unsubscribe()

    async def end(self, send: Send) -> None:
        """End the body, if the follower still takes it."""
        try:
            async with asyncio.timeout(1.0):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (TimeoutError, OSError):
            pass  # it is gone

    def _is_kept(self, start: Pos) -> bool:
        """Whether the WAL from the beginning of an index on is there, or is the next to come."""
        now = self.db.pos()
        if start.generation != now.generation or start.index > now.index:
            return False
        segments = self.db.wal_segments(start.generation)
        if any(info.pos == start for info in segments):
            return True
        return start.index == now.index and now.offset == 0

    async def _follow(self, send: Send, start: Pos, changed: asyncio.Event) -> None:
        """Send the segments from `start` on, and those that come. Ends where one is missing."""
        at = start
        while at.generation == self.db.current_generation():
            changed.clear()
            self.db.keep_until = time.monotonic() + KEPT
            now, segments = self.db.pos(), self.db.wal_segments(at.generation)
            for info in segments[bisect_left(segments, at, key=lambda info: info.pos) :]:
                if info.pos != at and (info.offset or info.index != at.index + 1):
                    return  # it was too slow, and what comes next is kept no longer
                live = info is segments[-1]
                body = _read(self.db, info.pos) if live else await self.db.call(_read, self.db, info.pos)
                await self._send(send, Record(RecordType.WAL, info.pos, len(body)).pack() + body)
                stamp = read_stamp(body)
                assert stamp is not None  # every segment of the shadow WAL has one
                at = Pos(at.generation, *stamp.required)
            if now.generation == at.generation and at < now:
                return
            await changed.wait()

    async def _snapshot(self, send: Send) -> Pos:
        """Send one committed state; from where on the WAL follows."""
        pages, pos = await self.db.call(self.db.open_pages)
        try:
            file = await self.db.call(_copy, pages, self.db.meta_path)
        finally:
            self.db.readings.end(pages)
        with file:
            size = pages.total * pages.page_size
            start = Pos(pos.generation, pos.index)
            await self._begin(send, {POSITION_HEADER: str(pos)})
            await self._send(send, Record(RecordType.SNAPSHOT, start, size).pack())
            while chunk := file.read(_CHUNK):
                await self._send(send, chunk)
        return start

    async def _begin(self, send: Send, headers: dict[str, str]) -> None:
        all_headers = {
            "content-type": "application/octet-stream",
            PAGE_SIZE_HEADER: str(self.db.page_size()),
            **headers,
        }
        raw = [(name.lower().encode(), value.encode()) for name, value in all_headers.items()]
        self.begun = True
        await send({"type": "http.response.start", "status": 200, "headers": raw})

    async def _send(self, send: Send, body: bytes) -> None:
        async with asyncio.timeout(STALLED):
            await send({"type": "http.response.body", "body": body, "more_body": True})


def _read(db: DB, pos: Pos) -> bytes:
    """A segment as it is kept. Not by the database's own method: a missing one is the follower's trouble alone."""
    shadow = db.shadow
    if shadow is None or shadow.generation != pos.generation:
        raise GenerationChangedError(f"generation is over: {pos.generation}")
    return shadow.read(pos)


def _copy(pages: LivePages, directory: str) -> IO[bytes]:
    """The state as a file without a name."""
    file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 handed on
    try:
        for chunk in pages.chunks():
            file.write(chunk)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _index(text: str) -> int | None:
    """The index that a hex number is, 0 for none given; None if it is none."""
    try:
        number = int(text or "0", 16)
    except ValueError:
        return None
    return number if 0 <= number <= MAX_INDEX and "_" not in text else None


async def _gone(receive: Receive) -> None:
    """Until the follower has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
