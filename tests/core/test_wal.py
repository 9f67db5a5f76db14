"""WAL headers, frames and the committed prefix: made-up WALs, and SQLite's own."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.wal import to_big_endian
from helpers.walmaker import PAGE_SIZES, SALTS, flip, make_frames, make_wal, pages
from litestream.core.wal import (
    FRAME_HEADER_SIZE,
    WAL_HEADER_SIZE,
    FrameHeader,
    FrameRun,
    WALHeader,
    committed_prefix,
    derive_start,
    frame_align,
    frame_count,
    frame_offset,
    frame_size,
    frames_table,
    is_page_size,
    scan_frames,
)
from litestream.errors import CorruptObjectError

page_sizes = st.sampled_from(PAGE_SIZES)
seeds = st.integers(0, 1 << 32)


# The header


@given(page_size=page_sizes, salts=st.binary(min_size=8, max_size=8), sequence=st.integers(0, 0xFFFFFFFF))
@pytest.mark.parametrize("big", [False, True])
def test_header_round_trip(page_size: int, salts: bytes, sequence: int, big: bool) -> None:
    """A header that was built is parsed to the same values and the same 32 bytes."""
    header = WALHeader.build(page_size, salts, sequence, big)
    assert len(header.raw) == WAL_HEADER_SIZE
    assert WALHeader.parse(header.raw + b"frames") == header
    assert (header.page_size, header.salts, header.sequence, header.big) == (page_size, salts, sequence, big)


@pytest.mark.parametrize("bit", range(8 * WAL_HEADER_SIZE))
def test_header_refuses_every_flipped_bit(bit: int) -> None:
    """A header with any one bit turned over is refused."""
    for big in (False, True):
        with pytest.raises(CorruptObjectError):
            WALHeader.parse(flip(WALHeader.build(4096, SALTS, 1, big).raw, bit))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "WAL header cut short: 0 of 32 bytes"),
        (WALHeader.build(512, SALTS).raw[:31], "WAL header cut short: 31 of 32 bytes"),
        (bytes(32), "not a WAL: magic 00000000"),
        (flip(WALHeader.build(512, SALTS).raw, 56), "unknown WAL version 3007001"),
        (WALHeader.build(256, SALTS).raw, "WAL header with a page size of 256"),
        (WALHeader.build(131072, SALTS).raw, "WAL header with a page size of 131072"),
        (WALHeader.build(4097, SALTS).raw, "WAL header with a page size of 4097"),
        (flip(WALHeader.build(512, SALTS).raw, 130), "wrong checksum of the WAL header"),
    ],
)
def test_header_errors_say_what_is_wrong(raw: bytes, message: str) -> None:
    """Each way in which 32 bytes are no WAL header has a text of its own."""
    with pytest.raises(CorruptObjectError) as error:
        WALHeader.parse(raw)
    assert str(error.value) == message


@pytest.mark.parametrize("n", [0, -512, 1, 256, 513, 768, 65535, 65537, 131072])
def test_page_sizes_that_are_none(n: int) -> None:
    """Only powers of two from 512 to 65536 are page sizes."""
    assert not is_page_size(n)
    assert all(is_page_size(size) for size in PAGE_SIZES)


# Frames and offsets


@given(raw=st.binary(min_size=24, max_size=24))
def test_frame_header_round_trip(raw: bytes) -> None:
    """Any 24 bytes are a frame header that packs to the same bytes."""
    assert FrameHeader.parse(raw).pack() == raw


def test_frame_header_cut_short() -> None:
    """Less than 24 bytes are no frame header."""
    with pytest.raises(CorruptObjectError, match="cut short: 23 of 24"):
        FrameHeader.parse(bytes(23))


@given(page_size=page_sizes, n=st.integers(0, 1 << 40), rest=st.integers(0, 1 << 20))
def test_offsets(page_size: int, n: int, rest: int) -> None:
    """Offsets of frames, their number before an offset, and alignment fit together, past 4 GiB too."""
    rest %= frame_size(page_size)
    assert frame_offset(n, page_size) == 32 + n * (24 + page_size)
    assert frame_count(frame_offset(n, page_size) + rest, page_size) == n
    assert frame_align(frame_offset(n, page_size) + rest, page_size) == frame_offset(n, page_size)


@pytest.mark.parametrize("offset", [0, 1, 31])
def test_offsets_inside_the_header(offset: int) -> None:
    """Inside the header there are no frames, and the boundary before it is 0."""
    assert frame_align(offset, 512) == frame_count(offset, 512) == 0


# Scanning


def expected_run(header: WALHeader, wal: bytes, commits: list[int], count: int) -> FrameRun:
    """The run of `count` valid frames, worked out from the list the WAL was made from."""
    marks = [i + 1 for i in range(count) if commits[i]]
    committed = marks[-1] if marks else 0

    def checksum(n: int) -> tuple[int, int]:
        at = frame_offset(n - 1, header.page_size)
        return FrameHeader.parse(wal[at : at + FRAME_HEADER_SIZE]).checksum if n else header.checksum

    db_pages = commits[committed - 1] if committed else 0
    return FrameRun(count, committed, db_pages, checksum(count), checksum(committed))


commit_lists = st.lists(st.one_of(st.just(0), st.integers(1, 0xFFFFFFFF)), max_size=12)


@settings(deadline=None)
@given(page_size=page_sizes, big=st.booleans(), commits=commit_lists, seed=seeds, data=st.data())
def test_any_truncation(page_size: int, big: bool, commits: list[int], seed: int, data: st.DataObject) -> None:
    """A WAL cut off at any byte has exactly its whole frames, and its last commit among them."""
    header, wal = make_wal(page_size, pages(random.Random(seed), page_size, commits), big=big)
    cut = data.draw(st.integers(WAL_HEADER_SIZE, len(wal)))
    assert committed_prefix(wal[:cut]) == (
        header,
        expected_run(header, wal, commits, frame_count(cut, page_size)),
    )


@settings(deadline=None)
@given(page_size=page_sizes, big=st.booleans(), commits=commit_lists, seed=seeds, data=st.data())
def test_any_chunking(page_size: int, big: bool, commits: list[int], seed: int, data: st.DataObject) -> None:
    """Scanning in pieces of any size, each from where the one before ended, finds what one scan finds."""
    header, wal = make_wal(page_size, pages(random.Random(seed), page_size, commits), big=big)
    count = committed = db_pages = 0
    checksum = committed_checksum = header.checksum
    at, end = WAL_HEADER_SIZE, WAL_HEADER_SIZE
    while end < len(wal):
        end = min(len(wal), end + data.draw(st.integers(1, 3 * frame_size(page_size))))
        run = scan_frames(memoryview(wal)[at:end], header, start=checksum)
        if run.committed:
            committed, db_pages, committed_checksum = count + run.committed, run.db_pages, run.committed_checksum
        count, checksum = count + run.count, run.checksum
        at = frame_offset(count, page_size)
    assert FrameRun(count, committed, db_pages, checksum, committed_checksum) == expected_run(
        header, wal, commits, len(commits)
    )


@settings(deadline=None, max_examples=200)
@given(
    page_size=page_sizes,
    big=st.booleans(),
    commits=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    seed=seeds,
)
def test_any_flipped_bit_is_found_at_its_frame(page_size: int, big: bool, commits: list[int], seed: int) -> None:
    """One bit turned over anywhere in the frames ends the run right before the frame it is in."""
    rng = random.Random(seed)
    header, wal = make_wal(page_size, pages(rng, page_size, commits), big=big)
    bit = rng.randrange(8 * WAL_HEADER_SIZE, 8 * len(wal))
    hit = frame_count(bit // 8, page_size)
    assert committed_prefix(flip(wal, bit))[1] == expected_run(header, wal, commits, hit)


def test_every_bit_of_a_frame() -> None:
    """Each single bit of a frame in the middle, turned over, ends the run there."""
    _, wal = make_wal(512, pages(random.Random(5), 512, [1, 1, 1]))
    for bit in range(8 * frame_offset(1, 512), 8 * frame_offset(2, 512)):
        assert committed_prefix(flip(wal, bit))[1].count == 1


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("behind", [0, 1, 30])
def test_stale_frames_of_another_chain_behind(page_size: int, behind: int) -> None:
    """Leftover frames with these very salts, but from another chain, do not count, however many there are."""
    rng = random.Random(page_size)
    commits = [0, 2, 0, 4]
    header, wal = make_wal(page_size, pages(rng, page_size, commits))
    other = make_frames(header, pages(rng, page_size, [7] * (4 + behind)))
    stale = other[4 * frame_size(page_size) :]
    assert committed_prefix(wal + stale)[1] == expected_run(header, wal, commits, 4)


def test_stale_frames_of_the_wal_before() -> None:
    """Frames that the WAL before the last reset left behind end the run by their salts."""
    rng = random.Random(6)
    _, before = make_wal(512, pages(rng, 512, [1] * 40), salts=bytes(8))
    header, wal = make_wal(512, pages(rng, 512, [1, 0, 3]))
    assert committed_prefix(wal + before[len(wal) :])[1] == expected_run(header, wal, [1, 0, 3], 3)


def test_huge_transaction_in_pieces() -> None:
    """Pieces of one transaction have no commit until the one with its last frame."""
    header, wal = make_wal(512, pages(random.Random(7), 512, [0] * 99 + [50]))
    half = frame_offset(60, 512)
    first = scan_frames(wal[:half], header, start=header.checksum, offset=WAL_HEADER_SIZE)
    assert (first.count, first.committed, first.committed_checksum) == (60, 0, header.checksum)
    second = scan_frames(wal, header, start=first.checksum, offset=half)
    assert (second.count, second.committed, second.db_pages) == (40, 40, 50)


# A piece by itself


@settings(deadline=None)
@given(page_size=page_sizes, big=st.booleans(), n=st.integers(0, 5), seed=seeds)
def test_derive_start(page_size: int, big: bool, n: int, seed: int) -> None:
    """Any frame tells the checksum before it, and from there the rest of the WAL verifies."""
    header, wal = make_wal(page_size, pages(random.Random(seed), page_size, [1] * 6), big=big)
    at = frame_offset(n, page_size)
    start = derive_start(wal, page_size, big, at)
    assert start == expected_run(header, wal, [1] * 6, n).checksum
    assert scan_frames(wal[at:], header, start=start).count == 6 - n


def test_derive_start_needs_a_whole_frame() -> None:
    """Less than a frame tells nothing."""
    _, wal = make_wal(512, pages(random.Random(8), 512, [1]))
    with pytest.raises(CorruptObjectError, match="cut short: 535 of 536"):
        derive_start(wal[:-1], 512, False, WAL_HEADER_SIZE)


@given(page_size=page_sizes, commits=commit_lists, seed=seeds, torn=st.integers(0, 24))
def test_frames_table(page_size: int, commits: list[int], seed: int, torn: int) -> None:
    """The table lists every whole frame's page number and commit, as numbers that do not overflow."""
    frames = pages(random.Random(seed), page_size, commits)
    _, wal = make_wal(page_size, frames)
    pgnos, marks = frames_table(wal + bytes(torn), page_size, WAL_HEADER_SIZE)
    assert pgnos.tolist() == [pgno for pgno, _, _ in frames]
    assert marks.tolist() == commits
    assert (pgnos * page_size).tolist() == [pgno * page_size for pgno, _, _ in frames]


# SQLite's own WALs


def grow(c: sqlite3.Connection, rng: random.Random, steps: int) -> None:
    """Random committed, rolled-back and spilled work."""
    for _ in range(steps):
        c.execute("BEGIN")
        for _ in range(rng.choice([1, 3, 60])):
            c.execute("INSERT INTO t(b) VALUES (?)", (rng.randbytes(rng.randrange(3000)),))
        if rng.random() < 0.3:
            c.execute("DELETE FROM t WHERE id % 3 = 0")
        c.execute("ROLLBACK" if rng.random() < 0.4 else "COMMIT")
        if rng.random() < 0.1:
            c.execute("VACUUM")


def make_database(path: Path, page_size: int, seed: int) -> tuple[bytes, bytes]:
    """Bytes of a database file and of its WAL, mid-flight: stale frames behind, an open spilled transaction."""
    rng = random.Random(seed)
    c = sqlite3.connect(path, isolation_level=None)
    c.execute(f"PRAGMA page_size={page_size}")
    c.execute("PRAGMA journal_mode=WAL")
    c.execute("PRAGMA wal_autocheckpoint=0")
    c.execute("PRAGMA cache_size=5")
    c.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, b)")
    grow(c, rng, 12)
    if rng.random() < 0.5:
        c.execute("PRAGMA wal_checkpoint(RESTART)")
        grow(c, rng, 4)
    c.execute("BEGIN")
    for _ in range(rng.choice([0, 100])):
        c.execute("INSERT INTO t(b) VALUES (randomblob(2000))")
    found = path.read_bytes(), path.with_name(path.name + "-wal").read_bytes()
    c.execute("ROLLBACK")
    c.close()
    return found


def applied(db: bytes, wal: bytes) -> bytes:
    """The database with the WAL's committed prefix written into it, by our reading."""
    try:
        header, run = committed_prefix(wal)
    except CorruptObjectError:
        return db
    out, size = bytearray(db), header.page_size
    for n in range(run.committed):
        at = frame_offset(n, size)
        page = FrameHeader.parse(wal[at : at + 24]).pgno - 1
        out.extend(bytes(max(0, (page + 1) * size - len(out))))
        out[page * size : (page + 1) * size] = wal[at + 24 : at + 24 + size]
    return bytes(out[: run.db_pages * size]) if run.committed else db


def checkpointed(folder: Path, db: bytes, wal: bytes) -> bytes:
    """The same by SQLite: recovery of the WAL, then a checkpoint of all of it."""
    folder.mkdir()
    path = folder / "a.db"
    path.write_bytes(db)
    (folder / "a.db-wal").write_bytes(wal)
    c = sqlite3.connect(path, isolation_level=None)
    assert c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    c.close()
    return path.read_bytes()


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_sqlite_takes_the_same_prefix(tmp_path: Path, page_size: int, seed: int) -> None:
    """SQLite recovers exactly the state we read: whole, torn, damaged, and in the other byte order."""
    db, wal = make_database(tmp_path / "live.db", page_size, seed)
    rng = random.Random(seed)
    big = to_big_endian(wal)
    assert WALHeader.parse(big).big
    cases = [wal, big, wal[:32], wal[: rng.randrange(32)]]
    cases += [base[: rng.randrange(32, len(wal))] for base in (wal, big) for _ in range(3)]
    cases += [flip(base, rng.randrange(256, 8 * len(wal))) for base in (wal, big) for _ in range(3)]
    for n, case in enumerate(cases):
        assert applied(db, case) == checkpointed(tmp_path / str(n), db, case), n


def test_rolled_back_spill(tmp_path: Path) -> None:
    """Frames of a spilled, rolled-back transaction, overwritten in part by a small commit, are not taken."""
    path = tmp_path / "a.db"
    c = sqlite3.connect(path, isolation_level=None)
    c.execute("PRAGMA journal_mode=WAL")
    c.execute("PRAGMA wal_autocheckpoint=0")
    c.execute("CREATE TABLE t(x)")
    c.execute("INSERT INTO t VALUES (1)")
    before = committed_prefix((tmp_path / "a.db-wal").read_bytes())[1]
    assert before.count == before.committed
    c.execute("PRAGMA cache_size=5")
    c.execute("BEGIN")
    for _ in range(200):
        c.execute("INSERT INTO t VALUES (randomblob(3000))")
    c.execute("ROLLBACK")
    header, spilled = committed_prefix((tmp_path / "a.db-wal").read_bytes())
    assert spilled.count > before.count + 50
    assert (spilled.committed, spilled.committed_checksum) == (before.count, before.checksum)
    c.execute("INSERT INTO t VALUES ('small')")
    wal = (tmp_path / "a.db-wal").read_bytes()
    _, after = committed_prefix(wal)
    assert before.count < after.committed == after.count < spilled.count
    behind = frame_offset(after.count, header.page_size)
    assert wal[behind + 8 : behind + 16] == header.salts, "the stale frame behind has valid salts"
    c.close()


def test_open_transaction_is_not_committed(tmp_path: Path) -> None:
    """While a transaction that spilled is open its frames are valid, and the committed prefix ends before them."""
    c = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    c.execute("PRAGMA journal_mode=WAL")
    c.execute("PRAGMA cache_size=5")
    c.execute("CREATE TABLE t(x)")
    committed = committed_prefix((tmp_path / "a.db-wal").read_bytes())[1]
    c.execute("BEGIN")
    for _ in range(100):
        c.execute("INSERT INTO t VALUES (randomblob(3000))")
    run = committed_prefix((tmp_path / "a.db-wal").read_bytes())[1]
    c.execute("ROLLBACK")
    c.close()
    assert run.count > committed.count
    assert (run.committed, run.db_pages) == (committed.count, committed.db_pages)
    assert run.committed_checksum == committed.checksum != run.checksum
