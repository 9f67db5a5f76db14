"""What must not happen to a database or to the replicator when something fails half way."""

from __future__ import annotations

import gc
import os
import shutil
import time
from pathlib import Path

import pytest

from helpers.app import App, AppError
from helpers.reading import pieces
from helpers.replay import attached
from litestream.core.position import Pos
from litestream.db import attach as attaching
from litestream.db import db as module
from litestream.db import state as states
from litestream.db.db import DB
from litestream.db.shadow import ShadowWAL
from litestream.errors import (
    DatabaseAbsentError,
    DatabaseBusyError,
    DatabaseError,
    GenerationChangedError,
)
from litestream.sqlite.source import Source


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


class TestOpening:
    def test_an_exclusively_locked_database_is_busy(self, path: Path, app: App) -> None:
        """An application in exclusive locking mode is waited for as for any other lock, and nothing is left open."""
        app.open(path, pragmas=["locking_mode=EXCLUSIVE", "journal_mode=WAL"])
        app.sql("CREATE TABLE t(x)")
        db = DB(str(path))
        with pytest.raises(DatabaseBusyError):
            db.sync_now()
        before = descriptors()
        for _ in range(3):
            with pytest.raises(DatabaseBusyError):
                db.sync_now()

        assert descriptors() == before
        app.close()
        db.sync_now()
        db.close()

    def test_a_schema_that_does_not_parse_is_replicated(self, path: Path, app: App, dbs: list[DB]) -> None:
        """The content of a database is no business of ours: one whose schema this library cannot read works too."""
        app.create(path)
        app.script("PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql='CREATE TABLE ?!' WHERE name='account'")
        app.close()

        assert not attached(path, dbs).pos().is_zero

    def test_one_process_never_opens_a_database_twice(self, path: Path, app: App, dbs: list[DB]) -> None:
        """A second opener, also by another name of the file, is refused before it opens: its close would drop the
        first one's locks.
        """
        app.create(path)
        app.ledger(3)
        attached(path, dbs)
        os.link(path, f"{path}.other")
        with pytest.raises(DatabaseBusyError):
            DB(f"{path}.other").sync_now()
        with pytest.raises(DatabaseBusyError):
            DB(str(path)).sync_now()

        with pytest.raises(AppError):  # our lock on the database file still stands in its way
            app.sql("PRAGMA journal_mode=DELETE")

    def test_a_new_file_of_the_same_name_is_switched_to_wal(self, path: Path, app: App, dbs: list[DB]) -> None:
        """A database that was deleted and made anew is a new one: it is switched to WAL like any other."""
        app.create(path)
        db = attached(path, dbs)
        old = db.pos().generation
        app.close()
        path.rename(f"{path}.old")
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink()
        with pytest.raises(DatabaseAbsentError):
            db.maintain()
        app.open(path, pragmas=["journal_mode=DELETE"])
        app.sql("CREATE TABLE t(x)")

        db.maintain()

        assert db.pos().generation not in ("", old)
        app.sql("SELECT * FROM t")  # the application's connection learns of it when it reads
        assert app.one("PRAGMA journal_mode") == "wal"

    def test_a_directory_that_becomes_a_file(self, tmp_path: Path, app: App, dbs: list[DB]) -> None:
        """Where the database's directory is no longer one, the database is absent."""
        folder = tmp_path / "data"
        folder.mkdir()
        app.create(folder / "app.db")
        db = attached(folder / "app.db", dbs)
        folder.rename(tmp_path / "moved")
        folder.write_bytes(b"")

        with pytest.raises(DatabaseAbsentError):
            db.maintain()


class TestReaders:
    def test_a_failed_rollback_loses_no_connection(self, path: Path, app: App) -> None:
        """A reader whose ROLLBACK fails is ended by closing its connection: the source still closes in order."""
        app.create(path)
        source = Source(str(path))
        reader = source.begin_reader()
        reader.connection.set_authorizer(lambda *_: 1)  # SQLITE_DENY: no statement can be prepared any more
        source.end_reader(reader)

        again = source.begin_reader()
        source.end_reader(again)
        source.close()

    def test_a_full_pool_does_not_matter_to_a_lock_that_cannot_be_had(
        self, path: Path, app: App, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While the write lock is waited for, another thread may fill the pool: the connection is then closed."""
        app.create(path)
        app.sql("BEGIN IMMEDIATE")
        source = Source(str(path))
        monkeypatch.setattr("litestream.sqlite.source._SPARE_CONNECTIONS", 0)

        assert source.lock_writers(0.01) is None

        source.close()
        app.sql("ROLLBACK")

    def test_a_reader_is_at_rest_only_if_all_was_backfilled_before(
        self, path: Path, app: App, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A checkpoint that ends just after the reader took its mark does not make it one that is in nobody's way."""
        app.create(path)
        app.ledger(3)
        source = Source(str(path))
        source.end_reader(source.begin_reader())
        real = source._open_shm

        def checkpoint_first() -> None:
            assert app.checkpoint("PASSIVE")[1] == app.checkpoint("PASSIVE")[2]
            real()

        monkeypatch.setattr(source, "_open_shm", checkpoint_first)
        reader = source.begin_reader()
        assert not reader.at_rest
        assert app.checkpoint("TRUNCATE")[0] == 1
        source.end_reader(reader)
        source.close()


class TestAttach:
    @pytest.mark.parametrize("slow", ["_hash", "load", "remove_generation"])
    def test_writers_never_wait_for_slow_work(
        self, path: Path, app: App, dbs: list[DB], monkeypatch: pytest.MonkeyPatch, slow: str
    ) -> None:
        """Hashing the file, reading or deleting the local state: none of it is done with the write lock held."""
        app.create(path)
        app.checkpoint("TRUNCATE")
        db = attached(path, dbs)
        with db.open_snapshot() as snapshot:
            list(pieces(snapshot))
            snapshot.finish()
        if slow != "_hash":
            app.ledger(3)
            db.sync_now()
        if slow == "remove_generation":
            db.new_generation("for the test")
        else:
            db.close()
        owner = ShadowWAL if slow == "load" else attaching
        real, failed = getattr(owner, slow), []

        def writing(*arguments: object) -> object:
            try:
                app.sql("PRAGMA busy_timeout=0")
                app.ledger(1)
            except AppError as error:
                failed.append(error)
            return real(*arguments)

        monkeypatch.setattr(owner, slow, writing)
        db.sync_now()

        assert not failed
        assert app.one("SELECT max(n) FROM ledger") > 0

    def test_attempts_that_fail_leave_no_generation_behind(
        self, path: Path, app: App, dbs: list[DB], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However often attaching fails after it began a generation, the disk holds only the last one's shadow."""
        app.create(path)
        app.ledger(3)
        db = attached(path, dbs)
        real = attaching._salts
        numbers = iter(range(1000))
        monkeypatch.setattr(attaching, "_salts", lambda source: b"%08d" % next(numbers))
        monkeypatch.setattr(Source, "lock_writers", lambda *_: None)
        for _ in range(3):
            db.new_generation("for the test")
            with pytest.raises(DatabaseBusyError):
                db.maintain()
        monkeypatch.setattr(attaching, "_salts", real)
        db.maintain()

        assert os.listdir(Path(db.meta_path) / "generations") == [db.pos().generation]

    def test_a_kill_between_recording_and_deleting_leaves_nothing_for_ever(
        self, path: Path, app: App, dbs: list[DB], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A shadow that could not be deleted when its generation ended is deleted with the next one."""
        app.create(path)
        app.ledger(3)
        db = attached(path, dbs)
        with monkeypatch.context() as patch:
            patch.setattr(attaching, "remove_generation", lambda *_: None)
            db.new_generation("for the test")
            db.maintain()
        assert len(os.listdir(Path(db.meta_path) / "generations")) == 2
        db.new_generation("for the test")
        db.maintain()

        assert os.listdir(Path(db.meta_path) / "generations") == [db.pos().generation]

    def test_errors_leave_no_connection_and_no_descriptor(
        self, path: Path, app: App, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Wherever attaching, copying or an overlap fails, nothing stays open, and the next try works."""
        app.create(path)
        app.ledger(3)
        db = DB(str(path))
        before = descriptors()
        for owner, name in [
            (ShadowWAL, "append"), (attaching, "_salts"), (attaching, "_prove"), (states, "store"),
        ]:  # fmt: skip
            with monkeypatch.context() as patch:

                def fail(*_: object, **__: object) -> None:
                    raise OSError(5, "for the test")

                patch.setattr(owner, name, fail)
                with pytest.raises(DatabaseError):
                    db.sync_now()
        assert descriptors() == before + 1, "the guard's lock file alone stays open"
        db.sync_now()
        for owner, name in [(ShadowWAL, "append"), (ShadowWAL, "persist"), (Source, "checkpoint_passive")]:
            app.ledger(1)
            with monkeypatch.context() as patch:

                def fail_again(*_: object, **__: object) -> None:
                    raise DatabaseError("for the test")

                patch.setattr(owner, name, fail_again)
                with pytest.raises(DatabaseError):
                    db.checkpoint()
        db.checkpoint()
        db.close()

        assert descriptors() == before


class TestSnapshots:
    def test_a_replaced_database_does_not_wait_for_a_snapshot(
        self, path: Path, app: App, dbs: list[DB], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A snapshot whose upload hangs holds up nothing: what it read is over, and the new file is replicated."""
        app.create(path)
        app.ledger(5)
        app.checkpoint("TRUNCATE")
        db = attached(path, dbs)
        snapshot = db.open_snapshot()
        chunks = pieces(snapshot, 4096)
        next(chunks)
        app.create(tmp_path / "new.db", name="new")
        app.ledger(2, name="new")
        app.close("new")
        os.replace(tmp_path / "new.db", path)
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        old = db.pos().generation

        db.maintain()

        assert db.pos().generation != old
        with pytest.raises(GenerationChangedError):
            list(chunks)
        with pytest.raises(GenerationChangedError):
            snapshot.finish()
        snapshot.close()

    def test_the_last_sync_sees_a_replaced_file(self, path: Path, app: App, dbs: list[DB], tmp_path: Path) -> None:
        """A stop right after the database was replaced still copies the new one."""
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

        db.sync_now()

        assert db.pos().generation != old


class TestShadow:
    def test_a_deleted_old_directory_does_not_stop_the_overlap(self, path: Path, app: App, dbs: list[DB]) -> None:
        """The local state vanishes at rest, and the next WAL begins in a new directory: readers overlap again."""
        app.create(path)
        app.ledger(2)
        db = attached(path, dbs)
        db.acknowledge("slow", db.pos())
        db.checkpoint()
        db.maintain()
        shutil.rmtree(db.meta_path)
        app.ledger(1)

        db.maintain()

        assert db.pos().index == 1


class TestBusyWriters:
    def test_a_seal_catches_up_with_writers(
        self, path: Path, app: App, dbs: list[DB], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Writers who append megabytes during each backfill: the next round takes those, and the WAL still restarts."""
        app.create(path, pragmas=["wal_autocheckpoint=0"])
        app.fill(500)
        db = attached(path, dbs)
        real, calls = Source.checkpoint_passive, iter(range(2))

        def passive(self: Source) -> tuple[bool, int, int]:
            result = real(self)
            if next(calls, None) is not None:
                app.fill(500)
            return result

        monkeypatch.setattr(Source, "checkpoint_passive", passive)
        db.checkpoint(seal=True)

        assert db.at_rest

    def test_only_a_foreign_reader_pins_the_wal(
        self, path: Path, app: App, dbs: list[DB], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A checkpoint that busy writers outran is tried again soon; one that a reader held up less and less often."""
        app.create(path, pragmas=["wal_autocheckpoint=0"])
        app.ledger(5)
        db = attached(path, dbs)
        real = Source.checkpoint_passive

        def outrun(self: Source) -> tuple[bool, int, int]:
            app.ledger(1)
            return real(self)

        with monkeypatch.context() as patch:
            patch.setattr(Source, "checkpoint_passive", outrun)
            for _ in range(6):
                db.checkpoint()
        assert db.stats.pinned_seconds == 0
        assert db._checkpoints.pinned.not_before < time.monotonic() + 0.3

        with App() as reader:
            reader.open(path)
            reader.sql("BEGIN")
            reader.sql("SELECT * FROM ledger")
            app.ledger(5)
            db.maintain()
            for _ in range(6):
                db.checkpoint()
            assert db.stats.pinned_seconds > 0
            assert db._checkpoints.pinned.not_before > time.monotonic() + 1

    def test_the_write_lock_is_had_between_two_commits(self, path: Path, app: App) -> None:
        """A writer who commits without a pause leaves gaps of microseconds, which are found."""
        app.create(path)
        source = Source(str(path))
        app.start_writing(path, pause=0)
        while app.written().n < 20:
            time.sleep(0.01)
        had = 0
        for _ in range(20):
            lock = source.lock_writers(0.1)
            if lock is not None:
                had += 1
                source.unlock_writers(lock)
        app.stop_writing()
        source.close()

        assert had >= 10


class TestSlowReplicas:
    @pytest.mark.parametrize("pos", ["nothing", "something"])
    def test_the_shadow_is_bounded(
        self, path: Path, app: App, dbs: list[DB], monkeypatch: pytest.MonkeyPatch, pos: str
    ) -> None:
        """A replica that is down for long does not fill the disk: beyond a bound whole indexes go, oldest first."""
        monkeypatch.setattr(module, "SHADOW_LIMIT", 100_000)
        app.create(path, pragmas=["wal_autocheckpoint=0"])
        db = attached(path, dbs)
        db.acknowledge("down", Pos() if pos == "nothing" else db.pos())
        for _ in range(12):
            app.fill(40)
            app.sql("DELETE FROM bulk")
            db.checkpoint(seal=True)
        app.ledger(1)
        db.maintain()
        segments = db.wal_segments(db.pos().generation)

        assert segments[0].index > 0
        assert sum(s.size for s in segments) <= module.SHADOW_WALS * 250_000 + path.stat().st_size
        assert segments[-1].index == db.pos().index
        assert {s.index for s in segments} == set(range(segments[0].index, db.pos().index + 1))
        assert len(os.listdir(Path(db.meta_path) / "generations" / db.pos().generation / "wal")) == len(
            {s.index for s in segments}
        )

    def test_what_a_snapshot_needs_is_kept_beyond_the_bound(
        self, path: Path, app: App, dbs: list[DB], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While a snapshot is read the WAL from its index on stays, however large."""
        monkeypatch.setattr(module, "SHADOW_LIMIT", 0)
        monkeypatch.setattr(module, "SHADOW_WALS", 0)
        app.create(path, pragmas=["wal_autocheckpoint=0"])
        db = attached(path, dbs)
        with db.open_snapshot() as snapshot:
            attachment = db._attached
            assert attachment is not None
            with monkeypatch.context() as patch:
                patch.setattr(Source, "database_size", lambda _: 0)
                for _ in range(4):
                    app.fill(40)
                    db.checkpoint(seal=True)
                    db.maintain()
            assert db.wal_segments(snapshot.pos.generation)[0].index == snapshot.pos.index
