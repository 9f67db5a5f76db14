"""The log of a replicator as a process: one line an event, with fields, and no flood."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from helpers.app import App
from helpers.cli import Daemon, Database, wait_until, write_config
from litestream.core.position import Pos


def test_every_event_names_database_replica_and_position(
    app: App, tmp_path: Path, daemons: Callable[..., Daemon]
) -> None:
    """Whoever collects JSON lines need not take a text apart."""
    app.create(tmp_path / "app.db")
    config = write_config(
        tmp_path / "c.yml", [Database(tmp_path / "app.db", [tmp_path / "rep"])], logging={"type": "json"}
    )
    daemon = daemons(config).start()
    daemon.wait_for_log("snapshot written")
    app.ledger(3)
    daemon.wait_for_log("wal segment written")
    assert daemon.stop() == 0
    events = [json.loads(line) for line in daemon.text().splitlines()]
    assert len([event for event in events if "db" in event]) >= 5
    assert {event["db"] for event in events if "db" in event} == {str(tmp_path / "app.db")}
    uploads = [event for event in events if "written" in event["msg"]]
    assert len(uploads) >= 2
    for event in uploads:
        assert event["replica"] == "file"
        assert Pos.parse(event["position"]).generation in event["msg"]


def test_an_error_that_stays_is_no_flood(tmp_path: Path, daemons: Callable[..., Daemon]) -> None:
    """A database that is absent and a replica that fails are told once; no try is the last one."""
    connection = sqlite3.connect(tmp_path / "app.db")
    connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t(x)")
    connection.close()
    (tmp_path / "mnt").symlink_to("/proc")
    databases = [
        Database(tmp_path / "app.db", [tmp_path / "mnt/nowhere"]),
        Database(tmp_path / "none.db", [tmp_path / "r"]),
    ]
    daemon = daemons(write_config(tmp_path / "c.yml", databases)).start()
    daemon.wait_for_log("monitor error")
    time.sleep(3)  # several tries
    assert daemon.text().count("monitor error") == 1
    assert daemon.text().count("waiting for database") == 1
    (tmp_path / "disk").mkdir()
    (tmp_path / "new").symlink_to(tmp_path / "disk")
    (tmp_path / "new").rename(tmp_path / "mnt")
    wait_until(lambda: list(tmp_path.glob("disk/nowhere/generations/*/snapshots/*.lz4")), "the next try", 8)
    assert daemon.stop() == 0
