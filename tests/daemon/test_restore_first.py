"""Databases that are missing at the start: restored, then replicated, then the application."""

from __future__ import annotations

import logging
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.cli import LITESTREAM, OURS, Daemon, Database, environment, generations, objects, write_config
from litestream.config import DatabaseConfig, ReplicaConfig
from litestream.daemon.missing import TOGETHER, is_missing, restore_missing
from litestream.errors import LitestreamError

FLAG = "-restore-if-db-not-exists"
ADD = (
    "import os, sqlite3; c = sqlite3.connect(os.environ['LITESTREAM_DB_PATH']); c.execute('PRAGMA journal_mode=WAL');"
    "c.execute('CREATE TABLE IF NOT EXISTS t(x)'); n = c.execute('SELECT count(*) FROM t').fetchone();"
    "os.write(1, b'rows %d\\n' % n);"
    "c.execute('INSERT INTO t VALUES(1)'); c.commit()"
)
"""An application that counts the rows, adds one, and ends without closing anything. A line is one write: our log has
the same pipe."""


def container(config: Path) -> tuple[int, str]:
    """One run of a container: restore, replicate, application. Its exit code, and all it says."""
    command = f'{sys.executable} -c "{ADD}"'
    done = OURS.run("replicate", FLAG, "-exec", command, "-config", config)
    return done.code, done.out + done.err


def forget(database: Path) -> None:
    """The container's disk is gone."""
    for path in database.parent.glob(f"{database.name}*"):
        path.unlink()
    shutil.rmtree(database.with_name(f".{database.name}-litestream"), ignore_errors=True)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path / "c.yml", [Database(tmp_path / "data/app.db", [tmp_path / "rep"])])


@pytest.mark.parametrize("gone", ["everything", "database"])
def test_a_container_goes_on_where_the_last_one_ended(gone: str, config: Path, tmp_path: Path) -> None:
    """Three runs, each without the disk of the one before, or with its local state only: no row is missing."""
    (tmp_path / "data").mkdir()
    database = tmp_path / "data/app.db"
    for rows in range(3):
        code, text = container(config)
        assert code == 0, text
        assert f"rows {rows}\n" in text
        assert ("no backup found, starting fresh" in text) is (rows == 0)
        assert ("restore completed" in text) is (rows > 0)
        if gone == "everything":
            forget(database)
        else:
            for path in (tmp_path / "data").glob("app.db*"):
                path.unlink()
    assert OURS.restore(f"file://{tmp_path}/rep", tmp_path / "out.db").code == 0
    connection = sqlite3.connect(tmp_path / "out.db")
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (3,)
    connection.close()
    if gone == "database":
        assert len(generations(tmp_path / "rep")) == 3  # the shadow's WAL does not fit a restored file


def test_a_database_that_is_there_is_left_alone(config: Path, tmp_path: Path) -> None:
    """Nothing is restored over it, whatever the replica has."""
    (tmp_path / "data").mkdir()
    assert container(config)[0] == 0
    before = (tmp_path / "data/app.db").stat().st_ino
    code, text = container(config)
    assert (code, "attempting restore" in text) == (0, False)
    assert "rows 1\n" in text
    assert (tmp_path / "data/app.db").stat().st_ino == before


def test_the_key_is_for_its_database_only(tmp_path: Path) -> None:
    """restore-if-db-not-exists of one database does nothing for another one."""
    databases = [tmp_path / "one.db", tmp_path / "two.db"]
    options: list[dict[str, bool]] = [{"restore-if-db-not-exists": True}, {}]
    config = write_config(
        tmp_path / "c.yml",
        [Database(db, [tmp_path / f"{db.stem}-rep"], option) for db, option in zip(databases, options, strict=True)],
    )
    for database in databases:
        connection = sqlite3.connect(database)
        connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t(x)")
        connection.close()
    assert OURS.run("replicate", "-once", "-config", config).code == 0
    for database in databases:
        forget(database)
    done = OURS.run("replicate", "-config", config, "-exec", "true")
    assert (done.code, done.out.count("restore completed")) == (0, 1)
    assert [database.exists() for database in databases] == [True, False]


def test_a_restore_that_fails_starts_nothing(config: Path, tmp_path: Path) -> None:
    """A damaged replica: one line, exit code 1; no file, no upload, no application."""
    (tmp_path / "data").mkdir()
    assert container(config)[0] == 0
    forget(tmp_path / "data/app.db")
    snapshot = next((tmp_path / "rep").rglob("*.snapshot.lz4"))
    content = bytearray(snapshot.read_bytes())
    content[len(content) // 2] ^= 0xFF
    snapshot.write_bytes(content)
    before = objects(tmp_path / "rep")
    done = OURS.run("replicate", FLAG, "-exec", f"touch {tmp_path}/started", "-config", config)
    assert done.code == 1
    assert re.fullmatch(rf"Error: cannot restore {tmp_path}/data/app\.db: .*snapshot\.lz4.*\n", done.err), done.err
    assert list((tmp_path / "data").iterdir()) == []
    assert objects(tmp_path / "rep") == before
    assert not (tmp_path / "started").exists()


def test_a_replica_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    """No application starts empty because a store is away."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    replica = {
        "type": "s3", "bucket": "b", "endpoint": f"http://127.0.0.1:{port}", "access-key-id": "a",
        "secret-access-key": "b", "timeout": "500ms",
    }  # fmt: skip
    config = write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [replica])])
    done = OURS.run("replicate", FLAG, "-exec", f"touch {tmp_path}/started", "-config", config)
    assert done.code == 1
    assert done.err.startswith(f"Error: cannot restore {tmp_path}/app.db: ")
    assert not (tmp_path / "started").exists()
    assert not (tmp_path / "app.db").exists()


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_nothing_is_restored_beside_an_old_wal(suffix: str, config: Path, tmp_path: Path) -> None:
    """SQLite would apply it to the restored file: somebody has to look at it first."""
    (tmp_path / "data").mkdir()
    assert container(config)[0] == 0
    forget(tmp_path / "data/app.db")
    (tmp_path / f"data/app.db{suffix}").write_bytes(b"")
    done = OURS.run("replicate", FLAG, "-config", config)
    assert done.code == 1
    assert done.err.startswith(f"Error: cannot restore {tmp_path}/data/app.db: it is missing, but a -wal")
    assert not (tmp_path / "data/app.db").exists()


def test_a_signal_while_restoring_is_an_orderly_end(tmp_path: Path, daemons: Callable[..., Daemon]) -> None:
    """What was begun is given up without a trace; nothing was started, so nothing is missing."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        replica = {
            "type": "s3", "bucket": "b", "endpoint": f"http://127.0.0.1:{mute.getsockname()[1]}",
            "access-key-id": "a", "secret-access-key": "b", "timeout": "5m",
        }  # fmt: skip
        config = write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [replica])])
        daemon = daemons(config, args=[FLAG, "-exec", f"touch {tmp_path}/started"]).start()
        with mute.accept()[0]:
            began = time.monotonic()
            assert daemon.stop(signal.SIGTERM) == 0
            assert time.monotonic() - began < 5
    assert "initialized db" not in daemon.text()
    assert not (tmp_path / "started").exists()
    assert not (tmp_path / "app.db").exists()


def test_the_replica_with_the_latest_data_is_taken(tmp_path: Path) -> None:
    """Not the first one of the configuration."""
    database = tmp_path / "app.db"
    places = [tmp_path / "old", tmp_path / "new"]
    for rows, place in enumerate(places, 1):
        connection = sqlite3.connect(database)
        connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES(1)")
        connection.close()
        assert OURS.run("replicate", "-once", database, f"file://{place}").code == 0, rows
    forget(database)
    command = [str(LITESTREAM), "replicate", FLAG, "-once", str(database), *(f"file://{place}" for place in places)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    connection = sqlite3.connect(database)
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (2,)
    connection.close()


def test_a_link_that_leads_nowhere_is_a_missing_database(tmp_path: Path) -> None:
    """What it leads to is what has to be there: it is restored in that place."""
    (tmp_path / "app.db").symlink_to(tmp_path / "real.db")
    database = DatabaseConfig(path=str(tmp_path / "app.db"), replicas=(ReplicaConfig(path=str(tmp_path / "rep")),))
    assert is_missing(database)
    (tmp_path / "real.db").touch()
    assert not is_missing(database)


async def test_one_that_fails_ends_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of many missing databases none is begun any more once one could not be restored."""
    (tmp_path / "file").touch()
    bad = ReplicaConfig(path=str(tmp_path / "file/rep"))
    databases = [DatabaseConfig(path=str(tmp_path / f"{n}.db"), replicas=(bad,)) for n in range(20)]
    with (
        caplog.at_level(logging.INFO, "litestream.test"),
        pytest.raises(LitestreamError, match=r"cannot restore \S+: "),
    ):
        await restore_missing(databases, logging.getLogger("litestream.test"))
    assert 1 <= caplog.text.count("attempting restore") <= 2 * TOGETHER
