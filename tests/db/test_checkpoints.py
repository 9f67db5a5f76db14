"""Our checkpoints beside an application that tries one of its own after each commit, as SQLite does by default."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.app import App
from helpers.replay import attached
from litestream.db.db import DB
from litestream.sqlite.source import Source

_PAGES = 1000
"""Frames in the WAL from which on the application tries to checkpoint."""


def backfilled(source: Source) -> int:
    parsed = source.wal_index()
    assert parsed is not None
    return parsed[1]


@pytest.fixture
def db(path: Path, app: App, dbs: list[DB]) -> DB:
    """A database with a WAL that both want to checkpoint, attached before it grew."""
    app.create(path, pragmas=[f"wal_autocheckpoint={_PAGES}"]).ledger(1)
    db = attached(path, dbs)
    app.fill(_PAGES * 8)
    parsed = opened(db).wal_index()
    assert parsed is not None and parsed[0].max_frame > _PAGES
    return db


def opened(db: DB) -> Source:
    assert db._attached is not None
    return db._attached.source


def test_the_application_does_not_do_our_checkpoint(db: DB, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit between our reader's move and our checkpoint has nothing to backfill."""
    seen = []
    checkpoint = Source.checkpoint_passive

    def after_a_commit(source: Source) -> tuple[bool, int, int]:
        before = backfilled(source)
        app.ledger(1)
        seen.append((before, backfilled(source)))
        return checkpoint(source)

    monkeypatch.setattr(Source, "checkpoint_passive", after_a_commit)
    db.maintain()
    (before, after), *_ = seen
    assert before == after
    assert backfilled(opened(db)) > after


def test_under_load_it_finds_nothing_afterwards(db: DB, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where commits came in during our checkpoint, our reader stays where it is: no commit pays for what came since."""
    checkpoint = Source.checkpoint_passive

    def before_a_commit(source: Source) -> tuple[bool, int, int]:
        app.ledger(2)
        return checkpoint(source)

    monkeypatch.setattr(Source, "checkpoint_passive", before_a_commit)
    db.maintain()
    before = backfilled(opened(db))
    app.ledger(3)
    assert backfilled(opened(db)) == before


@pytest.mark.parametrize("fails", [False, True])
def test_the_application_can_checkpoint_when_ours_is_over(
    db: DB, app: App, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Whatever becomes of our checkpoint, the application's lock is free afterwards."""
    if fails:

        def broken(source: Source) -> tuple[bool, int, int]:
            raise ZeroDivisionError

        monkeypatch.setattr(Source, "checkpoint_passive", broken)
        with pytest.raises(ZeroDivisionError):
            db.maintain()
    else:
        db.maintain()
    assert app.checkpoint("PASSIVE")[0] == 0


def test_others_wait_while_it_is_held(db: DB, app: App) -> None:
    """A held checkpoint lock makes that of another process busy, and ours not; both are told apart."""
    source = opened(db)
    source.hold_checkpoints()
    assert app.checkpoint("PASSIVE") == (1, -1, -1)
    assert not source.is_checkpointed()
    source.let_checkpoints()
    assert app.checkpoint("PASSIVE")[0] == 0
    source.hold_checkpoints()
    assert source.checkpoint_passive()[1] > 0
    assert app.checkpoint("PASSIVE")[0] == 0
