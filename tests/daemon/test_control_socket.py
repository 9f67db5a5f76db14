"""The control socket of a running replicator: who may use it, what it answers, and what waiting costs."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.app import App
from helpers.cli import OURS, wait_until
from helpers.control import ask, ask_as, short_folder
from helpers.rig import Rig

NOBODY = 65534
FIRST = "CREATE TABLE t(x)"


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as found:
        yield found


@pytest.fixture
def at(folder: Path) -> Path:
    return folder / "c.sock"


def start(rig: Rig, at: Path, *, sync: str = "50ms", **options: object) -> None:
    """A replicator with a control socket, whose database is attached."""
    rig.start(sync=sync, top={"socket": {"enabled": True, "path": str(at), **options}})
    rig.daemon.wait_until_ready()
    wait_until(lambda: ask(at, "GET", "/status")[1]["ok"], "the database is safe")


def test_off_by_default(rig: Rig, at: Path) -> None:
    """Without `enabled` there is no socket, whatever the path is."""
    rig.start(top={"socket": {"path": str(at)}})
    rig.daemon.wait_until_ready()
    assert not at.exists()


def test_the_official_endpoints(rig: Rig, app: App, at: Path) -> None:
    """Each endpoint answers with the official fields and statuses, and the position besides."""
    app.create(rig.db)
    start(rig, at)
    path = {"path": str(rig.db)}
    status, listed = ask(at, "GET", "/list")
    assert status == 200
    assert [(entry["path"], entry["status"]) for entry in listed["databases"]] == [(str(rig.db), "replicating")]
    info = ask(at, "GET", "/info")[1]
    assert info["pid"] == rig.daemon.pid
    assert info["database_count"] == 1
    assert set(info) == {"version", "pid", "uptime_seconds", "started_at", "database_count"}
    app.sql(FIRST)
    synced = ask(at, "POST", "/sync", {**path, "wait": True, "timeout": 20})[1]
    assert synced["status"] in ("synced", "no_change")  # the replicator may have been faster
    assert synced["replicated_pos"] == synced["pos"]
    assert synced["replicated_txid"] == synced["txid"] > 0
    assert ask(at, "GET", f"/txid?path={rig.db}") == (200, {"txid": synced["txid"], "pos": synced["pos"]})
    assert ask(at, "POST", "/sync", path)[1]["status"] == "no_change"
    assert ask(at, "POST", "/start", path)[1]["status"] == "already_running"
    diagnosis = ask(at, "GET", f"/debug/sync-status?path={rig.db}")[1]["databases"]
    assert [(entry["path"], entry["active"], entry["txid"]) for entry in diagnosis] == [
        (str(rig.db), False, synced["txid"])
    ]


def test_stop_and_start(rig: Rig, app: App, at: Path) -> None:
    """A stopped database has everything in its replica, is left alone, and goes on in the same generation."""
    app.create(rig.db)
    start(rig, at, sync="1h")
    path = {"path": str(rig.db)}
    app.sql(FIRST)
    app.sql("INSERT INTO t VALUES ('before')")
    stopped = ask(at, "POST", "/stop", path)
    assert stopped[0] == 200
    assert stopped[1]["status"] == "stopped"
    assert "missing" not in stopped[1]
    rig.converge()
    assert ask(at, "POST", "/stop", path)[1] == {**stopped[1], "status": "already_stopped"}
    assert ask(at, "GET", "/list")[1]["databases"][0]["status"] == "stopped"
    assert ask(at, "GET", "/status")[1]["ok"] is False
    for verb in ("sync", "wait", "reset"):
        code, answer = ask(at, "POST", f"/{verb}", path)
        assert (code, answer["error"]) == (409, f"database not open: {rig.db}")
    app.sql("INSERT INTO t VALUES ('meanwhile')")
    started = ask(at, "POST", "/start", path)[1]
    assert started["status"] == "started"
    assert started["pos"].partition("/")[0] == stopped[1]["pos"].partition("/")[0]
    assert ask(at, "POST", "/wait", path)[0] == 200
    rig.converge()
    assert len(rig.generations()) == 1


def test_register_and_unregister(rig: Rig, app: App, at: Path) -> None:
    """A database that is registered is replicated from then on, and one that is unregistered no more."""
    app.create(rig.db)
    other, replica = rig.folder / "other.db", rig.folder / "other-replica"
    start(rig, at)
    app.open(other, name="other", pragmas=["journal_mode=WAL"]).sql(FIRST, name="other")
    body = {"path": str(other), "replica_url": f"file://{replica}"}
    assert ask(at, "POST", "/register", body) == (200, {"status": "registered", "path": str(other)})
    assert ask(at, "POST", "/register", body)[1]["status"] == "already_registered"
    assert ask(at, "POST", "/wait", {"path": str(other)})[0] == 200
    assert ask(at, "GET", "/info")[1]["database_count"] == 2
    assert ask(at, "POST", "/stop", {"path": str(other)})[1]["status"] == "stopped"
    assert ask(at, "POST", "/register", body)[1]["status"] == "already_registered"
    assert ask(at, "POST", "/start", {"path": str(other)})[1]["status"] == "started"
    app.sql("INSERT INTO t VALUES (1)", name="other")
    gone = ask(at, "POST", "/unregister", {"path": str(other)})[1]
    assert gone["status"] == "unregistered"
    assert gone["pos"]
    OURS.converge(other, replica, rig.out)
    assert ask(at, "POST", "/unregister", {"path": str(other)})[1]["status"] == "already_unregistered"
    assert ask(at, "GET", f"/txid?path={other}")[0] == 404


def test_what_cannot_be_registered(rig: Rig, app: App, at: Path) -> None:
    """A replica that is another database's, and a URL that is none, are refused, the latter without its secret."""
    app.create(rig.db)
    start(rig, at)
    other = str(rig.folder / "other.db")
    code, answer = ask(at, "POST", "/register", {"path": other, "replica_url": rig.url})
    assert code == 400
    assert "the same directory as" in answer["error"]
    code, answer = ask(at, "POST", "/register", {"path": other, "replica_url": "s3://key:hush@"})
    assert code == 400
    assert "hush" not in json.dumps(answer)
    assert ask(at, "POST", "/register", {"path": other}) == (400, {"error": "replica_url required"})
    assert ask(at, "GET", "/info")[1]["database_count"] == 1


def test_requests_that_are_wrong(rig: Rig, app: App, at: Path) -> None:
    """Each mistake has its status and says what is needed; none of them harms the replicator."""
    app.create(rig.db)
    start(rig, at)
    path = str(rig.db)
    cases: list[tuple[int, object]] = [
        (400, {}),
        (400, {"path": 7}),
        (400, {"path": path, "wait": "yes"}),
        (400, {"path": path, "timeout": -1}),
        (400, {"path": path, "timeout": "soon"}),
        (400, {"path": path, "timeout": 1e9}),
        (400, {"path": path, "timeout": 10**400}),
        (400, {"path": "/\ud800.db"}),
        (400, b"x"),
        (400, b"[1]"),
        (400, b"[" * 60000),
        (413, b" " * 70000),
        (404, {"path": "/no/such.db"}),
        (400, {"path": "s3://bucket"}),
    ]
    for expected, body in cases:
        code, answer = ask(at, "POST", "/sync", body)
        assert code == expected, (body, answer)
        assert answer["error"]
    assert ask(at, "POST", "/wait", {"path": path, "pos": "there"})[0] == 400
    assert ask(at, "POST", "/wait", {"path": path, "pos": "0123456789abcdef/00000000:00000000"})[0] == 409
    assert ask(at, "GET", "/status?within=x")[0] == 400
    assert ask(at, "GET", "/status")[0] == 200


def test_one_hundred_waiters_cost_two_uploads(rig: Rig, app: App, at: Path) -> None:
    """Whoever waits returns when their commit is durable, and all of them ride on at most two uploads."""
    app.create(rig.db)
    start(rig, at, sync="500ms")
    app.sql(FIRST)
    assert ask(at, "POST", "/wait", {"path": str(rig.db)})[0] == 200
    before = len(rig.objects())

    def commit_and_wait(number: int) -> tuple[int, object]:
        return ask(at, "POST", "/wait", {"path": str(rig.db), "timeout": 20})

    with ThreadPoolExecutor(100) as pool:
        app.sql("INSERT INTO t VALUES ('a')")
        waits = [pool.submit(commit_and_wait, number) for number in range(50)]
        app.sql("INSERT INTO t VALUES ('b')")
        waits += [pool.submit(commit_and_wait, number) for number in range(50)]
        answers = [wait.result() for wait in waits]
    assert [code for code, _ in answers] == [200] * 100
    assert 1 <= len(rig.objects()) - before <= 2
    restored = OURS.restore(rig.url, rig.out)
    assert restored.code == 0
    app.open(rig.out, name="out")
    assert app.sql("SELECT x FROM t", name="out") == [["a"], ["b"]]


def test_waiting_for_a_position(rig: Rig, app: App, at: Path) -> None:
    """A position that was told once is understood, in a later generation too; one not reached is a timeout."""
    app.create(rig.db)
    start(rig, at)
    path = str(rig.db)
    app.sql(FIRST)
    reached = ask(at, "POST", "/wait", {"path": path})[1]["pos"]
    assert ask(at, "POST", "/wait", {"path": path, "pos": reached, "all": True})[1]["pos"] == reached
    later = f"{reached[:-8]}7fffffff"
    began = time.monotonic()
    code, answer = ask(at, "POST", "/wait", {"path": path, "pos": later, "timeout": 1})
    assert (code, answer["error"]) == (504, "timeout after 1s")
    assert 1 <= time.monotonic() - began < 10
    reset = ask(at, "POST", "/reset", {"path": path})[1]
    assert reset["previous_pos"].partition("/")[0] == reached.partition("/")[0] != reset["pos"].partition("/")[0]
    assert ask(at, "POST", "/wait", {"path": path, "pos": reached})[0] == 200
    rig.converge()


def test_waiting_when_the_replica_is_gone(rig: Rig, app: App, at: Path) -> None:
    """While a replica cannot be written, waiting ends with its error, and status and metrics name it."""
    app.create(rig.db)
    start(rig, at)
    rig.daemon.wait_for_objects(rig.replica, 2)
    rig.replica.rename(rig.folder / "away")
    rig.replica.write_text("in the way")
    app.sql(FIRST)
    code, answer = ask(at, "POST", "/wait", {"path": str(rig.db), "timeout": 2})
    assert code == 504
    assert answer["details"].startswith("file: ")
    status = ask(at, "GET", "/status?within=1")[1]
    replica = status["databases"][0]["replicas"][0]
    assert (status["ok"], replica["status"]) == (False, "error")
    assert replica["lag_seconds"] > 1
    assert replica["lag_bytes"] > 4096
    rig.replica.unlink()
    (rig.folder / "away").rename(rig.replica)
    assert ask(at, "POST", "/wait", {"path": str(rig.db), "timeout": 20})[0] == 200
    assert ask(at, "GET", "/status")[1]["databases"][0]["replicas"][0]["lag_seconds"] == 0
    rig.converge()


def test_sync_wait_goes_before_the_interval(rig: Rig, app: App, at: Path) -> None:
    """`sync` with wait uploads at once, however long the interval is; `wait` does not."""
    app.create(rig.db)
    start(rig, at, sync="1h")
    path = str(rig.db)
    app.sql(FIRST)
    ask(at, "POST", "/sync", {"path": path, "wait": True})
    app.sql("INSERT INTO t VALUES (1)")
    assert ask(at, "POST", "/wait", {"path": path, "timeout": 1})[0] == 504
    synced = ask(at, "POST", "/sync", {"path": path, "wait": True})[1]
    assert synced["status"] == "synced"
    assert synced["replicated_pos"] == synced["pos"]
    rig.converge()


def test_the_socket_is_ours_alone(rig: Rig, app: App, at: Path) -> None:
    """Its mode is 0600 unless another one is asked for, and it is gone when the replicator is."""
    app.create(rig.db)
    start(rig, at)
    assert stat.S_IMODE(at.stat().st_mode) == 0o600
    assert rig.daemon.stop() == 0
    assert not at.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_other_users_are_refused(rig: Rig, app: App) -> None:
    """With an open mode another user reaches the socket, and is refused by name; with 0600 not even that."""
    app.create(rig.db)
    with short_folder(0o755) as folder:
        at = folder / "c.sock"
        start(rig, at, permissions="0666")
        refused = ask_as(NOBODY, at, "/list")
        assert not isinstance(refused, str)
        assert (refused[0], refused[1]["error"]) == (403, "permission denied")
        assert str(rig.db) not in json.dumps(refused)
        assert ask_as(0, at, "/info")[0] == 200
        at.chmod(0o600)
        assert ask_as(NOBODY, at, "/list") == "Permission denied"


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_a_replicator_that_is_not_root_serves_itself_and_root(rig: Rig, app: App) -> None:
    """Our own user counts, not the number 0: both may control it."""
    app.create(rig.db)
    from litestream.web import socket as module

    before = os.geteuid()
    try:
        os.seteuid(NOBODY)
        assert [module.may_control(uid) for uid in (0, NOBODY, 1, -1)] == [True, True, False, False]
    finally:
        os.seteuid(before)


def test_a_stale_socket_is_replaced(rig: Rig, app: App, at: Path) -> None:
    """What a killed replicator leaves behind does not keep the next one from starting."""
    app.create(rig.db)
    start(rig, at)
    rig.daemon.kill()
    assert at.exists()
    start(rig, at)
    assert ask(at, "GET", "/info")[1]["pid"] == rig.daemon.pid


@pytest.mark.parametrize("case", ["live", "file", "absent", "open", "long"])
def test_a_path_that_does_not_do(rig: Rig, at: Path, case: str) -> None:
    """A socket that somebody serves, a file, a missing or an open directory: one line says so, nothing starts."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as live:
        path, reason = at, ""
        if case == "live":
            live.bind(str(at))
            live.listen()
            reason = "another process listens on"
        elif case == "file":
            at.write_text("keep me")
            reason = "exists and is no socket"
        elif case == "absent":
            path, reason = at.parent / "absent" / "c.sock", "No such file or directory: create it"
        elif case == "open":
            at.parent.chmod(0o777)
            reason = "chmod go-w it"
        else:
            path, reason = at.with_name("x" * 120), "cannot listen on"
        rig.start(top={"socket": {"enabled": True, "path": str(path)}})
        assert rig.daemon.wait() == 1
        lines = [line for line in rig.daemon.text().splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1
        assert lines[0].startswith("Error: socket.path: ")
        assert reason in lines[0]
    if case == "file":
        assert at.read_text() == "keep me"


def test_no_answer_holds_a_secret(rig: Rig, app: App, at: Path) -> None:
    """Keys of a replica are in no answer, nor in what its errors say."""
    app.create(rig.db)
    replica = {
        "type": "s3",
        "bucket": "b",
        "path": None,
        "endpoint": "http://127.0.0.1:9",
        "access-key-id": "AKIAHUSH",
        "secret-access-key": "hushhush",
    }
    rig.start(
        replica=replica,
        top={"socket": {"enabled": True, "path": str(at)}, "heartbeat-url": "https://example.com/hushhush"},
    )
    rig.daemon.wait_until_ready()
    wait_until(lambda: ask(at, "GET", "/status")[1]["databases"][0]["status"] == "ok", "attached")
    ask(at, "POST", "/wait", {"path": str(rig.db), "timeout": 1})
    for target in ("/status", "/list", "/info", "/debug/sync-status"):
        text = json.dumps(ask(at, "GET", target)).lower()
        assert "hush" not in text
    assert "hush" not in rig.daemon.text().lower()
