"""Scenarios S39 to S41: state that is not ours, files that change places, and signals."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import ledger, wal
from helpers.app import App
from helpers.cli import OURS, Database, environment, wait_until, write_config
from helpers.rig import Rig
from helpers.state import copy_of


def swap(db: Path, new: Path) -> None:
    """Put another, closed, database in the place of one that nobody has open but the replicator."""
    for suffix in ("-wal", "-shm"):
        wal.beside(db, suffix).unlink(missing_ok=True)
    os.replace(new, db)


def another(rig: Rig, apps: Callable[[], App], transactions: int) -> Path:
    """A finished database of its own."""
    path = rig.folder / "another.db"
    with apps() as maker:
        maker.create(path).ledger(transactions)
        maker.sql("CREATE TABLE another(x)")
        maker.close()
    return path


def _removed(directory: Path) -> bool:
    """Delete a directory that somebody may still be writing to; whether it has gone."""
    try:
        shutil.rmtree(directory)
    except OSError as e:
        if e.errno not in (errno.ENOTEMPTY, errno.ENOENT):
            raise
        return not directory.exists()
    return True


@pytest.mark.parametrize("running", [False, True], ids=["while down", "while running"])
def test_s39_local_state_deleted(rig: Rig, app: App, running: bool) -> None:
    """The local state is disposable: deleted at any time, replication goes on and the old history stays."""
    app.create(rig.db).ledger(10)
    daemon = rig.start()
    rig.reach(10)
    if not running:
        assert daemon.stop() == 0
    wait_until(lambda: _removed(rig.meta), "the local state is deleted")
    n = app.ledger(10)
    if not running:
        rig.start()
    rig.reach(n)
    rig.converge()
    assert rig.restored_n("-generation", rig.generations()[0]) >= 10
    daemon.kill()
    rig.start()
    rig.reach(app.ledger(3))


@pytest.mark.parametrize("hashed", [False, True])
def test_s39_local_state_from_the_past(rig: Rig, app: App, hashed: bool) -> None:
    """State put back from a copy, behind what the replica has, never overwrites or loses anything."""
    app.create(rig.db, pragmas=["wal_autocheckpoint=20"]).ledger(10)
    daemon = rig.start(min_checkpoint_page_count=20)
    rig.reach(10)
    if hashed:
        wait_until((rig.meta / "pages").exists, "the pages are hashed")
    assert daemon.stop() == 0
    kept = rig.folder / "kept"
    shutil.copytree(rig.meta, kept)
    rig.start()
    rig.reach(app.ledger(60))
    assert daemon.stop() == 0
    old = rig.generations()[-1]
    shutil.rmtree(rig.meta)
    shutil.copytree(kept, rig.meta)
    n = app.ledger(5)
    rig.start()
    rig.reach(n)
    rig.converge()
    assert rig.restored_n("-generation", old) >= 70


def test_s39_local_state_of_another_database(rig: Rig, app: App, apps: Callable[[], App]) -> None:
    """State that belongs to another database is not believed."""
    app.create(rig.db).ledger(10)
    other = Rig(rig.folder / "other", rig.apps, rig._daemons)
    other.folder.mkdir()
    apps().create(other.db).ledger(4)
    other.start()
    other.reach(4)
    assert other.daemon.stop() == 0
    daemon = rig.start()
    rig.reach(10)
    assert daemon.stop() == 0
    shutil.rmtree(rig.meta)
    shutil.copytree(other.meta, rig.meta)
    n = app.ledger(5)
    rig.start()
    rig.reach(n)
    rig.converge()


def test_s39_rubbish_in_the_local_state(rig: Rig, app: App) -> None:
    """Damaged and foreign files in the local state stop nothing, and what is foreign is left alone."""
    app.create(rig.db).ledger(10)
    daemon = rig.start()
    rig.reach(10)
    assert daemon.stop() == 0
    for path in rig.meta.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + b"rubbish")
    (rig.meta / "generation").write_text("0123456789abcdef\n")
    (rig.meta / "notes.txt").write_text("mine")
    n = app.ledger(5)
    rig.start()
    rig.reach(n)
    rig.converge()
    assert (rig.meta / "notes.txt").read_text() == "mine"
    assert (rig.meta / "generation").read_text() == "0123456789abcdef\n"


def test_s39_clone_begins_its_own_lineage(rig: Rig, app: App, apps: Callable[[], App]) -> None:
    """A database copied with its state, onto the same replica, does not go on in the same generation.

    With a lease it would not store anything at all.
    """
    app.create(rig.db).ledger(10)
    daemon = rig.start(replica={"lease": False})
    rig.reach(10)
    assert daemon.stop() == 0
    clone = Rig(rig.folder / "clone", rig.apps, rig._daemons)
    clone.folder.mkdir()
    copy_of(rig.db, clone.db)
    shutil.copytree(rig.meta, clone.meta)
    clone.replica = rig.replica
    (origin,) = rig.generations()
    rig.start()
    n = app.ledger(10)
    rig.reach(n)
    cloned = apps().open(clone.db)
    cloned.sql("CREATE TABLE clone(x)")
    clone.start(replica={"lease": False})
    assert cloned.ledger(3) == 13
    second = clone.wait_generations(2)[1]
    wait_until(lambda: clone.restored_n("-generation", second) == 13, "the clone's commits arrive")
    assert app.ledger(1) == 21
    wait_until(lambda: rig.restored_n("-generation", origin) == 21, "the original's commits arrive")
    assert len(rig.generations()) == 2


def test_s40_file_swapped_by_rename(rig: Rig, app: App, apps: Callable[[], App]) -> None:
    """Another database renamed over the path: R follows it in a new generation, and the old one stays."""
    app.create(rig.db).ledger(10)
    rig.start()
    rig.reach(10)
    app.close()
    swap(rig.db, another(rig, apps, 4))
    app.open(rig.db)
    assert app.ledger(3) == 7
    old, new = rig.wait_generations(2)
    rig.converge()
    assert rig.restored_n("-generation", new) == 7
    assert rig.restored_n("-generation", old) == 10
    rig.reach(app.ledger(3))


def test_s40_file_swapped_while_down(rig: Rig, app: App, apps: Callable[[], App]) -> None:
    """The same, while R was down."""
    app.create(rig.db).ledger(10)
    daemon = rig.start()
    rig.reach(10)
    assert daemon.stop() == 0
    app.close()
    swap(rig.db, another(rig, apps, 4))
    rig.start()
    old, new = rig.wait_generations(2)
    rig.converge()
    assert rig.restored_n("-generation", new) == 4
    assert rig.restored_n("-generation", old) == 10


def test_s40_deleted_and_created_again(rig: Rig, app: App) -> None:
    """The application deletes its database and makes a new one, twice, while R runs."""
    app.create(rig.db).ledger(10)
    daemon = rig.start()
    rig.reach(10)
    for generation in (2, 3):
        app.close()
        for suffix in ("", "-wal", "-shm"):
            wal.beside(rig.db, suffix).unlink(missing_ok=True)
        time.sleep(0.3)
        assert daemon.alive
        app.create(rig.db)
        n = app.ledger(4 + generation)
        rig.wait_generations(generation)
        rig.converge()
        assert rig.restored_n() == n


@pytest.mark.parametrize("first", ["absent", "folder absent", "zero bytes", "one page"])
def test_s40_database_comes_into_being(rig: Rig, app: App, first: str) -> None:
    """R waits for a database that is not there, or empty, and replicates it from its first commit on."""
    if first == "folder absent":
        rig.db = rig.folder / "later" / "app.db"
    if first == "zero bytes":
        rig.db.touch()
    if first == "one page":
        app.open(rig.db, pragmas=["journal_mode=WAL", "user_version=1"])
        app.close()
        assert rig.db.stat().st_size == 4096
    daemon = rig.start()
    if first == "one page":
        rig.converge()
    else:
        time.sleep(1.5)
        assert daemon.alive
        assert rig.objects() == []
        assert rig.db.exists() == (first == "zero bytes")
    rig.db.parent.mkdir(exist_ok=True)
    app.create(rig.db)
    n = app.ledger(7)
    rig.reach(n)
    rig.converge()
    assert daemon.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_s41_stop_while_uploading(rig: Rig, app: App, number: signal.Signals) -> None:
    """A stop in the middle of the first snapshot ends within its bound; all that counts as stored is sound."""
    app.create(rig.db)
    app.fill(10_000)
    daemon = rig.start()
    daemon.wait_for_log("new generation")
    code = daemon.stop(number, timeout=40)
    assert code == 0, daemon.text()
    rig.converge()
    app.ledger(3)
    rig.start()
    rig.reach(3)
    rig.converge()


def test_s41_last_sync_at_a_stop(rig: Rig, app: App) -> None:
    """What was committed just before SIGTERM is in the replica when R has ended."""
    app.create(rig.db)
    daemon = rig.start(sync="10s")
    rig.reach(0)
    for n in (20, 40, 60):
        assert app.ledger(20) == n
        assert daemon.stop() == 0
        assert rig.restored_n() == n
        assert "litestream shut down" in daemon.text()
        seen = len(daemon.text())
        rig.start()
        daemon.wait_for_log("app.db", after=seen)


def test_s41_stop_at_once_after_the_start(rig: Rig, app: App) -> None:
    """Stopped at any moment of its start R ends in order, and says exit 0 only if everything is stored."""
    app.create(rig.db)
    for pause in (0.05, 0.15, 0.25, 0.35, 0.6):
        n = app.ledger(5)
        daemon = rig.start()
        time.sleep(pause)
        if daemon.stop() == 0:
            assert rig.restored_n() == n
    rig.start()
    rig.reach(n)


def test_s41_second_signal_ends_at_once(rig: Rig, app: App) -> None:
    """While the last sync still uploads a large snapshot, a second signal ends R at once, and not with exit 0."""
    app.create(rig.db)
    app.sql("CREATE TABLE bulk(body BLOB)")
    app.sql("INSERT INTO bulk VALUES(randomblob(?))", 80 << 20)
    daemon = rig.start()
    daemon.wait_for_log("new generation")
    daemon.send(signal.SIGTERM)
    daemon.wait_for_log("signal received")
    daemon.freeze()
    assert "litestream shut down" not in daemon.text()
    daemon.send(signal.SIGTERM)
    daemon.thaw()
    assert daemon.wait(3) != 0
    rig.start()
    rig.reach(0)


def test_s41_exec_true(rig: Rig, app: App) -> None:
    """A command that ends at once: everything is in the replica when we end, with its exit status."""
    app.create(rig.db).ledger(5)
    config = write_config(rig.folder / "c.yml", [Database(rig.db, [rig.replica])])
    result = OURS.run("replicate", "-config", config, "-exec", "true", timeout=30)
    assert result.code == 0
    assert rig.restored_n() == 5


def test_s41_child_dies(rig: Rig, app: App) -> None:
    """A command that fails, or is killed: what it committed is in the replica, and its status is ours."""
    app.create(rig.db).ledger(5)
    config = write_config(rig.folder / "c.yml", [Database(rig.db, [rig.replica])])
    for command, status in (("sh -c 'exit 3'", 3), ("sh -c 'kill -9 $$'", 137)):
        app.ledger(1)
        assert OURS.run("replicate", "-config", config, "-exec", command, timeout=30).code == status
        assert rig.restored_n() == app.one("SELECT max(n) FROM ledger")


def test_s41_child_commits_until_the_end(rig: Rig, app: App) -> None:
    """What the command commits after it was told to stop is replicated too."""
    app.create(rig.db).ledger(1)
    script = (
        "import os, signal, sqlite3, sys, time\n"
        "def end(*_):\n"
        "    c = sqlite3.connect(os.environ['LITESTREAM_DB_PATH']); c.execute('CREATE TABLE late(x)'); c.commit()\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('child is ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    (rig.folder / "child.py").write_text(script)
    daemon = rig.start(args=("-exec", f"{sys.executable} {rig.folder / 'child.py'}"))
    daemon.wait_for_log("child is ready")
    assert daemon.stop() == 0
    OURS.restored(rig.url, rig.out)
    connection = sqlite3.connect(rig.out)
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'late'").fetchone() == (1,)
    connection.close()


def test_s41_child_ignores_the_signal(rig: Rig, app: App) -> None:
    """A command that does not end when told to is killed, which is its exit status and ours; the last sync is done."""
    app.create(rig.db).ledger(1)
    daemon = rig.start(args=("-exec", "sh -c 'trap \"\" TERM; echo child is ready; while :; do sleep 1; done'"))
    daemon.wait_for_log("child is ready")
    app.ledger(2)
    assert daemon.stop(timeout=30) == 137
    assert "subprocess does not end, killing it" in daemon.text()
    assert rig.restored_n() == 3


PARENT = """
import os, sqlite3, sys, time
import litestream
db, replica, what = sys.argv[1:]
replicator = litestream.start({db: f"file://{replica}"})
print(replicator.pid, flush=True)
if what == "child dies":
    first = replicator.pid
    os.kill(first, 9)
    deadline = time.monotonic() + 20
    while replicator.pid == first or not replicator.running:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    print(replicator.pid, flush=True)
if what == "child ignores SIGTERM":
    os.kill(replicator.pid, 19)
    began = time.monotonic()
    assert replicator.stop(timeout=1) != 0
    assert time.monotonic() - began < 10
    sys.exit(0)
if what == "parent dies":
    os.kill(os.getpid(), 9)
sys.exit(replicator.stop())
"""


@pytest.mark.parametrize("what", ["child dies", "child ignores SIGTERM", "parent dies"])
def test_s41_child_of_an_application(rig: Rig, app: App, what: str) -> None:
    """An embedded R that dies is started again, one that hangs is ended, and none outlives its application."""
    app.create(rig.db).ledger(5)
    done = subprocess.run(
        [sys.executable, "-c", PARENT, str(rig.db), str(rig.replica), what],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == (-9 if what == "parent dies" else 0), done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "every replicator has ended")
    if what != "child ignores SIGTERM":
        assert rig.restored_n() == 5
        assert ledger.check(rig.out) == 5
