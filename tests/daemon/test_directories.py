"""Directories as a process: databases appear, are renamed, replaced and vanish, and what is none is left alone."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.app import App
from helpers.cli import OURS, Daemon, Database, Yaml, objects, wait_until, write_config
from helpers.control import ask, short_folder
from helpers.swarm import remove, wait_restored, write_directory


class Place:
    """A directory with its replica inside, and its replicator."""

    def __init__(self, folder: Path, daemons: Callable[..., Daemon]) -> None:
        self.folder, self._daemons = folder, daemons
        self.data = folder / "data"
        self.replica = self.data / "replica"
        self.data.mkdir()

    def start(self, top: dict[str, Yaml] | None = None, **options: Yaml) -> Daemon:
        self.daemon = self._daemons(
            write_directory(self.folder / "c.yml", self.data, self.replica, top=top, **options)
        ).start()
        self.daemon.wait_until_ready()
        return self.daemon

    def reach(self, **wanted: int) -> None:
        """Wait until databases (by stem) restore to a ledger transaction."""
        self.reach_names({f"{name}.db": n for name, n in wanted.items()})

    def reach_names(self, wanted: dict[str, int]) -> None:
        wait_restored(self.replica, wanted, self.folder / "out")

    def wait_removed(self, name: str) -> None:
        self.daemon.wait_for_log(f"database removed db={self.data / name}\n")

    def wait_removals(self, count: int) -> None:
        wait_until(lambda: self.daemon.text().count("database removed") == count, self.daemon.text)

    def wait_begun(self, count: int) -> None:
        wait_until(lambda: len(self.begun()) == count, self.daemon.text)

    def begun(self) -> list[str]:
        """The databases that were begun with, in order, below the directory."""
        prefix = f"initialized db: {self.data}/"
        return [line.split(prefix)[1] for line in self.daemon.text().splitlines() if prefix in line]


@pytest.fixture
def place(tmp_path: Path, daemons: Callable[..., Daemon]) -> Place:
    return Place(tmp_path, daemons)


def make(path: Path, rows: int = 1) -> None:
    """A small database of nobody who is there any more, in rollback mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
        connection.executemany("INSERT INTO t VALUES (?)", [(i,) for i in range(rows)])
    connection.close()


def state_of(path: Path) -> Path:
    return path.with_name(f".{path.name}-litestream")


def test_databases_appear_and_vanish(place: Place, app: App) -> None:
    """One there at the start and one that appears are replicated; one that is deleted is forgotten, with all its
    commits in the replica and its local state removed."""
    app.create(place.data / "first.db", name="first")
    place.start()
    app.create(place.data / "second.db", name="second")
    place.reach(first=0, second=0)
    app.ledger(3, name="second")
    remove(place.data / "second.db")
    app.ledger(1, name="first")
    place.reach(first=1, second=3)
    place.wait_removed("second.db")
    wait_until(lambda: not state_of(place.data / "second.db").exists(), "its local state is removed")
    assert state_of(place.data / "first.db").exists()
    assert place.daemon.stop() == 0


def test_one_that_comes_again_is_replicated_again(place: Place, app: App) -> None:
    """The same name with another history: a new generation in the same place."""
    place.start()
    for rows in (1, 2, 3):
        app.create(place.data / "a.db")
        app.ledger(rows)
        place.reach(a=rows)
        app.close()
        remove(place.data / "a.db")
        place.wait_removals(rows)
    assert place.daemon.stop() == 0


def test_renamed_files_and_folders(place: Place, app: App) -> None:
    """Under its new name a database begins a replica, and the one under its old name is as it was last."""
    app.create(place.data / "old.db")
    app.ledger(2)
    app.close()
    make(place.data / "in" / "deep" / "x.db")
    place.start(recursive=True)
    place.reach(old=2)
    for suffix in ("", "-wal", "-shm"):
        if (place.data / f"old.db{suffix}").exists():
            (place.data / f"old.db{suffix}").rename(place.data / f"new.db{suffix}")
    (place.data / "in").rename(place.data / "out")
    place.wait_removed("old.db")
    place.wait_removed("in/deep/x.db")
    wait_until(lambda: {"new.db", "out/deep/x.db"} <= set(place.begun()), "both begin")
    app.open(place.data / "new.db")
    app.ledger(1)
    place.reach(old=2, new=3)
    place.daemon.wait_for_objects(place.replica / "out/deep/x.db")
    assert not state_of(place.data / "old.db").exists()
    assert place.daemon.stop() == 0


def test_replaced_by_another_one(place: Place, apps: Callable[[], App]) -> None:
    """A database that is moved over another one: its content is what the name is restored to."""
    one, other = apps(), apps()
    one.create(place.data / "a.db")
    one.ledger(1)
    one.kill()
    other.create(place.data / "b.db")
    other.ledger(5)
    other.checkpoint("TRUNCATE")
    other.close()
    place.start()
    place.reach(a=1, b=5)
    remove(place.data / "a.db")
    (place.data / "b.db").rename(place.data / "a.db")
    remove(place.data / "b.db")
    place.reach(a=5, b=5)
    place.wait_removed("b.db")


def test_only_databases(place: Place) -> None:
    """Not junk, nor what is beside a database; nothing in replicas and local state; a file of 0 bytes only when it
    becomes a database."""
    make(place.data / "good.db")
    (place.data / "junk.db").write_text("this is not a database, whatever its name says")
    (place.data / "short.db").write_bytes(b"SQLite")
    (place.data / "empty.db").touch()
    (place.data / "left.db-wal").write_bytes(b"x" * 64)
    (place.data / "folder.db").mkdir()
    os.mkfifo(place.data / "pipe.db")
    make(place.data / ".x.db-litestream" / "inside.db")
    make(place.data / ".litestream-verify-abc" / "scratch.db")
    make(place.replica / "good.db" / "bait.db")
    make(place.data / "other.txt")
    place.start(recursive=True, pattern="*")
    wait_until(lambda: len(place.begun()) == 2, "two begin")
    make(place.data / "empty.db")
    make(place.data / "more" / "late.db")
    (place.data / "more" / "junk").write_bytes(b"\0" * 100)
    wait_until(lambda: len(place.begun()) == 4, place.daemon.text)
    time.sleep(0.6)
    assert sorted(place.begun()) == ["empty.db", "good.db", "more/late.db", "other.txt"]
    for name in place.begun():
        place.daemon.wait_for_objects(place.replica / name)
    assert place.daemon.stop() == 0


def test_links(place: Place, tmp_path: Path) -> None:
    """A link to a database elsewhere counts; one to a database that is replicated already, or to a folder, does not."""
    make(tmp_path / "elsewhere" / "far.db")
    make(tmp_path / "elsewhere" / "other.db")
    make(place.data / "z.db")
    (place.data / "a.db").symlink_to("z.db")
    (place.data / "link.db").symlink_to(tmp_path / "elsewhere" / "far.db")
    (place.data / "folder").symlink_to(tmp_path / "elsewhere")
    (place.data / "dangling.db").symlink_to(tmp_path / "nothing.db")
    place.start(recursive=True)
    wait_until(lambda: sorted(place.begun()) == ["link.db", "z.db"], place.daemon.text)
    # One that leads elsewhere from now on is another database.
    (place.data / "new").symlink_to(tmp_path / "elsewhere" / "other.db")
    (place.data / "new").rename(place.data / "link.db")
    wait_until(lambda: sorted(place.begun()) == ["link.db", "link.db", "z.db"], place.daemon.text)
    # When the file is gone, the link that led to it has nothing; when only its own name is gone, the link takes over.
    (place.data / "z.db").rename(tmp_path / "elsewhere" / "z.db")
    (place.data / "b.db").symlink_to(tmp_path / "elsewhere" / "z.db")
    wait_until(lambda: "b.db" in place.begun(), place.daemon.text)
    place.wait_removed("z.db")
    assert place.daemon.stop() == 0


def test_entries_of_their_own_and_hard_links(tmp_path: Path, daemons: Callable[..., Daemon]) -> None:
    """A file is replicated once: its own entry wins, an earlier directory wins, and two names are one file."""
    data = tmp_path / "data"
    make(data / "own.db")
    make(data / "both.db")
    first = f"{{dir: {data}, pattern: 'b*.db', watch: true, replica: {{path: {tmp_path}/r1}}}}"
    second = f"{{dir: {data}, pattern: '*.db', watch: true, replica: {{path: {tmp_path}/r2}}}}"
    own = f"{{path: {data}/own.db, replica: {{path: {tmp_path}/r3}}}}"
    (tmp_path / "c.yml").write_text(f"dbs: [{second.replace('*.db', 'o*.db')}, {own}, {first}, {second}]")
    daemon = daemons(tmp_path / "c.yml").start()
    daemon.wait_until_ready()
    daemon.wait_for_objects(tmp_path / "r1" / "both.db")
    daemon.wait_for_objects(tmp_path / "r3")
    os.link(data / "both.db", data / "same.db")  # of two that are there at the start the one opened first would win
    make(data / "two.db")
    daemon.wait_for_objects(tmp_path / "r2" / "two.db")
    assert not (tmp_path / "r2" / "own.db").exists()
    assert not (tmp_path / "r2" / "both.db").exists()
    assert not (tmp_path / "r2" / "same.db").exists()
    assert "ERROR" not in daemon.text()


def test_what_the_socket_stopped_stays_stopped(place: Place, app: App) -> None:
    """A database that was stopped by request is not begun again by events, and forgotten when its file is gone."""
    with short_folder() as folder:
        sock = folder / "s"
        app.create(place.data / "a.db")
        place.start(top={"socket": {"enabled": True, "path": str(sock)}})
        place.reach(a=0)
        path = str(place.data / "a.db")
        assert ask(sock, "POST", "/stop", {"path": path, "timeout": 20})[0] == 200
        app.ledger(2)
        (place.data / "a.db").touch()
        make(place.data / "b.db")
        place.daemon.wait_for_objects(place.replica / "b.db")
        assert place.begun() == ["a.db", "b.db"]
        place.reach(a=0)
        assert ask(sock, "POST", "/start", {"path": path, "timeout": 20})[0] == 200
        place.reach(a=2)
        assert ask(sock, "POST", "/stop", {"path": path, "timeout": 20})[0] == 200
        app.close()
        remove(place.data / "a.db")
        place.wait_removed("a.db")
        found = ask(sock, "GET", "/list")[1]["databases"]
        assert [one["path"] for one in found] == [str(place.data / "b.db")]
        assert state_of(place.data / "a.db").exists()  # nobody knows what it holds


def test_without_watch(place: Place) -> None:
    """The directory is read once; nothing found is an error, in one line, and nothing is replicated."""
    config = write_directory(place.folder / "c.yml", place.data, place.replica, watch=False)
    result = OURS.run("replicate", "-config", config)
    assert result.code == 1
    assert f"no SQLite databases found in directory {place.data} with pattern *.db" in result.text
    make(place.data / "a.db")
    place.start(watch=False)
    make(place.data / "b.db")
    place.daemon.wait_for_objects(place.replica / "a.db")
    time.sleep(0.6)
    assert place.begun() == ["a.db"]


def test_a_directory_that_comes_later_and_again(place: Place) -> None:
    """With `watch` it may be absent at the start; when it is replaced, the new one is watched."""
    place.data.rmdir()
    place.start(recursive=True)
    for number in range(2):
        make(place.data / "sub" / "a.db")
        place.wait_begun(2 * number + 1)
        make(place.data / "sub" / "b.db")
        place.wait_begun(2 * number + 2)
        place.daemon.wait_for_objects(place.replica / "sub", 2)
        place.data.rename(place.folder / f"gone{number}")
        place.wait_removals(2 * number + 2)
    assert objects(place.folder / "gone0" / "replica")


def test_not_all_arrived(place: Place, app: App) -> None:
    """When the replica cannot be written to, a deleted database's local state stays, and the log says so."""
    app.create(place.data / "a.db")
    place.start(top={"shutdown-sync-timeout": "1s"})
    place.reach(a=0)
    store = place.replica / "a.db"
    store.rename(place.folder / "aside")
    store.write_text("in the way")
    app.ledger(2)
    app.close()
    remove(place.data / "a.db")
    place.daemon.wait_for_log("not everything reached the replica", timeout=30)
    place.daemon.wait_for_log("local state kept .*path=")
    assert state_of(place.data / "a.db").is_dir()


def test_a_deleted_database_of_another_process(place: Place, app: App, daemons: Callable[..., Daemon]) -> None:
    """What another process keeps beside a database that it replicates is not ours to remove when the file goes."""
    app.create(place.data / "a.db")
    app.create(place.data / "b.db", name="b")
    elsewhere = [Database(place.data / "a.db", [place.folder / "other"])]
    other = daemons(write_config(place.folder / "other.yml", elsewhere)).start()
    other.wait_until_ready()
    wait_until(lambda: objects(place.folder / "other"), other.text)
    lock = {path.name for path in state_of(place.data / "a.db").iterdir()}
    place.start()
    place.reach(b=0)
    app.close()
    remove(place.data / "a.db")
    place.wait_removed("a.db")
    place.daemon.wait_for_log("local state kept .*path=")
    assert lock <= {path.name for path in state_of(place.data / "a.db").iterdir()}  # it may write more meanwhile
