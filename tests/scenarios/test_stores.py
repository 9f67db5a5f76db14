"""Every kind of store from end to end: the installed command, a live application, kill -9, a real server."""

from __future__ import annotations

import random
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import ledger, state
from helpers.app import App
from helpers.cli import OURS, Database, Program, wait_until, write_config
from helpers.destinations import DESTINATIONS, Destination, place_in_s3
from helpers.httpcount import RequestLog
from helpers.rig import Rig
from helpers.servers.base import free_port
from helpers.servers.s3 import S3Server

pytestmark = pytest.mark.timeout(180)
KILLS = 3


def _restorable(rig: Rig, config: Path, n: int, program: Program = OURS, timeout: float = 20) -> int:
    """Restore until transaction n is there; every restore on the way must be a committed state."""
    end = time.monotonic() + timeout
    while True:
        result = program.restore(rig.db, rig.out, config=config)
        got = ledger.check(rig.out) if result.code == 0 else None
        if got is not None and got >= n:
            return got
        assert time.monotonic() < end, f"transaction {got} is restorable, not {n}: {result.text}"
        time.sleep(0.1)


@pytest.mark.parametrize("destination", DESTINATIONS, indirect=True)
def test_kill9(rig: Rig, app: App, apps: Callable[[], App], destination: Destination) -> None:
    """Replicated under load and killed: after each kill at least what was restorable, in the end everything."""
    rnd = random.Random(1)
    app.create(rig.db)
    writer = apps()
    daemon = rig.start(replica=destination.entry)
    config = daemon.config
    _restorable(rig, config, 0)
    writer.start_writing(rig.db, pause=0.005, pragmas=["busy_timeout=5000"])
    acknowledged = 0
    for _ in range(KILLS):
        time.sleep(rnd.uniform(0.3, 1.2))
        daemon.kill()
        restored = OURS.restored_n(rig.db, rig.out, config=config)
        assert restored >= acknowledged, f"transaction {acknowledged} was restorable, now {restored}: {daemon.text()}"
        acknowledged = restored
        rig.start()
    report = writer.stop_writing()
    assert report.failures == []
    assert _restorable(rig, config, report.n) == report.n
    assert daemon.stop() == 0
    assert OURS.restored(rig.db, rig.out, config=config) == state.source(rig.db)
    assert not [secret for secret in destination.secrets if secret in daemon.text()]


@pytest.mark.parametrize("destination", DESTINATIONS, indirect=True)
def test_lists_and_restores_by_url(rig: Rig, app: App, destination: Destination, tmp_path: Path) -> None:
    """On a machine without a configuration the URL and the environment are enough, for restore and every list."""
    if not destination.url:
        pytest.skip("this server cannot be named by a URL alone")
    app.create(rig.db)
    daemon = rig.start(replica=destination.entry)
    _restorable(rig, daemon.config, 0)
    assert daemon.stop() == 0
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    out = empty / "out.db"
    run = {"env": {**destination.env, "LITESTREAM_CONFIG": ""}, "cwd": empty}
    result = OURS.run("restore", "-o", out, destination.url, **run)  # type: ignore[arg-type]  # keywords of run
    assert result.code == 0, result.text
    assert state.read(out) == state.source(rig.db)
    for verb in ("generations", "snapshots", "wal"):
        result = OURS.run(verb, destination.url, **run)  # type: ignore[arg-type]  # as above
        assert result.code == 0, result.text
        assert len(result.out.splitlines()) >= 2, result.text
    result = OURS.run("restore", "-o", empty / "other.db", destination.url, cwd=empty)
    assert result.code == 1, "without credentials"
    assert not (empty / "other.db").exists()


@pytest.mark.parametrize("destination", DESTINATIONS, indirect=True)
def test_retention(rig: Rig, app: App, destination: Destination) -> None:
    """Old snapshots and WAL go away, and what is left restores."""
    app.create(rig.db)
    entry = {**destination.entry, "snapshot-interval": "1s", "retention": "2s", "retention-check-interval": "1s"}
    daemon = rig.start(replica=entry, checkpoint_interval="500ms", min_checkpoint_page_count=1)

    def snapshots() -> list[str]:
        return OURS.run("snapshots", "-config", daemon.config, rig.db).out.splitlines()[1:]

    seen: set[str] = set()
    n = 0

    def gone() -> bool:
        nonlocal n
        n = app.ledger()
        now = {line.split()[2] for line in snapshots()}
        seen.update(now)
        return len(seen) > len(now) + 1 and bool(now)

    wait_until(gone, lambda: f"deletions: {daemon.text()[-3000:]}", 40, pause=0.3)
    assert _restorable(rig, daemon.config, n) == n
    assert daemon.stop() == 0


@pytest.mark.xdist_group("seaweedfs")
@pytest.mark.parametrize("destination", ["seaweedfs"], indirect=True)
def test_official_programs_restore_ours(
    rig: Rig, app: App, destination: Destination, official_v03: Program, official_v05: Program
) -> None:
    """What we store in S3, the official 0.3.13 and 0.5 restore."""
    app.create(rig.db)
    daemon = rig.start(replica=destination.entry)
    n = app.ledger(40, pause=0.01)
    _restorable(rig, daemon.config, n)
    assert daemon.stop() == 0
    for program in (official_v03, official_v05):
        assert program.restored_n(rig.db, rig.out, config=daemon.config) == n
        assert state.read(rig.out).integrity == "ok"


@pytest.mark.xdist_group("seaweedfs")
@pytest.mark.parametrize("destination", ["seaweedfs"], indirect=True)
def test_we_restore_official(
    rig: Rig, app: App, destination: Destination, official_v03: Program, daemons: Callable[..., object], tmp_path: Path
) -> None:
    """What the official 0.3.13 stored in S3, we restore, list, and go on from with a generation of our own."""
    app.create(rig.db)
    config = write_config(tmp_path / "official.yml", [Database(rig.db, [destination.entry])])
    daemon = daemons(config, program=official_v03)
    daemon.start()  # type: ignore[attr-defined]  # Daemon
    _restorable(rig, config, app.ledger(30, pause=0.01))
    daemon.stop()  # type: ignore[attr-defined]  # Daemon
    ours = rig.start(replica=destination.entry)
    n = app.ledger()
    assert _restorable(rig, config, n) == n
    assert ours.stop() == 0
    generations = OURS.run("generations", "-config", config, rig.db)
    assert generations.code == 0
    assert len(generations.out.splitlines()) == 3, generations.text


@pytest.mark.xdist_group("seaweedfs")
def test_requests_are_counted_one_by_one(rig: Rig, app: App, seaweedfs: S3Server) -> None:
    """At rest nothing is asked of the store, and each sparse commit is one PUT and nothing else; metrics agree."""
    with RequestLog(seaweedfs.port) as log:
        entry = place_in_s3(seaweedfs).entry | {"endpoint": f"http://127.0.0.1:{log.port}"}
        app.create(rig.db)
        port = free_port()
        daemon = rig.start(replica=entry, top={"addr": f"127.0.0.1:{port}"})
        _restorable(rig, daemon.config, 0)
        time.sleep(1.5)  # what a start does in the background is over
        puts_before = sum(method == "PUT" for method, _ in log.requests)
        log.requests.clear()
        time.sleep(8)
        assert log.requests == []
        for n in range(1, 11):
            app.ledger()
            wait_until(lambda n=n: len(log.requests) >= n, "a request")  # type: ignore[misc]  # n is an int
            time.sleep(0.3)
        assert [method for method, _ in log.requests] == ["PUT"] * 10
        assert len({path for _, path in log.requests}) == 10
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            told = answer.read().decode()
        counted = re.search(
            r'^litestream_replica_operation_total\{replica_type="s3",operation="PUT"\} (\d+)', told, re.MULTILINE
        )
        assert counted is not None
        assert int(counted[1]) == puts_before + 10
        assert daemon.stop() == 0
