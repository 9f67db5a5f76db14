"""Two replicators, as processes: on one database (refused, or taking over), and on one replica (the lease)."""

from __future__ import annotations

import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import state
from helpers.app import App
from helpers.cli import OURS, Daemon, Database, Program, Yaml, generations, wait_until, write_config

FAST = """#!{python}
import sys
from litestream.replica import lease
lease.TERM, lease.WAIT = 0.5, 1.0
from litestream.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def impatient(tmp_path: Path) -> Program:
    """Our program with a term of half a second instead of 20 s: nothing else differs."""
    script = tmp_path / "litestream"
    script.write_text(FAST.format(python=sys.executable))
    script.chmod(0o755)
    return Program(script, "litestream with a short term")


@pytest.fixture
def app(apps: Callable[[], App], tmp_path: Path) -> App:
    app = apps()
    app.create(tmp_path / "app.db")
    app.script("CREATE TABLE t(x)")
    return app


@pytest.fixture
def config(app: App, tmp_path: Path) -> Path:
    return write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [tmp_path / "rep"])])


def slowness() -> float:
    """1 on an idle machine; how much longer than usual a program takes to start here at this moment."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import asyncio, logging, json"], check=True)
    return max(1.0, (time.monotonic() - began) / 0.15)


def leases(replica: Path) -> list[str]:
    return sorted(path.name for path in (replica / "lease").iterdir())


def make(path: Path) -> None:
    """A database whose application has ended."""
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t(x)")
    connection.close()


def test_a_second_process_is_refused(config: Path, daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """It names the first, also after a kill and a restart of that, and exits with 1; the first is undisturbed."""
    for end in (Daemon.kill, Daemon.stop):
        first = daemons(config).start()
        first.wait_until_ready()
        first.wait_for_objects(tmp_path / "rep")
        began = time.monotonic()
        second = OURS.run("replicate", "-config", config)
        assert time.monotonic() - began < 5
        assert second.code == 1
        assert f"{tmp_path}/app.db: another litestream replicates this database already (process {first.pid}): " in (
            second.err
        )
        assert first.alive
        end(first)
    assert len(generations(tmp_path / "rep")) == 1


def test_one_of_several_databases_is_held(
    config: Path, apps: Callable[[], App], daemons: Callable[..., Daemon], tmp_path: Path
) -> None:
    """The others are replicated; the held one is an error in the log, and replicated once the other process ends."""
    other = apps()
    other.create(tmp_path / "other.db")
    other.script("CREATE TABLE t(x)")
    first = daemons(config).start()
    first.wait_for_objects(tmp_path / "rep")
    both = write_config(
        tmp_path / "both.yml",
        [Database(tmp_path / "app.db", [tmp_path / "rep"]), Database(tmp_path / "other.db", [tmp_path / "rep2"])],
    )
    second = daemons(both, log=tmp_path / "second.log").start()
    second.wait_for_objects(tmp_path / "rep2")
    second.wait_for_log(rf"ERROR sync error.*app\.db.*process {first.pid}\)")
    assert first.stop() == 0
    second.wait_for_log("database attached")
    assert second.stop() == 0


def test_a_directory_may_have_databases_later(config: Path, daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """A held database is no reason to refuse while a watched directory is still empty; what comes is replicated."""
    (tmp_path / "many").mkdir()
    first = daemons(config).start()
    first.wait_for_objects(tmp_path / "rep")
    own: dict[str, Yaml] = {"path": str(tmp_path / "app.db"), "replicas": [{"path": str(tmp_path / "rep")}]}
    folder: dict[str, Yaml] = {"dir": str(tmp_path / "many"), "pattern": "*.db", "watch": True}
    folder["replicas"] = [{"path": str(tmp_path / "rep2")}]
    both = tmp_path / "both.yml"
    both.write_text(json.dumps({"dbs": [own, folder]}))
    second = daemons(both, log=tmp_path / "second.log").start()
    second.wait_for_log(rf"ERROR sync error.*app\.db.*process {first.pid}\)")
    make(tmp_path / "many/late.db")
    second.wait_for_objects(tmp_path / "rep2/late.db")
    third = OURS.run("replicate", "-config", both)
    assert (third.code, "another litestream replicates this database already" in third.err) == (1, True)
    assert first.stop() == 0
    second.wait_for_log("database attached.*app.db")
    assert second.stop() == 0


def test_once_does_the_others(config: Path, daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """-once with a held database: the others are durable, the reason names the process, and the exit code is 1."""
    make(tmp_path / "other.db")
    first = daemons(config).start()
    first.wait_for_objects(tmp_path / "rep")
    databases = [
        Database(tmp_path / "app.db", [tmp_path / "rep"]),
        Database(tmp_path / "other.db", [tmp_path / "rep2"]),
    ]
    both = write_config(tmp_path / "both.yml", databases)
    done = OURS.run("replicate", "-once", "-config", both)
    assert (done.code, done.err) == (1, f"Error: not everything reached the replicas: {tmp_path}/app.db(file)\n")
    assert re.search(
        rf"ERROR .*app\.db.*another litestream replicates this database.*\(process {first.pid}\)", done.out
    )
    OURS.converge(tmp_path / "other.db", tmp_path / "rep2", tmp_path / "out.db")
    assert first.alive
    assert first.stop() == 0


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_takeover(
    end: signal.Signals, config: Path, app: App, daemons: Callable[..., Daemon], tmp_path: Path, impatient: Program
) -> None:
    """It waits without doing anything, and within a second of the first one's end it replicates: the same generation,
    nothing lost while a writer goes on, an address that both configurations have, and only then its application.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    started = tmp_path / "started"
    first = daemons(config, args=["-addr", address]).start()
    first.wait_for_objects(tmp_path / "rep")
    second = daemons(
        config,
        log=tmp_path / "second.log",
        args=["-takeover", "-addr", address, "-exec", f"sh -c 'touch {started}; exec sleep 60'"],
    ).start()
    second.wait_for_log(rf"waiting for the end of the other litestream process={first.pid}")
    app.start_writing(tmp_path / "app.db", pause=0.005)
    time.sleep(0.5)
    assert not started.exists() and first.alive
    first.send(end)
    first.wait()
    ended = time.monotonic()
    wait_until(started.exists, "the application is started", 5)
    took = time.monotonic() - ended
    report = app.stop_writing()
    assert report.failures == [] and not report.fatal
    OURS.reach(tmp_path / "rep", tmp_path / "out.db", report.n)
    OURS.converge(tmp_path / "app.db", tmp_path / "rep", tmp_path / "out.db")
    second.stop()
    assert len(generations(tmp_path / "rep")) == 1
    assert took < slowness(), took
    assert "uploads begin in" not in second.text()


def test_a_waiting_process_can_be_stopped(config: Path, daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """SIGTERM ends a takeover that has not begun, with an exit code that tells so; and -once does not wait at all."""
    first = daemons(config).start()
    first.wait_for_objects(tmp_path / "rep")
    second = daemons(config, log=tmp_path / "second.log", args=["-takeover"]).start()
    second.wait_for_log("waiting for the end of the other litestream")
    assert second.stop() == 1
    assert first.stop() == 0
    result = OURS.run("replicate", "-once", "-takeover", "-config", config)
    assert (result.code, "cannot specify -once flag with -takeover" in result.err) == (1, True)


def test_two_hosts_on_one_replica(
    app: App,
    apps: Callable[[], App],
    daemons: Callable[..., Daemon],
    tmp_path: Path,
    impatient: Program,
    official_v03: Program,
    official_v05: Program,
) -> None:
    """The newcomer takes over and says from whom; the first stops, says to whom, and exits with 1. What is restored, by
    the official programs too, is the winner's. After the winner's orderly end the loser may start again.
    """
    replica = tmp_path / "rep"
    theirs = apps()
    theirs.create(tmp_path / "theirs.db")
    theirs.script("CREATE TABLE winner(x)")
    configs = [
        write_config(tmp_path / f"{name}.yml", [Database(tmp_path / f"{name}.db", [replica])])
        for name in ("app", "theirs")
    ]
    first = daemons(configs[0], program=impatient).start()
    first.wait_for_objects(replica)
    assert leases(replica) == ["00000001"]
    second = daemons(configs[1], program=impatient).start()
    second.wait_for_log(rf"WARN .*taking the replica over from host \S+ \(process {first.pid}\): uploads begin in 1s")
    second.wait_for_log("snapshot written")
    app.sql("INSERT INTO t VALUES(1)")
    lost = rf"ERROR .*lease lost to host \S+ \(process {second.pid}\), epoch 2: this replica is stopped"
    first.wait_for_log(lost)
    before = sorted(replica.rglob("*.lz4"))
    app.sql("INSERT INTO t VALUES(2)")
    time.sleep(0.5)
    assert sorted(replica.rglob("*.lz4")) == before
    assert first.stop() == 1
    assert "not everything reached the replica" in first.text()
    theirs.sql("INSERT INTO winner VALUES(1)")
    OURS.converge(tmp_path / "theirs.db", replica, tmp_path / "out.db")
    first.start()
    first.wait_for_log(lost, after=len(first.text()) - 1)
    first.kill()
    assert second.stop() == 0
    assert leases(replica) == ["00000002", "00000002.released"]
    want = state.source(tmp_path / "theirs.db")
    for program in (OURS, official_v03, official_v05):
        assert program.restored(f"file://{replica}", tmp_path / f"{program.name}.db").without_pages() == (
            want.without_pages()
        )
    app.sql("INSERT INTO t VALUES(3)")
    first.start()
    OURS.converge(tmp_path / "app.db", replica, tmp_path / "out.db")
    assert first.stop() == 0


def test_a_process_that_was_paused_beyond_its_term(
    app: App, apps: Callable[[], App], daemons: Callable[..., Daemon], tmp_path: Path, impatient: Program
) -> None:
    """Stopped, overtaken, and let go on: it stores nothing more of what was committed meanwhile."""
    replica = tmp_path / "rep"
    theirs = apps()
    theirs.create(tmp_path / "theirs.db")
    theirs.script("CREATE TABLE winner(x)")
    first = daemons(write_config(tmp_path / "a.yml", [Database(tmp_path / "app.db", [replica])]), program=impatient)
    first.start().wait_for_objects(replica)
    time.sleep(0.3)
    first.freeze()
    app.sql("INSERT INTO t VALUES(1)")
    second = daemons(write_config(tmp_path / "b.yml", [Database(tmp_path / "theirs.db", [replica])]), program=impatient)
    second.start().wait_for_log("snapshot written")
    before = sorted(replica.rglob("*.lz4"))
    first.thaw()
    first.wait_for_log("lease lost to host")
    assert sorted(replica.rglob("*.lz4")) == before
    first.kill()
    assert second.stop() == 0


def test_lease_off(config: Path, app: App, daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """`lease: off` for all leaves no object, a replica may say otherwise, and `on` is refused where it cannot be."""
    document = json.loads(config.read_text())
    document["lease"] = "off"
    config.write_text(json.dumps(document))
    first = daemons(config).start()
    first.wait_for_objects(tmp_path / "rep")
    assert first.stop() == 0
    assert not (tmp_path / "rep" / "lease").exists()
    document["dbs"][0]["replicas"][0]["lease"] = True
    config.write_text(json.dumps(document))
    app.sql("INSERT INTO t VALUES(1)")
    first.start()
    wait_until((tmp_path / "rep" / "lease").exists, "a lease")
    assert first.stop() == 0
    webdav = {"type": "webdav", "webdav-url": "http://127.0.0.1:1", "path": "x", "lease": "on"}
    document["dbs"][0]["replicas"] = [webdav]
    config.write_text(json.dumps(document))
    result = OURS.run("replicate", "-config", config)
    assert result.code == 1
    assert re.search(r"app\.db\(webdav\): lease cannot be on: the store has no conditional writes", result.err)
