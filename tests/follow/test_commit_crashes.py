"""The follower dies at every single write of a commit; then another one goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.app import TESTS, App
from helpers.copycrash import GENERATION
from helpers.following import content, query
from litestream import fsutil
from litestream.core.position import Pos
from litestream.core.wal import frame_offset, frame_size
from litestream.errors import CorruptObjectError
from litestream.follow.assemble import Assembler
from litestream.follow.copy import Copy
from litestream.follow.note import NoteFile, load


def apply(folder: Path, wal: Path, last: int) -> list[str]:
    """What the process said before it died."""
    command = [sys.executable, "-m", "helpers.copycrash", str(folder / "copy.db"), str(folder / "meta"), str(wal)]
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [*command, str(last)], cwd=TESTS, env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == -9, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize("watched", [True, False], ids=["a reader is there", "nobody is there"])
def test_a_follower_that_dies_at_any_write(watched: bool, tmp_path: Path, apps: Callable[[], App]) -> None:
    """What is seen is the state before or after; the next follower goes on from there, and never shows less.

    With a reader the wal-index lives on; without one the next opener rebuilds it from what stands in the WAL.
    """
    app, db = apps(), tmp_path / "app.db"
    app.create(db)
    app.sql("PRAGMA wal_autocheckpoint = 0")
    app.ledger(2)
    app.checkpoint("TRUNCATE")
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    shutil.copy(db, fresh / "temp.db")
    copy = Copy(str(fresh / "copy.db"), str(fresh / "meta"))
    copy.open()
    copy.replace(str(fresh / "temp.db"), Pos(GENERATION))
    copy.replaced(Pos(GENERATION))
    copy.close()
    wals = []
    for count in (3, 4, 5):
        app.ledger(count)
        wals.append(tmp_path / f"{count}.wal")
        shutil.copy(f"{db}-wal", wals[-1])
    sql = "SELECT max(n) FROM ledger"
    last, finished = 0, False
    while not finished:
        last += 1
        folder = tmp_path / f"at{last}"
        shutil.copytree(fresh, folder)
        reader = apps().open(folder / "copy.db", pragmas=["query_only=1"]) if watched else None
        if reader is not None:
            assert reader.one(sql) == 2
        adopt(folder)
        assert apply(folder, wals[0], 0)[-1] == "applied"
        finished = apply(folder, wals[1], last)[-1] == "applied"
        seen = reader.one(sql) if reader is not None else query(folder / "copy.db", sql)
        assert seen == 9 if finished else seen in (5, 9)
        if watched:
            began = Pos.parse(apply(folder, wals[1], 0)[0])
            size = wals[0 if seen == 5 else 1].stat().st_size
            assert began == Pos(GENERATION, 0, size), "with its WAL in place it knows exactly where it is"
        assert apply(folder, wals[2], 0)[-1] == "applied"
        if reader is not None:
            assert reader.one(sql) == 14
            reader.kill()
        assert content(folder / "copy.db") == content(db)
    assert last > 4


def adopt(folder: Path) -> None:
    """Tell the note of a copied directory of its new file."""
    found = load(str(folder / "meta"))
    assert found is not None
    info = (folder / "copy.db").stat()
    file = NoteFile(str(folder / "meta"), fsutil.Access())
    file.write(replace(found, device=info.st_dev, inode=info.st_ino), durable=True)
    file.close()


def test_nothing_is_ready_before_what_was_shown(tmp_path: Path, app: App) -> None:
    """Segments up to what readers may have seen are held back, and then go along as one transaction."""
    app.create(tmp_path / "app.db")
    app.sql("PRAGMA wal_autocheckpoint = 0")
    app.checkpoint("TRUNCATE")
    ends = []
    for _ in range(4):
        app.ledger(1)
        ends.append((tmp_path / "app.db-wal").stat().st_size)
    wal = (tmp_path / "app.db-wal").read_bytes()
    batch = Assembler(Pos(GENERATION, 0, ends[0]), 4096, required=Pos(GENERATION, 0, ends[2]))
    ready = []
    for begin, end in zip([0, *ends], ends, strict=False):
        batch.feed(Pos(GENERATION, 0, begin), wal[begin:end], None)
        ready.append(batch.ready)
    assert ready == [False, False, True, True]
    assert batch.held == ends[3] - ends[0]
    assert batch.held % frame_size(4096) == 0
    assert frame_offset(0, 4096) == 32
    with pytest.raises(CorruptObjectError, match="a segment is missing before it"):
        batch.feed(Pos(GENERATION, 0, ends[3] + frame_size(4096)), wal[32 : 32 + frame_size(4096)], None)
    batch.close()
