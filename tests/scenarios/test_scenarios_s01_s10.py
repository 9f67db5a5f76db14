"""Scenarios S1 to S10: the checkpoint boundary, where a WAL starts over.

A is the application, R the replicator under test, K another checkpointer. Every restore on the way must be a
committed state at or past what had been waited for.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable

import pytest

from helpers import state, wal
from helpers.app import App, AppError
from helpers.cli import wait_until
from helpers.rig import LONG, Rig

NO_AUTOCHECKPOINT = ("wal_autocheckpoint=0",)
STALL = 1.0
"""Seconds that no commit of an application may take because of us, on a busy two-core machine."""


def restarts(rig: Rig, app: App, write: Callable[[], object]) -> wal.Header:
    """Checkpoint and `write` until the write has started the WAL over; the header it then has."""
    for _ in range(10):
        before = wal.header(rig.db)
        wait_until(lambda: wal.index(rig.db).complete or not app.checkpoint(), "everything is backfilled")
        time.sleep(1.2)  # R holds its mark up to a second; then it takes mark 0, which lets a writer start over
        write()
        after = wal.header(rig.db)
        if after and after != before:
            return after
    raise AssertionError("the WAL never starts over")


def test_s01_commit_between_copy_and_checkpoint(rig: Rig, app: App, apps: Callable[[], App]) -> None:
    """Commits made, checkpointed and overwritten by the next WAL while R stands still are all in the replica."""
    rnd = random.Random(1)
    app.create(rig.db, pragmas=NO_AUTOCHECKPOINT).ledger(5)
    app.sql("PRAGMA busy_timeout=1000")
    checkpointer = apps().open(rig.db)
    daemon = rig.start(min_checkpoint_page_count=20)
    rig.reach(5)
    headers = {wal.header(rig.db)}
    for _ in range(14):
        time.sleep(rnd.uniform(0, 0.08))
        daemon.freeze()
        try:
            for _ in range(3):
                app.ledger(rnd.randint(1, 15))
                checkpointer.checkpoint(rnd.choice(("PASSIVE", "PASSIVE", "RESTART")), wait=0.05)
                headers.add(wal.header(rig.db))
        except AppError as e:
            # R was stopped inside its seal: the commit was refused, and is not in the ledger.
            if "locked" not in str(e):
                raise
        finally:
            daemon.thaw()
        rig.reach(app.ledger())
    assert len(headers) >= 3, "the WAL was started over under R"
    rig.converge()
    assert len(rig.generations()) == 1, daemon.text()


def test_s02_checkpoint_leaves_the_reset_to_the_next_writer(rig: Rig, app: App) -> None:
    """R's checkpoint backfills everything and changes no byte of the WAL; A's next commit then starts it over."""
    app.create(rig.db, pragmas=NO_AUTOCHECKPOINT).ledger(30)
    rig.start(min_checkpoint_page_count=10)
    rig.reach(30)
    wait_until(lambda: wal.index(rig.db).complete, "R has checkpointed")
    before = wal.header(rig.db)
    content = wal.beside(rig.db, "-wal").read_bytes()
    time.sleep(1.2)
    assert wal.beside(rig.db, "-wal").read_bytes() == content
    app.ledger()
    after = wal.header(rig.db)
    assert before is not None
    assert after is not None
    assert (after.salt1 - before.salt1) & 0xFFFFFFFF == 1
    assert after.salt2 != before.salt2
    rig.reach(31)
    assert len({p.name[:8] for p in rig.objects() if p.name.endswith(".wal.lz4")}) == 2
    assert len(rig.generations()) == 1


def test_s02_seal_never_fails_a_writer(rig: Rig, app: App) -> None:
    """Under constant writes R starts the WAL over again and again; no commit fails or waits long."""
    app.create(rig.db)
    rig.start(min_checkpoint_page_count=10, max_checkpoint_page_count=50)
    rig.reach(0)
    app.start_writing(rig.db, pause=0.001, pragmas=[*NO_AUTOCHECKPOINT, f"busy_timeout={int(STALL * 1000)}"])
    headers, largest, end = set(), 0, time.monotonic() + 3
    while time.monotonic() < end:
        headers.add(wal.header(rig.db))
        largest = max(largest, wal.size(rig.db))
        time.sleep(0.02)
    report = app.stop_writing()
    assert report.failures == []
    assert report.slowest < STALL
    assert report.n > 100
    assert len(headers) > 3, f"{len(headers)} WALs in 3 s, at most {largest} bytes"
    assert largest < 2000 * 4120
    rig.reach(report.n)
    rig.converge()


def test_s03_same_size_wal_after_reset(rig: Rig, app: App) -> None:
    """A commit into a WAL that was started over, and is as long as before to the byte, is shipped."""
    app.create(rig.db, pragmas=NO_AUTOCHECKPOINT).ledger(50)
    daemon = rig.start()
    rig.reach(50)
    for _ in range(10):
        size = wal.size(rig.db)
        restarts(rig, app, app.ledger)
        if wal.size(rig.db) == size:
            break
    assert wal.size(rig.db) == size
    rig.reach(rig.source_n())
    rig.converge()
    assert len(rig.generations()) == 1, daemon.text()


def test_s04_reader_at_mark_0_does_not_protect(rig: Rig, app: App) -> None:
    """R stands still at mark 0; A starts the WAL over under it and writes on: R loses nothing, in one generation."""
    app.create(rig.db, pragmas=NO_AUTOCHECKPOINT).ledger(20)
    daemon = rig.start()
    rig.reach(20)
    restarts(rig, app, app.ledger)
    for _ in range(10):
        wait_until(lambda: wal.index(rig.db).complete or not app.checkpoint(), "everything is backfilled")
        time.sleep(1.2)
        daemon.freeze()
        before = wal.header(rig.db)
        n = app.ledger(10)
        under = wal.header(rig.db) != before
        busy, frames, backfilled = app.checkpoint()
        n = app.ledger(300)
        same = wal.header(rig.db)
        daemon.thaw()
        rig.reach(n)
        if under:
            break
    assert under, "A started the WAL over while R had a transaction open"
    assert backfilled < frames, f"R's reader freezes the database file: {busy}"
    assert same == wal.header(rig.db), "no second reset while R stands still"
    rig.converge()
    assert len(rig.generations()) == 1, daemon.text()


@pytest.mark.parametrize("how", ["TERM", "KILL"])
@pytest.mark.parametrize("variant", ["TRUNCATE", "FULL", "RESTART", "reset and overtaken", "grown"])
def test_s05_checkpoint_while_down(rig: Rig, app: App, variant: str, how: str) -> None:
    """What A wrote and checkpointed while R was down is all there after R's start."""
    app.create(rig.db, pragmas=NO_AUTOCHECKPOINT).ledger(50)
    daemon = rig.start()
    rig.reach(50)
    if how == "TERM":
        assert daemon.stop() == 0
    else:
        daemon.kill()
    size = wal.size(rig.db)
    n = app.ledger(300)
    if variant == "reset and overtaken":
        assert app.checkpoint("PASSIVE")[0] == 0
        n = app.ledger(10)
        while wal.size(rig.db) <= size:
            n = app.ledger(50)
    elif variant != "grown":
        app.checkpoint(variant, wait=2)
        n = app.ledger(100)
    rig.start()
    rig.reach(n)
    rig.converge()
    assert (len(rig.generations()) == 1) or variant != "grown", daemon.text()


def test_s06_long_migration_then_checkpoint(rig: Rig, app: App) -> None:
    """After one very large transaction R catches up without holding up A's next commits."""
    rows = 200_000 if LONG else 12_000
    app.create(rig.db, pragmas=NO_AUTOCHECKPOINT)
    rig.start()
    rig.reach(0)
    app.fill(rows)
    assert wal.size(rig.db) > rows * 4000
    app.start_writing(rig.db, pause=0.01, pragmas=NO_AUTOCHECKPOINT)
    rig.reach(1, timeout=60)
    time.sleep(2)
    report = app.stop_writing()
    assert report.failures == []
    assert report.slowest < STALL
    rig.reach(report.n, timeout=60)
    rig.converge(timeout=60)


def test_s07_parked_reader(rig: Rig, app: App, apps: Callable[[], App]) -> None:
    """With a reader parked in a transaction and the WAL past every limit, A's commits neither fail nor wait."""
    app.create(rig.db, pragmas=NO_AUTOCHECKPOINT).ledger(10)
    reader = apps().open(rig.db)
    reader.sql("BEGIN")
    assert reader.one("SELECT max(n) FROM ledger") == 10
    rig.start(min_checkpoint_page_count=10, max_checkpoint_page_count=20)
    rig.reach(10)
    app.start_writing(rig.db, pause=0.008, pragmas=[*NO_AUTOCHECKPOINT, "busy_timeout=2000"])
    time.sleep(3)
    report = app.stop_writing()
    assert report.failures == []
    assert report.slowest < STALL
    assert report.n > 100
    rig.reach(report.n)
    assert reader.one("SELECT max(n) FROM ledger") == 10
    reader.sql("COMMIT")
    pinned = wal.header(rig.db)
    wait_until(
        lambda: app.ledger() and wal.header(rig.db) != pinned, "the WAL starts over once the reader has gone", pause=0.1
    )
    rig.reach(app.ledger())
    rig.converge()


def test_s08_autocheckpoint_of_many_connections(rig: Rig, app: App, apps: Callable[[], App]) -> None:
    """Ten connections with SQLite's default autocheckpoint: nothing is lost and the WAL stays bounded."""
    app.create(rig.db)
    daemon = rig.start(min_checkpoint_page_count=200, max_checkpoint_page_count=1000)
    rig.reach(0)
    both = [app, apps()]
    for number in range(10):
        both[number % 2].start_writing(rig.db, pause=0.02, big=8000, name=f"w{number}")
    largest, end = 0, time.monotonic() + 5
    while time.monotonic() < end:
        largest = max(largest, wal.size(rig.db))
        time.sleep(0.05)
    reports = [both[number % 2].stop_writing(f"w{number}") for number in range(10)]
    assert [report.failures for report in reports] == [[]] * 10
    assert largest < 6000 * 4120, largest
    n = max(report.n for report in reports)
    assert n > 300
    rig.reach(n, big=8000)
    rig.converge()
    assert len(rig.generations()) == 1, daemon.text()


def test_s09_last_close_deletes_the_wal(rig: Rig, apps: Callable[[], App]) -> None:
    """Scripts that write and close as the only connection, before and while R runs, lose nothing."""
    script = apps().create(rig.db)
    script.ledger(20)
    script.close()
    assert not wal.beside(rig.db, "-wal").exists()
    daemon = rig.start()
    rig.reach(20)
    for _ in range(4):
        script.open(rig.db)
        n = script.ledger(7)
        script.close()
    rig.reach(n)
    rig.converge()
    assert len(rig.generations()) == 1, daemon.text()
    assert daemon.stop() == 0
    script.open(rig.db)
    n = script.ledger(30)
    script.checkpoint("TRUNCATE")
    script.close()
    rig.start()
    rig.reach(n)
    rig.converge()


@pytest.mark.skipif(
    not hasattr(sqlite3.Connection, "setconfig"), reason="Python 3.12 can keep the WAL at the last close"
)
def test_s09_last_close_keeps_the_wal(rig: Rig, app: App) -> None:
    """A script that leaves its WAL behind without a checkpoint is caught up with as well."""
    app.create(rig.db)
    app.do("keep_wal_at_close", name="main")
    app.ledger(20)
    app.close()
    assert wal.size(rig.db) > 0
    rig.start()
    rig.reach(20)
    rig.converge()


def test_s10_two_checkpointers(rig: Rig, app: App, apps: Callable[[], App]) -> None:
    """A checkpoints, K checkpoints and R checkpoints, all the time: every acknowledged row is in source and replica."""
    app.create(rig.db)
    rig.start(min_checkpoint_page_count=10, max_checkpoint_page_count=60)
    rig.reach(0)
    checkpointer = apps().open(rig.db)
    app.start_writing(rig.db, pause=0.001, pragmas=["wal_autocheckpoint=15"])
    end = time.monotonic() + 4
    while time.monotonic() < end:
        checkpointer.checkpoint("PASSIVE")
    report = app.stop_writing()
    assert report.failures == []
    assert rig.source_n() == report.n > 100
    rig.reach(report.n)
    rig.converge()
    assert state.source(rig.db).integrity == "ok"
    assert len(rig.generations()) == 1, rig.daemon.text()
