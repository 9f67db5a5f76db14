"""Scenarios S21 to S25: hazards inside a process (locks that vanish, forks), and a slow snapshot."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from helpers import wal
from helpers.app import App
from helpers.cli import environment, wait_until
from helpers.rig import Rig

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc/locks is Linux's")


def locks(rig: Rig, pid: int) -> dict[str, list[tuple[int, int]]]:
    """The byte ranges that a process has locked on the database and on its -shm, read from /proc/locks."""
    names = {rig.db.stat().st_ino: "db", wal.beside(rig.db, "-shm").stat().st_ino: "shm"}
    found: dict[str, list[tuple[int, int]]] = {"db": [], "shm": []}
    with open("/proc/locks", encoding="ascii") as f:
        for line in f:
            fields = line.split()
            if fields[1] == "POSIX" and fields[4] == str(pid):
                name = names.get(int(fields[5].rsplit(":", 1)[1]))
                if name:
                    found[name].append((int(fields[6]), 0 if fields[7] == "EOF" else int(fields[7])))
    return found


def holds_reader(rig: Rig, pid: int) -> bool:
    """Whether a process holds SQLite's shared lock on the file and a read lock (bytes 123 to 127) on the -shm."""
    held = locks(rig, pid)
    return bool(held["db"]) and any(first <= 127 and last >= 123 for first, last in held["shm"])


@linux
def test_s21_closing_a_file_in_the_application_loses_nothing(rig: Rig, app: App, apps: Callable[[], App]) -> None:
    """A drops its own locks by closing a file; another process comes and goes: with R attached the WAL stays in use."""
    app.create(rig.db).ledger(5)
    daemon = rig.start()
    rig.reach(5)
    inode = wal.beside(rig.db, "-wal").stat().st_ino
    for _ in range(3):
        app.do("touch", path=str(rig.db))
        app.do("copy", path=str(rig.db), to=str(rig.folder / "copy.db"))
        with apps() as visitor:
            visitor.open(rig.db).ledger(2)
            visitor.close()
        n = app.ledger(2)
    assert wal.beside(rig.db, "-wal").stat().st_ino == inode
    assert apps().open(rig.db).one("SELECT max(n) FROM ledger") == n == 17
    rig.reach(n)
    rig.converge()
    assert len(rig.generations()) == 1, daemon.text()


@linux
def test_s21_replicator_keeps_its_locks(rig: Rig, app: App) -> None:
    """After snapshots, checkpoints and a thousand commits R still holds its lock on the database file."""
    app.create(rig.db)
    daemon = rig.start(replica={"snapshot-interval": "300ms", "retention": "1h"}, min_checkpoint_page_count=20)
    rig.reach(0)
    n = app.ledger(300, pause=0.004)
    rig.reach(n)
    # A snapshot is taken only once the WAL has started over since the last, which needs a commit now and then.
    wait_until(lambda: app.ledger() and daemon.text().count("snapshot written") >= 3, "snapshots are taken", pause=0.2)
    assert locks(rig, daemon.pid)["db"]


@linux
def test_s22_replicator_holds_its_read_mark_at_rest(rig: Rig, app: App) -> None:
    """Reading the wal-index costs R none of its locks: at rest, and after work, it holds its reader."""
    app.create(rig.db)
    daemon = rig.start(min_checkpoint_page_count=20)
    rig.reach(0)
    for _ in range(5):
        rig.reach(app.ledger(30))
        wait_until(lambda: holds_reader(rig, daemon.pid), lambda: f"R holds its reader: {locks(rig, daemon.pid)}")
    time.sleep(1.5)
    for _ in range(20):
        assert holds_reader(rig, daemon.pid)
        time.sleep(0.02)


def test_s22_application_touches_the_wal_index(rig: Rig, app: App, apps: Callable[[], App]) -> None:
    """A drops its locks on -shm by opening and closing it; what R reads and ships is not disturbed."""
    app.create(rig.db, pragmas=["wal_autocheckpoint=20"])
    daemon = rig.start(min_checkpoint_page_count=20)
    rig.reach(0)
    other = apps().open(rig.db)
    for _ in range(5):
        app.do("touch", path=str(wal.beside(rig.db, "-shm")))
        other.ledger(10)
        n = app.ledger(10)
        other.checkpoint("PASSIVE")
    rig.reach(n)
    rig.converge()
    assert len(rig.generations()) == 1, daemon.text()


FORK = """
import os, sqlite3, sys, time
import litestream
db, replica, ending = sys.argv[1:]
connection = sqlite3.connect(db, isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("CREATE TABLE t(x)")
connection.execute("INSERT INTO t VALUES('before')")
replicator = litestream.start({db: f"file://{replica}"})
child = os.fork()
if child == 0:
    if ending == "exit":
        sys.exit(0)
    if ending == "stop":
        replicator.stop()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
time.sleep(0.3)
assert replicator.running, "the fork has ended the replicator"
connection.execute("INSERT INTO t VALUES('after')")
assert replicator.stop() == 0
connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
"""


@pytest.mark.parametrize("ending", ["_exit", "exit", "stop"])
def test_s23_fork_after_start(rig: Rig, ending: str) -> None:
    """A program that started R forks, and the fork ends in any way: R goes on for the program that started it."""
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(rig.db), str(rig.replica), ending],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rig.converge()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is POSIX")
def test_s24_replicator_is_another_process(rig: Rig, app: App) -> None:
    """R's hashing and compressing of a burst delays no commit of A: it runs in a process of its own."""
    app.create(rig.db)
    rig.start()
    rig.reach(0)
    app.start_writing(rig.db, pause=0.005, big=100_000)
    time.sleep(2)
    report = app.stop_writing()
    assert report.failures == []
    assert report.slowest < 1.0
    rig.reach(report.n, big=100_000)


def test_s25_snapshot_slower_than_the_writes(rig: Rig, app: App) -> None:
    """A snapshot that takes many times as long as it should, under writes with autocheckpoint, has no torn page."""
    app.create(rig.db)
    app.fill(8_000)
    app.start_writing(rig.db, pause=0.004, big=8000)
    daemon = rig.start()
    largest = 0
    end = time.monotonic() + 60
    while not list(rig.replica.rglob("*.snapshot.lz4")):
        assert daemon.alive
        assert time.monotonic() < end, daemon.text()
        time.sleep(0.02)
        daemon.freeze()
        time.sleep(0.08)
        largest = max(largest, wal.size(rig.db))
        daemon.thaw()
    rig.reach(1, big=8000)
    report = app.stop_writing()
    assert report.failures == []
    assert report.n > 50
    rig.reach(report.n, big=8000)
    rig.converge()
    assert len(rig.generations()) == 1, daemon.text()
    assert largest < 64 << 20
