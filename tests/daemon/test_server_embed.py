"""`litestream.start`: replication from inside a program."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import litestream
from helpers.cli import environment, wait_until
from helpers.rows import restored_rows, write_rows
from litestream import embed
from litestream.daemon.parent import VARIABLE, ParentLink
from litestream.errors import ConfigError, LitestreamError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)


@pytest.fixture
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files of this process go; none may be left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def test_everything_is_in_the_replica_when_the_block_is_left(tmp_path: Path, temporary_files: Path) -> None:
    """Written inside the block, by a path with a space: durable behind it; the exit code says so."""
    db, replica = tmp_path / "my app.db", tmp_path / "rep"
    write_rows(db, 5)
    with litestream.start({db: f"file://{replica}"}) as replicator:
        assert replicator.running
        write_rows(db, 7)
    assert not replicator.running
    assert replicator.stop() == 0
    assert restored_rows(replica, tmp_path / "out.db") == 12


def test_several_replicas_and_a_configuration_as_a_mapping(tmp_path: Path, temporary_files: Path) -> None:
    """A database may have several URLs; `config` takes what litestream.yml would hold, with $ left alone."""
    write_rows(tmp_path / "a.db", 3)
    with litestream.start({tmp_path / "a.db": [f"file://{tmp_path}/1", f"file://{tmp_path}/2"]}):
        pass
    config = {"dbs": [{"path": str(tmp_path / "a.db"), "replicas": [{"path": f"{tmp_path}/$HOME"}]}]}
    with litestream.start(config=config):
        pass
    for name in ("1", "2", "$HOME"):
        assert restored_rows(tmp_path / name, tmp_path / "out.db") == 3


def test_a_configuration_file_is_used_as_it_is(tmp_path: Path) -> None:
    """The path of a litestream.yml does too."""
    write_rows(tmp_path / "a.db", 3)
    config = tmp_path / "litestream.yml"
    config.write_text(f"dbs:\n  - path: {tmp_path}/a.db\n    replicas:\n      - path: {tmp_path}/rep\n")
    with litestream.start(config=config):
        pass
    assert restored_rows(tmp_path / "rep", tmp_path / "out.db") == 3


def test_the_generated_configuration_is_private(
    tmp_path: Path, temporary_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hold secrets: nobody else can read the file, and it is gone when `start` returns."""
    modes: list[int] = []
    make = embed._private_file

    def spied(text: str) -> str:
        path = make(text)
        modes.append(os.stat(path).st_mode & 0o777)
        return path

    monkeypatch.setattr(embed, "_private_file", spied)
    with litestream.start({tmp_path / "a.db": f"file://{tmp_path}/rep"}):
        assert modes == [0o600]
        assert list(temporary_files.iterdir()) == []


def test_a_wrong_configuration_is_an_error_with_the_childs_words(tmp_path: Path, temporary_files: Path) -> None:
    """No replicator is left behind, and the exception says what a command line would."""
    with pytest.raises(ConfigError, match="replcas: unknown key"):
        litestream.start(config={"dbs": [{"path": str(tmp_path / "a.db"), "replcas": []}]})


@pytest.mark.parametrize("both", [True, False])
def test_exactly_one_way_to_say_what_to_replicate(both: bool) -> None:
    """Databases or a configuration, not both and not neither."""
    with pytest.raises(ConfigError, match="either databases or config"):
        litestream.start({"a.db": "file:///x"} if both else None, config="c.yml" if both else None)


def test_a_child_that_dies_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """kill -9 to the replicator: a new one takes over, a warning tells, nothing is missing in the end."""
    monkeypatch.setattr(embed, "_FIRST_PAUSE", 0.01)
    write_rows(tmp_path / "a.db", 3)
    with litestream.start({tmp_path / "a.db": f"file://{tmp_path}/rep"}) as replicator:
        first = replicator.pid
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: replicator.pid != first and replicator.running, "another child")
        write_rows(tmp_path / "a.db", 4)
    assert replicator.stop() == 0
    assert "the replicator ended with exit code -9; starting it again in 0.01 s" in caplog.text
    assert restored_rows(tmp_path / "rep", tmp_path / "out.db") == 7


def test_the_replicator_ends_when_its_program_is_killed(tmp_path: Path) -> None:
    """kill -9 to the program: the replicator does a last sync and ends by itself."""
    db, replica = tmp_path / "a.db", tmp_path / "rep"
    write_rows(db, 3)
    code = (
        "import litestream, sys, time\n"
        "r = litestream.start({sys.argv[1]: 'file://' + sys.argv[2]})\n"
        "print(r.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(db), str(replica)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()) as program:
        assert program.stdout is not None
        child = int(program.stdout.readline())
        write_rows(db, 4)
        program.kill()
        program.wait()
        wait_until(lambda: not Path(f"/proc/{child}").exists(), "the replicator has ended")
    assert restored_rows(replica, tmp_path / "out.db") == 7


def test_a_child_that_is_not_ready_in_time_is_ended(tmp_path: Path, temporary_files: Path) -> None:
    """`ready_timeout` bounds the wait, and nothing is left behind."""
    with pytest.raises(LitestreamError, match="not ready within 0 s"):
        litestream.start({tmp_path / "a.db": f"file://{tmp_path}/rep"}, ready_timeout=0)


def test_a_child_that_just_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that never speaks is told by its exit code."""
    with pytest.raises(LitestreamError, match="ended at its start with exit code 3"):
        embed.Replicator([sys.executable, "-c", "raise SystemExit(3)"], None, ready_timeout=20)


def test_a_child_that_does_not_stop_is_killed() -> None:
    """`stop` waits for its timeout and not for ever."""
    code = (
        "import os, signal, socket, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"socket.socket(fileno=int(os.environ['{VARIABLE}'])).sendall(b'ready\\n')\n"
        "time.sleep(60)\n"
    )
    replicator = embed.Replicator([sys.executable, "-c", code], None, ready_timeout=20)
    began = time.monotonic()
    assert replicator.stop(timeout=0.1) == -signal.SIGKILL
    assert time.monotonic() - began < 10


def test_a_fork_of_the_program_does_not_stop_its_parents_replicator(tmp_path: Path) -> None:
    """A worker process that inherits the object cannot end replication for everybody."""
    write_rows(tmp_path / "a.db", 1)
    code = (
        "import litestream, os, sys\n"
        "r = litestream.start({sys.argv[1]: 'file://' + sys.argv[2]})\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os._exit(r.stop())\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "assert r.running\n"
        "sys.exit(r.stop())\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.db"), str(tmp_path / "rep")]
    assert subprocess.run(command, env=environment(), timeout=60, check=False).returncode == 0


def test_the_parent_link_is_taken_from_the_environment_once() -> None:
    """The variable is removed, so that nobody below takes the descriptor for its own."""
    ours, theirs = socket.socketpair()
    environ = {VARIABLE: str(theirs.detach())}
    link = ParentLink.from_environ(environ)
    assert environ == {}
    link.failed("two\nlines")
    assert ours.recv(100) == b"error two lines\n"
    ours.close()
    link.ready()  # nobody is there: no error
    link.close()


def test_a_variable_that_names_no_socket_is_refused() -> None:
    """Set by hand it is an error, not a guess."""
    with pytest.raises(ConfigError, match=f"{VARIABLE} is for litestream.start only"):
        ParentLink.from_environ({VARIABLE: "seven"})
