"""Whole pages committed to a copy that ordinary readers have open."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.app import App
from helpers.following import content
from litestream.core.checksum import chain_frames, verify_frames
from litestream.core.wal import frame_size
from litestream.core.walindex import (
    BLOCK_SIZE,
    WAL_INDEX_SIZE,
    WalIndexHeader,
    block_of,
    enter_frames,
    last_frame_of,
    pack_wal_index,
    parse_wal_index,
)
from litestream.errors import ContinuityLostError, DatabaseBusyError
from litestream.sqlite.follower import LocalCopy
from litestream.sqlite.walwriter import Mark

Apps = Callable[[], App]


def ignore(mark: Mark) -> None:
    """For commits of which nobody keeps a note."""


class Source:
    """A database whose WAL is read as it grows, and a copy of what it was at first."""

    def __init__(self, folder: Path, apps: Apps, page_size: int = 4096) -> None:
        self.path, self.copy = folder / "app.db", folder / "copy.db"
        self.app = apps().create(self.path, pragmas=[f"page_size={page_size}"])
        self.app.sql("PRAGMA wal_autocheckpoint = 0")
        self.app.sql("PRAGMA cache_size = 20")  # large transactions write before they commit
        self.app.checkpoint("TRUNCATE")
        subprocess.run(["cp", str(self.path), str(self.copy)], check=True)
        self._at = 32
        self._size = frame_size(page_size)

    def take(self) -> tuple[list[bytearray], int]:
        """The frames committed since the last time, in pieces, and the pages of the database after them."""
        new = self.path.with_name("app.db-wal").read_bytes()[self._at :]
        self._at += len(new)
        last = len(new) - self._size
        step = 100 * self._size
        return [bytearray(new[at : at + step]) for at in range(0, len(new), step)], struct.unpack_from(
            ">I", new, last + 4
        )[0]


@pytest.fixture
def source(request: pytest.FixtureRequest, tmp_path: Path, apps: Apps) -> Source:
    return Source(tmp_path, apps, getattr(request, "param", 4096))


@pytest.fixture
def copy(source: Source) -> Iterator[LocalCopy]:
    copy = LocalCopy(str(source.copy))
    yield copy
    copy.close()


def same(source: Source, reader: App) -> None:
    for sql in ("SELECT group_concat(name) FROM sqlite_master", "SELECT total(n), count(*) FROM ledger"):
        assert reader.sql(sql) == source.app.sql(sql)
    assert reader.one("PRAGMA integrity_check") == "ok"
    assert reader.one("PRAGMA page_count") == source.app.one("PRAGMA page_count")


@pytest.mark.parametrize("source", [512, 4096, 65536], indirect=True)
def test_readers_see_each_transaction(source: Source, copy: LocalCopy, apps: Apps) -> None:
    """A reader with a connection of its own, open all the time, sees inserts, deletes, schema changes and VACUUM."""
    reader = apps().open(source.copy, pragmas=["query_only=1"])
    chance = random.Random(3)
    for number in range(20):
        source.app.ledger(chance.randint(1, 5))
        if number % 5 == 1:
            source.app.sql(f"CREATE TABLE t{number}(a UNIQUE, b)")
        if number % 7 == 2:
            source.app.fill(chance.randint(1, 300))
        if number % 11 == 3:
            source.app.sql("DELETE FROM bulk")
            source.app.sql("VACUUM")
        copy.commit(*source.take(), ignore)
        same(source, reader)
        if number % 9 == 4:
            assert copy.checkpoint()
            assert copy.frames == 0


def test_a_reader_keeps_what_it_sees(source: Source, copy: LocalCopy, apps: Apps) -> None:
    """A transaction of a reader sees one state to its end; meanwhile the copy goes on and is not checkpointed away."""
    old, new = apps().open(source.copy), apps().open(source.copy)
    source.app.ledger(3)
    copy.commit(*source.take(), ignore)
    old.sql("BEGIN")
    assert old.one("SELECT count(*) FROM ledger") == 3
    for _ in range(5):
        source.app.ledger(10)
        copy.commit(*source.take(), ignore)
        assert not copy.checkpoint()
        assert old.one("SELECT count(*) FROM ledger") == 3
    same(source, new)
    old.sql("ROLLBACK")
    assert copy.checkpoint()
    same(source, old)


def test_more_frames_than_a_block_of_the_wal_index_holds(tmp_path: Path, apps: Apps) -> None:
    """Transactions of thousands of pages fill several blocks of hash tables, and every page is found again."""
    source = Source(tmp_path, apps)
    reader = apps().open(source.copy)
    copy = LocalCopy(str(source.copy))
    for rows in (4000, 30, 9000, 1):
        source.app.fill(rows)
        source.app.ledger(2)
        copy.commit(*source.take(), ignore)
        assert reader.one("SELECT count(*) FROM bulk") == source.app.one("SELECT count(*) FROM bulk")
        same(source, reader)
    assert copy.frames > 3 * 4096
    copy.close()
    # Others find in the files what the wal-index said: recovery reads the WAL itself.
    reader.kill()
    assert content(source.copy) == content(source.path)


def test_a_commit_that_was_not_finished_was_never_there(source: Source, copy: LocalCopy, apps: Apps) -> None:
    """Frames that were written and not published are invisible, and the next commit replaces them."""
    reader = apps().open(source.copy)
    source.app.ledger(4)
    copy.commit(*source.take(), ignore)

    def die(mark: Mark) -> None:
        assert mark.frames > copy.frames
        raise KeyboardInterrupt

    source.app.fill(100)
    pieces, pages = source.take()
    with pytest.raises(KeyboardInterrupt):
        copy.commit([bytearray(piece) for piece in pieces], pages, die)
    assert reader.one("SELECT count(*) FROM ledger") == 4
    assert reader.one("SELECT count(*) FROM sqlite_master WHERE name = 'bulk'") == 0
    assert reader.one("PRAGMA integrity_check") == "ok"
    source.app.ledger(1)
    more, pages = source.take()
    copy.commit([*pieces, *more], pages, ignore)
    same(source, reader)


def test_who_writes_to_the_copy_is_noticed(source: Source, copy: LocalCopy, apps: Apps) -> None:
    """After somebody else's commit nothing is added to the copy: no page would fit to the others."""
    source.app.ledger(2)
    copy.commit(*source.take(), ignore)
    other = apps().open(source.copy)
    other.sql("CREATE TABLE mine(a)")
    source.app.ledger(1)
    with pytest.raises(ContinuityLostError, match="another program wrote to the copy"):
        copy.commit(*source.take(), ignore)


def test_who_wrote_and_checkpointed_is_noticed(source: Source, copy: LocalCopy, apps: Apps) -> None:
    """A foreign commit that is in the file already, behind an empty WAL, is one all the same."""
    source.app.ledger(2)
    copy.commit(*source.take(), ignore)
    other = apps().open(source.copy)
    assert other.checkpoint("TRUNCATE")[0] == 0
    source.app.ledger(1)
    copy.commit(*source.take(), ignore)  # a checkpoint alone changes nothing
    other.sql("CREATE TABLE mine(a)")
    assert other.checkpoint("TRUNCATE")[0] == 0
    source.app.ledger(1)
    with pytest.raises(ContinuityLostError, match="another program wrote to the copy"):
        copy.commit(*source.take(), ignore)


def test_a_wal_that_was_removed_is_noticed(source: Source, copy: LocalCopy) -> None:
    """Nothing is committed to a WAL that no reader can open any more."""
    source.app.ledger(2)
    copy.commit(*source.take(), ignore)
    source.copy.with_name("copy.db-wal").unlink()
    source.app.ledger(1)
    with pytest.raises(ContinuityLostError, match="wal file deleted"):
        copy.commit(*source.take(), ignore)


def test_a_copy_can_become_any_other_state(source: Source, copy: LocalCopy, apps: Apps, tmp_path: Path) -> None:
    """A snapshot replaces everything in one transaction, growing or shrinking; only what differs is written."""
    reader = apps().open(source.copy)
    whole = tmp_path / "whole.db"
    for step in (
        "CREATE TABLE a AS SELECT randomblob(60000) AS b",
        "DROP TABLE a",
        "CREATE INDEX i ON ledger(padding)",
    ):
        source.app.sql(step)
        source.app.ledger(3)
        source.app.sql("VACUUM")
        source.app.checkpoint("TRUNCATE")
        subprocess.run(["cp", str(source.path), str(whole)], check=True)
        pages = source.app.one("PRAGMA page_count")
        with whole.open("rb") as file:
            copy.replace(file, pages, ignore)
            before = copy.frames
            copy.replace(file, pages, ignore)
        assert copy.frames == before
        same(source, reader)


def test_a_copy_is_open_once(source: Source, copy: LocalCopy) -> None:
    """A second opener in the process would drop the first one's locks when it closes."""
    with pytest.raises(DatabaseBusyError):
        LocalCopy(str(source.copy))
    assert copy.page_size


@pytest.mark.parametrize("count", [1, 4, 5, 300])
@pytest.mark.parametrize("big", [False, True])
def test_frames_are_chained_as_they_are_verified(count: int, big: bool) -> None:
    """Whatever form computes them, the checksums are those that the check of frames expects."""
    size, salts, start = 1024, bytes(range(8)), (7, 0xFFFFFFF0)
    buf = bytearray(os.urandom(count * frame_size(size)))
    for n in range(count):
        buf[n * frame_size(size) : n * frame_size(size) + 8] = struct.pack(">II", n + 1, 0)
    end = chain_frames(buf, page_size=size, start=start, salts=salts, big=big)
    assert verify_frames(buf, page_size=size, count=count, start=start, salts=salts, big=big) == count
    assert end == struct.unpack_from(">II", buf, (count - 1) * frame_size(size) + 16)


def test_every_frame_is_found_in_the_hash_tables() -> None:
    """Looking pages up as SQLite does finds the last frame of each, also after the leftovers of a dead writer."""
    chance = random.Random(5)
    blocks: dict[int, bytearray] = {}
    frames: list[int] = []

    def enter(pages: list[int]) -> None:
        first = len(frames) + 1
        frames.extend(pages)
        while pages:
            block = block_of(first)
            room = last_frame_of(block) - first + 1
            enter_frames(blocks.setdefault(block, bytearray(BLOCK_SIZE)), block, first, pages[:room])
            first, pages = first + room, pages[room:]

    def find(page: int) -> int:
        for block in sorted(blocks, reverse=True):
            numbers = memoryview(blocks[block])[:16384].cast("I")[WAL_INDEX_SIZE // 4 if block == 0 else 0 :]
            slots = memoryview(blocks[block])[16384:].cast("H")
            slot, found = page * 383 % 8192, 0
            while slots[slot]:
                frame = slots[slot] + (last_frame_of(block - 1) if block else 0)
                if frame <= len(frames) and numbers[slots[slot] - 1] == page:
                    found = frame
                slot = (slot + 1) % 8192
            if found:
                return found
        return 0

    for _ in range(60):
        enter([chance.randint(1, 500) for _ in range(chance.randint(1, 400))])
        if chance.random() < 0.3:  # a writer that dies leaves entries behind the last commit
            kept = len(frames)
            enter([chance.randint(1, 500) for _ in range(chance.randint(1, 50))])
            del frames[kept:]
            enter([chance.randint(1, 500)])
    for page in range(1, 501):
        assert find(page) == max((n for n, held in enumerate(frames, 1) if held == page), default=0)
    assert len(blocks) > 2


def test_the_wal_index_header_is_what_is_read_back() -> None:
    """Packing is the inverse of parsing."""
    for page_size in (512, 4096, 65536):
        header = WalIndexHeader(5, page_size, 77, 99, (1, 2), b"12345678", False)
        packed = pack_wal_index(header)
        assert parse_wal_index(packed + packed + bytes(40)) == (header, 0)
