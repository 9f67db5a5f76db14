"""The apparatus itself: its oracles see what they are for, and it works on a program that is known to be right."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import ledger, state, wal
from helpers.app import App, AppError
from helpers.cli import Daemon, Database, Program, write_config
from helpers.history import History
from helpers.ledger import NotACommittedStateError


@pytest.fixture
def finished(tmp_path: Path, app: App) -> Path:
    """A ledger database of 20 transactions, closed."""
    db = tmp_path / "a.db"
    app.create(db).ledger(20)
    app.close()
    return db


def edit(db: Path, sql: str) -> None:
    connection = sqlite3.connect(db, isolation_level=None)
    connection.execute(sql)
    connection.close()


def test_ledger_recognises_each_transaction(finished: Path) -> None:
    """A ledger of n whole transactions is recognised as n."""
    assert ledger.check(finished) == 20


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM ledger WHERE n=7",
        "DELETE FROM ledger WHERE n=20",
        "UPDATE ledger SET padding=x'00' WHERE n=3",
        "UPDATE account SET balance=balance+1 WHERE id=5",
        "INSERT INTO ledger VALUES(21, 'x', x'')",
    ],
)
def test_ledger_refuses_what_no_transaction_left(finished: Path, damage: str) -> None:
    """A lost, changed, half or foreign transaction is no committed state."""
    edit(finished, damage)
    with pytest.raises(NotACommittedStateError):
        ledger.check(finished)


def test_ledger_refuses_a_damaged_file(finished: Path) -> None:
    """A page of another time is found by integrity_check or by the content."""
    raw = bytearray(finished.read_bytes())
    raw[4096 * 3 : 4096 * 4] = bytes(4096)
    finished.write_bytes(raw)
    with pytest.raises(NotACommittedStateError):
        ledger.check(finished)


def test_states_differ_where_databases_do(finished: Path, tmp_path: Path) -> None:
    """A copy is equal; a row, a setting or a page's place makes a difference."""
    whole = state.read(finished)
    copy = state.copy_of(finished, tmp_path / "copy.db")
    assert state.read(copy) == whole
    for change in ("UPDATE ledger SET mark='x' WHERE n=1", "PRAGMA user_version=3", "CREATE TABLE more(x)"):
        edit(state.copy_of(finished, copy), change)
        assert state.read(copy).content != whole.content, change


def test_source_state_sees_the_wal_and_leaves_it(tmp_path: Path, app: App) -> None:
    """The state of a live database includes its WAL, and looking at it changes no byte."""
    db = tmp_path / "a.db"
    app.create(db).ledger(5)
    before = [db.read_bytes(), wal.beside(db, "-wal").read_bytes()]
    first = state.source(db)
    assert [db.read_bytes(), wal.beside(db, "-wal").read_bytes()] == before
    app.ledger(1)
    assert state.source(db) != first


def test_app_reports_errors_and_survives_them(tmp_path: Path, app: App) -> None:
    """An SQLite error in the application comes back as an error, and the next command works."""
    app.create(tmp_path / "a.db")
    with pytest.raises(AppError, match="no such table"):
        app.sql("SELECT * FROM absent")
    assert app.ledger(2) == 2


def test_app_spills_before_it_commits(tmp_path: Path, app: App) -> None:
    """A spilled transaction stands in the WAL file, past what is committed."""
    db = tmp_path / "a.db"
    app.create(db)
    committed = wal.index(db).frames
    app.spill()
    assert wal.size(db) > (committed + 100) * 4096
    assert wal.index(db).frames == committed
    app.sql("ROLLBACK")


def test_big_endian_wal_is_read_by_sqlite(tmp_path: Path, app: App) -> None:
    """A WAL rewritten with big-endian checksums recovers to the same content."""
    db = tmp_path / "a.db"
    app.create(db).ledger(30)
    copy = state.copy_of(db, tmp_path / "copy.db")
    other = wal.beside(copy, "-wal")
    other.write_bytes(wal.to_big_endian(other.read_bytes()))
    assert ledger.check(copy) == 30


def test_histories_repeat(tmp_path: Path) -> None:
    """The same seed gives the same database; another gives another."""
    states = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        history = History(tmp_path / f"{name}.db", seed)
        history.run(12)
        history.close()
        states.append(state.read(history.path).content)
    assert states[0] == states[1] != states[2]


def test_the_official_program_passes(
    tmp_path: Path, app: App, daemons: Callable[..., Daemon], official_v03: Program
) -> None:
    """Daemon, kill, restore and comparison work on the official 0.3.13."""
    db, replica, out = tmp_path / "a.db", tmp_path / "replica", tmp_path / "out.db"
    app.create(db).ledger(10)
    options = {"monitor-interval": "50ms"}
    daemon = daemons(write_config(tmp_path / "c.yml", [Database(db, [replica], options)]), program=official_v03).start()
    daemon.wait_for_objects(replica, 2)
    app.start_writing(db)
    official_v03.reach(replica, out, 20)
    daemon.kill()
    assert 20 <= ledger.check(out) <= app.stop_writing().n
    daemon.start()
    assert official_v03.converge(db, replica, out).integrity == "ok"
    assert daemon.stop() == 0
