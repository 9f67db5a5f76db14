"""Compact mode: each page of a batch stands once, and what is published is at every position the database's state."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import state
from helpers.app import App
from helpers.reading import pieces
from helpers.replay import replay
from litestream import fsutil
from litestream.core.position import Pos
from litestream.core.wal import WALHeader, committed_prefix, frame_size, scan_frames
from litestream.db import capture, compact, db
from litestream.db.capture import Capture
from litestream.db.db import DB
from litestream.db.pages import position
from litestream.sqlite.pages import LivePages
from litestream.streams import open_object


class Scene:
    """An application and a database that is copied in compact mode from its beginning."""

    def __init__(self, path: Path, app: App, dbs: list[DB], *pragmas: str) -> None:
        self.path, self.app, self.dbs = path, app, dbs
        app.create(path, pragmas=[*pragmas, "wal_autocheckpoint=0"])
        app.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)")
        app.sql("INSERT INTO t VALUES (1, randomblob(100))")
        self.db = self.attach()
        with self.db.open_snapshot() as snapshot:
            self.snapshot = b"".join(pieces(snapshot))
            snapshot.finish()
        self.index = snapshot.pos.index
        self.generation = self.db.current_generation()

    def attach(self, *, wanted: bool = True) -> DB:
        db = DB(str(self.path), compact=wanted)
        db.acknowledge("replica", Pos())  # so that nothing is forgotten
        self.dbs.append(db)
        db.sync_now()
        self.db = db
        return db

    def again(self, *, wanted: bool = True) -> DB:
        self.db.close()
        return self.attach(wanted=wanted)

    def hot(self, times: int) -> None:
        """The same row in `times` transactions."""
        for _ in range(times):
            self.app.sql("UPDATE t SET x = randomblob(100) WHERE id = 1")

    def fill(self, rows: int, size: int = 3500) -> None:
        """One transaction of about `rows` pages."""
        self.app.sql(
            "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            f"INSERT OR REPLACE INTO t SELECT i + 1, randomblob({size}) FROM n",
            rows,
        )

    def wals(self) -> dict[int, bytes]:
        """What the shadow holds, by index."""
        found: dict[int, bytes] = {}
        for info in self.db.wal_segments(self.db.current_generation()):
            data, stamp = open_object(self.db.read_wal_segment(info.pos))
            assert info.offset == len(found.get(info.index, b""))
            assert stamp is not None
            found[info.index] = found.get(info.index, b"") + data
        return found

    def check(self) -> None:
        """What is stored is valid WALs, and with the snapshot exactly the application's state."""
        self.db.sync_now()
        assert self.db.current_generation() == self.generation, self.db.lost
        wals = self.wals()
        for wal in wals.values():
            header, run = committed_prefix(wal)
            assert len(wal) == 32 + run.committed * frame_size(header.page_size)
        assert self.db.pos() == Pos(self.generation, max(wals), len(wals[max(wals)]))
        out = replay(self.db, self.snapshot, self.index, self.path.with_name("replayed.db"))
        assert state.read(out) == state.source(self.path)


@pytest.fixture
def scene(path: Path, app: App, dbs: list[DB]) -> Scene:
    return Scene(path, app, dbs)


def test_each_page_of_a_batch_stands_once(scene: Scene) -> None:
    """Fifty transactions of one page cost one frame, with salts that are not those of the live WAL."""
    scene.check()
    before = scene.db.pos()
    scene.hot(50)
    scene.check()
    after = scene.db.pos()
    assert after.offset - before.offset == frame_size(scene.db.page_size())
    live = WALHeader.parse(Path(f"{scene.path}-wal").read_bytes()[:32])
    own = WALHeader.parse(scene.wals()[after.index][:32])
    assert own.salts != live.salts


def test_a_live_wal_that_starts_over_is_the_next_index(scene: Scene) -> None:
    """Each own index belongs to one live WAL."""
    scene.hot(3)
    scene.check()
    at = scene.db.pos()
    scene.db.checkpoint(seal=True)
    scene.hot(2)
    scene.check()
    assert scene.db.pos().index == at.index + 1


def test_a_restart_goes_on_in_the_middle_of_a_wal(scene: Scene) -> None:
    """Where the live WAL stood is noted: nothing is stored twice, and nothing is asked of the hashes."""
    scene.hot(5)
    scene.check()
    at = scene.db.pos()
    scene.again()
    assert scene.db.pos() == at
    scene.again()
    scene.hot(5)
    scene.check()
    assert scene.db.pos() == Pos(at.generation, at.index, at.offset + frame_size(scene.db.page_size()))


@pytest.mark.parametrize("restart", [True, False])
def test_switching_on_and_off(scene: Scene, restart: bool) -> None:
    """Switched off it goes on to the end of the live WAL; switched on the live WAL is taken once more, as one batch."""

    def switch(wanted: bool) -> None:
        if restart:
            scene.again(wanted=wanted)
        scene.db.compact = wanted

    scene.hot(4)
    scene.check()
    index = scene.db.pos().index
    switch(False)
    scene.hot(4)
    scene.check()
    assert scene.db.pos().index == index
    scene.db.checkpoint(seal=True)
    scene.hot(6)
    scene.check()
    size = frame_size(scene.db.page_size())
    assert scene.db.pos() == Pos(scene.generation, index + 1, 32 + 6 * size)  # every version
    scene.hot(3)
    switch(True)
    scene.hot(1)
    scene.check()
    assert scene.db.pos().index == index + 2
    assert len(scene.wals()[index + 2]) <= 32 + 2 * size


def test_a_lost_note_is_lost_continuity(scene: Scene) -> None:
    """Without the note nobody can tell where the live WAL stood: a new generation, never a guess."""
    scene.hot(4)
    scene.check()
    scene.db.close()
    for name in (notes := Path(scene.db.meta_path) / "replicas").iterdir():
        name.unlink()
    assert not list(notes.iterdir())
    scene.attach()
    assert scene.db.current_generation() != scene.generation


@pytest.mark.parametrize("in_file", [True, False])
def test_a_catch_up_and_on(scene: Scene, in_file: bool) -> None:
    """After a catch-up the live WAL is stored as one batch that goes to what was published, at least, and goes on."""
    scene.fill(20)
    scene.check()
    scene.db.hash_pages()
    before = scene.db.pos()
    scene.db.close()
    scene.hot(2)
    assert scene.app.checkpoint("TRUNCATE")[0] == 0
    scene.hot(3)
    if in_file:
        scene.app.checkpoint("PASSIVE")
    scene.attach()
    scene.check()
    assert scene.db.pos().index > before.index
    at = scene.db.pos()
    scene.again()
    assert scene.db.pos() == at
    scene.hot(4)
    scene.check()
    scene.hot(4)
    scene.check()
    assert scene.db.pos().offset == 32 + 2 * frame_size(scene.db.page_size())


@pytest.mark.parametrize("size", [512, 4096, 65536])
def test_large_transactions_and_bounded_batches(
    path: Path, app: App, dbs: list[DB], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A transaction beyond the bound is a batch of several segments; smaller ones end where the bound is."""
    monkeypatch.setattr(capture, "SEGMENT_LIMIT", 5 * size)
    monkeypatch.setattr(compact, "SEGMENT_LIMIT", 5 * size)
    monkeypatch.setattr(compact, "BATCH_LIMIT", 12 * size)
    scene = Scene(path, app, dbs, f"page_size={size}")
    scene.fill(3, size)
    scene.hot(3)
    scene.fill(40, size)
    scene.hot(9)
    for n in range(8):
        scene.app.sql("UPDATE t SET x = randomblob(?) WHERE id = ?", size, n * 3 + 2)
    scene.check()
    scene.app.sql("DELETE FROM t WHERE id > 5")
    scene.app.sql("VACUUM")
    scene.hot(2)
    scene.check()
    scene.fill(30, size)
    scene.check()


def test_nothing_of_a_batch_is_seen_before_it_is_whole(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a batch of several segments is stored neither a segment nor the position of it can be seen."""
    monkeypatch.setattr(compact, "SEGMENT_LIMIT", 5 * 4096)
    scene.check()
    seen = []
    publish = fsutil.AtomicFile.publish

    def watched(file: fsutil.AtomicFile, **options: bool) -> None:
        publish(file, **options)
        seen.append((scene.db.pos(), len(scene.db.wal_segments(scene.generation))))

    monkeypatch.setattr(fsutil.AtomicFile, "publish", watched)
    before = scene.db.pos(), len(scene.db.wal_segments(scene.generation))
    scene.fill(20)
    scene.check()
    assert len(seen) > 3
    assert set(seen) == {before}


@pytest.mark.parametrize("kept", range(7))
def test_what_a_kill_leaves_of_a_batch_is_removed(scene: Scene, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """Killed after any segment of a batch: the next process begins where the last whole batch ended."""
    monkeypatch.setattr(compact, "SEGMENT_LIMIT", 5 * 4096)
    scene.hot(2)
    scene.check()
    before = scene.db.pos()
    scene.fill(20)
    left = kept

    class KilledError(BaseException):
        pass

    publish = fsutil.AtomicFile.publish

    def killed(file: fsutil.AtomicFile, **options: bool) -> None:
        nonlocal left
        if not left:
            raise KilledError
        left -= 1
        publish(file, **options)

    with monkeypatch.context() as patched:
        patched.setattr(fsutil.AtomicFile, "publish", killed)
        patched.setattr("litestream.db.shadow.SegmentBatch.__exit__", lambda *_: None)
        try:
            scene.db.sync_now()
            ended = True
        except KilledError:
            ended = False
    assert ended == (kept == 6)
    names = {name for name in os.listdir(_folder(scene, before)) if name.endswith(".lz4")}
    scene.db.close()
    files = DB(str(scene.path), compact=True)
    scene.dbs.append(files)
    files.acknowledge("replica", Pos())
    scene.db = files
    scene.check()
    assert len(names) == 2 + kept  # what the killed one had written
    assert scene.db.pos().index == before.index


def _folder(scene: Scene, pos: Pos) -> Path:
    return Path(scene.db.meta_path) / "generations" / pos.generation / "wal" / f"{pos.index:08x}"


def test_a_failed_batch_is_tried_again_with_what_came_since(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the middle of a batch leaves no file of it, and the next copy takes more under the same names."""
    monkeypatch.setattr(compact, "SEGMENT_LIMIT", 5 * 4096)
    scene.hot(2)
    scene.check()
    before = sorted(_folder(scene, scene.db.pos()).iterdir())
    scene.fill(20)
    written = Capture.segment_stamp
    calls = 0

    def full(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(28, "No space left on device")
        return written(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Capture, "segment_stamp", full)
        with pytest.raises(Exception, match="No space"):
            scene.db.sync_now()
    assert sorted(_folder(scene, scene.db.pos()).iterdir()) == before
    scene.hot(2)
    scene.check()


def test_a_reading_of_one_state_has_a_position_under_load(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch ends where a reader of pages stands, however much was committed by the time it is looked up."""
    scene.hot(3)
    find = position

    def late(*args: Any) -> Callable[[LivePages], Pos]:  # noqa: ANN401 - as it is
        def found(pages: LivePages) -> Pos:
            scene.hot(4)
            return find(*args)(pages)

        return found

    monkeypatch.setattr(db, "position", late)
    pages, pos = scene.db.open_pages()
    try:
        assert pos < scene.db.pos()
        there = b"".join(bytes(pages.read(n, 1)) for n in range(1, pages.total + 1))
    finally:
        scene.db.readings.end(pages)
    wal = scene.wals()[pos.index][: pos.offset]
    header = WALHeader.parse(wal)
    assert scan_frames(wal, header, start=header.checksum, offset=32).committed * frame_size(4096) + 32 == pos.offset
    newest = dict(_frames(wal))
    assert all(there[(number - 1) * 4096 : number * 4096] == page for number, page in newest.items())


def _frames(wal: bytes) -> list[tuple[int, bytes]]:
    size = frame_size(4096)
    return [(int.from_bytes(wal[at : at + 4], "big"), wal[at + 24 : at + size]) for at in range(32, len(wal), size)]


@pytest.mark.parametrize("seed", range(6))
def test_any_history_at_every_position(
    path: Path, app: App, dbs: list[DB], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Random transactions, shrinking, restarts, checkpoints and switches: each copy is exactly the state then."""
    rnd = random.Random(seed)
    size = rnd.choice([512, 1024, 4096, 16384])
    monkeypatch.setattr(compact, "SEGMENT_LIMIT", 6 * size)
    monkeypatch.setattr(compact, "BATCH_LIMIT", rnd.choice([10 * size, 64 << 20]))
    scene = Scene(path, app, dbs, f"page_size={size}", f"auto_vacuum={rnd.choice([0, 1, 2])}")
    for _ in range(25):
        for _ in range(rnd.randrange(4)):
            step = rnd.randrange(6)
            if step < 2:
                scene.hot(rnd.randrange(1, 6))
            elif step == 2:
                scene.fill(rnd.randrange(1, 30), rnd.randrange(2 * size))
            elif step == 3:
                app.sql("DELETE FROM t WHERE id > ?", rnd.randrange(1, 20))
            elif step == 4:
                app.sql(rnd.choice(["VACUUM", "PRAGMA incremental_vacuum"]))
            else:
                app.sql("UPDATE t SET x = randomblob(?)", rnd.randrange(2 * size))
        what = rnd.randrange(6)
        if what == 0:
            scene.check()  # a WAL that has started over since the last copy is not known to the next process
            scene.again(wanted=rnd.random() < 0.7)
        elif what == 1:
            scene.db.checkpoint(seal=True)
        elif what == 2:
            scene.db.maintain()
        elif what == 3:
            scene.db.compact = rnd.random() < 0.7
        elif what == 4:
            scene.db.hash_pages()
        scene.check()
