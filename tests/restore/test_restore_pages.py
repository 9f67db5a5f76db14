"""The two halves of applying WAL: a segment that verifies itself, and the writer that puts each page down once."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.recorded import history as history
from helpers.recording import GENERATION, Recording, memory_store, replica, write_tree
from helpers.wal import to_big_endian
from helpers.walmaker import PAGE_SIZES, Frame, flip, make_wal
from litestream.client import ReplicaClient
from litestream.core.layout import V03
from litestream.core.position import WALSegmentInfo
from litestream.core.wal import WALHeader, frame_offset
from litestream.errors import CorruptObjectError
from litestream.restore import restore
from litestream.restore import segment as segment_module
from litestream.restore.pages import MAGIC, PageWriter, database_header
from litestream.restore.segment import Segment
from litestream.streams import compress


def _segment(wal: bytes, header: WALHeader, start: int, *pieces: int) -> Segment:
    """The bytes of a WAL from `start` on as a segment, fed in pieces of these sizes and the rest."""
    info = WALSegmentInfo(GENERATION, 0, start, 1, 0.0)
    segment = Segment(info, "k", page_size=header.page_size, header=header if start else None, directory="/tmp")
    data = wal[start:]
    for size in pieces:
        segment.feed(data[:size])
        data = data[size:]
    if data:
        segment.feed(data)
    segment.finish()
    return segment


def _frames(rng: random.Random, page_size: int, count: int, highest: int) -> list[Frame]:
    commits = [rng.choice((0, highest)) for _ in range(count - 1)] + [highest]
    return [(rng.randrange(1, highest + 1), commit, rng.randbytes(page_size)) for commit in commits]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    page_size=st.sampled_from(PAGE_SIZES[:5]),
    count=st.integers(1, 200),
    big=st.booleans(),
    pieces=st.lists(st.integers(1, 9000), max_size=30),
    spool=st.booleans(),
)
def test_segment_in_any_pieces(
    seed: int, page_size: int, count: int, big: bool, pieces: list[int], spool: bool
) -> None:
    """However it is fed, in memory or in a file, a segment ends with the same checksum and holds the same frames."""
    rng = random.Random(seed)
    frames = _frames(rng, page_size, count, 50)
    header, wal = make_wal(page_size, frames, big=big)
    cut = frame_offset(rng.randrange(count), page_size)
    keep = segment_module.IN_MEMORY
    segment_module.IN_MEMORY = 3000 if spool else keep
    try:
        whole = _segment(wal, header, 0, *pieces)
        first = _segment(wal[:cut], header, 0, *pieces) if cut > 32 else None
        second = _segment(wal, header, cut, *pieces) if cut > 32 else None
    finally:
        segment_module.IN_MEMORY = keep

    assert (whole.frames, whole.length, whole.committed()) == (count, len(wal), count)
    assert bytes(whole.read(0, count)) == wal[32:]
    if first is not None and second is not None:
        assert first.end == second.start
        assert (second.end, second.end_offset) == (whole.end, len(wal))
        assert bytes(second.read(second.frames - 1, 1)) == wal[-page_size - 24 :]
    for segment in (whole, first, second):
        if segment is not None:
            segment.close()


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 40), big=st.booleans())
def test_segment_with_a_wrong_bit(seed: int, count: int, big: bool) -> None:
    """One bit wrong is an error; in the first frame behind the WAL's start it leads to another start instead."""
    rng = random.Random(seed)
    header, wal = make_wal(512, _frames(rng, 512, count, 9), big=big)
    start = rng.choice((0, 32 + 536))
    good = _segment(wal, header, start)
    bit = rng.randrange((start + 4) * 8 if start else 0, len(wal) * 8)  # page number 0 would be an error by itself
    if start and bit < (start + 536) * 8 and not start * 8 + 64 <= bit < start * 8 + 128:  # but for the salts
        assert _segment(flip(wal, bit), header, start).start != good.start
    else:
        with pytest.raises(CorruptObjectError, match=r"^k: "):
            _segment(flip(wal, bit), header, start)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), page_size=st.sampled_from(PAGE_SIZES[:4]), counts=st.lists(st.integers(1, 150)))
def test_each_page_once_newest_first(seed: int, page_size: int, counts: list[int]) -> None:
    """Segments applied backwards, then the snapshot, give what applying everything forwards gives."""
    rng = random.Random(seed)
    total, snapshot_pages = rng.randrange(1, 40), rng.randrange(0, 45)
    model = [rng.randbytes(page_size) for _ in range(snapshot_pages)]
    snapshot = b"".join(model)
    model += [b""] * (total - len(model))
    segments = []
    for count in counts:
        frames = _frames(rng, page_size, count, total + 3)  # some beyond the end: a database that has shrunk
        for number, _, page in frames:
            if number <= total:
                model[number - 1] = page
        header, wal = make_wal(page_size, frames)
        segments.append(_segment(wal, header, 0))

    with _writer(page_size, total) as writer:
        for segment in reversed(segments):
            writer.apply(segment, segment.frames)
        size = rng.choice((page_size, 700, 10_000))
        for offset in range(0, len(snapshot), size):
            writer.fill(offset, snapshot[offset : offset + size])
        missing = next((n + 1 for n in range(total) if not model[n]), 0)

        assert writer.missing(len(snapshot)) == missing
        if not missing:
            assert os.pread(writer.fd, (total + 1) * page_size, 0) == b"".join(model[:total])


def test_lock_page_is_not_missed() -> None:
    """The page that holds SQLite's lock bytes at 1 GiB is in no WAL and is no hole; its neighbours are."""
    lock_page = (1 << 30) // 65536 + 1
    with _writer(65536, lock_page + 2, make_file=False) as writer:
        size = 65536 * (lock_page - 1)

        assert writer.missing(size) == lock_page + 1
        assert writer.missing(size - 1) == lock_page - 1
        assert writer.missing(size + 2 * 65536) == lock_page + 2
        assert writer.missing(size + 3 * 65536) == 0


def test_impossible_sizes_are_refused_before_memory_is_taken() -> None:
    """A commit frame that claims more pages than all objects can hold is an error of the object that says so."""
    with _writer(512, 1) as writer:
        for total in (0, 2001, 2**32 - 1):
            with pytest.raises(CorruptObjectError, match=rf"k: a database of {total} pages cannot be"):
                writer.begin(total, "k")


def test_database_header() -> None:
    """Page size, also 65536 that is written as 1, and the size in pages where the header is up to date."""
    head = bytearray(100)
    head[:16] = MAGIC
    head[16:18] = b"\0\1"
    head[24:32] = bytes([0, 0, 0, 5, 0, 0, 0, 9])
    head[92:96] = bytes([0, 0, 0, 5])
    assert database_header(bytes(head), "k") == (65536, 9)
    head[95] = 4
    assert database_header(bytes(head), "k") == (65536, 0)
    head[16:18] = b"\3\0"
    with pytest.raises(CorruptObjectError, match="page size of 768"):
        database_header(bytes(head), "k")


async def test_wal_of_a_big_endian_machine(history: Recording, tmp_path: Path) -> None:
    """Checksums in the other byte order are read as well, cut into segments, with and without stamps."""
    foreign = Recording(history.page_size, [], history.points, history.snapshots)
    foreign.wals = [to_big_endian(wal) for wal in history.wals]
    for stamped in (True, False):
        out = tmp_path / f"{stamped}.db"
        objects = replica(foreign, stamped=stamped)

        await restore([("r", ReplicaClient(memory_store(objects)))], str(out))

        assert out.read_bytes() == history.last.image


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A database of 200 MiB whose WAL is one object of 200 MiB, on a snapshot of 100: less than 150 MB of memory."""
    path = tmp_path / "app.db"
    db = sqlite3.connect(path, isolation_level=None)
    for statement in ("PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0", "CREATE TABLE t(b)"):
        db.execute(statement).fetchall()
    db.execute(f"INSERT INTO t VALUES(zeroblob({100 << 20}))")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    snapshot = path.read_bytes()
    db.execute(f"INSERT INTO t VALUES(zeroblob({100 << 20}))")
    db.execute(f"UPDATE t SET b=zeroblob({100 << 20 | 1}) WHERE rowid=1")
    objects = {
        V03.snapshot_key(GENERATION, 0): (compress(snapshot), 1.0),
        V03.wal_key(GENERATION, 0, 0): (compress((tmp_path / "app.db-wal").read_bytes()), 2.0),
    }
    root = write_tree(objects, tmp_path / "replica")
    del snapshot, objects
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.close()

    code = (
        "import asyncio, re, sys\n"
        "from litestream.client import open_client\n"
        "from litestream.restore import RestoreOptions, restore\n"
        "options = RestoreOptions(integrity_check='none')\n"
        "asyncio.run(restore([('r', open_client(sys.argv[1]))], sys.argv[2], options=options))\n"
        # Not getrusage: that remembers the memory of the process which started this one.
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root), str(tmp_path / "out.db")], capture_output=True, text=True, check=True
    )

    assert int(done.stdout) < 150_000
    assert subprocess.run(["cmp", str(path), str(tmp_path / "out.db")], check=False).returncode == 0


@contextmanager
def _writer(page_size: int, total: int, *, make_file: bool = True) -> Iterator[PageWriter]:
    with tempfile.TemporaryFile() as file:
        writer = PageWriter(file.fileno(), page_size, max_bytes=max(total, 2000) * page_size)
        if make_file:
            writer.begin(total, "k")
        else:
            writer.total, writer._seen = total, bytearray(total + 1)
        yield writer
