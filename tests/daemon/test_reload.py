"""Reading the configuration again, as a process: what comes, goes and changes, and what must not notice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import state
from helpers.app import App
from helpers.cli import LITESTREAM, OURS, Daemon, Database, Yaml, environment, generations, wait_until, write_config
from helpers.control import Json, ask, short_folder


@pytest.fixture
def at() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder / "c.sock"


class Place:
    """A replicator with several databases, whose configuration is written anew by `write`."""

    def __init__(self, folder: Path, at: Path, daemons: Callable[..., Daemon]) -> None:
        self.folder = folder
        self.at = at
        self.config = folder / "c.yml"
        self.daemons = daemons
        self.top: dict[str, Yaml] = {"socket": {"enabled": True, "path": str(at)}}
        for name in ("a", "b", "c"):
            connection = sqlite3.connect(self.db(name))
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE t(x)")
            connection.commit()
            connection.close()

    def db(self, name: str) -> Path:
        return self.folder / f"{name}.db"

    def replica(self, name: str) -> Path:
        return self.folder / "replicas" / name

    def entry(self, name: str, *more: dict[str, Yaml], **options: Yaml) -> Database:
        return Database(self.db(name), [self.replica(name), *more], options)

    def write(self, *databases: Database, **top: Yaml) -> None:
        write_config(self.config, databases, sync="50ms", **{**self.top, **top})

    def start(self, *databases: Database, **top: Yaml) -> None:
        self.write(*databases, **top)
        self.daemon = self.daemons(self.config).start()
        self.daemon.wait_until_ready()
        wait_until(lambda: self.at.exists() and ask(self.at, "GET", "/status")[1]["ok"], "everything is safe")

    def reload(self, status: int = 200) -> Json:
        found, answer = ask(self.at, "POST", "/reload")
        assert found == status, answer
        return answer

    def hang_up(self) -> None:
        """SIGHUP, and wait until it was answered in the log."""
        before = self.daemon.text().count("configuration reloaded")
        self.daemon.send(signal.SIGHUP)
        wait_until(lambda: self.daemon.text().count("configuration reloaded") > before, self.daemon.text)

    def status(self, name: str) -> Json:
        found: Json = ask(self.at, "GET", f"/status?path={self.db(name)}")[1]
        return found["databases"][0]

    def safe(self, name: str) -> None:
        """Wait until everything in a database is in all its replicas, and compare one with it."""
        status, answer = ask(self.at, "POST", "/wait", {"path": str(self.db(name)), "all": True, "timeout": 20})
        assert status == 200, answer
        OURS.converge(self.db(name), self.replica(name), self.folder / "out.db")

    def insert(self, name: str) -> None:
        code = f"import sqlite3; sqlite3.connect({str(self.db(name))!r}).execute('INSERT INTO t VALUES(1)')"
        subprocess.run(["python3", "-c", f"{code}.connection.commit()"], check=True, timeout=20)

    def lines(self, part: str) -> list[str]:
        return [line for line in self.daemon.text().splitlines() if part in line]


@pytest.fixture
def place(tmp_path: Path, at: Path, daemons: Callable[..., Daemon]) -> Place:
    return Place(tmp_path, at, daemons)


def test_databases_come_go_and_change_and_others_notice_nothing(place: Place, apps: Callable[[], App]) -> None:
    """While a writer runs on one database, others are added, removed and changed: it is not touched."""
    app = apps()
    app.create(place.folder / "busy.db")
    busy = Database(place.folder / "busy.db", [place.replica("busy")])
    place.start(busy, place.entry("a"), place.entry("b"))
    pid = place.daemon.pid
    app.start_writing(place.folder / "busy.db")
    generation = ask(place.at, "GET", f"/status?path={busy.path}")[1]["databases"][0]["generation"]
    kept = place.status("b")["generation"]
    place.insert("a")
    log = len(place.daemon.text())

    slower = {"type": "file", "path": str(place.replica("b")), "sync-interval": "2s"}
    place.write(busy, Database(place.db("b"), [slower]), place.entry("c"))
    answer = place.reload()

    assert answer["status"] == "reloaded"
    assert (answer["added"], answer["removed"], answer["changed"]) == (
        [str(place.db("c"))],
        [str(place.db("a"))],
        [str(place.db("b"))],
    )
    assert "missing" not in answer
    OURS.converge(place.db("a"), place.replica("a"), place.folder / "out.db")  # a last sync was made
    place.safe("c")
    place.insert("b")
    place.safe("b")
    assert place.status("b")["generation"] == kept
    assert generations(place.replica("b")) == [kept]
    app.stop_writing()
    OURS.converge(busy.path, place.replica("busy"), place.folder / "out.db")
    assert ask(place.at, "GET", f"/status?path={busy.path}")[1]["databases"][0]["generation"] == generation
    assert generations(place.replica("busy")) == [generation]
    assert place.daemon.pid == pid
    after = place.daemon.text()[log:]
    assert "busy.db" not in "".join(line for line in after.splitlines() if "wal segment written" not in line
                                    and "snapshot written" not in line)  # fmt: skip
    listed = {entry["path"] for entry in ask(place.at, "GET", "/list")[1]["databases"]}
    assert listed == {str(busy.path), str(place.db("b")), str(place.db("c"))}
    assert place.daemon.stop() == 0


def test_sighup_reloads_and_does_not_stop(place: Place) -> None:
    """The signal does what the socket does, and says in the log what it was."""
    place.start(place.entry("a"))
    place.write(place.entry("a"), place.entry("b"))
    place.hang_up()
    place.safe("b")
    assert place.lines("configuration reloaded added=1 removed=0 changed=0")
    place.hang_up()
    assert place.lines("configuration reloaded added=0 removed=0 changed=0")
    assert place.daemon.stop() == 0


def test_a_storm_of_signals_and_requests(place: Place) -> None:
    """A hundred at once are a few reloads, one after the other, and nothing is begun twice."""
    place.start(place.entry("a"))
    place.write(place.entry("a"), place.entry("b"), place.entry("c"))
    for _ in range(100):
        place.daemon.send(signal.SIGHUP)
    assert place.reload()["status"] in {"reloaded", "unchanged"}
    place.safe("b")
    place.safe("c")
    assert len(place.lines(f"initialized db: {place.db('b')}")) == 1
    assert len(place.lines("configuration reloaded added=2")) == 1
    assert len(place.lines("configuration reloaded")) < 60
    assert place.daemon.stop() == 0


def test_a_file_with_mistakes_changes_nothing(place: Place) -> None:
    """All mistakes are in the log and in the answer; no part of the file counts."""
    place.start(place.entry("a"), place.entry("b"))
    place.write(place.entry("a", **{"monitor-interval": "never"}), place.entry("c"), nonsense=1)
    answer = place.reload(400)
    assert answer["error"] == "invalid configuration: nothing was changed"
    assert "unknown key" in answer["details"]
    assert "monitor-interval" in answer["details"]
    assert "\n" not in answer["details"]
    assert len(place.lines(" ERROR ")) == 3, place.daemon.text()
    place.write()
    assert "no databases specified" in place.reload(400)["details"]
    place.config.unlink()
    assert "config file not found" in place.reload(400)["details"]
    os.mkfifo(place.config)
    assert "it cannot be read a second time" in place.reload(400)["details"]
    assert {entry["path"] for entry in ask(place.at, "GET", "/list")[1]["databases"]} == {
        str(place.db("a")),
        str(place.db("b")),
    }
    place.insert("a")
    place.safe("a")
    assert place.daemon.stop() == 0


def test_replicas_of_a_running_database_come_and_go(place: Place) -> None:
    """One more replica, then only that one: the database stays open, and each has all that it should have."""
    place.start(place.entry("a"))
    generation = place.status("a")["generation"]
    second = {"type": "file", "name": "second", "path": str(place.folder / "second")}
    place.write(place.entry("a", second))
    place.reload()
    place.safe("a")
    assert [replica["name"] for replica in place.status("a")["replicas"]] == ["file", "second"]
    place.insert("a")
    place.write(Database(place.db("a"), [second]))
    assert "missing" not in place.reload()
    OURS.converge(place.db("a"), place.replica("a"), place.folder / "out.db")  # brought up to date before it went
    place.insert("a")
    status, _ = ask(place.at, "POST", "/wait", {"path": str(place.db("a")), "all": True, "timeout": 20})
    assert status == 200
    OURS.converge(place.db("a"), place.folder / "second", place.folder / "out.db")
    assert place.status("a")["generation"] == generation
    assert len(place.lines(f"initialized db: {place.db('a')}")) == 1
    assert place.daemon.stop() == 0


def test_a_replica_that_does_not_work_is_given_up(place: Place) -> None:
    """What it lacks is said; the rest of the new configuration holds all the same."""
    (place.folder / "file").write_text("in the way")
    broken = {"type": "file", "name": "broken", "path": str(place.folder / "file" / "x")}
    place.write(place.entry("a", broken))
    place.daemon = place.daemons(place.config).start()
    place.daemon.wait_until_ready()
    place.write(place.entry("a"), place.entry("b"))
    wait_until(lambda: place.at.exists() and place.status("a")["replicas"][0]["status"] == "ok", "the good one")
    answer = place.reload()
    assert list(answer["missing"]) == [f"{place.db('a')}(broken)"]
    place.safe("a")
    place.safe("b")
    assert place.daemon.stop() == 0


def test_two_databases_change_their_replicas_places(place: Place) -> None:
    """What is freed by one is taken by the other in the same reload."""
    place.start(place.entry("a"), place.entry("b"))
    place.write(Database(place.db("a"), [place.replica("b")]), Database(place.db("c"), [place.replica("a")]))
    place.reload()
    place.insert("a")
    status, _ = ask(place.at, "POST", "/wait", {"path": str(place.db("a")), "timeout": 20})
    assert status == 200
    OURS.converge(place.db("a"), place.replica("b"), place.folder / "out.db")
    OURS.converge(place.db("c"), place.replica("a"), place.folder / "out.db")
    assert place.daemon.stop() == 0


def test_another_meta_path_begins_anew(place: Place) -> None:
    """The state is elsewhere, so the generation cannot go on."""
    place.start(place.entry("a"))
    before = place.status("a")["generation"]
    place.write(place.entry("a", **{"meta-path": str(place.folder / "state")}))
    assert place.reload()["changed"] == [str(place.db("a"))]
    place.safe("a")
    assert place.status("a")["generation"] != before
    assert (place.folder / "state").is_dir()
    assert place.daemon.stop() == 0


def test_what_was_done_by_request_stays(place: Place) -> None:
    """A stopped database stays so, and starts as the file says now; a registered one stays registered."""
    place.start(place.entry("a"))
    url = f"file://{place.folder}/kept"
    assert ask(place.at, "POST", "/register", {"path": str(place.db("b")), "replica_url": url})[0] == 200
    assert ask(place.at, "POST", "/stop", {"path": str(place.db("a"))})[0] == 200
    place.write(Database(place.db("a"), [place.folder / "other"]))
    assert place.reload()["changed"] == [str(place.db("a"))]
    listed = {entry["path"]: entry["status"] for entry in ask(place.at, "GET", "/list")[1]["databases"]}
    assert listed[str(place.db("a"))] == "stopped"
    assert str(place.db("b")) in listed
    assert ask(place.at, "POST", "/start", {"path": str(place.db("a"))})[0] == 200
    OURS.converge(place.db("a"), place.folder / "other", place.folder / "out.db")
    place.write(Database(place.db("a"), [place.folder / "kept"]))
    answer = place.reload(400)
    assert "was registered at run time" in answer["details"]
    place.write(place.entry("c"))
    assert place.reload()["removed"] == [str(place.db("a"))]
    assert place.daemon.stop() == 0


def test_settings_at_the_top(place: Place) -> None:
    """The log's level counts at once; what needs a new start is named."""
    place.start(place.entry("a"))
    place.write(
        place.entry("a"), logging={"level": "warn", "type": "json"}, addr="127.0.0.1:1", shutdown_sync_timeout="7s"
    )
    answer = place.reload()
    assert answer["restart"] == ["addr"]
    assert set(answer["settings"]) == {"logging", "shutdown-sync-timeout"}
    place.insert("a")
    place.safe("a")
    last = json.loads(place.daemon.text().splitlines()[-1])
    assert (last["level"], last["msg"]) == ("WARN", "these keys take effect only at the next start: addr")
    assert place.daemon.stop() == 0


def test_the_environment_is_expanded_again_and_the_path_is_kept(place: Place) -> None:
    """A relative path of the file, and its variables, mean the same as at the start."""
    text = (
        f"socket: {{enabled: true, path: {place.at}}}\n"
        f"dbs:\n- path: {place.db('a')}\n  replicas:\n  - path: ${{PLACE}}/one\n    sync-interval: 50ms\n"
    )
    place.config.write_text(text)
    daemon = place.daemon = place.daemons(place.config)
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen(
            [LITESTREAM, "replicate", "-config", place.config.name],
            cwd=place.folder,
            env=environment({"PLACE": str(place.folder)}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    daemon.wait_until_ready()
    place.config.write_text(text.replace("/one", "/two"))
    wait_until(place.at.exists, "the socket")
    assert place.reload()["changed"] == [str(place.db("a"))]
    OURS.converge(place.db("a"), place.folder / "two", place.folder / "out.db")
    assert daemon.stop() == 0


def test_without_a_file_there_is_nothing_to_reload(tmp_path: Path, place: Place) -> None:
    """From arguments, SIGHUP is the end of a terminal: it stops in order."""
    command = [str(LITESTREAM), "replicate", str(place.db("a")), f"file://{tmp_path}/rep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), cwd=tmp_path, text=True) as process:
        wait_until(lambda: list(tmp_path.glob("rep/generations/*/snapshots/*.lz4")), "a snapshot")
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, out.splitlines()[-1].endswith("litestream shut down")) == (0, True), out


def test_the_verb(place: Place) -> None:
    """`litestream reload` prints what changed; a mistake is one line and exit code 1."""
    place.start(place.entry("a"))
    place.write(place.entry("a"), place.entry("b"), addr="127.0.0.1:1")
    done = OURS.run("reload", "-socket", place.at)
    assert (done.code, done.out) == (0, f"status: reloaded\nadded: {place.db('b')}\n"), done
    assert done.err == "Warning: these keys take effect only at the next start: addr\n"
    found = json.loads(OURS.run("reload", "-json", "-socket", place.at).out)
    assert (found["status"], found["added"]) == ("unchanged", [])
    place.config.write_text("dbs: 1\n")
    bad = OURS.run("reload", "-socket", place.at)
    assert (bad.code, bad.err.count("\n")) == (1, 1), bad
    assert bad.err.startswith("Error: reload failed: invalid configuration: nothing was changed (")
    assert place.daemon.stop() == 0


def test_a_service_manager_is_told(place: Place) -> None:
    """RELOADING=1 and its time, then READY=1, as systemd's notify-reload wants them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = str(place.at.with_name("n.sock"))
        manager.bind(name)
        manager.settimeout(20)
        place.write(place.entry("a"))
        place.daemon = place.daemons(place.config).start(env={"NOTIFY_SOCKET": name})
        while manager.recv(1000) != b"READY=1":
            pass
        place.daemon.send(signal.SIGHUP)
        while not (said := manager.recv(1000)).startswith(b"RELOADING=1\nMONOTONIC_USEC="):
            assert said != b"READY=1"
        while manager.recv(1000) != b"READY=1":
            pass
    assert os.path.exists(name)
    assert place.daemon.stop() == 0


def test_directories_come_and_go_with_their_databases(place: Place) -> None:
    """An entry of its own becomes a directory's database, and the reverse; who is in both files goes on."""
    place.start(place.entry("a"))
    folder: dict[str, Yaml] = {"dir": str(place.folder), "pattern": "[ab].db", "watch": True}
    folder["replicas"] = [{"path": str(place.folder / "all"), "sync-interval": "50ms"}]
    place.config.write_text(json.dumps({**place.top, "dbs": [folder]}))
    answer = place.reload()
    assert (answer["added"], answer["removed"], answer["changed"]) == ([str(place.db("b"))], [], [str(place.db("a"))])
    for name in ("a", "b"):
        place.insert(name)
        assert ask(place.at, "POST", "/wait", {"path": str(place.db(name)), "timeout": 20})[0] == 200
        OURS.converge(place.db(name), place.folder / "all" / f"{name}.db", place.folder / "out.db")
    kept = place.status("b")["generation"]
    own = {"path": str(place.db("a")), "replicas": [{"path": str(place.replica("a")), "sync-interval": "50ms"}]}
    place.config.write_text(json.dumps({**place.top, "dbs": [folder, own]}))
    assert place.reload()["changed"] == [str(place.db("a"))]
    place.insert("a")
    place.safe("a")
    assert place.status("b")["generation"] == kept
    empty = {**folder, "dir": str(place.folder / "replicas"), "watch": False}
    place.config.write_text(json.dumps({**place.top, "dbs": [empty, own]}))
    assert "no SQLite databases found" in place.reload(400)["details"]
    place.insert("b")
    assert ask(place.at, "POST", "/wait", {"path": str(place.db("b")), "timeout": 20})[0] == 200
    place.config.write_text(json.dumps({**place.top, "dbs": [own]}))
    assert place.reload()["removed"] == [str(place.db("b"))]
    OURS.converge(place.db("b"), place.folder / "all" / "b.db", place.folder / "out.db")
    assert place.daemon.stop() == 0


def test_the_lease_goes_on_with_a_replica_that_changes(place: Place) -> None:
    """Nobody waits, and nobody is taken for another host."""
    place.start(place.entry("a"))
    for seconds in (2, 3, 4):
        slower = {"type": "file", "path": str(place.replica("a")), "sync-interval": f"{seconds * 50}ms"}
        place.write(Database(place.db("a"), [slower]))
        place.reload()
        place.insert("a")
        place.safe("a")
    assert not place.lines(" WARN ")
    assert not place.lines(" ERROR ")
    assert place.daemon.stop() == 0


def test_a_follower_begins_to_replicate_by_itself(place: Place) -> None:
    """A database with `upstream` gets replicas instead: it is opened as one that is written here."""
    following = {"path": str(place.db("b")), "upstream": {"url": "http://127.0.0.1:9", "path": "/nowhere"}}
    own = {"path": str(place.db("a")), "replicas": [{"path": str(place.replica("a")), "sync-interval": "50ms"}]}
    place.db("b").unlink()
    place.config.write_text(json.dumps({**place.top, "dbs": [own, following]}))
    place.daemon = place.daemons(place.config).start()
    place.daemon.wait_until_ready()
    wait_until(place.at.exists, "the socket")
    shutil.copy(place.db("a"), place.db("b"))
    place.write(place.entry("a"), place.entry("b"))
    assert place.reload()["changed"] == [str(place.db("b"))]
    place.insert("b")
    place.safe("b")
    assert place.daemon.stop() == 0


def forget(place: Place, name: str) -> None:
    """The file of a database that nobody has open is gone, with its local state."""
    for path in place.folder.glob(f"{name}.db*"):
        path.unlink()
    shutil.rmtree(place.folder / f".{name}.db-litestream")


RESTORES: dict[str, Yaml] = {"restore-if-db-not-exists": True}


@pytest.mark.parametrize("flag", [False, True])
def test_a_missing_database_that_comes_in_is_restored_first(flag: bool, place: Place) -> None:
    """With the key or the flag; one that has neither is waited for, and one without a backup begins fresh."""
    place.insert("b")
    write_config(place.config, [place.entry("b"), place.entry("c")])
    assert OURS.run("replicate", "-once", "-config", place.config).code == 0
    forget(place, "b")
    forget(place, "c")
    place.write(place.entry("a"))
    place.daemon = place.daemons(place.config, args=["-restore-if-db-not-exists"] if flag else []).start()
    place.daemon.wait_until_ready()
    wait_until(place.at.exists, "the socket")
    fresh = Database(place.folder / "fresh.db", [place.replica("fresh")], RESTORES)
    place.write(place.entry("a"), place.entry("b", **({} if flag else RESTORES)), place.entry("c"), fresh)
    place.reload()
    place.insert("b")
    place.safe("b")
    connection = sqlite3.connect(place.folder / "out.db")
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (2,)
    connection.close()
    assert place.db("c").exists() is flag
    assert place.lines(f"no backup found, starting fresh db={place.folder}/fresh.db")
    assert place.daemon.stop() == 0


@pytest.mark.parametrize("by_signal", [False, True])
def test_a_reload_that_cannot_restore_changes_nothing(by_signal: bool, place: Place) -> None:
    """The reason is answered and logged, and the next reload tries again."""
    write_config(place.config, [place.entry("b")])
    assert OURS.run("replicate", "-once", "-config", place.config).code == 0
    forget(place, "b")
    place.start(place.entry("a"))
    (snapshot,) = place.replica("b").rglob("*.snapshot.lz4")
    content = snapshot.read_bytes()
    snapshot.write_bytes(content[:-20])
    place.write(place.entry("b", **RESTORES), place.entry("c"))
    if by_signal:
        place.daemon.send(signal.SIGHUP)
        place.daemon.wait_for_log("configuration not reloaded: everything goes on as it was")
    else:
        answer = place.reload(500)
        assert answer["error"] == "a missing database could not be restored: nothing was changed"
        assert answer["details"].startswith(f"cannot restore {place.db('b')}: ")
    assert len(place.lines(f" ERROR cannot restore {place.db('b')}: ")) == 1
    assert [entry["path"] for entry in ask(place.at, "GET", "/list")[1]["databases"]] == [str(place.db("a"))]
    assert not place.db("b").exists()
    snapshot.write_bytes(content)
    assert place.reload()["added"] == [str(place.db("b")), str(place.db("c"))]
    place.safe("b")
    assert place.daemon.stop() == 0


def test_nothing_is_restored_from_a_replica_that_another_one_still_writes_to(place: Place) -> None:
    """Its last commits would be missing: the answer says so, and in two steps it goes."""
    place.start(place.entry("a"), place.entry("c"))
    place.db("b").unlink()
    heir = Database(place.db("b"), [place.replica("a")], RESTORES)
    place.write(place.entry("c"), heir)
    assert "another database still uses its replica" in place.reload(500)["details"]
    place.insert("a")
    place.write(place.entry("c"))
    assert place.reload()["removed"] == [str(place.db("a"))]
    place.write(place.entry("c"), heir)
    assert place.reload()["added"] == [str(place.db("b"))]
    assert state.source(place.db("b")) == state.source(place.db("a"))
    assert place.daemon.stop() == 0


def test_the_end_comes_while_a_reload_restores(place: Place) -> None:
    """It is given up without a trace; what runs has its last sync."""
    place.start(place.entry("a"))
    place.db("b").unlink()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        replica: dict[str, Yaml] = {
            "type": "s3", "bucket": "b", "endpoint": f"http://127.0.0.1:{mute.getsockname()[1]}",
            "access-key-id": "a", "secret-access-key": "b", "timeout": "5m",
        }  # fmt: skip
        place.write(place.entry("a"), Database(place.db("b"), [replica], RESTORES))
        place.daemon.send(signal.SIGHUP)
        with mute.accept()[0]:
            place.insert("a")
            assert place.daemon.stop() == 0
    assert not place.lines(f"initialized db: {place.db('b')}")
    assert not place.db("b").exists()
    OURS.converge(place.db("a"), place.replica("a"), place.folder / "out.db")
