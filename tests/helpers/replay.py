"""The simplest restore there can be, as an oracle: pages applied one after the other, nothing verified."""

from __future__ import annotations

from pathlib import Path

from litestream.core.wal import FRAME_HEADER_SIZE, WAL_HEADER_SIZE, FrameHeader, frame_size
from litestream.db.db import DB
from litestream.streams import open_object


def attached(path: Path, dbs: list[DB], **options: int) -> DB:
    """A DB that is attached, and closed at the end of the test (`dbs` is the fixture)."""
    db = DB(str(path), **options)  # type: ignore[arg-type]  # numbers of any kind
    dbs.append(db)
    db.sync_now()
    return db


def replay(db: DB, snapshot: bytes, index: int, out: Path) -> Path:
    """Write what a snapshot taken at `index` and all shadow segments from there on say to `out`."""
    pages = bytearray(snapshot)
    page_size = db.page_size()
    wals: dict[int, bytes] = {}
    for info in db.wal_segments(db.pos().generation):
        data, _ = open_object(db.read_wal_segment(info.pos))
        assert info.offset == len(wals.get(info.index, b"")), f"segments of {info.index:08x} have a gap"
        wals[info.index] = wals.get(info.index, b"") + data
    for number in sorted(wals):
        if number >= index:
            pages = _apply(pages, wals[number], page_size)
    out.write_bytes(pages)
    return out


def _apply(pages: bytearray, wal: bytes, page_size: int) -> bytearray:
    size = frame_size(page_size)
    transaction: list[tuple[int, bytes]] = []
    for at in range(WAL_HEADER_SIZE, len(wal) - size + 1, size):
        frame = FrameHeader.parse(wal[at : at + FRAME_HEADER_SIZE])
        transaction.append((frame.pgno, wal[at + FRAME_HEADER_SIZE : at + size]))
        if frame.commit:
            for pgno, page in transaction:
                start = (pgno - 1) * page_size
                if len(pages) < start + page_size:
                    pages.extend(bytes(start + page_size - len(pages)))
                pages[start : start + page_size] = page
            del pages[frame.commit * page_size :]
            transaction = []
    return pages
