"""`litestream replicate`, as a process: starting, lines, signals, exit codes."""

from __future__ import annotations

import json
import re
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.cli import LITESTREAM, OURS, Daemon, Database, environment, wait_until, write_config
from helpers.rows import write_rows
from litestream.version import VERSION

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_rows(tmp_path / "app.db")
    return write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [tmp_path / "rep"])])


def count(path: Path) -> int:
    connection = sqlite3.connect(path)
    found: int = connection.execute("SELECT count(*) FROM t").fetchone()[0]
    connection.close()
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_start_and_stop_say_the_official_lines(
    number: int, config: Path, daemons: Callable[..., Daemon], tmp_path: Path
) -> None:
    """Version, database, replica, complete; then the signal and the end; exit code 0."""
    daemon = daemons(config).start()
    daemon.wait_for_objects(tmp_path / "rep")
    assert daemon.stop(number) == 0
    lines = daemon.text().splitlines()
    assert all(re.match(rf"{STAMP} INFO ", line) for line in lines), lines
    texts = [line.split(" ", 2)[2] for line in lines]
    assert texts[:4] == [
        f"litestream {VERSION}",
        f"initialized db: {tmp_path}/app.db",
        f"replicating to: name=file type=file path={tmp_path}/rep sync-interval=100ms",
        "litestream initialization complete",
    ]
    assert "signal received, litestream shutting down" in texts
    assert texts[-1] == "litestream shut down"


def test_a_database_and_urls_on_the_command_line_need_no_file(tmp_path: Path) -> None:
    """`replicate DB URL URL`: both replicas are complete when it has ended."""
    write_rows(tmp_path / "app.db")
    urls = [f"file://{tmp_path}/one", f"file://{tmp_path}/two"]
    command = [str(LITESTREAM), "replicate", str(tmp_path / "app.db"), *urls]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), cwd=tmp_path, text=True) as process:
        wait_until(lambda: list(tmp_path.glob("*/generations/*/snapshots/*.lz4")), "a snapshot")
        write_rows(tmp_path / "app.db")
        process.terminate()
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    for name, url in zip(("one", "two"), urls, strict=True):
        assert OURS.restore(url, tmp_path / f"{name}.db").code == 0
        assert count(tmp_path / f"{name}.db") == 20


def test_json_lines_and_stderr(config: Path, daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """logging.type json: every line is an object with the same texts; logging.stderr moves them."""
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "logging": {"type": "json", "stderr": True, "level": "debug"}}))
    command = [str(LITESTREAM), "replicate", "-config", str(config)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True
    ) as process:
        wait_until(lambda: list(tmp_path.glob("rep/generations/*/snapshots/*")), "a snapshot")
        process.terminate()
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    entries = [json.loads(line) for line in err.splitlines()]
    assert entries[0]["msg"] == f"litestream {VERSION}"
    assert all(re.fullmatch(STAMP, entry["time"]) and entry["level"] for entry in entries)


def test_json_flag_beats_the_file(config: Path, daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """-json makes every log line a JSON object, whatever logging.type says; -json=false makes them text."""
    settings = json.loads(config.read_text())
    for kind, flag in (("text", "-json"), ("json", "-json=false")):
        config.write_text(json.dumps({**settings, "logging": {"type": kind}}))
        log = tmp_path / f"{kind}.log"
        daemon = daemons(config, args=[flag], log=log).start()
        daemon.wait_for_log("initialization complete")
        assert daemon.stop() == 0
        lines = log.read_text().splitlines()
        assert len(lines) > 4
        assert all(line.startswith("{") is (kind == "text") for line in lines)


def test_log_level_flag_beats_environment_and_file(
    config: Path, daemons: Callable[..., Daemon], tmp_path: Path
) -> None:
    """-log-level error: nothing is said, although LOG_LEVEL says debug."""
    daemon = daemons(config, args=["-log-level", "error"]).start({"LOG_LEVEL": "debug"})
    daemon.wait_for_objects(tmp_path / "rep")
    assert daemon.stop() == 0
    assert daemon.text() == ""


def test_metrics_are_served_at_addr(config: Path, daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """-addr serves the official metrics of databases and replicas; an address in use is an error at the start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = OURS.run("replicate", "-config", config, "-addr", f"127.0.0.1:{port}")
        assert refused.code == 1
        assert f'cannot listen on "127.0.0.1:{port}"' in refused.err
    daemon = daemons(config, args=["-addr", f"127.0.0.1:{port}"]).start()
    daemon.wait_for_log("snapshot written")
    daemon.wait_for_log(rf"serving metrics on http://127\.0\.0\.1:{port}/metrics")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    db = tmp_path / "app.db"
    assert f'litestream_db_size{{db="{db}"}} {db.stat().st_size}\n' in text
    assert f'litestream_replica_snapshot_total{{db="{db}",name="file"}} 1\n' in text
    assert re.search(rf'litestream_sync_count{{db="{db}"}} [1-9]', text)
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-exec", "/no/such/program"], "exec: cannot run '/no/such/program': No such file or directory"),
        (["-exec", "'"], "exec: cannot be split into words"),
        (["-addr", "nowhere"], "must specify port for bind address"),
        (["-log-level", "loud"], 'invalid value "loud" for flag -log-level'),
        (["app.db", "file:///x"], "cannot specify a replica URL and the -config flag"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(argv: list[str], text: str, config: Path) -> None:
    """One line on stderr, exit code 1."""
    done = OURS.run("replicate", "-config", config, *argv)
    assert done.code == 1
    assert done.err.startswith("Error: ")
    assert text in done.err
    assert done.err.count("\n") == 1


def test_no_database_is_an_error(tmp_path: Path) -> None:
    """A configuration without databases replicates nothing: better said than run."""
    config = tmp_path / "c.yml"
    config.write_text("dbs: []\n")
    done = OURS.run("replicate", "-config", config)
    assert done.code == 1
    assert f"no databases specified in configuration: add them below dbs: in {config}" in done.err


def test_a_replica_that_cannot_be_written_makes_the_exit_code_1(
    config: Path, daemons: Callable[..., Daemon], tmp_path: Path
) -> None:
    """What is not durable at the end is named on stderr; the wait is bounded by shutdown-sync-timeout."""
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "shutdown-sync-timeout": "1s"}))
    (tmp_path / "rep").write_text("in the way")
    daemon = daemons(config).start()
    daemon.wait_for_log("ERROR")
    began = time.monotonic()
    assert daemon.stop() == 1
    assert time.monotonic() - began < 10
    name = f"{tmp_path}/app.db(file)"
    assert f"Error: not everything reached the replicas: {name}\n" in daemon.text()
    assert re.search(rf"ERROR {re.escape(name)}: not everything reached the replica: \S", daemon.text())


def test_a_second_signal_ends_it_at_once(daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """While the last sync fails and is tried again, another signal is the end, exit code 1."""
    write_rows(tmp_path / "app.db")
    nowhere = Path("/proc/nowhere")  # nobody can make that; the error is none that is sure to stay
    config = write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [nowhere])])
    daemon = daemons(config).start()
    daemon.wait_for_log("ERROR")
    daemon.send(signal.SIGTERM)
    daemon.wait_for_log("signal received, litestream shutting down")
    time.sleep(0.2)
    assert daemon.alive
    daemon.send(signal.SIGTERM)
    began = time.monotonic()
    assert daemon.wait() == 1
    assert time.monotonic() - began < 5


def test_a_database_that_is_absent_is_waited_for(daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """It starts without the file, replicates once there is one, and ends with 0 either way."""
    config = write_config(tmp_path / "c.yml", [Database(tmp_path / "later.db", [tmp_path / "rep"])])
    daemon = daemons(config).start()
    daemon.wait_for_log("initialization complete")
    assert daemon.stop() == 0
    daemon.start()
    daemon.wait_for_log("initialization complete", after=len(daemon.text()) - 1)
    write_rows(tmp_path / "later.db")
    daemon.wait_for_objects(tmp_path / "rep")
    assert daemon.stop() == 0


def test_a_closed_stdout_does_not_stop_replication(config: Path, tmp_path: Path) -> None:
    """The reader of the log goes away: replication goes on, and the end is clean."""
    command = [str(LITESTREAM), "replicate", "-config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        process.stdout.close()
        wait_until(lambda: list(tmp_path.glob("rep/generations/*/snapshots/*")), "a snapshot")
        process.terminate()
        assert process.wait(30) == 0


def test_heavy_modules_wait_until_they_are_used() -> None:
    """Starting to replicate imports no web server, no terminal library and no numpy."""
    code = (
        "import sys, litestream.cli.replicate, litestream.config, litestream.daemon.build;"
        "print(*sorted({'rich', 'numpy', 'starlette', 'uvicorn', 'prometheus_client', 'argparse'} & set(sys.modules)))"
    )
    python = LITESTREAM.with_name("python")
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.split() == []
