"""The verbs that talk to a running replicator, and `status` with and without one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.app import App
from helpers.cli import OURS, Daemon, Database, Result, wait_until, write_config
from helpers.control import ask, short_folder
from helpers.rig import Rig
from litestream.cli.status import shown_size

POS = "[0-9a-f]{16}/[0-9a-f]{8}:[0-9a-f]{8}"


@pytest.fixture
def at() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder / "c.sock"


@pytest.fixture
def running(rig: Rig, app: App, at: Path) -> Rig:
    """A replicator with a control socket, whose database is in its replica."""
    app.create(rig.db)
    rig.start(top={"socket": {"enabled": True, "path": str(at)}})
    rig.daemon.wait_until_ready()
    wait_until(lambda: ask(at, "GET", "/status")[1]["ok"], "the database is safe")
    wait_until(lambda: "last sync: never" not in good("list", "-socket", at), "a sync is noted")
    return rig


def good(*args: str | Path) -> str:
    done = OURS.run(*args)
    assert (done.code, done.err) == (0, ""), done
    return done.out


def bad(*args: str | Path) -> str:
    """The one line of a command that fails."""
    done = OURS.run(*args)
    assert (done.code, done.out) == (1, ""), done
    assert done.err.count("\n") == 1
    return done.err.strip()


def test_what_they_print(running: Rig, at: Path) -> None:
    """The official lines, with the position besides, and JSON of the same names."""
    db = running.db
    assert re.fullmatch(rf"{db} \[replicating\] \(last sync: [-0-9]+T[:0-9]+Z\)\n", good("list", "-socket", at))
    assert json.loads(good("list", "-json", "-socket", at))["databases"][0]["path"] == str(db)
    info = good("info", "-socket", at)
    assert re.fullmatch(
        rf"Litestream \S+\n  PID:        {running.daemon.pid}\n  Uptime:     \S+\n"
        r"  Started at: \S+Z\n  Databases:  1\n",
        info,
    )
    synced = good("sync", "-wait", "-socket", at, db)
    assert re.fullmatch(
        rf"db_path: {db}\ntxid: (\d+)\nreplica_txid: \1\npos: {POS}\nduration_ms: \d+\n", synced
    )  # the number is the same
    waited = json.loads(good("wait", "-json", "-all", "-timeout", "10s", "-socket", at, db))
    assert set(waited) == {"status", "db_path", "txid", "pos", "duration_ms"}
    assert waited["status"] == "durable"
    stopped = good("stop", "-timeout", "20", "-socket", at, db)
    tail = rf"txid: \d+\npos: {POS}\nsocket: {at}\n"
    assert re.fullmatch(rf"status: stopped\ndb_path: {db}\nstate: stopped\n{tail}", stopped)
    assert json.loads(good("stop", "-json", "-socket", at, db))["status"] == "already_stopped"
    assert re.fullmatch(rf"status: started\ndb_path: {db}\nstate: running\n{tail}", good("start", "-socket", at, db))
    assert json.loads(good("start", "-json", "-socket", at, db))["status"] == "already_running"


def test_register_and_unregister(running: Rig, app: App, at: Path) -> None:
    """A relative path and URL mean those of the caller; what is printed shows no secret."""
    app.open(running.folder / "other.db", name="other", pragmas=["journal_mode=WAL"])
    app.script("CREATE TABLE t(x)", name="other")
    done = OURS.run("register", "-socket", at, "-replica", "kept", "other.db", cwd=running.folder)
    other, kept = running.folder / "other.db", running.folder / "kept"
    assert done.out == f"status: registered\ndb_path: {other}\nreplica: {kept}\nsocket: {at}\n", done
    good("wait", "-socket", at, other)
    OURS.converge(other, kept, running.out)
    preview = good("unregister", "-dry-run", "-socket", at, other)
    assert preview.startswith("Dry run: unregister request preview\n")
    assert preview.endswith("No unregister request was sent.\n")
    gone = good("unregister", "-socket", at, other)
    assert re.fullmatch(
        rf"status: unregistered\ndb_path: {other}\nfinal_txid: \d+\nfinal_pos: {POS}\nsocket: {at}\n", gone
    )
    url = "s3://key:hush@bucket/x?endpoint=http://127.0.0.1:9&region=hush"
    secret = OURS.run("register", "-socket", at, "-replica", url, other)
    assert "hush" not in secret.text


def test_errors(running: Rig, at: Path) -> None:
    """One line, exit code 1: nobody there, a refusal in the replicator's words, a flag that is wrong."""
    absent = at.with_name("no.sock")
    for verb in ("list", "info"):
        reason = f"{absent}: No such file or directory"
        assert bad(verb, "-socket", absent) == f"Error: failed to connect to control socket: {reason}"
    assert bad("stop", "-socket", absent, "/x").startswith("Error: failed to connect to control socket: ")
    assert bad("sync", "-socket", at, "/no") == "Error: sync failed: database not found: /no"
    assert bad("wait", "-socket", at).startswith("Error: database path required")
    assert bad("register", "-socket", at, "/x") == "Error: replica URL required: -replica URL"
    assert bad("wait", "-socket", at, "-timeout", "soon", running.db).startswith("Error: -timeout: ")
    later = ask(at, "GET", f"/txid?path={running.db}")[1]["pos"][:-8] + "7fffffff"
    told = bad("wait", "-socket", at, "-timeout", "1", "-pos", later, running.db)
    assert told.startswith("Error: wait failed: timeout after 1s (")


def test_stop_tells_what_is_missing(rig: Rig, app: App, at: Path) -> None:
    """A last sync that does not reach a replica is an error, though the database is stopped."""
    app.create(rig.db)
    rig.start(top={"socket": {"enabled": True, "path": str(at)}, "shutdown-sync-timeout": "1s"})
    rig.daemon.wait_until_ready()
    wait_until(lambda: ask(at, "GET", "/status")[1]["ok"], "the database is safe")
    rig.replica.rename(rig.folder / "away")
    rig.replica.write_text("in the way")
    app.sql("CREATE TABLE t(x)")
    done = OURS.run("stop", "-socket", at, rig.db)
    assert done.code == 1
    assert done.out.startswith("status: stopped\n")
    assert re.match(rf"Error: {rig.db}\(file\): not everything reached the replica: ", done.err)


def rows(done: Result) -> list[list[str]]:
    """The cells of a table without its header."""
    header, *lines = done.out.splitlines()
    assert re.split(r"  +", header) == ["database", "status", "local", "replica", "lag", "wal size"]
    return [re.split(r"  +", line.strip()) for line in lines]


def test_status_asks_the_replicator(running: Rig, app: App, at: Path) -> None:
    """With a socket in the configuration the replicator is asked; a database that it does not have is not safe."""
    done = OURS.run("status", "-config", running.daemon.config)
    assert (done.code, done.err) == (0, "")
    (row,) = rows(done)
    assert (row[0], row[1], row[3], row[4]) == (str(running.db), "ok", "file", "0s")
    assert re.fullmatch(POS, row[2])
    (entry,) = json.loads(good("status", "-json", "-socket", at, running.db))
    assert (entry["database"], entry["status"], entry["ok"]) == (str(running.db), "ok", True)
    assert len(entry["local_txid"]) == 16
    assert entry["replicas"][0]["last_upload_at"].startswith("20")
    more = write_config(
        running.folder / "more.yml",
        [Database(running.db, [running.replica]), Database(running.folder / "new.db", [running.folder / "new"])],
        socket={"enabled": True, "path": str(at)},
    )
    done = OURS.run("status", "-config", more)
    assert done.code == 1
    assert [row[1] for row in rows(done)] == ["ok", "unknown"]


def test_status_without_a_socket(rig: Rig, app: App) -> None:
    """Database and replica are compared: while a replicator runs, after its end, and when it missed something."""
    app.create(rig.db)
    rig.start(sync="100ms")
    rig.daemon.wait_for_objects(rig.replica)
    app.sql("CREATE TABLE t(x)")
    done = OURS.run("status", "-config", rig.daemon.config, "-within", "10s")
    assert (done.code, done.err) == (0, "")
    app.sql("INSERT INTO t VALUES (1)")
    assert rig.daemon.stop() == 0
    done = OURS.run("status", "-config", rig.daemon.config, rig.db)
    assert (done.code, rows(done)[0][1], rows(done)[0][4]) == (0, "ok", "0s")
    app.sql("INSERT INTO t VALUES (2)")
    done = OURS.run("status", "-config", rig.daemon.config)
    assert (done.code, rows(done)[0][1]) == (1, "error")
    assert done.err == f"Error: {rig.db}(file): no replicator is running\n"
    (entry,) = json.loads(OURS.run("status", "-json", "-config", rig.daemon.config).out)
    assert entry["replicas"][0]["lag_bytes"] == 4096 + 24
    app.checkpoint("TRUNCATE")
    done = OURS.run("status", "-config", rig.daemon.config)
    assert (done.code, rows(done)[0][1]) == (1, "unknown")


def test_status_waits_for_a_replicator_and_not_for_ever(rig: Rig, app: App) -> None:
    """A replicator that runs and does not get on is found out when the time of -within is over."""
    app.create(rig.db)
    rig.start(sync="100ms")
    rig.daemon.wait_for_objects(rig.replica)
    rig.daemon.freeze()
    app.sql("CREATE TABLE t(x)")
    done = OURS.run("status", "-within", "1s", "-config", rig.daemon.config)
    assert (done.code, rows(done)[0][1]) == (1, "behind")
    rig.daemon.thaw()
    assert OURS.run("status", "-within", "20s", "-config", rig.daemon.config).code == 0


def test_status_of_what_was_never_written_to(rig: Rig, app: App) -> None:
    """An empty WAL is proof as long as the database file is what the snapshot was made of."""
    app.create(rig.db)
    app.close()
    rig.start()
    rig.daemon.wait_for_objects(rig.replica)
    wait_until(lambda: (rig.meta / "state.json").read_text().count('"base_sha256": ""') == 0, "the hash is kept")
    assert rig.daemon.stop() == 0
    assert OURS.run("status", "-config", rig.daemon.config).code == 0
    app.open(rig.db)
    app.sql("CREATE TABLE t(x)")
    app.checkpoint("TRUNCATE")
    done = OURS.run("status", "-config", rig.daemon.config)
    assert (done.code, rows(done)[0][1]) == (1, "unknown")


def test_status_words(tmp_path: Path, app: App, daemons: Callable[..., Daemon]) -> None:
    """The official words for a database that is not there, and for one that nobody has replicated yet."""
    app.create(tmp_path / "new.db")
    config = write_config(
        tmp_path / "c.yml",
        [Database(tmp_path / "absent.db", [tmp_path / "a"]), Database(tmp_path / "new.db", [tmp_path / "b"])],
    )
    done = OURS.run("status", "-config", config)
    assert done.code == 1
    assert [row[1] for row in rows(done)] == ["no database", "not initialized"]


def test_reset(running: Rig, app: App) -> None:
    """The local state goes, files of others and the lock stay, and a running replicator begins a new generation."""
    foreign = running.meta / "ltx"
    foreign.mkdir()
    config = running.daemon.config
    preview = good("reset", "-dry-run", "-config", config, running.db)
    assert f"Would remove: {running.meta / 'state.json'}\n" in preview
    assert (running.meta / "state.json").exists()
    done = good("reset", "-config", config, running.db)
    assert done.startswith(f"Resetting local Litestream state for: {running.db}\nRemoving: ")
    assert done.endswith("Reset complete. Next replication sync will create a fresh snapshot.\n")
    assert foreign.exists()
    assert (running.meta / "lock").exists()
    app.sql("CREATE TABLE t(x)")
    running.wait_generations(2)
    running.converge()
    running.daemon.stop()
    good("reset", "-config", config, running.db)
    assert good("reset", "-config", config, running.db) == f"No local state to reset for {running.db}\n"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (4152, "4.2 kB"), (16480, "16 kB"), (2_500_000, "2.5 MB")],
)
def test_sizes(size: int, text: str) -> None:
    """Sizes as the official table has them."""
    assert shown_size(size) == text
