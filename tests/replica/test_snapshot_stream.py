"""The bytes of a snapshot, packed in several threads."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from helpers.fakedb import FakeDB
from litestream.errors import GenerationChangedError
from litestream.replica import snapshot as module
from litestream.replica.snapshot import SnapshotStream, read_ahead
from litestream.streams import ObjectReader, pack_block

_BLOCK = 4096


@pytest.fixture
def db(monkeypatch: pytest.MonkeyPatch) -> FakeDB:
    """A database of many blocks, and an end that is none."""
    monkeypatch.setattr(module, "_BLOCK", _BLOCK)
    monkeypatch.setattr(module, "_PIECE", 1000)
    one = FakeDB()
    one.chunk_size = _BLOCK
    one.file = bytearray(one.file[: one.page_size]) + bytearray(n * n % 251 for n in range(20 * _BLOCK + 512))
    one.begin()
    one.commit()
    return one


def test_blocks_come_in_order(db: FakeDB) -> None:
    """Whichever block is packed first, the object is the file."""
    stream = SnapshotStream(db)
    stream.open()
    frame = b""
    while (pieces := stream.read()) is not None:
        frame += b"".join(pieces)
    frame += stream.finish()[0]
    assert b"".join(ObjectReader().feed(frame)) == bytes(db.file)


def test_an_error_in_a_thread_is_the_callers(db: FakeDB, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong while a block is packed ends the snapshot, and its transaction is closed."""
    packed = 0

    def fail(block: memoryview) -> bytes:
        nonlocal packed
        packed += 1
        if packed == 4:
            raise MemoryError("no room for a block")
        return pack_block(block)

    monkeypatch.setattr(module, "pack_block", fail)
    stream = SnapshotStream(db)
    stream.open()
    with pytest.raises(MemoryError, match="no room"):
        list(iter(stream.read, None))
    stream.close()
    assert db.closed == 1


def test_closing_waits_for_what_is_packed(db: FakeDB, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that is given up while blocks are packed leaves no thread that reads from its buffers."""
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def slowly(block: memoryview) -> bytes:
        begun.set()
        go.wait(10)
        packed = pack_block(block)
        ended.set()
        return packed

    monkeypatch.setattr(module, "pack_block", slowly)
    stream = SnapshotStream(db)
    stream.open()
    reading = threading.Thread(target=stream.read)
    reading.start()
    assert begun.wait(10)
    closing = threading.Thread(target=stream.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    go.set()
    closing.join(10)
    reading.join(10)
    assert ended.is_set()
    assert not closing.is_alive()
    assert db.closed == 1
    with pytest.raises(GenerationChangedError):
        stream.read()


async def test_the_next_is_read_while_the_last_is_stored(db: FakeDB, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is given a block, and before it asks for another that one has been read; all come once, in order."""
    again = threading.Event()
    read, reads = SnapshotStream.read, 0

    def counted(self: SnapshotStream) -> tuple[bytes, bytes] | None:
        nonlocal reads
        reads += 1
        pieces = read(self)
        if reads == 2:
            again.set()
        return pieces

    monkeypatch.setattr(SnapshotStream, "read", counted)
    stream = SnapshotStream(db)
    stream.open()
    blocks = read_ahead(db, stream)
    frame = b"".join(await anext(blocks))
    assert await asyncio.to_thread(again.wait, 10)
    async for pieces in blocks:
        frame += b"".join(pieces)
    frame += stream.finish()[0]
    assert b"".join(ObjectReader().feed(frame)) == bytes(db.file)


async def test_given_up_while_the_next_is_read(db: FakeDB, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives up hears nothing of the read under way, not even that it failed, and neither does the log."""
    failed = threading.Event()
    read, reads = SnapshotStream.read, 0
    complaints: list[dict[str, Any]] = []

    def failing(self: SnapshotStream) -> tuple[bytes, bytes] | None:
        nonlocal reads
        reads += 1
        if reads == 1:
            return read(self)
        failed.set()
        raise GenerationChangedError("over")

    monkeypatch.setattr(SnapshotStream, "read", failing)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    stream = SnapshotStream(db)
    stream.open()
    blocks = read_ahead(db, stream)
    await anext(blocks)
    assert await asyncio.to_thread(failed.wait, 10)
    await asyncio.sleep(0.05)
    await blocks.aclose()
    stream.close()
    del blocks
    gc.collect()
    assert complaints == []
    assert db.closed == 1
