"""`replicate -once` as a process: everything is in the replicas, or the exit code says that it is not."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from helpers.cli import LITESTREAM, OURS, Database, environment, generations, objects, write_config
from helpers.rows import restored_rows, write_rows
from helpers.swarm import write_directory


def test_everything_is_durable_when_it_ends(tmp_path: Path) -> None:
    """All databases, directories too, in all replicas; a second run has nothing to do, a third takes what is new."""
    (tmp_path / "many").mkdir()
    for name in ("one.db", "many/two.db", "many/three.db"):
        write_rows(tmp_path / name)
    replicas = [{"name": "a", "path": str(tmp_path / "a")}, {"name": "b", "path": str(tmp_path / "b")}]
    below = {"dir": str(tmp_path / "many"), "pattern": "*.db", "replicas": [{"path": str(tmp_path / "m")}]}
    config = tmp_path / "c.yml"
    config.write_text(json.dumps({"dbs": [{"path": str(tmp_path / "one.db"), "replicas": replicas}, below]}))
    done = OURS.run("replicate", "-once", "-config", config)
    assert (done.code, done.err) == (0, "")
    assert "one-shot replication complete" in done.out
    places = [tmp_path / "a", tmp_path / "b", tmp_path / "m/two.db", tmp_path / "m/three.db"]
    assert [restored_rows(place, tmp_path / "out.db") for place in places] == [10] * 4
    before = objects(tmp_path)
    assert OURS.run("replicate", "-once", "-config", config).code == 0
    assert objects(tmp_path) == before
    write_rows(tmp_path / "one.db")
    assert OURS.run("replicate", "-once", "-config", config).code == 0
    assert [restored_rows(place, tmp_path / "out.db") for place in places] == [20, 20, 10, 10]


def test_nothing_is_served_and_no_application_started(tmp_path: Path) -> None:
    """addr and socket are for what goes on running: an address in use is no error."""
    write_rows(tmp_path / "app.db")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = write_config(
            tmp_path / "c.yml",
            [Database(tmp_path / "app.db", [tmp_path / "rep"])],
            addr=f"127.0.0.1:{taken.getsockname()[1]}",
            socket={"enabled": True, "path": str(tmp_path / "none/control.sock")},
        )
        assert OURS.run("replicate", "-once", "-config", config).code == 0
    assert restored_rows(tmp_path / "rep", tmp_path / "out.db") == 10


def test_a_snapshot_is_forced(tmp_path: Path) -> None:
    """-force-snapshot takes one although nothing needs it, once where there was none, and it is restored from."""
    write_rows(tmp_path / "app.db")
    config = write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [tmp_path / "rep"])])
    first = OURS.run("replicate", "-once", "-force-snapshot", "-config", config)
    assert (first.code, first.out.count("snapshot written")) == (0, 1)
    again = OURS.run("replicate", "-once", "-force-snapshot", "-config", config)
    assert (again.code, again.out.count("snapshot written")) == (0, 1)
    plain = OURS.run("replicate", "-once", "-config", config)
    assert (plain.code, plain.out.count("snapshot written")) == (0, 0)
    assert restored_rows(tmp_path / "rep", tmp_path / "out.db") == 10


def test_retention_is_enforced(tmp_path: Path) -> None:
    """-enforce-retention deletes what is older; without it nothing is deleted, and never where retention is off."""
    write_rows(tmp_path / "app.db")
    kept = {"name": "kept", "path": str(tmp_path / "kept"), "retention": "0s"}
    short = {"name": "short", "path": str(tmp_path / "short"), "retention": "1s"}
    config = write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [kept, short])])
    assert OURS.run("replicate", "-once", "-config", config).code == 0
    shutil.rmtree(tmp_path / ".app.db-litestream")  # so that another generation begins
    time.sleep(1.1)
    assert OURS.run("replicate", "-once", "-config", config).code == 0
    assert [len(generations(tmp_path / name)) for name in ("kept", "short")] == [2, 2]
    assert OURS.run("replicate", "-once", "-enforce-retention", "-config", config).code == 0
    assert [len(generations(tmp_path / name)) for name in ("kept", "short")] == [2, 1]
    assert restored_rows(tmp_path / "short", tmp_path / "out.db") == 10


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """No database, or a replica that cannot be written: exit code 1; everything else is done all the same."""
    for name in ("good.db", "half.db"):
        write_rows(tmp_path / name)
    config = write_config(
        tmp_path / "c.yml",
        [
            Database(tmp_path / "none.db", [tmp_path / "none"]),
            Database(tmp_path / "good.db", [tmp_path / "good"]),
            Database(tmp_path / "half.db", [tmp_path / "half", {"name": "bad", "path": "/proc/nowhere"}]),
        ],
        shutdown_sync_timeout="1s",
    )
    began = time.monotonic()
    done = OURS.run("replicate", "-once", "-config", config)
    assert done.code == 1
    assert time.monotonic() - began < 10
    names = f"{tmp_path}/none.db(file), {tmp_path}/half.db(bad)"
    assert done.err == f"Error: not everything reached the replicas: {names}\n"
    assert f"database does not exist: {tmp_path}/none.db" in done.out
    assert "one-shot replication complete" not in done.out
    assert [restored_rows(tmp_path / name, tmp_path / "out.db") for name in ("good", "half")] == [10, 10]


def asked(server: socket.socket) -> socket.socket:
    """The connection that asks for the bucket `b`: the port may have been another server's before."""
    server.settimeout(20)
    while True:
        connection, _ = server.accept()
        if b" /b" in connection.recv(65536):
            return connection
        connection.close()


@pytest.mark.parametrize("second", [False, True])
def test_a_signal_ends_it(second: bool, tmp_path: Path) -> None:
    """A store that never answers: after a signal there is the time of a shutdown, after a second one none."""
    write_rows(tmp_path / "app.db")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        replica = {
            "type": "s3", "bucket": "b", "endpoint": f"http://127.0.0.1:{mute.getsockname()[1]}",
            "access-key-id": "a", "secret-access-key": "b", "timeout": "5m",
        }  # fmt: skip
        timeout = "30s" if second else "500ms"
        config = write_config(
            tmp_path / "c.yml", [Database(tmp_path / "app.db", [replica])], shutdown_sync_timeout=timeout
        )
        command = [str(LITESTREAM), "replicate", "-once", "-config", str(config)]
        with (
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True
            ) as process,
            asked(mute),
        ):  # it asks, and waits
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            if second:
                time.sleep(0.3)
                assert process.poll() is None
                process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert time.monotonic() - began < 5
    assert second or (f"{tmp_path}/app.db(s3)" in err and "not everything reached the replica" in out)


def test_another_replicator_is_not_waited_for(tmp_path: Path) -> None:
    """While one runs, the other says who it is at once: there is nothing that it could do."""
    write_rows(tmp_path / "app.db")
    config = write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [tmp_path / "rep"])])
    with subprocess.Popen(
        [str(LITESTREAM), "replicate", "-config", str(config)], stdout=subprocess.PIPE, env=environment(), text=True
    ) as running:
        assert running.stdout is not None
        next(line for line in running.stdout if "snapshot written" in line)
        began = time.monotonic()
        done = OURS.run("replicate", "-once", "-config", config)
        assert time.monotonic() - began < 10
        running.terminate()
        assert (done.code, running.wait(20)) == (1, 0)
    assert str(running.pid) in done.text


def test_held_databases_of_a_directory_are_named(tmp_path: Path) -> None:
    """Those that another process replicates are missing, five of them in the last line; the others are done."""
    data = tmp_path / "data"
    data.mkdir()
    names = [f"held{number}.db" for number in range(6)]
    for name in (*names, "free.db"):
        write_rows(data / name)
    others = write_config(tmp_path / "o.yml", [Database(data / name, [tmp_path / "other" / name]) for name in names])
    config = write_directory(tmp_path / "c.yml", data, tmp_path / "rep")
    with subprocess.Popen(
        [str(LITESTREAM), "replicate", "-config", str(others)], stdout=subprocess.PIPE, env=environment(), text=True
    ) as running:
        assert running.stdout is not None
        written = (line for line in running.stdout if "snapshot written" in line)
        for _ in names:
            next(written)
        done = OURS.run("replicate", "-once", "-config", config)
        running.terminate()
        assert (done.code, running.wait(20)) == (1, 0)
    held = [f"{data / name}(file)" for name in names]
    assert done.err == f"Error: not everything reached the replicas: {', '.join(held[:5])} and 1 more\n"
    assert all(f"{name}: not everything reached the replica: " in done.out for name in held)
    assert f"{data / 'free.db'}(file): not everything" not in done.out
    assert restored_rows(tmp_path / "rep/free.db", tmp_path / "out.db") == 10


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["-once", "-exec", "true"], "cannot specify -once flag with -exec"),
        (["-force-snapshot"], "cannot specify -force-snapshot flag without -once"),
        (["-enforce-retention"], "cannot specify -enforce-retention flag without -once"),
        (["-once=false", "-force-snapshot"], "cannot specify -force-snapshot flag without -once"),
        (["-once", "-addr", ":9090"], "cannot specify -once flag with -addr"),
    ],
)
def test_flags_that_make_no_sense_together(flags: list[str], text: str, tmp_path: Path) -> None:
    """The official words, before anything is looked at."""
    done = OURS.run("replicate", *flags, "-config", tmp_path / "none.yml")
    assert (done.code, done.out, done.err) == (1, "", f"Error: {text}\n")


def test_once_with_exec_in_the_file(tmp_path: Path) -> None:
    """The command of the configuration counts as much as the flag."""
    config = write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [tmp_path / "rep"])], exec="true")
    done = OURS.run("replicate", "-once", "-config", config)
    assert done.code == 1
    assert done.err == f"Error: cannot specify -once flag with -exec: exec is set in {config}\n"
