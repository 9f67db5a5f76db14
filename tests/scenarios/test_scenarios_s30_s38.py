"""Scenarios S30 and S34 to S38: retention during a restore, restores at boot, and restores that fail."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import ledger, state, wal
from helpers.app import App
from helpers.cli import OURS, environment, wait_until
from helpers.rig import Rig

SUFFIXES = ("-wal", "-shm", "-journal")


def left_over(folder: Path, name: str) -> list[str]:
    """Files that begin like `name`, or hide beside it."""
    return sorted(p.name for p in folder.iterdir() if name in p.name)


def test_s30_retention_between_plan_and_fetch(rig: Rig, app: App) -> None:
    """Restores while retention deletes what they have planned succeed, and never go back."""
    app.create(rig.db)
    app.fill(500)
    settings = {"snapshot-interval": "400ms", "retention": "1500ms", "retention-check-interval": "100ms"}
    # The seal (max) starts new WALs whatever the writer does: only what is older than a WAL's snapshot is deleted.
    rig.start(replica=settings, min_checkpoint_page_count=20, max_checkpoint_page_count=200)
    rig.reach(0)
    app.start_writing(rig.db, pause=0.01)
    seen, newest, end = set(), 0, time.monotonic() + 6
    while time.monotonic() < end:
        n = rig.restored_n()
        assert n >= newest
        newest = n
        seen.update(rig.objects())
    report = app.stop_writing()
    assert report.failures == []
    rig.reach(report.n)
    rig.converge()
    assert len(seen - set(rig.objects())) > 20, "retention has deleted objects meanwhile"


def test_s34_restore_then_replicate(rig: Rig, app: App, apps: Callable[[], App]) -> None:
    """A host restores, goes on writing under replication, and loses nothing; the state before stays restorable."""
    app.create(rig.db).ledger(20)
    daemon = rig.start()
    rig.reach(20)
    assert daemon.stop() == 0
    app.kill()
    for path in (rig.db, wal.beside(rig.db, "-wal"), wal.beside(rig.db, "-shm")):
        path.unlink()
    state_files = sorted(rig.meta.rglob("*"), reverse=True)
    for path in state_files:
        path.rmdir() if path.is_dir() else path.unlink()
    before = rig.generations()
    assert OURS.run("restore", "-config", rig.daemon.config, rig.db).code == 0
    assert ledger.check(rig.db) == 20
    again = apps().open(rig.db, pragmas=["journal_mode=WAL"])
    rig.start()
    assert again.ledger(15) == 35
    rig.reach(35)
    rig.converge()
    assert rig.restored_n("-generation", before[0]) >= 20


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_s35_restore_over_leftovers_is_refused(rig: Rig, app: App, suffix: str) -> None:
    """A -wal, -shm or -journal of another database at the output would be applied to it: refused, left alone."""
    app.create(rig.db).ledger(5)
    rig.start()
    rig.reach(5)
    stale = wal.beside(rig.out, suffix)
    rig.out.unlink()
    stale.write_bytes(b"stale")
    result = OURS.run("restore", "-o", rig.out, rig.url)
    assert result.code == 1
    assert stale.name in result.err
    assert stale.read_bytes() == b"stale"
    assert left_over(rig.folder, rig.out.name) == [stale.name]


def test_s35_restore_over_an_open_database_is_refused(rig: Rig, app: App, apps: Callable[[], App]) -> None:
    """The output exists and is in use: refused without a byte changed; the application goes on."""
    app.create(rig.db).ledger(5)
    rig.start()
    rig.reach(5)
    app.ledger(2)
    rig.reach(7)
    other = apps().create(rig.folder / "open.db")
    other.ledger(3)
    before = state.source(rig.folder / "open.db")
    result = OURS.run("restore", "-o", rig.folder / "open.db", rig.url)
    assert result.code == 1
    assert "open.db" in result.err
    assert other.ledger(1) == 4
    assert state.source(rig.folder / "open.db").page_count == before.page_count
    result = OURS.run("restore", "-config", rig.daemon.config, rig.db)
    assert result.code == 1
    assert app.ledger(1) == 8
    rig.reach(8)


def test_s36_no_backup_is_told_from_cannot_tell(tmp_path: Path) -> None:
    """An empty place is exit 0 with -if-replica-exists; one that cannot be read never is. Neither makes a file."""
    out = tmp_path / "out.db"
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no directory")
    (tmp_path / "loop").symlink_to("loop")
    for replica in ("empty", "absent"):
        url = f"file://{tmp_path / replica}"
        skipped = OURS.run("restore", "-if-replica-exists", "-o", out, url)
        assert skipped.code == 0, skipped.text
        assert "no matching backups found, skipping" in skipped.out
        failed = OURS.run("restore", "-o", out, url)
        assert failed.code == 1
        assert "no matching backups found" in failed.err
    for replica in ("loop", "file"):
        unknown = OURS.run("restore", "-if-replica-exists", "-o", out, f"file://{tmp_path / replica}")
        assert unknown.code == 1, unknown.text
        assert len(unknown.err.strip().splitlines()) == 1
        assert replica in unknown.err
    assert left_over(tmp_path, "out.db") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_s36_unreadable_replica_is_no_absent_one(tmp_path: Path) -> None:
    """A replica that permissions hide is an error, not "no backup"."""
    (tmp_path / "hidden").mkdir(mode=0o000)
    result = OURS.run("restore", "-if-replica-exists", "-o", tmp_path / "out.db", f"file://{tmp_path / 'hidden'}")
    assert result.code == 1
    assert "hidden" in result.err


def now() -> str:
    """The time as `-timestamp` takes it, with a pause before and after it."""
    time.sleep(0.3)
    at = time.time()
    time.sleep(0.3)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1e6):06d}Z"


@pytest.mark.parametrize("same_file", [False, True])
def test_s37_restore_older_then_replicate(rig: Rig, app: App, apps: Callable[[], App], same_file: bool) -> None:
    """After a step back in time the default is the new history, and the old one keeps everything: as a generation of
    its own, or before that time where the older state was copied into the same file."""
    app.create(rig.db).ledger(10)
    daemon = rig.start()
    rig.reach(10)
    at_10 = now()
    app.ledger(10)
    rig.reach(20)
    at_20 = now()
    assert daemon.stop() == 0
    app.kill()
    kept = rig.folder / "kept"
    kept.mkdir()
    for suffix in ("", "-wal", "-shm"):
        path = wal.beside(rig.db, suffix)
        path.rename(kept / path.name)
    (old,) = rig.generations()
    result = OURS.run("restore", "-config", daemon.config, "-timestamp", at_10, rig.db)
    assert result.code == 0, result.text
    assert ledger.check(rig.db) == 10
    if same_file:
        (kept / rig.db.name).write_bytes(rig.db.read_bytes())
        (kept / rig.db.name).replace(rig.db)
    again = apps().open(rig.db, pragmas=["journal_mode=WAL"])
    rig.start()
    again.sql("CREATE TABLE other(x)")
    assert again.ledger(3) == 13
    if not same_file:
        rig.wait_generations(2)
    rig.converge()
    assert rig.restored_n() == 13
    assert rig.restored_n("-timestamp", at_20) == 20
    if not same_file:
        assert rig.restored_n("-generation", old) == 20


@pytest.fixture
def large(rig: Rig, app: App) -> Rig:
    """A replica of 40 MB, finished."""
    app.create(rig.db)
    app.fill(10_000)
    app.ledger(5)
    daemon = rig.start()
    rig.reach(5, timeout=60)
    assert daemon.stop() == 0
    return rig


def test_s38_interrupted_restore_leaves_no_database(large: Rig) -> None:
    """Killed at any moment a restore leaves the output absent or whole, and the next one succeeds over its leavings."""
    rnd = random.Random(38)
    place = large.folder / "place"
    place.mkdir()
    out = place / "out.db"
    began = time.monotonic()
    assert OURS.run("restore", "-o", out, large.url).code == 0
    usual = time.monotonic() - began
    out.unlink()
    unfinished = 0
    for _ in range(6):
        with subprocess.Popen(
            [str(OURS.binary), "restore", "-o", str(out), large.url], env=environment(), stdout=subprocess.DEVNULL
        ) as process:
            time.sleep(rnd.uniform(0.3, 1.0) * usual)
            process.send_signal(signal.SIGKILL)
        if out.exists():
            assert ledger.check(out) == 5
            out.unlink()
        else:
            unfinished += 1
    assert unfinished >= 1
    assert OURS.run("restore", "-o", out, large.url).code == 0
    assert ledger.check(out) == 5


LIMITED = (
    "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, 8 << 20)); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def test_s38_disk_full_in_restore(large: Rig) -> None:
    """Out of room, a restore says so in one line and leaves nothing behind."""
    place = large.folder / "place"
    place.mkdir()
    result = OURS.run("restore", "-o", place / "out.db", large.url, wrapper=[sys.executable, "-c", LIMITED])
    assert result.code == 1
    assert len(result.err.strip().splitlines()) == 1, result.err
    assert "File too large" in result.err
    assert list(place.iterdir()) == []


def test_s38_damaged_replica_leaves_nothing(large: Rig) -> None:
    """A restore that finds damage half-way names the object and leaves nothing behind."""
    place = large.folder / "place"
    place.mkdir()
    (snapshot,) = large.replica.rglob("*.snapshot.lz4")
    raw = bytearray(snapshot.read_bytes())
    raw[len(raw) * 3 // 4] ^= 0x10
    snapshot.write_bytes(raw)
    result = OURS.run("restore", "-o", place / "out.db", large.url)
    assert result.code == 1
    assert snapshot.name in result.err
    assert list(place.iterdir()) == []


def test_s38_interrupted_by_a_signal(large: Rig) -> None:
    """SIGTERM in the middle of a restore: not exit 0, and nothing left behind."""
    place = large.folder / "place"
    place.mkdir()
    for _ in range(5):
        with subprocess.Popen(
            [str(OURS.binary), "restore", "-o", str(place / "out.db"), large.url],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            wait_until(lambda: list(place.iterdir()) or process.poll() is not None, "it begins", pause=0.001)
            process.send_signal(signal.SIGTERM)
            code = process.wait(20)
        if code != 0:
            break
        (place / "out.db").unlink()
    assert code != 0
    assert list(place.iterdir()) == []
