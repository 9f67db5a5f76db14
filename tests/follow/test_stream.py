"""`GET /stream`: the bytes of 0.4's protocol, who is served, and what a slow follower costs."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.routing import Route

from helpers.app import App
from litestream.core.live import RECORD_SIZE, Record, RecordType
from litestream.core.position import Pos
from litestream.daemon.database import DatabaseTask
from litestream.daemon.watcher import Watcher
from litestream.db import DB
from litestream.errors import UpstreamError
from litestream.follow.link import Stream, Upstream, open_stream
from litestream.metrics import Metrics
from litestream.streams import FRAME_HEADER, open_object
from litestream.web import stream as stream_module
from litestream.web.server import serve_metrics
from litestream.web.stream import Streams

TOKEN = "sesame"


class Served:
    """A database that is served."""

    def __init__(self, db: DB, port: int) -> None:
        self.db = db
        self.port = port

    def upstream(self, token: str = TOKEN) -> Upstream:
        return Upstream(f"http://127.0.0.1:{self.port}", self.db.path, token)

    async def get(self, target: str, *, method: str = "GET", token: str = TOKEN) -> bytes:
        """The answer, byte by byte, as far as it comes within a moment."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        auth = f"Authorization: Bearer {token}\r\n" if token else ""
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: localhost:{self.port}\r\n{auth}\r\n".encode())
        got = b""
        try:
            async with asyncio.timeout(0.3):
                while chunk := await reader.read(65536):
                    got += chunk
        except TimeoutError:
            pass
        finally:
            writer.close()
        return got


@asynccontextmanager
async def serving(path: Path, *, token: str = TOKEN, open_to_all: bool = False) -> AsyncIterator[Served]:
    watcher = Watcher()
    watcher.start()
    db = DB(str(path))
    task = asyncio.create_task(DatabaseTask(db, [], watcher).run())
    streams = Streams(lambda wanted: db if wanted == db.path else None, token=token, open_to_all=open_to_all)
    web = await serve_metrics("127.0.0.1:0", Metrics(), [Route("/stream", streams)])
    port = int(web.url.split(":")[2].split("/")[0])
    try:
        async with streams:
            yield Served(db, port)
    finally:
        await web.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await db.call(db.close)
        watcher.close()


@pytest.fixture
def path(tmp_path: Path, app: App) -> Path:
    app.create(tmp_path / "app.db")
    app.ledger(3)
    return tmp_path / "app.db"


async def attached(served: Served) -> None:
    async with asyncio.timeout(10):
        while served.db.pos().is_zero:  # noqa: ASYNC110 another task attaches
            await asyncio.sleep(0.01)


async def next_index(served: Served, app: App) -> None:
    """Have the WAL start over."""
    before = served.db.pos().index
    await served.db.call(lambda: served.db.checkpoint(seal=True))
    app.ledger(1)
    async with asyncio.timeout(10):
        while served.db.pos().index == before:  # noqa: ASYNC110 another task copies
            await asyncio.sleep(0.01)


async def segment(stream: Stream) -> tuple[Record, bytes]:
    async with asyncio.timeout(10):
        record = await stream.record()
        assert record is not None
        return record, await stream.read(record.size)


def test_a_record_is_what_04_sends() -> None:
    """40 bytes, big-endian: type, flags, generation as a number, index, offset, size."""
    record = Record(RecordType.WAL, Pos("0123456789abcdef", 7, 0x1020), 0x33)
    raw = bytes.fromhex("00000002 00000000 0123456789abcdef 0000000000000007 0000000000001020 0000000000000033")
    assert record.pack() == raw
    assert Record.unpack(raw) == record
    assert len(raw) == RECORD_SIZE


async def test_a_snapshot_and_then_every_segment(path: Path, app: App) -> None:
    """Who has nothing gets the database file as it is, the position of it, and then the WAL from offset 0, live."""
    async with serving(path) as served:
        await attached(served)
        app.ledger(2)
        async with open_stream(served.upstream(), Pos()) as stream:
            assert stream.page_size == 4096
            record, content = await segment(stream)
            start = Pos(served.db.current_generation(), stream.position.index)
            assert (record.kind, record.pos) == (RecordType.SNAPSHOT, start)
            assert content[:16] == b"SQLite format 3\0"
            assert len(content) == struct.unpack_from(">I", content, 28)[0] * 4096
            at = start
            while at < stream.position:  # what the snapshot has already comes again
                at = await follows(stream, at)
            assert at == stream.position
            for _ in range(3):
                began = time.monotonic()
                app.ledger(1)
                at = await follows(stream, at)
                assert time.monotonic() - began < 1
            assert at == served.db.pos()


async def follows(stream: Stream, at: Pos) -> Pos:
    """Take the next segment, which begins at `at` and verifies; where it ends."""
    record, body = await segment(stream)
    assert record.kind is RecordType.WAL
    assert record.pos == at
    assert body.startswith(FRAME_HEADER)
    data, stamp = open_object(body)
    assert stamp is not None
    assert stamp.required == (at.index, at.offset + len(data))
    return Pos(at.generation, *stamp.required)


async def test_going_on_from_an_index(path: Path, app: App) -> None:
    """Who names generation and index gets no snapshot, but the WAL from the beginning of that index on."""
    async with serving(path) as served:
        await attached(served)
        first = served.db.pos()
        await next_index(served, app)
        for index in (first.index, first.index + 1):
            async with open_stream(served.upstream(), Pos(first.generation, index, 77)) as stream:
                assert stream.position.is_zero
                at = Pos(first.generation, index)
                record, _ = await segment(stream)
                assert (record.kind, record.pos) == (RecordType.WAL, at)


@pytest.mark.parametrize("what", ["another generation", "a later index", "an index that is gone"])
async def test_who_cannot_go_on_gets_a_snapshot(what: str, path: Path, app: App) -> None:
    """A position that is not kept (any more), or never was, is answered by a snapshot."""
    async with serving(path) as served:
        await attached(served)
        pos = served.db.pos()
        known = {
            "another generation": Pos("f" * 16, pos.index),
            "a later index": Pos(pos.generation, pos.index + 1),
            "an index that is gone": Pos(pos.generation, pos.index),
        }[what]
        if what == "an index that is gone":
            await next_index(served, app)
            assert served.db.shadow is not None
            served.db.shadow.prune(pos.index + 1)
        async with open_stream(served.upstream(), known) as stream:
            record, _ = await segment(stream)
            assert record.kind is RecordType.SNAPSHOT
            assert stream.position == served.db.pos()


@pytest.mark.parametrize(
    ("target", "method", "token", "answer"),
    [
        ("/stream?path={}", "POST", TOKEN, (405, "Method not allowed")),
        ("/stream", "GET", TOKEN, (400, "Database name required")),
        ("/stream?path={}&generation=0123456789abcdef&index=xyz", "GET", TOKEN, (400, "Invalid index query parameter")),
        ("/stream?path={}&generation=0123456789abcdef&index=-1", "GET", TOKEN, (400, "Invalid index query parameter")),
        ("/stream?path=/no/such.db", "GET", TOKEN, (404, "Database not found")),
        ("/stream?path={}", "GET", "", (401, "wrong or missing bearer token")),
        ("/stream?path={}", "GET", "wrong", (401, "wrong or missing bearer token")),
        ("/stream?path=/no/such.db", "GET", "wrong", (401, "wrong or missing bearer token")),
    ],
)
async def test_refusals(target: str, method: str, token: str, answer: tuple[int, str], path: Path) -> None:
    """Status and text are those of 0.4; without the token nobody learns which databases there are."""
    async with serving(path) as served:
        await attached(served)
        got = (await served.get(target.format(path), method=method, token=token)).decode()
        assert (int(got.split()[1]), got.split("\r\n\r\n")[1].strip()) == answer


async def test_nobody_is_served_unless_somebody_said_so(path: Path) -> None:
    """Without a token, and without `stream`, the answer is 403 and says what to do; with `stream` no token is asked."""
    async with serving(path, token="") as served:
        await attached(served)
        with pytest.raises(UpstreamError, match="403: no followers are served: set stream-token"):
            async with open_stream(served.upstream(""), Pos()):
                pass
    async with serving(path, token="", open_to_all=True) as served:
        await attached(served)
        async with open_stream(served.upstream(""), Pos()) as stream:
            assert (await segment(stream))[0].kind is RecordType.SNAPSHOT


async def test_a_database_without_a_generation(tmp_path: Path) -> None:
    """While there is nothing yet, the answer is 503: come back."""
    async with serving(tmp_path / "none.db") as served:
        with pytest.raises(UpstreamError, match="503: no generation yet"):
            async with open_stream(served.upstream(), Pos()):
                pass


async def test_the_number_of_followers_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is told to come back, and gets in when another has left."""
    monkeypatch.setattr(stream_module, "STREAMS", 1)
    async with serving(path) as served:
        await attached(served)
        async with open_stream(served.upstream(), Pos()) as stream:
            await segment(stream)
            with pytest.raises(UpstreamError, match="503: 1 followers are served already"):
                async with open_stream(served.upstream(), Pos()):
                    pass
        async with asyncio.timeout(10):
            while served.db.followers:  # noqa: ASYNC110 the server notices that it has gone
                await asyncio.sleep(0.01)
        async with open_stream(served.upstream(), Pos()) as stream:
            await segment(stream)


async def test_a_follower_that_does_not_read_holds_nothing_up(path: Path, app: App) -> None:
    """The application's WAL starts over, the shadow WAL stays within its bound, and the one that slept is cut off."""
    app.fill(500)
    async with serving(path) as served:
        await attached(served)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # else the system takes some megabytes for it
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", served.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
        target = f"/stream?path={path}"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        await reader.readexactly(100)
        app.fill(2500)
        async with asyncio.timeout(10):
            while served.db.uncopied() != 0:  # noqa: ASYNC110 another task copies
                await asyncio.sleep(0.01)
        await served.db.call(served.db.maintain)
        assert app.checkpoint("TRUNCATE")[0] == 0, "no read transaction is left open for it"
        assert os.path.getsize(f"{path}-wal") == 0
        assert not [name for name in os.listdir(served.db.meta_path) if "tmp" in name]
        app.ledger(5)
        assert served.db.shadow is not None
        served.db.shadow.prune(served.db.pos().index + 1)  # as happens beyond the bound
        rest = b""
        async with asyncio.timeout(20):
            while True:
                rest = (rest + await reader.read(1 << 20))[-10:]
                if rest.endswith(b"0\r\n\r\n"):
                    break  # the body ends, so that it asks anew
        writer.close()
