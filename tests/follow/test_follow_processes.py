"""A database and its follower as processes: what readers of the copy see, and who is let in."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.app import App
from helpers.cli import OURS, Daemon, wait_until
from helpers.following import Pair, Reader, content, free_port, restoring
from helpers.tls import make_certificates

Apps = Callable[[], App]
Daemons = Callable[..., Daemon]


def equal(pair: Pair) -> None:
    wait_until(lambda: content(pair.copy) == content(pair.db), "the copy is the database")


def test_a_commit_is_in_the_copy_within_100_ms(tmp_path: Path, apps: Apps, daemons: Daemons) -> None:
    """Most commits are seen there within a few milliseconds, with a replica of a sync interval of 1 s beside."""
    pair = Pair(tmp_path, daemons)
    app = apps().create(pair.db)
    pair.start()
    reader = apps().open(pair.copy, pragmas=["query_only=1"])
    delays = []
    for _ in range(30):
        n = app.ledger(1)
        began = time.perf_counter()
        while reader.one("SELECT coalesce(max(n), 0) FROM ledger") < n:
            assert time.perf_counter() - began < 10
            time.sleep(0.0005)
        delays.append(time.perf_counter() - began)
        time.sleep(0.02)
    assert sorted(delays)[15] < 0.1


def test_everything_comes_along(tmp_path: Path, apps: Apps, daemons: Daemons) -> None:
    """Large transactions, schema changes, VACUUM, checkpoints: the copy is page for page the database."""
    pair = Pair(tmp_path, daemons)
    app = apps().create(pair.db)
    pair.start()
    reader = Reader(pair.copy)
    app.fill(3000)  # more than a segment, and more than is held in memory
    app.sql("CREATE INDEX bulk_body ON bulk(body)")
    equal(pair)
    app.ledger(20)
    app.sql("DELETE FROM bulk WHERE rowid > 10")
    app.sql("VACUUM")
    app.checkpoint("TRUNCATE", wait=2)
    app.sql("ALTER TABLE bulk ADD COLUMN more DEFAULT 7")
    app.ledger(20)
    equal(pair)
    seen = reader.end()
    assert seen.problems == []
    assert seen.last == 40
    assert pair.follower.stop() == 0
    app.checkpoint("TRUNCATE", wait=2)
    assert pair.copy.read_bytes() == pair.db.read_bytes()


def test_hours_away(tmp_path: Path, apps: Apps, daemons: Daemons) -> None:
    """Away for a while, it gets what it missed; away until that is kept no longer, or the generation is another one, a
    snapshot; readers never see less than before."""
    pair = Pair(tmp_path, daemons)
    app = apps().create(pair.db)
    app.ledger(5)
    pair.start()
    pair.wait_for("SELECT max(n) FROM ledger", 5)
    reader = Reader(pair.copy)
    pair.follower.stop()
    app.ledger(30)
    pair.follower.start()
    pair.wait_for("SELECT max(n) FROM ledger", 35)
    assert pair.follower.text().count("taking a snapshot") == 1
    pair.follower.stop()
    pair.source.stop()
    app.ledger(10)
    shutil.rmtree(tmp_path / ".app.db-litestream")  # what was kept is gone
    pair.source.start()
    pair.follower.start()
    pair.wait_for("SELECT max(n) FROM ledger", 45)
    assert pair.follower.text().count("taking a snapshot") == 2
    app.ledger(3)
    pair.wait_for("SELECT max(n) FROM ledger", 48)
    equal(pair)
    seen = reader.end()
    assert seen.problems == []


def test_a_copy_that_somebody_wrote_to_is_put_right(tmp_path: Path, apps: Apps, daemons: Daemons) -> None:
    """It is an error in the log, and then a snapshot."""
    pair = Pair(tmp_path, daemons)
    app = apps().create(pair.db)
    pair.start()
    app.ledger(3)
    pair.wait_for("SELECT max(n) FROM ledger", 3)
    other = apps().open(pair.copy)
    other.sql("DELETE FROM ledger")
    other.close()
    app.ledger(1)
    pair.wait_for("SELECT count(*) FROM ledger", 4)
    equal(pair)
    pair.follower.wait_for_log("another program wrote to the copy")


def test_readers_that_come_and_go_leave_the_wal_alone(tmp_path: Path, apps: Apps, daemons: Daemons) -> None:
    """The last reader that closes does not take the copy's WAL with it: the follower holds its locks."""
    pair = Pair(tmp_path, daemons)
    app = apps().create(pair.db)
    pair.start()
    reader = apps()
    for n in range(1, 6):
        app.ledger(1)
        pair.wait_for("SELECT max(n) FROM ledger", n)
        reader.open(pair.copy)
        assert reader.one("SELECT max(n) FROM ledger") == n
        reader.close()
    assert pair.follower.text().count("taking a snapshot") == 1
    assert pair.copy.with_name("copy.db-wal").exists()


def test_pages_of_another_size(tmp_path: Path, apps: Apps, daemons: Daemons) -> None:
    """The copy stays what it was, and the error says what to do; when that was done, there is a copy again."""
    pair = Pair(tmp_path, daemons)
    app = apps().create(pair.db)
    app.ledger(2)
    pair.start()
    pair.wait_for("SELECT max(n) FROM ledger", 2)
    pair.source.stop()
    app.script("PRAGMA journal_mode = DELETE; PRAGMA page_size = 8192; VACUUM; PRAGMA journal_mode = WAL")
    app.ledger(1)
    pair.source.start()
    pair.follower.wait_for_log("has pages of 8192 bytes now, its copy of 4096")
    pair.wait_for("SELECT max(n) FROM ledger", 2)
    pair.follower.stop()
    for name in ("copy.db", "copy.db-wal", "copy.db-shm"):
        pair.copy.with_name(name).unlink()
    pair.follower.start()
    wait_until(pair.copy.exists, "there is a copy")
    pair.wait_for("SELECT max(n) FROM ledger", 3)
    equal(pair)


def test_another_database_is_never_followed_into(tmp_path: Path, apps: Apps, daemons: Daemons) -> None:
    """What was not made by following stays as it is, and the log says what to do."""
    pair = Pair(tmp_path, daemons)
    apps().create(pair.db)
    mine = apps().create(pair.copy)
    mine.ledger(7)
    pair.source.start()
    pair.follower.start()
    pair.follower.wait_for_log("is there already, and was not made by following")
    assert mine.one("SELECT count(*) FROM ledger") == 7


def test_the_wrong_token(tmp_path: Path, apps: Apps, daemons: Daemons) -> None:
    """Without the right token there is no copy; the answer is in the log, the token is not."""
    pair = Pair(tmp_path, daemons)
    apps().create(pair.db)
    pair.upstream(token="open-up")
    pair.source.start()
    pair.follower.start()
    pair.follower.wait_for_log("the upstream answers 401: wrong or missing bearer token")
    assert not pair.copy.exists()
    assert "open-up" not in pair.follower.text() + pair.source.text()


def test_the_status_of_a_follower(tmp_path: Path, apps: Apps, daemons: Daemons) -> None:
    """`status` and metrics say whether it follows, and why not; it is not replicated, so it cannot be stopped."""
    pair = Pair(tmp_path, daemons)
    app = apps().create(pair.db)
    app.ledger(2)
    control, port = str(tmp_path / "control.sock"), free_port()
    config = pair.follower.config
    more = {"socket": {"enabled": True, "path": control}, "addr": f"127.0.0.1:{port}"}
    config.write_text(json.dumps({**json.loads(config.read_text()), **more}))
    never = OURS.run("status", "-config", config)
    assert (never.code, "no database" in never.out) == (1, True)
    pair.start()
    pair.wait_for("SELECT max(n) FROM ledger", 2)
    good = OURS.run("status", "-config", config)
    assert (good.code, " ok " in good.out) == (0, True)
    wait_until(lambda: measured(port, pair.copy) == (1, 0), "it follows")
    pair.source.stop()
    pair.follower.wait_for_log("follow error")
    bad = OURS.run("status", "-config", config)
    assert bad.code == 1
    assert "not following: cannot reach the upstream" in bad.err
    refused = OURS.run("stop", "-socket", control, pair.copy)
    assert (refused.code, "it follows another database" in refused.err) == (1, True)
    connected, lag = measured(port, pair.copy)
    assert connected == 0
    assert 0 < lag < 60
    pair.follower.stop()
    alone = OURS.run("status", "-config", config)
    assert alone.code == 1
    assert "not following: no replicator is running" in alone.err
    assert re.search(r" [0-9a-f]{16}/00000000:[0-9a-f]{8} ", alone.out), alone.out


def measured(port: int, path: Path) -> tuple[float, float]:
    """Whether a follower is connected, and its lag, from `/metrics`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if str(path) in line)
    found = [lines[f'litestream_follower_{name}{{db="{path}"}}'] for name in ("connected", "lag_seconds")]
    return float(found[0]), float(found[1])


def test_over_tls(tmp_path: Path, apps: Apps, daemons: Daemons) -> None:
    """With a certificate of an authority that is named it is followed; one that nobody vouches for is refused."""
    certificates = make_certificates(tmp_path / "certs")
    files = {"tls-cert": str(certificates.good.cert), "tls-key": str(certificates.good.key)}
    pair = Pair(tmp_path, daemons, scheme="https", **files)
    app = apps().create(pair.db)
    app.ledger(2)
    pair.source.start()
    pair.follower.start()
    pair.follower.wait_for_log("certificate is not trusted")
    assert pair.follower.stop() == 0
    pair.upstream(ca=str(certificates.ca))
    pair.follower.start()
    wait_until(pair.copy.exists, "there is a copy")
    pair.wait_for("SELECT max(n) FROM ledger", 2)


def test_a_stream_without_a_token_is_for_this_host(tmp_path: Path, apps: Apps, daemons: Daemons) -> None:
    """`stream: true` where other hosts can connect is an error at the start."""
    apps().create(tmp_path / "app.db")
    replica = {"path": str(tmp_path / "replica")}
    config = tmp_path / "open.yml"
    entry = {"path": str(tmp_path / "app.db"), "replica": replica}
    config.write_text(json.dumps({"addr": "0.0.0.0:0", "stream": True, "dbs": [entry]}))
    ended = daemons(config).start()
    assert ended.wait() == 1
    assert "set stream-token" in ended.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_replica_in_a_store_is_followed(number: int, tmp_path: Path, apps: Apps, daemons: Daemons) -> None:
    """`restore -f` restores, goes on, and continues its copy after it was stopped, or killed."""
    pair = Pair(tmp_path, daemons)
    app = apps().create(pair.db)
    app.ledger(3)
    pair.source.start()
    wait_until(lambda: list((tmp_path / "replica").rglob("*.snapshot.lz4")), "there is a snapshot")
    args = ["-f", "-follow-interval", "100ms", "-o", str(pair.copy), f"file://{tmp_path / 'replica'}"]
    log = tmp_path / "restore.log"
    following = restoring(log, *args)
    try:
        wait_until(pair.copy.exists, "there is a copy")
        reader = Reader(pair.copy)
        pair.wait_for("SELECT max(n) FROM ledger", 3)
        app.ledger(4)
        app.fill(50)
        pair.wait_for("SELECT max(n) FROM ledger", 7)
        following.send_signal(number)
        assert following.wait(10) == (0 if number == signal.SIGTERM else -number)
        app.ledger(2)
        app.sql("VACUUM")
        following = restoring(log, *args)
        pair.wait_for("SELECT max(n) FROM ledger", 9)
        equal(pair)
        assert log.read_text().count("restored db=") == 1
        assert reader.end().problems == []
    finally:
        following.kill()
        following.wait()
