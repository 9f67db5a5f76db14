"""The bytes of a snapshot, packed in several threads."""

from __future__ import annotations

import threading

import pytest

from helpers.fakedb import FakeDB
from litestream.errors import GenerationChangedError
from litestream.replica import snapshot as module
from litestream.replica.snapshot import SnapshotStream
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
