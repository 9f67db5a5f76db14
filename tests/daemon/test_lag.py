"""How far a replica is behind: worked out from real databases, seen within seconds, told in the log."""

from __future__ import annotations

import json
import logging
import re
import socket
from pathlib import Path
from urllib.request import urlopen

import pytest

from helpers.app import App
from helpers.cli import OURS, wait_until
from helpers.control import ask, short_folder
from helpers.rig import Rig
from litestream.client import open_client
from litestream.core.position import Pos
from litestream.daemon.database import DatabaseTask
from litestream.daemon.lookout import REPEAT, Lookout
from litestream.daemon.observe import Observer
from litestream.daemon.server import Server
from litestream.daemon.status import DatabaseStatus, ReplicaStatus, report
from litestream.daemon.watcher import Watcher
from litestream.db.db import DB
from litestream.errors import DatabaseBusyError
from litestream.metrics import Metrics
from litestream.replica import Replica

GEN = "0123456789abcdef"


class Clock:
    """Unix seconds that a test moves."""

    now = 1_767_323_045.0

    def __call__(self) -> float:
        return self.now

    def ns(self) -> int:
        return int(self.now * 1e9)


async def test_lag_of_a_real_database(tmp_path: Path, app: App) -> None:
    """The lag is the age of the oldest commit that is not durable, in seconds and bytes; 0 when everything is."""
    clock = Clock()
    app.create(tmp_path / "app.db")
    db = DB(str(tmp_path / "app.db"), clock=clock.ns)
    replica = Replica(db, open_client(f"file://{tmp_path}/replica"), metrics=Metrics())
    observer = Observer(DatabaseTask(db, [replica], Watcher()), [("file", "here")], clock)
    try:
        assert observer.look().status == "not initialized"
        db.sync_now()
        clock.now += 5
        fresh = observer.look()
        assert (fresh.status, fresh.replicas[0].status) == ("ok", "behind")  # there is no snapshot yet
        clock.now += 5
        assert observer.look().replicas[0].lag_seconds >= 5
        await replica.sync()
        look = observer.look().replicas[0]
        assert (look.status, look.lag_seconds, look.lag_bytes, look.snapshots) == ("ok", 0, 0, 1)
        assert look.pos == db.pos()
        app.sql("CREATE TABLE t(x)")
        db.sync_now()
        clock.now += 7
        app.sql("INSERT INTO t VALUES (1)")
        db.sync_now()
        clock.now += 3
        behind = observer.look().replicas[0]
        assert (behind.status, behind.lag_seconds) == ("behind", 10)
        assert behind.lag_bytes == db.pos().offset - look.pos.offset
        await replica.sync()
        assert observer.look().within(0)
    finally:
        await replica.close()
        db.close()


async def test_commits_that_nobody_copies_count(tmp_path: Path, app: App) -> None:
    """A thread that hangs reports nothing: what stands in the WAL and is not copied is seen all the same."""
    clock = Clock()
    app.create(tmp_path / "app.db")
    db = DB(str(tmp_path / "app.db"), clock=clock.ns)
    replica = Replica(db, open_client(f"file://{tmp_path}/replica"), metrics=Metrics())
    task = DatabaseTask(db, [replica], Watcher())
    observer = Observer(task, [("file", "here")], clock)
    try:
        db.sync_now()
        await replica.sync()
        app.sql("CREATE TABLE t(x)")
        assert observer.look().replicas[0].status == "behind"
        clock.now += 9
        look = observer.look().replicas[0]
        assert look.lag_seconds == 9
        assert look.lag_bytes > 4096
        db.sync_now()
        await replica.sync()
        assert observer.look().replicas[0].lag_seconds == 0
        task.error = DatabaseBusyError("somebody's lock")
        assert observer.look().status == "error"
        clock.now += 4
        look_again = observer.look()
        assert (look_again.error, look_again.replicas[0].lag_seconds) == ("somebody's lock", 4)
        assert not look_again.within(60)
    finally:
        await replica.close()
        db.close()


def status(lag: float = 0.0, *, sync_interval: float = 1.0, kind: str = "ok", error: str = "") -> DatabaseStatus:
    """A database with one replica."""
    pos = Pos(GEN, 1, 4152)
    replica = ReplicaStatus(
        "file", "file", "/backup", kind, pos, lag, 812, 1.5, 2.25, sync_interval, snapshots=1, error=error
    )
    return DatabaseStatus("/app.db", "ok", pos, 8192, 4152, 99, replicas=(replica,))


def test_status_as_json() -> None:
    """What is written as JSON reads back as the same, and the document says whether all is safe."""
    there = status(3.25, kind="behind", sync_interval=0.0)
    assert DatabaseStatus.from_json(json.loads(json.dumps(there.to_json()))) == there
    assert [report([there], within)["ok"] for within in (3.0, 4.0)] == [False, True]
    assert report([status(kind="error")])["ok"] is False
    assert report([status(kind="unknown")])["ok"] is False


def test_what_the_lookout_says(caplog: pytest.LogCaptureFixture) -> None:
    """A replica that stays behind is told once, again after minutes, and once more when it is up to date."""
    now = [1000.0]
    logger = logging.getLogger("litestream.test-lookout")
    lookout = Lookout(Server([]), logger, lambda: now[0])
    with caplog.at_level(logging.INFO):
        lookout.judge(status(15, kind="behind"))
        lookout.judge(status(3605, kind="behind", sync_interval=3600))
        assert caplog.messages == []
        lookout.judge(status(22, kind="behind", error="no route to host"))
        lookout.judge(status(27, kind="behind"))
        assert caplog.messages == ["/app.db(file): replica is behind"]
        fields = {"db": "/app.db", "replica": "file", "lag": "22s", "bytes": 812, "error": "no route to host"}
        assert caplog.records[0].__dict__["fields"] == fields
        now[0] += REPEAT
        lookout.judge(status(322, kind="behind"))
        lookout.judge(status(1, kind="behind"))
        lookout.judge(status())
        lookout.judge(status())
    assert caplog.messages[1:] == ["/app.db(file): replica is behind", "/app.db(file): replica is up to date again"]


def test_a_store_that_never_answers_shows_within_30_seconds(rig: Rig, app: App) -> None:
    """Metric, log and status tell of a replica whose requests neither fail nor end."""
    app.create(rig.db)
    with socket.create_server(("127.0.0.1", 0)) as mute, short_folder() as folder:
        replica = {
            "type": "s3",
            "bucket": "b",
            "path": None,
            "endpoint": f"http://127.0.0.1:{mute.getsockname()[1]}",
            "access-key-id": "a",
            "secret-access-key": "b",
            "timeout": "5m",
        }
        at = folder / "c.sock"
        rig.start(replica=replica, top={"socket": {"enabled": True, "path": str(at)}, "shutdown-sync-timeout": "1s"},
                  args=("-addr", "127.0.0.1:0"))  # fmt: skip
        rig.daemon.wait_until_ready()
        url = rig.daemon.wait_for_log(r"serving metrics on (\S+)")[1]
        found = rig.daemon.wait_for_log(r"WARN \S+\(s3\): replica is behind .*lag=(\d+)s", timeout=30)
        assert 14 <= int(found[1]) <= 30
        replica_status = ask(at, "GET", "/status")[1]["databases"][0]["replicas"][0]
        assert replica_status["status"] == "behind"
        assert replica_status["lag_seconds"] > 14
        with urlopen(url, timeout=10) as page:
            lag = re.search(r"^litestream_replica_lag_seconds\{.*\} (\S+)$", page.read().decode(), re.MULTILINE)
        assert lag is not None and float(lag[1]) > 14
        shown = OURS.run("status", "-config", rig.daemon.config, "-within", "14s")
        assert shown.code == 1
        assert "behind" in shown.out


def test_metrics_of_a_replica(rig: Rig, app: App) -> None:
    """Lag, last upload and spool are in a scrape, under their names."""
    app.create(rig.db)
    rig.start(args=("-addr", "127.0.0.1:0"))
    url = rig.daemon.wait_for_log(r"serving metrics on (\S+)")[1]
    app.sql("CREATE TABLE t(x)")
    rig.converge()

    def scraped() -> dict[str, float]:
        with urlopen(url, timeout=10) as page:
            text = page.read().decode()
        return {name: float(value) for name, value in re.findall(r"^litestream_(\w+)\{.*\} (\S+)$", text, re.MULTILINE)}

    wait_until(lambda: scraped()["replica_lag_seconds"] == 0, "in sync")
    found = scraped()
    assert found["replica_lag_bytes"] == 0
    assert found["replica_last_upload_timestamp_seconds"] > 1.7e9
    assert found["shadow_wal_bytes"] > 0
