"""A server that sends what no server should: nothing of it is shown, and the follower comes back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from helpers.app import App
from litestream.core.live import RECORD_SIZE, Record, RecordType
from litestream.core.position import Pos
from litestream.errors import CorruptObjectError
from litestream.follow.follower import Follower
from litestream.follow.link import SEGMENT_LIMIT, Upstream
from litestream.streams import compress

GENERATION = "0123456789abcdef"


class Server:
    """Answers each request with the next of `bodies` (the last one again and again), unchunked, until the end."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.bodies: list[bytes] = [b""]
        self.position = ""
        self.targets: list[str] = []
        self.hold = False
        self.status = "200 OK"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        self.targets.append(request.split()[1].decode())
        body = self.bodies.pop(0) if len(self.bodies) > 1 else self.bodies[0]
        head = f"HTTP/1.1 {self.status}\r\nLitestream-page-size: {self.page_size}\r\nConnection: close\r\n"
        if self.position:
            head += f"Litestream-position: {self.position}\r\n"
        writer.write(head.encode() + b"\r\n" + body)
        with contextlib.suppress(OSError):
            await writer.drain()
            if self.hold:
                await reader.read()
        writer.close()


@asynccontextmanager
async def following(server: Server, path: Path) -> AsyncIterator[Follower]:
    listener = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    follower = Follower(str(path), Upstream(f"http://127.0.0.1:{port}", "/app.db"))
    task = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await follower.call(follower.close)
        listener.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 what is waited for is another task's attribute
            await asyncio.sleep(0.01)


def snapshot(content: bytes, pos: str = f"{GENERATION}/00000000:00000000") -> bytes:
    return Record(RecordType.SNAPSHOT, Pos.parse(pos), len(content)).pack() + content


def segment(data: bytes, index: int = 0, offset: int = 0) -> bytes:
    body = compress(data)
    return Record(RecordType.WAL, Pos(GENERATION, index, offset), len(body)).pack() + body


@pytest.fixture
def database(tmp_path: Path, app: App) -> tuple[bytes, bytes]:
    """A database file, and the WAL of what was committed to it afterwards."""
    path = tmp_path / "app.db"
    app.create(path)
    app.sql("PRAGMA wal_autocheckpoint = 0")
    app.ledger(3)
    app.checkpoint("TRUNCATE")
    app.ledger(4)
    return path.read_bytes(), path.with_name("app.db-wal").read_bytes()


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


NO_COPY = {
    "garbage": lambda db, wal: os.urandom(500),
    "an unknown type": lambda db, wal: struct.pack(">IIQQQQ", 9, 0, 1, 0, 0, 4) + b"abcd",
    "flags": lambda db, wal: struct.pack(">IIQQQQ", 1, 1, 1, 0, 0, 4) + b"abcd",
    "a huge snapshot": lambda db, wal: Record(RecordType.SNAPSHOT, Pos(GENERATION), 1 << 60).pack() + bytes(4096),
    "a snapshot of half a page": lambda db, wal: snapshot(db[:6000]),
    "an empty snapshot": lambda db, wal: snapshot(b""),
    "a snapshot that is cut": lambda db, wal: snapshot(db)[: RECORD_SIZE + 5000],
    "a header that is cut": lambda db, wal: snapshot(db)[:20],
    "a snapshot that is no database": lambda db, wal: snapshot(os.urandom(len(db))),
    "a damaged snapshot": lambda db, wal: snapshot(db[:4096] + os.urandom(len(db) - 4096)),
    "a segment without a snapshot": lambda db, wal: segment(wal),
    "a snapshot elsewhere": lambda db, wal: snapshot(db, f"{GENERATION}/00000005:00000000"),
}


@pytest.mark.parametrize("name", list(NO_COPY))
async def test_a_first_snapshot_that_is_none_makes_no_copy(
    name: str, database: tuple[bytes, bytes], tmp_path: Path
) -> None:
    """The copy does not come to be, no file is left behind, the error tells what is wrong; then it is tried again."""
    copy = tmp_path / "far" / "copy.db"
    server = Server(4096)
    server.position = "" if name == "a snapshot that is no database" else f"{GENERATION}/00000000:00000000"
    if name == "a segment without a snapshot":
        server.position = ""
    server.bodies = [NO_COPY[name](*database)]
    async with following(server, copy) as follower:
        await until(lambda: len(server.targets) >= 2)
        assert follower.error is not None
        assert "\n" not in str(follower.error)
        assert not copy.exists()
    assert [entry.name for entry in copy.parent.iterdir()] == [".copy.db-litestream"]


NOTHING_MORE = {
    "a damaged page": lambda wal: segment(changed(wal, 5000)),
    "a damaged salt": lambda wal: segment(changed(wal, 32 + 9)),
    "a damaged header": lambda wal: segment(changed(wal, 17)),
    "half a frame": lambda wal: segment(wal[:-100]),
    "a damaged frame of LZ4": lambda wal: changed(segment(wal), 200),
    "garbage": lambda wal: Record(RecordType.WAL, Pos(GENERATION), 100).pack() + os.urandom(100),
    "a cut segment": lambda wal: segment(wal)[:-50],
    "a huge segment": lambda wal: Record(RecordType.WAL, Pos(GENERATION), SEGMENT_LIMIT + 1).pack(),
    "a gap": lambda wal: segment(wal[32 + 4120 :], 0, 32 + 4120),
    "a later index": lambda wal: segment(wal, 2),
    "another generation": lambda wal: Record(RecordType.WAL, Pos("f" * 16), 4).pack() + b"abcd",
    "a bomb": lambda wal: segment(bytes(130 << 20)),
}


@pytest.mark.parametrize("name", list(NOTHING_MORE))
async def test_segments_that_are_wrong_are_not_applied(
    name: str, database: tuple[bytes, bytes], tmp_path: Path, apps: Callable[[], App]
) -> None:
    """The copy stays what it was, readers go on, and what is right is applied when it comes at last."""
    content, wal = database
    copy = tmp_path / "far" / "copy.db"
    server = Server(4096)
    server.position = f"{GENERATION}/00000000:00000000"
    server.bodies = [snapshot(content)]
    server.hold = True
    async with following(server, copy) as follower:
        await until(lambda: follower.pos() == Pos(GENERATION))
    reader = apps().open(copy, pragmas=["query_only=1"])
    before = reader.sql("SELECT * FROM ledger")
    server.hold, server.position, server.targets = False, "", []
    server.bodies = [NOTHING_MORE[name](wal), segment(wal)]
    async with following(server, copy) as follower:
        await until(lambda: follower.error is not None)
        assert reader.sql("SELECT * FROM ledger") == before
        assert follower.pos() == Pos(GENERATION)
        server.hold = True
        await until(lambda: follower.pos() == Pos(GENERATION, 0, len(wal)))
        await until(lambda: follower.error is None)
    assert reader.one("SELECT count(*) FROM ledger") == 7
    assert reader.one("PRAGMA integrity_check") == "ok"
    assert server.targets[0] == f"/stream?path=%2Fapp.db&generation={GENERATION}&index=00000000"


async def test_what_never_fits_is_given_up_for_a_snapshot(database: tuple[bytes, bytes], tmp_path: Path) -> None:
    """After three streams that do not follow, a snapshot is asked for by naming no generation."""
    content, wal = database
    copy = tmp_path / "far" / "copy.db"
    server = Server(4096)
    server.position = f"{GENERATION}/00000000:00000000"
    server.bodies = [snapshot(content)]
    server.hold = True
    async with following(server, copy) as follower:
        await until(lambda: follower.pos() == Pos(GENERATION))
    server.hold, server.position, server.targets = False, "", []
    server.bodies = [segment(changed(wal, 5000))]
    async with following(server, copy) as follower:
        await until(lambda: "/stream?path=%2Fapp.db" in server.targets)
        assert len(server.targets) == 4
        assert isinstance(follower.error, CorruptObjectError)


async def test_a_database_that_was_not_followed_is_not_replaced(database: tuple[bytes, bytes], tmp_path: Path) -> None:
    """A file that is there already is somebody's data: following into it is an error, and nothing is changed."""
    content, _ = database
    copy = tmp_path / "mine.db"
    copy.write_bytes(content)
    server = Server(4096)
    async with following(server, copy) as follower:
        await until(lambda: follower.error is not None)
        assert "was not made by following" in str(follower.error)
    assert server.targets == []
    assert copy.read_bytes() == content


@pytest.mark.parametrize("status", ["401 Unauthorized", "404 Not Found", "503 Service Unavailable"])
async def test_refusals_are_told(status: str, tmp_path: Path) -> None:
    """The text of a refusal is in the error, with everything that is not printable taken out."""
    server = Server(4096)
    server.status, server.bodies = status, [b"not \x1b[31mfor you\nsecond line"]
    async with following(server, tmp_path / "copy.db") as follower:
        await until(lambda: follower.error is not None)
        assert str(follower.error) == f"the upstream answers {status[:3]}: not ?[31mfor you"
