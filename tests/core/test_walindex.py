"""The wal-index header: what SQLite wrote into a real -shm, and everything that must not be taken for one."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from helpers.app import App
from helpers.wal import beside
from helpers.walmaker import PAGE_SIZES, SALTS, flip
from litestream.core.checksum import wal_checksum
from litestream.core.wal import committed_prefix
from litestream.core.walindex import WAL_INDEX_SIZE, WalIndexHeader, parse_wal_index


def build(
    *, version: int = 3007000, initialised: int = 1, page_size: int = 4096, big: int = 0, frames: int = 9
) -> bytes:
    """The first 136 bytes of a -shm, with right checksums."""
    copy = struct.pack(
        "=III2BHIIII8s", version, 0, 77, initialised, big, page_size, frames, 5, 0xAAAAAAAA, 0xBBBBBBBB, SALTS
    )
    copy += struct.pack("=II", *wal_checksum(copy, big=sys.byteorder == "big"))
    return 2 * copy + struct.pack("=I", 4) + bytes(36)


def test_every_field() -> None:
    """Each field comes from its place; salts stay bytes, checksums are numbers."""
    assert len(build()) == WAL_INDEX_SIZE
    assert parse_wal_index(build() + bytes(32768 - 136)) == (
        WalIndexHeader(77, 4096, 9, 5, (0xAAAAAAAA, 0xBBBBBBBB), SALTS, False),
        4,
    )


@pytest.mark.parametrize(("stored", "page_size"), [(512, 512), (32768, 32768), (1, 65536), (0, 0)])
def test_page_size_in_16_bits(stored: int, page_size: int) -> None:
    """65536 is stored as 1; 0 stands where no frame was ever seen."""
    parsed = parse_wal_index(build(page_size=stored))
    assert parsed is not None and parsed[0].page_size == page_size


def test_byte_order_of_the_wal() -> None:
    """The flag for WALs with big-endian checksums is read."""
    parsed = parse_wal_index(build(big=1))
    assert parsed is not None and parsed[0].big


@pytest.mark.parametrize(
    "raw",
    [b"", bytes(WAL_INDEX_SIZE), bytes(32768), build()[:-1], build(version=3007001), build(initialised=0)],
    ids=["empty", "zero", "zero page", "cut short", "other version", "not initialised"],
)
def test_nothing_can_be_told(raw: bytes) -> None:
    """A -shm that is empty, cut short, of another version or not initialised says nothing."""
    assert parse_wal_index(raw) is None


def test_copies_that_differ() -> None:
    """While somebody writes, the copies differ, and neither is taken."""
    raw = build()
    for bit in range(8 * 96):
        assert parse_wal_index(flip(raw, bit)) is None


def test_wrong_checksum() -> None:
    """A bit turned over in both copies is found by the checksum."""
    raw = build()
    for bit in range(8 * 48):
        assert parse_wal_index(flip(flip(raw, bit), bit + 8 * 48)) is None


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_agrees_with_a_live_database(tmp_path: Path, app: App, page_size: int) -> None:
    """In a live database it names the last committed frame, its checksum and salts, and what is backfilled."""
    db = tmp_path / "a.db"
    app.open(db, pragmas=[f"page_size={page_size}", "journal_mode=WAL", "wal_autocheckpoint=0", "cache_size=5"])
    app.sql("CREATE TABLE t(x)")
    app.sql("INSERT INTO t VALUES (randomblob(100000))")

    def look() -> tuple[WalIndexHeader, int]:
        parsed = parse_wal_index(beside(db, "-shm").read_bytes())
        assert parsed is not None
        header, run = committed_prefix(beside(db, "-wal").read_bytes())
        assert parsed[0].page_size == header.page_size == page_size
        assert (parsed[0].salts, parsed[0].big) == (header.salts, header.big)
        assert (parsed[0].max_frame, parsed[0].db_pages) == (run.committed, run.db_pages)
        assert parsed[0].checksum == run.committed_checksum
        return parsed

    first, backfilled = look()
    assert backfilled == 0
    app.checkpoint("PASSIVE")
    assert look() == (first, first.max_frame)
    app.sql("INSERT INTO t VALUES (1)")
    restarted, backfilled = look()
    assert restarted.salts != first.salts and backfilled == 0 and restarted.max_frame < first.max_frame
    app.sql("BEGIN")
    app.sql("INSERT INTO t VALUES (randomblob(2000000))")
    assert committed_prefix(beside(db, "-wal").read_bytes())[1].count > look()[0].max_frame, "a spill is not committed"
    app.sql("COMMIT")
    app.checkpoint("TRUNCATE")
    parsed = parse_wal_index(beside(db, "-shm").read_bytes())
    assert parsed is not None and parsed[0].max_frame == 0 and parsed[0].salts != restarted.salts
