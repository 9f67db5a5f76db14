"""Catch-up: an application that goes on unseen costs the pages that differ, and what restores is exactly its state."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from helpers import state
from helpers.app import App
from helpers.reading import pieces
from helpers.replay import replay
from litestream.core.position import Pos
from litestream.db import capture, catchup, hashes
from litestream.db.db import DB
from litestream.sqlite.pages import LivePages
from litestream.streams import open_object

PAGES = 600


class Scene:
    """A database of some hundred pages, copied from its beginning, whose every page is hashed."""

    def __init__(self, path: Path, app: App, dbs: list[DB]) -> None:
        self.path, self.app, self.dbs = path, app, dbs
        app.create(path, pragmas=["wal_autocheckpoint=0"])
        app.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)")
        app.sql(
            "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            "INSERT INTO t SELECT i, randomblob(3500) FROM n",
            PAGES,
        )
        app.checkpoint("TRUNCATE")
        self.db = self.attach()
        with self.db.open_snapshot() as snapshot:
            self.snapshot = b"".join(pieces(snapshot))
            snapshot.finish()
        self.index = self.db.pos().index
        self.db.hash_pages()
        self.generation = self.db.current_generation()

    def attach(self) -> DB:
        db = DB(str(self.path))
        db.acknowledge("replica", Pos())  # so that nothing is forgotten
        self.dbs.append(db)
        db.sync_now()
        return db

    def change(self, *ids: int) -> None:
        for one in ids:
            self.app.sql("UPDATE t SET x = randomblob(3500) WHERE id = ?", one)

    def passed_over(self) -> None:
        """The WAL starts over, and with it all that the last copy could be told by."""
        assert self.app.checkpoint("TRUNCATE")[0] == 0
        self.change(7)
        assert self.app.checkpoint("TRUNCATE")[0] == 0

    def again(self) -> DB:
        self.db.close()
        self.db = self.attach()
        return self.db

    def sizes(self) -> dict[int, int]:
        """Bytes of WAL by index."""
        found: dict[int, int] = {}
        for info in self.db.wal_segments(self.db.current_generation()):
            data, _ = open_object(self.db.read_wal_segment(info.pos))
            found[info.index] = found.get(info.index, 0) + len(data)
        return found

    def check(self) -> None:
        """What was copied since the snapshot makes exactly the application's state."""
        self.db.sync_now()
        assert self.db.current_generation() == self.generation
        out = replay(self.db, self.snapshot, self.index, self.path.with_name("replayed.db"))
        assert state.read(out) == state.source(self.path)


@pytest.fixture
def scene(path: Path, app: App, dbs: list[DB]) -> Scene:
    return Scene(path, app, dbs)


def test_only_what_differs_is_published(scene: Scene) -> None:
    """Three rows changed and checkpointed away cost some pages, in the same generation; the live WAL follows."""
    before = scene.db.pos()
    scene.db.close()
    scene.change(3, 300, 599)
    scene.passed_over()
    scene.again()
    after = scene.db.pos()
    assert after.generation == before.generation
    assert 0 < sum(scene.sizes().values()) < 20 * 4120
    scene.check()
    scene.change(4, 301)
    scene.check()
    assert scene.db.pos().index > after.index


def test_nothing_changed_nothing_published(scene: Scene) -> None:
    """An application that only closed its database leaves the position where it was."""
    scene.change(1)
    scene.db.sync_now()
    scene.db.hash_pages()
    before = scene.db.pos()
    scene.db.close()
    scene.app.checkpoint("TRUNCATE")
    scene.app.close()
    for _ in range(2):
        scene.again()
        assert scene.db.pos() == before
    scene.app.open(scene.path)
    scene.change(2)
    scene.check()


def test_a_restart_after_a_catch_up_goes_on(scene: Scene) -> None:
    """Where a catch-up ended is remembered: with the WAL untouched the next start publishes nothing."""
    scene.db.close()
    scene.change(5)
    scene.app.checkpoint("TRUNCATE")
    scene.change(6)  # stands in the WAL
    scene.db = scene.attach()
    at = scene.db.pos()
    scene.again()
    assert scene.db.pos() == at
    scene.change(8)
    scene.check()


def test_a_lost_note_costs_another_catch_up(scene: Scene) -> None:
    """Killed before it was noted where the catch-up ended, the next start publishes what it cannot tell again."""
    scene.db.close()
    scene.change(5)
    scene.passed_over()
    scene.db = scene.attach()
    scene.db.close()
    path = scene.path.with_name(".app.db-litestream") / "state.json"
    raw = json.loads(path.read_text())
    assert raw["base"]
    path.write_text(json.dumps(raw | {"base": {}}))
    scene.db = scene.attach()
    scene.check()


def test_frames_that_a_reader_keeps_are_published_whole(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A WAL that cannot be backfilled follows the catch-up in one object: no state in it is restored."""
    monkeypatch.setattr(capture, "SEGMENT_LIMIT", 2 * 4120)
    scene.db.close()
    scene.change(5)
    scene.passed_over()
    with App() as other:
        scene.change(9)
        other.open(scene.path)
        other.sql("BEGIN")
        other.sql("SELECT count(*) FROM t")
        scene.change(9, 10, 11)
        scene.db = scene.attach()
        scene.check()
        assert len(scene.sizes()) == 2
        segments = scene.db.wal_segments(scene.generation)
        assert [info.offset for info in segments if info.index == segments[-1].index] == [0]
        snapshot = scene.db.open_snapshot()
        pages, index = b"".join(pieces(snapshot)), snapshot.pos.index
        snapshot.finish()
        snapshot.close()
        scene.change(12)
        scene.db.sync_now()
        out = replay(scene.db, pages, index, scene.path.with_name("later.db"))
        assert state.read(out) == state.source(scene.path)
        other.sql("ROLLBACK")
    scene.db.maintain()
    scene.change(13)
    scene.check()


@pytest.mark.parametrize("more", [False, True])
def test_shorter_and_longer_again(scene: Scene, more: bool) -> None:
    """A database that shrinks while nobody looks, and perhaps grows again, is caught up with."""
    scene.db.close()
    scene.app.sql("DELETE FROM t WHERE id BETWEEN 500 AND 600")
    scene.app.sql("VACUUM")
    if more:
        scene.app.sql("INSERT INTO t SELECT id + 10000, x FROM t WHERE id < 20")
    scene.passed_over()
    scene.again()
    scene.check()


def test_growth_after_a_captured_shrink(scene: Scene) -> None:
    """Pages that were cut off under our eyes are not taken for known when the database grows again unseen."""
    scene.app.sql("CREATE TABLE spare AS SELECT * FROM t WHERE id > 550")
    scene.db.sync_now()
    scene.db.hash_pages()
    scene.app.sql("DROP TABLE spare")
    scene.app.sql("VACUUM")
    scene.db.sync_now()
    scene.db.hash_pages()
    scene.db.close()
    scene.app.sql("CREATE TABLE spare AS SELECT * FROM t WHERE id > 550")
    scene.passed_over()
    scene.again()
    out = replay(scene.db, scene.snapshot, scene.index, scene.path.with_name("replayed.db"))
    assert state.read(out) == state.source(scene.path)


def test_writers_go_on_meanwhile(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed, and even checkpointed, while the database is compared follows behind the catch-up."""
    scene.db.close()
    scene.change(3)
    scene.passed_over()
    original, left, one_at_a_time = LivePages.read, [20, 21], threading.Lock()

    def read(self: LivePages, first: int, count: int) -> bytearray:
        with one_at_a_time:
            if left and first > 1:
                scene.change(left.pop())
                scene.app.checkpoint("PASSIVE")
        return original(self, first, count)

    monkeypatch.setattr(LivePages, "read", read)
    scene.db = scene.attach()
    assert not left
    scene.check()


def test_a_hash_of_an_older_state_is_not_kept(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that change while they are hashed stay unknown."""
    scene.change(3, 4, 5)
    scene.db.sync_now()
    original, left = LivePages.read, [3, 4]

    def read(self: LivePages, first: int, count: int) -> bytearray:
        data = original(self, first, count)
        if left:
            scene.change(left.pop())
            scene.db.sync_now()
        return data

    with monkeypatch.context() as patch:
        patch.setattr(LivePages, "read", read)
        scene.db.hash_pages()
    assert scene.db.wants_hashing
    scene.db.close()
    scene.passed_over()
    scene.again()
    scene.check()


def test_too_much_is_a_snapshot(scene: Scene) -> None:
    """If more than half of the pages differ, a new generation begins."""
    scene.db.close()
    scene.app.sql("UPDATE t SET x = randomblob(3500) WHERE id > 200")
    scene.passed_over()
    scene.again()
    assert scene.db.current_generation() != scene.generation
    assert not list(scene.path.with_name(".app.db-litestream").rglob(".staged*"))


def test_a_live_wal_that_is_too_long_is_a_snapshot(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would have to be published in one piece has a bound."""
    monkeypatch.setattr(catchup, "LIVE_LIMIT", 4096)
    scene.db.close()
    scene.passed_over()
    with App() as other:
        scene.change(9)
        other.open(scene.path)
        other.sql("BEGIN")
        other.sql("SELECT count(*) FROM t")
        scene.change(10)
        scene.db = scene.attach()
    assert scene.db.current_generation() != scene.generation


@pytest.mark.parametrize("how", ["deleted", "torn", "older", "other", "power cut", "shadow gone"])
def test_without_hashes_that_hold_there_is_a_snapshot(
    scene: Scene, how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Hashes that are gone, damaged, of another moment, database or run of the host prove nothing."""
    meta = scene.path.with_name(".app.db-litestream")
    kept = tmp_path / "kept"
    shutil.copyfile(meta / "pages", kept)
    scene.change(1)
    scene.db.sync_now()
    scene.db.close()
    match how:
        case "deleted":
            (meta / "pages").unlink()
        case "torn":
            os.truncate(meta / "pages", 100)
        case "older":
            shutil.copyfile(kept, meta / "pages")
        case "other":
            raw = bytearray((meta / "pages").read_bytes())
            raw[12:20] = bytes(8)
            (meta / "pages").write_bytes(raw)
        case "power cut":
            monkeypatch.setattr(hashes, "host_run", lambda: b"\1" * 16)
        case "shadow gone":
            shutil.rmtree(meta / "generations")
    scene.passed_over()
    scene.db = scene.attach()
    assert scene.db.current_generation() != scene.generation


def test_closed_in_order_it_outlives_a_power_cut(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hashes of a database that is not small are made durable by a stop in order."""
    monkeypatch.setattr(hashes, "_DURABLE_FROM", 1)
    scene.db.close()
    monkeypatch.setattr(hashes, "host_run", lambda: b"\1" * 16)
    scene.change(5)
    scene.passed_over()
    scene.db = scene.attach()
    scene.check()


def test_stopping_does_not_wait_for_a_catch_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop ends the comparison; nothing half-published is left, and the next start does it."""
    scene.db.close()
    scene.change(3)
    scene.passed_over()
    stopped = DB(str(scene.path))
    stopped.stopping = True
    with pytest.raises(Exception, match="stopped while catching up"):
        stopped.sync_now()
    stopped.close()
    assert not list(scene.path.with_name(".app.db-litestream").rglob(".staged*"))
    scene.db = scene.attach()
    scene.check()
