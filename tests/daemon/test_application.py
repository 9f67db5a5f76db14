"""`-exec`: the application beside the replication, its signals and its exit status."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.cli import LITESTREAM, OURS, Daemon, Database, environment, objects, run_state, wait_until, write_config
from helpers.rows import restored_rows
from litestream.daemon import child as child_module
from litestream.daemon.child import Child

PYTHON = sys.executable


@pytest.fixture
def config(tmp_path: Path) -> Path:
    connection = sqlite3.connect(tmp_path / "app.db")
    connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t(x)")
    connection.close()
    return write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [tmp_path / "rep"])])


def script(folder: Path, text: str) -> str:
    """The command that runs a Python program."""
    path = folder / "program.py"
    path.write_text(text)
    return shlex.join([PYTHON, str(path)])


LISTENER = """
import os, signal, sys, time
def heard(number, frame):
    with open({log!r}, "a") as log: print(signal.Signals(number).name, file=log)
    if number != signal.SIGHUP: ended.append(number)
ended = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(number, heard)
with open({log!r}, "a") as log: print("ready", file=log)
while not ended: time.sleep(0.01)
time.sleep(0.3)
sys.exit({code})
"""


def listener(folder: Path, code: int) -> tuple[str, Path]:
    """A program that writes down its signals and ends a moment after the first that asks for it; and what it wrote."""
    log = folder / "heard"
    return script(folder, LISTENER.format(log=str(log), code=code)), log


@pytest.mark.parametrize(
    ("command", "code"),
    [("sh -c 'exit 42'", 42), ("sh -c 'kill -KILL $$'", 137), ("sh -c 'kill $$'", 143)],
)
def test_its_exit_status_becomes_ours(command: str, code: int, config: Path) -> None:
    """Also 128 and the number of the signal that ended it."""
    done = OURS.run("replicate", "-config", config, "-exec", command)
    assert (done.code, done.err) == (code, "")
    assert "subprocess exited, litestream shutting down" in done.out


def test_what_a_short_one_leaves_is_synced(config: Path, tmp_path: Path) -> None:
    """It ends at once after its commit, with SIGKILL for the WAL to stay: the commit is in the replica all the same."""
    program = (
        "import os, signal, sqlite3\nc = sqlite3.connect(os.environ['LITESTREAM_DB_PATH'])\n"
        "c.execute('INSERT INTO t VALUES(1)'); c.commit(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = script(tmp_path, program)
    for number in range(1, 3):
        done = OURS.run("replicate", "-config", config, "-exec", command)
        assert (done.code, done.err) == (137, "")
        assert restored_rows(tmp_path / "rep", tmp_path / "out.db") == number


def test_one_that_does_nothing_still_has_everything_synced(config: Path, tmp_path: Path) -> None:
    """`true` ends within milliseconds: what was there before is in the replica when we end."""
    assert OURS.run("replicate", "-config", config, "-exec", "true").code == 0
    assert restored_rows(tmp_path / "rep", tmp_path / "out.db") == 0


@pytest.mark.parametrize(("command", "code"), [("true", 1), ("sh -c 'exit 3'", 3)])
def test_what_could_not_be_synced_is_said(command: str, code: int, config: Path, tmp_path: Path) -> None:
    """Never 0 with something missing: 1 then, or the application's own status, and the replica's name either way."""
    settings = json.loads(config.read_text())
    settings["dbs"][0]["replicas"][0]["path"] = "/proc/nowhere"
    config.write_text(json.dumps({**settings, "shutdown-sync-timeout": "300ms"}))
    done = OURS.run("replicate", "-config", config, "-exec", command)
    assert done.code == code
    assert done.err == f"Error: not everything reached the replicas: {tmp_path}/app.db(file)\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_passed_on_once(number: int, config: Path, tmp_path: Path, daemons: Callable[..., Daemon]) -> None:
    """The signal that asks us to end, and no other; SIGHUP is for us alone. Its own exit status then is ours."""
    command, log = listener(tmp_path, 7)
    daemon = daemons(config, args=["-exec", command]).start()
    wait_until(lambda: log.exists() and "ready" in log.read_text(), "the application runs")
    daemon.send(signal.SIGHUP)
    daemon.wait_for_log("configuration")  # it was read again
    assert daemon.stop(number) == 7
    assert log.read_text().split() == ["ready", signal.Signals(number).name]


def test_commits_of_its_last_moments_are_synced(config: Path, tmp_path: Path, daemons: Callable[..., Daemon]) -> None:
    """Replication goes on until it has ended: what it commits when it is told to end is not lost."""
    program = (
        "import os, signal, sqlite3, sys, time\n"
        "def end(*_):\n"
        "    c = sqlite3.connect(os.environ['LITESTREAM_DB_PATH']); c.execute('INSERT INTO t VALUES(1)'); c.commit()\n"
        "    time.sleep(0.2); c.execute('INSERT INTO t VALUES(1)'); c.commit(); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('ready', flush=True)\n"
        "while True: time.sleep(1)\n"
    )
    daemon = daemons(config, args=["-exec", script(tmp_path, program)]).start()
    daemon.wait_for_log("^ready|\nready")
    assert daemon.stop() == 0
    assert restored_rows(tmp_path / "rep", tmp_path / "out.db") == 2


def test_ctrl_c_reaches_it_once(config: Path, tmp_path: Path) -> None:
    """The terminal sends SIGINT to the whole group: one more from us would be the wish to end at once."""
    command, log = listener(tmp_path, 5)
    master, slave = os.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    with subprocess.Popen(
        [str(LITESTREAM), "replicate", "-config", str(config), "-exec", command],
        stdin=slave, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
        preexec_fn=take_terminal,  # noqa: PLW1509 no threads here
    ) as process:  # fmt: skip
        os.close(slave)
        wait_until(lambda: log.exists() and "ready" in log.read_text(), "the application runs")
        os.write(master, b"\x03")
        assert process.wait(20) == 5
    os.close(master)
    assert log.read_text().split() == ["ready", "SIGINT"]
    assert objects(tmp_path / "rep")


def test_a_second_signal_ends_both_at_once(config: Path, tmp_path: Path, daemons: Callable[..., Daemon]) -> None:
    """Nothing would replicate what an application commits that outlives us."""
    program = (
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('pid', os.getpid(), flush=True)\nwhile True: time.sleep(1)\n"
    )
    daemon = daemons(config, args=["-exec", script(tmp_path, program)]).start()
    pid = int(daemon.wait_for_log(r"pid (\d+)\n")[1])
    daemon.send(signal.SIGTERM)
    daemon.wait_for_log("signal received")
    time.sleep(0.2)
    assert daemon.alive
    began = time.monotonic()
    assert daemon.stop(signal.SIGTERM) == 1
    assert time.monotonic() - began < 5

    def gone() -> bool:
        try:
            return run_state(pid) == "Z"
        except FileNotFoundError:
            return True

    wait_until(gone, "the application has ended")


async def test_one_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After ten seconds; that is no clean end, so the exit status is not 0."""
    monkeypatch.setattr(child_module, "KILL_AFTER", 0.2)
    command = script(
        tmp_path,
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(tmp_path / 'up')!r}, 'w')\nwhile True: time.sleep(1)\n",
    )
    child = Child(command, os.environ, "", logging.getLogger("litestream.test"))
    await child.start()
    await asyncio.to_thread(wait_until, (tmp_path / "up").exists, "the application runs")
    assert await child.stop(signal.SIGTERM) == 128 + signal.SIGKILL
    assert "subprocess does not end, killing it" in caplog.text
    child.kill()  # it has ended: nobody else's process is hit


def test_it_starts_when_the_database_was_looked_for(config: Path, tmp_path: Path) -> None:
    """LITESTREAM_DB_PATH names the first database, and that is attached by then."""
    done = OURS.run(
        "replicate", "-config", config, "-exec", f"sh -c 'echo $LITESTREAM_DB_PATH; ls {tmp_path}/.app.db-litestream'"
    )
    assert done.code == 0
    assert re.search(rf"^{tmp_path}/app\.db\n(.*\n)*state\.json\n", done.out, re.MULTILINE)
