"""`litestream demo`."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest

from helpers.cli import LITESTREAM, OURS, environment, wait_until
from litestream import cli
from litestream.cli import demo
from litestream.cli.demo_watch import ReplicaWatch
from litestream.core.layout import V03
from litestream.sqlite import shop
from litestream.streams import compress

GEN = "0123456789abcdef"


def test_the_demo_restores_what_it_wrote(tmp_path: Path) -> None:
    """The whole performance in plain text: killed, caught up, restored, equal, exit code 0."""
    folder = tmp_path / "new" / "demo"
    done = OURS.run("demo", "-dir", folder, "-duration", "3s", timeout=60)
    assert done.code == 0, done.text
    assert re.search(r"Restored and compared: all \d{3,} rows are equal, integrity_check says ok\.\n", done.out)
    assert re.search(r"Replication delay, commit to durable in the replica: p50 \d+ ms, p95 \d+ ms ", done.out)
    assert "kill -9" in done.out
    assert f"Everything is in {folder}\n" in done.out
    assert " replicate /path/to/app.db file:///path/to/backup\n" in done.out
    assert {"shop.db", "restored.db", "replica", "litestream.yml", "replicate.log"} <= {
        p.name for p in folder.iterdir()
    }
    assert "\x1b" not in done.out


def test_json_is_the_result_alone(tmp_path: Path) -> None:
    """-json: nothing is shown meanwhile, and one document on stdout says how it went."""
    folder = tmp_path / "demo"
    done = OURS.run("demo", "-json", "-dir", folder, "-duration", "2s", timeout=60)
    assert (done.code, done.err) == (0, "")
    result = json.loads(done.out)
    assert (result["ok"], result["trouble"], result["folder"]) == (True, [], str(folder))
    assert result["rows"] > result["commits"] > 0
    assert 0 < result["delay_ms"]["p50"] <= result["delay_ms"]["p95"]


def test_a_terminal_sees_it_live(tmp_path: Path) -> None:
    """On a terminal the figures are drawn in place."""
    ours, theirs = pty.openpty()
    env = environment({"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"})
    command = [str(LITESTREAM), "demo", "-dir", str(tmp_path / "d"), "-duration", "2"]
    drawn = b""
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        try:
            while chunk := os.read(ours, 1 << 16):
                drawn += chunk
        except OSError:
            pass  # Linux: the other end is closed
        os.close(ours)
    assert process.returncode == 0, drawn.decode()
    assert b"\x1b[" in drawn
    assert b"replica position" in drawn
    assert b"integrity_check says ok" in drawn


@pytest.mark.parametrize("change", ["DELETE FROM orders WHERE id = 3", "UPDATE items SET n = 77 WHERE order_id = 3"])
def test_any_difference_is_a_failure(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row that is not equal makes the exit code 1, and is named."""
    compare = shop.compare

    def tampered(one: str, two: str) -> tuple[int, list[str]]:
        connection = shop._open(two)
        connection.execute(change)
        connection.close()
        return compare(one, two)

    monkeypatch.setattr(shop, "compare", tampered)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert cli.run(["demo", "-dir", str(tmp_path / "d"), "-duration", "2s"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"FAILED: table (orders|items), row \d+: ", out)
    assert "are equal" not in out


def test_a_replicator_that_does_not_start_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its last words are in the error, with the place of its log; nothing hangs."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(demo, "_environment", lambda: environment({"LOG_LEVEL": "loud"}))
    assert cli.run(["demo", "-dir", str(tmp_path / "d")]) == 1
    err = capsys.readouterr().err
    assert 'unknown log level "loud"' in err
    assert str(tmp_path / "d" / "replicate.log") in err


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-dir must be new or empty: nobody's files are touched."""
    (tmp_path / "mine").write_text("x")
    assert cli.run(["demo", "-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"Error: -dir: {tmp_path} exists and is not an empty folder\n"
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_stopping_the_demo_ends_its_processes(tmp_path: Path) -> None:
    """SIGTERM to the demo: the replicator and the shop end with it."""
    folder = tmp_path / "d"
    command = [str(LITESTREAM), "demo", "-dir", str(folder), "-duration", "60s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until(lambda: len(children.read_text().split()) == 2, "both processes run")
        pids = children.read_text().split()
        process.terminate()
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (1, b"Error: interrupted\n")
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "they have ended")


def put(replica: Path, key: str, *orders: int) -> None:
    path = replica / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compress(b"".join(b"...order-%010d..." % n for n in orders)))


def test_a_commit_counts_when_it_can_be_restored(tmp_path: Path) -> None:
    """A segment without its generation's snapshot has not arrived; the delay is counted from then on."""
    watch, commits = ReplicaWatch(tmp_path), {1: 0, 2: 0}
    assert not watch.look(commits)
    put(tmp_path, V03.wal_key(GEN, 0, 0), 1, 2)
    assert watch.look(commits)
    assert watch.delays() is None
    put(tmp_path, V03.snapshot_key(GEN, 0), 1)
    watch.look(commits)
    snapshot = (tmp_path / V03.snapshot_key(GEN, 0)).stat().st_ctime_ns / 1e6
    assert watch.delays() == (snapshot, snapshot)
    assert (watch.objects, watch.pos.offset) == (2, 0)


def test_what_was_missed_is_no_delay(tmp_path: Path) -> None:
    """After the replicator was started again its first find is told apart from the delays."""
    watch = ReplicaWatch(tmp_path)
    put(tmp_path, V03.snapshot_key(GEN, 0), 1)
    watch.look({1: 0})
    before = watch.delays()
    watch.started_again()
    put(tmp_path, V03.wal_key(GEN, 0, 0), 2)
    watch.look({1: 0, 2: 0})
    assert watch.delays() == before
    assert watch.caught_up is not None
    assert -100 < watch.caught_up < 60_000


def test_the_shop_compares_schemas_and_row_counts(tmp_path: Path) -> None:
    """Equal databases have no differences; a missing row or table is one."""
    one, two = str(tmp_path / "1.db"), str(tmp_path / "2.db")
    shop.create(one)
    shop.create(two)
    assert shop.compare(one, two) == (400, [])
    connection = shop._open(two)
    connection.execute("DELETE FROM customers WHERE id = 200")
    connection.execute("CREATE TABLE extra(x)")
    connection.close()
    _, differences = shop.compare(one, two)
    assert differences[0] == "the schemas differ"
    assert differences[1].startswith("table customers, row 200: ")
