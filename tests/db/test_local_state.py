"""The local state file by file: the shadow WAL, the state that is stored, the lock against a second replicator."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest

from litestream import fsutil
from litestream.core.position import Pos
from litestream.core.stamp import Kind, Stamp
from litestream.db import state
from litestream.db.guard import Guard
from litestream.db.shadow import ShadowWAL, remove_generation
from litestream.db.state import State
from litestream.errors import ContinuityLostError, CorruptObjectError, DatabaseBusyError
from litestream.streams import compress, open_object

GENERATION = "0123456789abcdef"
ACCESS = fsutil.Access()


class Writer:
    """Appends segments of 100 bytes that follow each other."""

    def __init__(self, meta: Path) -> None:
        self.shadow = ShadowWAL(str(meta), GENERATION, ACCESS)
        self.root = meta / "generations" / GENERATION / "wal"
        self.end = Pos(GENERATION, 0, 0)
        self.count = 0

    def append(self, *, index: int | None = None) -> Pos:
        """One more segment, or the first of another index; its position."""
        prev = self.end
        pos = prev if index is None else Pos(GENERATION, index, 0)
        stamp = Stamp(
            Kind.WAL,
            pos,
            page_size=512,
            db_pages=1,
            length=100,
            frame_hash=bytes(32),
            prev=prev,
            prev_checksum=self.count.to_bytes(8, "big"),
            end_checksum=(self.count + 1).to_bytes(8, "big"),
            wal_header=bytes(32),
            required=(pos.index, pos.offset + 100),
            first_commit_ns=1,
            last_commit_ns=2,
            writer=bytes(16),
        )
        self.shadow.append(compress(b"%100d" % self.count), stamp)
        self.count += 1
        self.end = dataclasses.replace(pos, offset=pos.offset + 100)
        return pos

    def path(self, pos: Pos) -> Path:
        return self.root / f"{pos.index:08x}" / f"{pos.offset:08x}.wal.lz4"

    def loaded(self) -> list[Pos]:
        """What a next start finds."""
        again = ShadowWAL(self.shadow._meta, GENERATION, ACCESS)
        again.load()
        return [segment.pos for segment in again.segments()]


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path / "meta")


class TestShadow:
    def test_what_was_written_is_loaded(self, writer: Writer) -> None:
        """In order, over more than one index, with the last stamp and its content."""
        written = [writer.append(), writer.append(), writer.append(index=1), writer.append()]

        again = ShadowWAL(writer.shadow._meta, GENERATION, ACCESS)
        last = again.load()

        assert last is not None
        assert (last[0].pos, last[1]) == (written[-1], b"%100d" % 3)
        assert [segment.pos for segment in again.segments()] == written
        assert again.size() == writer.shadow.size() == sum(os.path.getsize(writer.path(pos)) for pos in written)

    def test_only_the_run_at_the_end_counts(self, writer: Writer) -> None:
        """Behind a gap everything before it could never be sent: it is removed."""
        written = [writer.append() for _ in range(4)]
        writer.path(written[1]).unlink()

        assert writer.loaded() == written[2:]
        assert not writer.path(written[0]).exists()

    def test_torn_segments_end_it(self, writer: Writer) -> None:
        """A torn segment and all behind it go; what stands before it stays."""
        written = [writer.append() for _ in range(4)]
        writer.path(written[2]).write_bytes(writer.path(written[2]).read_bytes()[:-1])

        assert writer.loaded() == written[:2]
        assert not writer.path(written[3]).exists()

    def test_what_has_another_name_is_no_segment(self, writer: Writer) -> None:
        """Foreign files and directories are left alone, a segment under another's name is not believed."""
        pos = writer.append()
        (writer.root / "notes").mkdir()
        (writer.root / "0000000a").write_bytes(b"a file where a directory should be")
        (writer.path(pos).parent / "readme").write_bytes(b"?")
        writer.path(Pos(GENERATION, 0, 100)).write_bytes(writer.path(pos).read_bytes())

        assert writer.loaded() == [pos]
        assert (writer.path(pos).parent / "readme").exists()
        assert (writer.root / "notes").exists()

    def test_leftovers_of_the_dead_are_removed(self, writer: Writer) -> None:
        """A temporary file of a killed process goes at the next start; one of a living writer stays."""
        pos = writer.append()
        dead = writer.path(pos).with_name(f".x.{2**30}-{'0' * 16}.tmp")
        dead.write_bytes(b"half")
        with fsutil.AtomicFile(str(writer.path(pos).with_name("y"))) as living:
            assert writer.loaded() == [pos]
            assert os.path.exists(living.temp)
        assert not dead.exists()

    def test_an_fsync_that_failed_is_not_repeated_but_written_anew(
        self, writer: Writer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The kernel may have dropped the pages after the error: the bytes go into a new file."""
        pos = writer.append()
        inode = writer.path(pos).stat().st_ino

        def fail(_path: str) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(fsutil, "fsync_file", fail)
        writer.shadow.persist(None)

        assert writer.path(pos).stat().st_ino != inode
        assert open_object(writer.path(pos).read_bytes())[0] == b"%100d" % 0

    def test_only_what_is_not_acknowledged_is_made_durable(
        self, writer: Writer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each segment is fsynced once, and not at all if every replica has it."""
        synced: list[str] = []
        monkeypatch.setattr(fsutil, "fsync_file", synced.append)
        writer.append()
        second = writer.append()
        writer.shadow.persist(second)
        assert synced == [str(writer.path(second))]
        writer.shadow.persist(second)
        third = writer.append()
        writer.shadow.persist(Pos(GENERATION, 0, 100))
        assert synced == [str(writer.path(second)), str(writer.path(third))]

    def test_deleted_state_is_noticed(self, writer: Writer) -> None:
        """Reading, making durable and appending each say that it is gone."""
        pos = writer.append()
        later = writer.append()
        remove_generation(writer.shadow._meta, GENERATION)
        with pytest.raises(CorruptObjectError, match="shadow segment is gone"):
            writer.shadow.read(pos)
        with pytest.raises(CorruptObjectError, match="shadow segment is gone"):
            writer.shadow.persist(None)
        with pytest.raises(ContinuityLostError, match="no shadow wal"):
            writer.append()
        assert open_object(writer.shadow.read(later))[0] == b"%100d" % 1  # the newest is still in memory

    def test_prune(self, writer: Writer) -> None:
        """Earlier indexes go with their directories."""
        writer.append()
        kept = [writer.append(index=1), writer.append()]
        writer.shadow.prune(1)
        writer.shadow.prune(1)
        assert [segment.pos for segment in writer.shadow.segments()] == kept == writer.loaded()
        assert [found.name for found in writer.root.iterdir()] == ["00000001"]


class TestState:
    STATE = State(GENERATION, str(Pos("00000000000000aa", 1, 32)), 5, 6, 7, "hash", [GENERATION], {"pos": "x"})

    def test_round_trip(self, tmp_path: Path) -> None:
        """What is stored is loaded."""
        state.store(str(tmp_path), self.STATE, ACCESS)
        assert state.load(str(tmp_path)) == self.STATE

    @pytest.mark.parametrize(
        "change",
        [
            {"version": 2},
            {"generation": "../../etc"},
            {"generation": 5},
            {"generations": ["../.."]},
            {"generations": "0123456789abcdef"},
            {"generations": None},
            {"previous": "nonsense"},
            {"previous": 7},
            {"inode": "6"},
            {"last_commit_ns": None},
            {"unknown": 1},
            {"base": []},
            {"base": {"pos": 1}},
        ],
        ids=str,
    )
    def test_what_is_not_ours_is_not_believed(self, tmp_path: Path, change: dict[str, object]) -> None:
        """Another version, wrong types, names that are no generations: as if there were none."""
        state.store(str(tmp_path), self.STATE, ACCESS)
        path = tmp_path / "state.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        assert state.load(str(tmp_path)) == State()

    @pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b"[" * 100_000])
    def test_rubbish_is_no_state(self, tmp_path: Path, raw: bytes) -> None:
        """Whatever stands in the file, it is no more than lost."""
        (tmp_path / "state.json").write_bytes(raw)
        assert state.load(str(tmp_path)) == State()

    def test_no_file_is_no_state(self, tmp_path: Path) -> None:
        """Nor is a directory of that name."""
        assert state.load(str(tmp_path)) == State()
        (tmp_path / "state.json").mkdir()
        assert state.load(str(tmp_path)) == State()


class TestGuard:
    def test_one_at_a_time(self, tmp_path: Path) -> None:
        """The second is refused and told who the first is; after a release the next may have it."""
        first = Guard.take(str(tmp_path), ACCESS)
        with pytest.raises(DatabaseBusyError, match=rf"already \(process {os.getpid()}\): stop that one first"):
            Guard.take(str(tmp_path), ACCESS)
        first.release()
        first.release()
        Guard.take(str(tmp_path), ACCESS).release()

    def test_a_link_in_its_place_is_not_followed(self, tmp_path: Path) -> None:
        """Nobody's file is emptied through a link that somebody put there."""
        victim = tmp_path / "victim"
        victim.write_bytes(b"data")
        (tmp_path / "meta").mkdir()
        (tmp_path / "meta" / "lock").symlink_to(victim)
        with pytest.raises(OSError, match="symbolic links"):
            Guard.take(str(tmp_path / "meta"), ACCESS)
        assert victim.read_bytes() == b"data"
