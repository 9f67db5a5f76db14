"""Capture against real applications: every test here has the database open in this process through `DB` alone."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import pytest

from helpers import ledger, state
from helpers.app import App
from helpers.reading import pieces
from helpers.replay import attached, replay
from litestream.core.position import Pos
from litestream.core.stamp import Kind
from litestream.db import checkpoints
from litestream.db.db import DB
from litestream.errors import (
    DatabaseAbsentError,
    DatabaseBusyError,
    GenerationChangedError,
    JournalModeError,
    NoGenerationError,
    NotADatabaseError,
)
from litestream.streams import open_object


def snapshot_of(db: DB) -> tuple[bytes, int]:
    with db.open_snapshot() as snapshot:
        data = b"".join(pieces(snapshot))
        stamp = snapshot.finish()
    assert stamp.kind is Kind.SNAPSHOT
    return data, snapshot.pos.index


def restart(db: DB, dbs: list[DB], path: Path) -> DB:
    db.close()
    return attached(path, dbs)


class TestAttach:
    def test_absent_and_empty_databases_are_waited_for(self, path: Path) -> None:
        """No file, or one of 0 bytes, is no database yet, and neither is touched."""
        db = DB(str(path))
        with pytest.raises(DatabaseAbsentError):
            db.sync_now()
        path.touch()
        with pytest.raises(DatabaseAbsentError):
            db.sync_now()

        assert path.stat().st_size == 0
        assert db.pos() == Pos()

    def test_a_foreign_file_is_refused_by_name(self, path: Path) -> None:
        """An encrypted database or any other file is refused, and the text names it."""
        path.write_bytes(os.urandom(8192))

        with pytest.raises(NotADatabaseError, match=r"app\.db"):
            DB(str(path)).sync_now()

    def test_a_directory_is_refused(self, tmp_path: Path) -> None:
        """A directory is no database."""
        with pytest.raises(NotADatabaseError):
            DB(str(tmp_path)).sync_now()

    def test_rollback_journal_is_switched_once_only(self, path: Path, app: App, dbs: list[DB]) -> None:
        """The first attach switches to WAL; an application that leaves WAL later is not overruled."""
        app.open(path, pragmas=["journal_mode=DELETE"])
        app.sql("CREATE TABLE t(x)")
        app.close()
        db = attached(path, dbs)
        app.open(path)
        assert app.one("PRAGMA journal_mode") == "wal"
        db.close()
        assert app.one("PRAGMA journal_mode=DELETE") == "delete"

        with pytest.raises(JournalModeError, match="waits until it is WAL again"):
            db.sync_now()
        assert app.one("PRAGMA journal_mode") == "delete"
        app.sql("PRAGMA journal_mode=WAL")
        db.sync_now()

    def test_a_busy_database_is_said_to_be_busy(self, path: Path, app: App, dbs: list[DB]) -> None:
        """A lock that is in the way of the switch to WAL is a busy database, to be tried again."""
        app.open(path, pragmas=["journal_mode=DELETE"])
        app.sql("CREATE TABLE t(x)")
        app.sql("BEGIN IMMEDIATE")
        db = DB(str(path), busy_timeout=0.05)
        with pytest.raises(DatabaseBusyError):
            db.sync_now()
        app.sql("ROLLBACK")
        app.close()

        dbs.append(db)
        assert db.sync_now()

    def test_a_second_replicator_is_refused(self, path: Path, app: App, dbs: list[DB]) -> None:
        """Two replicators on one database would tear its history apart: the second names the first."""
        app.create(path)
        attached(path, dbs)
        with pytest.raises(DatabaseBusyError, match=f"process {os.getpid()}"):
            attached(path, [])

    def test_an_open_write_transaction_does_not_stop_the_attach(self, path: Path, app: App, dbs: list[DB]) -> None:
        """Attaching needs no lock that a writer can hold."""
        app.create(path)
        app.ledger(3)
        app.sql("BEGIN IMMEDIATE")

        db = attached(path, dbs)

        assert db.pos().offset > 0
        app.sql("ROLLBACK")

    @pytest.mark.parametrize("name", ["with space.db", "per%20cent.db", "que?ry#.db", b"\xff\xfe.db", "ü.db"])
    def test_any_file_name_works(self, tmp_path: Path, app: App, dbs: list[DB], name: str | bytes) -> None:
        """Spaces, percent signs, URI characters and bytes that are no UTF-8 are just names."""
        plain = tmp_path / "plain.db"
        app.create(plain)
        app.ledger(2)
        app.close()
        target = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), os.fsencode(name))))
        shutil.move(plain, target)

        db = attached(target, dbs)

        assert snapshot_of(db)[0] == target.read_bytes()

    def test_a_symbolic_link_is_followed(self, tmp_path: Path, app: App, dbs: list[DB]) -> None:
        """State and WAL belong to the file that a link points to."""
        app.create(tmp_path / "real.db")
        (tmp_path / "link.db").symlink_to("real.db")

        db = attached(tmp_path / "link.db", dbs)

        assert db.wal_path == str(tmp_path / "real.db-wal")
        assert (tmp_path / ".real.db-litestream").is_dir()

    def test_local_state_is_not_wider_than_the_database(self, path: Path, app: App, dbs: list[DB]) -> None:
        """Files and directories of the local state have the database's mode."""
        app.create(path)
        app.ledger(1)
        path.chmod(0o600)

        db = attached(path, dbs)

        for found in [Path(db.meta_path), *Path(db.meta_path).rglob("*")]:
            wanted = 0o700 if found.is_dir() else 0o600
            assert stat.S_IMODE(found.stat().st_mode) == wanted, found


class TestLook:
    def test_all_is_copied_only_when_it_is(self, path: Path, app: App, dbs: list[DB]) -> None:
        """Not before the attach, after a commit, with the file gone, or while a thread is at work: no wait for that."""
        app.create(path)
        db = DB(str(path))
        dbs.append(db)
        assert not db.all_copied()
        db.sync_now()
        assert db.all_copied()
        app.ledger(1)
        assert not db.all_copied()
        db.sync_now()
        assert db.all_copied()
        with db._lock, ThreadPoolExecutor(1) as other:
            assert not other.submit(db.all_copied).result(5)
        path.rename(path.with_name("away.db"))
        assert not db.all_copied()
        path.with_name("away.db").rename(path)

    def test_a_database_at_rest_is_small(self, path: Path, app: App, dbs: list[DB]) -> None:
        """SQLite takes less than 100 KiB for each connection, and there are two at most: there may be a thousand."""
        app.create(path)
        before = apsw.memory_used()
        db = attached(path, dbs)
        app.ledger(3)
        db.sync_now()
        db.maintain()
        db.checkpoint()
        assert 0 < apsw.memory_used() - before < 2 * 100 * 1024
        db.trim()
        assert 0 < apsw.memory_used() - before < 100 * 1024


class TestCopy:
    def test_every_commit_is_copied(self, path: Path, app: App, dbs: list[DB], tmp_path: Path) -> None:
        """After each copy the snapshot and the segments are exactly the committed state."""
        app.create(path)
        db = attached(path, dbs)
        data, index = snapshot_of(db)
        for n in range(1, 30):
            app.ledger(1)
            assert db.sync_now()
            assert ledger.check(replay(db, data, index, tmp_path / "out.db")) == n

    def test_nothing_new_moves_nothing(self, path: Path, app: App, dbs: list[DB]) -> None:
        """A copy without a commit changes neither position nor files."""
        app.create(path)
        app.ledger(1)
        db = attached(path, dbs)
        before = (db.pos(), db.wal_segments(db.pos().generation))

        assert not db.sync_now()
        assert (db.pos(), db.wal_segments(db.pos().generation)) == before

    def test_spilled_and_rolled_back_frames_are_not_copied(self, path: Path, app: App, dbs: list[DB]) -> None:
        """Frames that a rolled-back transaction spilled stand in the WAL and are no commit."""
        app.create(path)
        app.ledger(1)
        db = attached(path, dbs)
        before = db.pos()
        app.spill()

        assert not db.sync_now()
        assert db.pos() == before

    def test_a_large_transaction_is_split(self, path: Path, app: App, dbs: list[DB], tmp_path: Path) -> None:
        """One transaction of many megabytes becomes segments of 4 MiB at most."""
        app.create(path)
        db = attached(path, dbs)
        data, index = snapshot_of(db)
        app.sql("CREATE TABLE big(x)")
        app.sql(
            "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<6000) "
            "INSERT INTO big SELECT randomblob(3000) FROM c"
        )
        db.sync_now()

        segments = db.wal_segments(db.pos().generation)
        assert len(segments) > 4
        assert all(len(open_object(db.read_wal_segment(s.pos))[0]) <= 4 * 1024 * 1024 + 32 for s in segments)
        assert state.read(replay(db, data, index, tmp_path / "out.db")).content == state.source(path).content

    def test_stamps_name_their_predecessor(self, path: Path, app: App, dbs: list[DB]) -> None:
        """Each segment's stamp says where the one before it ended, over a restart of the WAL too."""
        app.create(path)
        db = attached(path, dbs)
        for _ in range(3):
            app.ledger(2)
            db.sync_now()
        db.checkpoint(seal=True)
        app.ledger(1)
        db.sync_now()

        stamps = []
        for info in db.wal_segments(db.pos().generation):
            stamp = open_object(db.read_wal_segment(info.pos))[1]
            assert stamp is not None
            assert stamp.pos == info.pos
            stamps.append(stamp)
        assert stamps[-1].pos.index == stamps[0].pos.index + 1
        for before, after in itertools.pairwise(stamps):
            assert after.prev == Pos(before.pos.generation, *before.required)
            assert after.prev_checksum == before.end_checksum
            assert after.first_commit_ns >= before.last_commit_ns

    def test_times_do_not_go_back_with_the_clock(self, path: Path, app: App, dbs: list[DB]) -> None:
        """A clock that is set back does not make a later commit look earlier."""
        now = [5_000_000_000]
        app.create(path)
        db = DB(str(path), clock=lambda: now[0])
        dbs.append(db)
        app.ledger(1)
        db.sync_now()
        now[0] = 1_000_000_000
        app.ledger(1)
        db.sync_now()

        last = db.wal_segments(db.pos().generation)[-1]
        stamp = open_object(db.read_wal_segment(last.pos))[1]
        assert stamp is not None
        assert stamp.last_commit_ns == 5_000_000_000


class TestOverlap:
    def test_the_application_can_truncate_its_wal(self, path: Path, app: App, dbs: list[DB]) -> None:
        """At rest our reader holds up no checkpoint of the application, and the WAL's end is known to be complete."""
        app.create(path)
        app.ledger(5)
        db = attached(path, dbs)
        db.checkpoint()
        db.maintain()
        assert db.at_rest

        assert app.checkpoint("TRUNCATE") == (0, 0, 0)
        assert Path(db.wal_path).stat().st_size == 0
        before = db.pos()
        db.maintain()
        assert db.pos() == before
        app.ledger(1)
        db.sync_now()
        assert db.pos().index == before.index + 1
        assert db.pos().generation == before.generation

    def test_a_waiting_checkpoint_gets_through_after_the_overlap(self, path: Path, app: App, dbs: list[DB]) -> None:
        """A TRUNCATE that waits for our reader succeeds as soon as readers have overlapped."""
        app.create(path)
        app.ledger(5)
        db = attached(path, dbs)
        app.begin("checkpoint", mode="TRUNCATE", wait=10.0, name="main")
        deadline = time.monotonic() + 8
        while Path(db.wal_path).stat().st_size and time.monotonic() < deadline:
            time.sleep(0.02)
            with contextlib.suppress(DatabaseBusyError):
                db.maintain()

        assert app.result() == [0, 0, 0]

    def test_same_size_after_a_reset_is_noticed(self, path: Path, app: App, dbs: list[DB], tmp_path: Path) -> None:
        """A WAL that was restarted and has the same size to the byte holds a new commit."""
        app.create(path, pragmas=["wal_autocheckpoint=0"])
        db = attached(path, dbs)
        data, index = snapshot_of(db)
        app.ledger(20)
        db.sync_now()
        db.checkpoint()
        db.maintain()
        size = Path(db.wal_path).stat().st_size
        app.ledger(1)
        assert Path(db.wal_path).stat().st_size == size

        assert db.sync_now()
        assert ledger.check(replay(db, data, index, tmp_path / "out.db")) == 21

    def test_writers_are_not_disturbed(self, path: Path, app: App, dbs: list[DB], tmp_path: Path) -> None:
        """A writer with autocheckpoint beside the replicator's checkpoints: no failed commit, nothing lost."""
        app.create(path)
        db = attached(path, dbs, min_checkpoint_page_count=50, max_checkpoint_page_count=200)
        data, index = snapshot_of(db)
        db.acknowledge("keeps everything", Pos())
        app.start_writing(path, pause=0.001)
        while (report := app.written()).n < 600:
            db.maintain()
        report = app.stop_writing()
        db.maintain()

        assert not report.failures
        assert db.pos().index > 0, "the WAL was never restarted"
        assert ledger.check(replay(db, data, index, tmp_path / "out.db")) == report.n
        assert Path(db.wal_path).stat().st_size < 2000 * 4120

    def test_a_parked_reader_only_delays_the_restart(self, path: Path, app: App, dbs: list[DB]) -> None:
        """A foreign reader pins the WAL: commits go on and are copied, and nobody is made to wait."""
        app.create(path)
        app.ledger(1)
        with App() as reader:
            reader.open(path)
            reader.sql("BEGIN")
            reader.sql("SELECT * FROM ledger")
            db = attached(path, dbs, min_checkpoint_page_count=5, max_checkpoint_page_count=10)
            app.open(path, name="hasty", timeout=0.5)
            for _ in range(10):
                app.ledger(3, name="hasty")
                db.maintain()
            assert db.pos().index == 0
            reader.sql("ROLLBACK")
        deadline = time.monotonic() + 20
        while db.pos().index == 0 and time.monotonic() < deadline:
            app.ledger(3)
            db.maintain()
            time.sleep(0.01)

        assert db.pos().index > 0


class TestContinuity:
    def test_stop_and_start_change_nothing(self, path: Path, app: App, dbs: list[DB]) -> None:
        """A restart with no write in between changes no byte and keeps the position."""
        app.create(path)
        app.ledger(5)
        db = attached(path, dbs)
        app.end()
        before = (db.pos(), path.read_bytes(), Path(db.wal_path).read_bytes())

        again = restart(db, dbs, path)

        assert (again.pos(), path.read_bytes(), Path(again.wal_path).read_bytes()) == before

    def test_a_database_without_wal_content_is_recognised(self, path: Path, app: App, dbs: list[DB]) -> None:
        """Where the WAL was never written the database file's own hash proves that nothing happened."""
        app.create(path)
        app.ledger(5)
        app.close()
        db = attached(path, dbs)
        snapshot_of(db)
        before = db.pos()
        db.close()

        again = attached(path, dbs)
        assert again.pos() == before
        again.close()
        app.open(path)
        app.ledger(1)
        app.close()
        assert attached(path, dbs).pos().generation != before.generation

    @pytest.mark.parametrize("mode", ["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
    def test_checkpoint_while_down(self, path: Path, app: App, dbs: list[DB], tmp_path: Path, mode: str) -> None:
        """Whatever the application does with its WAL while we are down, the next start is right."""
        app.create(path)
        app.ledger(5)
        db = attached(path, dbs)
        old = db.pos().generation
        db.close()
        app.ledger(3)
        app.checkpoint(mode)
        app.ledger(4)

        db = attached(path, dbs)

        data, index = snapshot_of(db)
        assert db.pos().generation != old
        assert ledger.check(replay(db, data, index, tmp_path / "out.db")) == 12

    def test_commits_while_down_continue_the_wal(self, path: Path, app: App, dbs: list[DB], tmp_path: Path) -> None:
        """Commits without a restart of the WAL belong to the same generation."""
        app.create(path)
        app.ledger(5)
        db = attached(path, dbs)
        data, index = snapshot_of(db)
        old = db.pos()
        db.close()
        app.ledger(3)

        db = attached(path, dbs)

        assert db.pos().generation == old.generation
        assert ledger.check(replay(db, data, index, tmp_path / "out.db")) == 8

    @pytest.mark.parametrize("what", ["all", "state.json", "generations"])
    def test_local_state_may_be_deleted(self, path: Path, app: App, dbs: list[DB], what: str) -> None:
        """Lost local state costs a new generation and nothing else."""
        app.create(path)
        app.ledger(5)
        db = attached(path, dbs)
        db.close()
        target = Path(db.meta_path) if what == "all" else Path(db.meta_path) / what
        shutil.rmtree(target) if target.is_dir() else target.unlink()

        again = attached(path, dbs)

        assert again.pos().generation not in ("", db.writer)

    def test_local_state_may_be_deleted_while_running(
        self, path: Path, app: App, dbs: list[DB], tmp_path: Path
    ) -> None:
        """The state directory vanishes under the running replicator: a new generation, nothing lost."""
        app.create(path)
        app.ledger(5)
        db = attached(path, dbs)
        shutil.rmtree(db.meta_path)
        app.ledger(2)
        db.sync_now()
        db.maintain()

        data, index = snapshot_of(db)
        assert ledger.check(replay(db, data, index, tmp_path / "out.db")) == 7

    def test_foreign_local_state_is_left_alone(self, path: Path, app: App, dbs: list[DB]) -> None:
        """The official program's files at the same path are neither believed nor deleted."""
        app.create(path)
        app.ledger(1)
        meta = path.parent / ".app.db-litestream"
        theirs = meta / "generations" / "0123456789abcdef" / "wal" / "00000000.wal"
        theirs.parent.mkdir(parents=True)
        theirs.write_bytes(b"theirs")
        (meta / "generation").write_text("0123456789abcdef\n")
        (meta / "ltx" / "0").mkdir(parents=True)

        db = attached(path, dbs)
        app.ledger(1)
        db.new_generation("for the test")
        db.maintain()

        assert theirs.read_bytes() == b"theirs"
        assert (meta / "generation").read_text() == "0123456789abcdef\n"
        assert (meta / "ltx" / "0").is_dir()

    def test_a_torn_shadow_segment_is_not_believed(self, path: Path, app: App, dbs: list[DB], tmp_path: Path) -> None:
        """What a power cut tore in the shadow WAL is dropped, and copied again from the WAL."""
        app.create(path)
        db = attached(path, dbs)
        data, index = snapshot_of(db)
        for _ in range(4):
            app.ledger(1)
            db.sync_now()
        old = db.pos()
        db.close()
        last = max(Path(db.meta_path).rglob("*.wal.lz4"))
        last.write_bytes(last.read_bytes()[:-40])

        db = attached(path, dbs)

        assert db.pos() == old
        assert ledger.check(replay(db, data, index, tmp_path / "out.db")) == 4

    def test_a_replaced_database_is_a_new_history(self, path: Path, app: App, dbs: list[DB], tmp_path: Path) -> None:
        """Another file under the same name, while running: a new generation of the new file."""
        app.create(path)
        app.ledger(5)
        db = attached(path, dbs)
        old = db.pos().generation
        app.create(tmp_path / "new.db", name="new")
        app.ledger(2, name="new")
        app.close("new")
        os.replace(tmp_path / "new.db", path)
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)

        assert db.needs_maintenance()
        db.maintain()

        data, index = snapshot_of(db)
        assert db.pos().generation != old
        assert ledger.check(replay(db, data, index, tmp_path / "out.db")) == 2

    def test_a_fork_after_a_power_cut_is_noticed(self, path: Path, app: App, dbs: list[DB], tmp_path: Path) -> None:
        """New commits at an old offset under the same salts are another history."""
        app.create(path)
        app.ledger(3)
        db = attached(path, dbs)
        short = Path(db.wal_path).read_bytes()
        app.ledger(3)
        db.sync_now()
        old = db.pos().generation
        db.close()
        app.kill()
        Path(db.wal_path).write_bytes(short)
        Path(f"{path}-shm").unlink()
        with App() as other:
            other.open(path)
            other.sql("UPDATE account SET balance = balance + 1000000")
            other.sql("UPDATE account SET balance = balance - 1000000")
            other.ledger(9)
            db = attached(path, dbs)
            data, index = snapshot_of(db)

            assert db.pos().generation != old
            assert ledger.check(replay(db, data, index, tmp_path / "out.db")) == 12


class TestSnapshot:
    def test_a_snapshot_needs_a_generation(self, path: Path) -> None:
        """Before the first attach there is nothing to copy."""
        with pytest.raises(NoGenerationError):
            DB(str(path)).open_snapshot()

    def test_commits_and_checkpoints_during_a_snapshot(
        self, path: Path, app: App, dbs: list[DB], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A snapshot read while the file changes is a committed state together with the WAL it names."""
        app.create(path)
        app.ledger(50)
        db = attached(path, dbs)
        data = bytearray()
        with db.open_snapshot() as snapshot:
            for chunk in pieces(snapshot, 4096):
                data += chunk
                app.ledger(1)
                db.maintain()
                app.checkpoint("PASSIVE")
            stamp = snapshot.finish()

        assert stamp.required == (db.pos().index, db.pos().offset)
        n = ledger.check(replay(db, bytes(data), snapshot.pos.index, tmp_path / "out.db"))
        assert n == app.one("SELECT max(n) FROM ledger")

    def test_a_new_generation_ends_a_snapshot(self, path: Path, app: App, dbs: list[DB]) -> None:
        """What was read under a history that is over is not published."""
        app.create(path)
        app.ledger(5)
        db = attached(path, dbs)
        with db.open_snapshot() as snapshot:
            db.new_generation("for the test")
            with pytest.raises(GenerationChangedError):
                list(pieces(snapshot))
            with pytest.raises(GenerationChangedError):
                snapshot.finish()


class TestSeal:
    def test_busy_writers_are_not_waited_for(
        self, path: Path, app: App, dbs: list[DB], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A seal that cannot have the write lock gives up within its bound."""
        monkeypatch.setattr(checkpoints, "SEAL_TIMEOUT", 0.02)
        app.create(path)
        app.ledger(5)
        db = attached(path, dbs)
        app.sql("BEGIN IMMEDIATE")
        app.sql("UPDATE account SET balance = balance")

        db.checkpoint(seal=True)

        assert db.pos().index == 0
        app.sql("ROLLBACK")

    def test_nothing_is_written_to_the_database(self, path: Path, app: App, dbs: list[DB]) -> None:
        """No table, no row, no schema change: attach, overlap, seal and close leave the content as it was."""
        app.create(path)
        app.ledger(5)
        before = app.sql("PRAGMA schema_version"), app.sql("SELECT name FROM sqlite_schema")
        db = attached(path, dbs)
        db.maintain()
        db.checkpoint(seal=True)
        db.close()

        assert (app.sql("PRAGMA schema_version"), app.sql("SELECT name FROM sqlite_schema")) == before


class TestShadow:
    def test_pruned_indexes_are_not_made_durable(self, path: Path, app: App, dbs: list[DB]) -> None:
        """After old indexes were deleted the next overlap still makes what is left durable."""
        app.create(path)
        db = attached(path, dbs)
        db.acknowledge("slow", Pos(db.pos().generation, 0, 0))
        for _ in range(3):
            app.ledger(2)
            db.sync_now()
            db.checkpoint(seal=True)
        app.ledger(1)
        db.sync_now()
        assert db.pos().index == 3
        attachment = db._attached
        assert attachment is not None
        attachment.shadow.prune(3)

        db.maintain()

        assert {segment.index for segment in db.wal_segments(db.pos().generation)} == {3}

    async def test_a_shared_lane_outlives_one_database(self, path: Path, app: App) -> None:
        """Closing a database does not take the threads of the others away."""
        app.create(path)
        with ThreadPoolExecutor(1) as lane:
            db = DB(str(path), lane=lane)
            await db.call(db.sync_now)
            await db.call(db.close)

            assert await db.call(lambda: 1) == 1
