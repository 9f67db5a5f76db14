"""The command line as a whole: verbs, help, failures, streams."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import litestream
from helpers.cli import LITESTREAM, OURS, Database, environment, run_state, wait_until, write_config
from litestream import cli
from litestream.cli import databases
from litestream.cli.flags import Parsed

HEAVY = {"argparse", "asyncio", "logging", "numpy", "pydantic", "yaml", "lz4", "apsw", "rich", "starlette", "uvicorn"}


def test_the_installed_command_is_this_package() -> None:
    """`litestream` in this environment runs our code, not the official program of the same name."""
    assert Path(sysconfig.get_path("scripts")) / "litestream" == LITESTREAM
    assert b"litestream.__main__" in LITESTREAM.read_bytes()
    assert OURS.run("version").out == f"{litestream.__version__}\n"


def imported_by(statement: str) -> set[str]:
    code = f"import sys; sys.argv = ['litestream', 'version']; {statement}; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import litestream", "import litestream.__main__ as m; m.main()"])
def test_nothing_heavy_is_imported_for_the_version(statement: str) -> None:
    """`import litestream` and `litestream version` cost next to nothing."""
    loaded = imported_by(statement)
    assert "litestream" in loaded
    assert not HEAVY & loaded


def test_public_names_arrive_when_used() -> None:
    """Every name of `__all__` exists, is listed by dir(), and unknown ones are attribute errors."""
    for name in litestream.__all__:
        assert getattr(litestream, name) is not None
        assert name in dir(litestream)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = litestream.nothing  # type: ignore[attr-defined]  # that is the point


@pytest.mark.parametrize("first", ["import litestream.restore", "from litestream.restore import RestoreOptions", "0"])
def test_restore_is_a_function_and_a_package(first: str) -> None:
    """`litestream.restore(…)` and `litestream.restore.RestoreOptions` both work, whatever was imported before."""
    code = f"import inspect, litestream; {first}; from litestream import restore; coroutine = restore([], '/x')"
    code += "; assert inspect.iscoroutine(coroutine); coroutine.close(); litestream.restore.RestoreOptions()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("argv", [["-h"], ["--help"], ["help"], ["-help"]])
def test_help_is_on_stdout_with_exit_code_0(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Asking for help is no failure."""
    assert cli.run(argv) == 0
    out, err = capsys.readouterr()
    assert all(verb in out for verb in cli.VERBS)
    assert err == ""


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
@pytest.mark.parametrize("form", ["help VERB", "VERB help", "VERB -h", "VERB --help"])
def test_every_verb_explains_itself(verb: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each verb has a help text with its usage, on stdout, exit code 0."""
    assert cli.run(form.replace("VERB", verb).split()) == 0
    out, err = capsys.readouterr()
    assert f"    litestream {verb}" in out
    assert err == ""


def test_no_arguments_are_the_usage_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    """As the official program: the usage on stdout, and 1 because nothing was done."""
    assert cli.run([]) == 1
    assert "Usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["snapshot"], "Error: litestream snapshot: unknown command (did you mean snapshots?)\n"),
        (["\nfaked"], "Error: litestream \\nfaked: unknown command (see: litestream help)\n"),
        (["restore"], "Error: database path or replica URL required (see: litestream restore -h)\n"),
        (["restore", "file:///nowhere"], "Error: output path required: give it with -o\n"),
        (["wal", "-generation", "XYZ", "a.db"], 'Error: invalid generation "XYZ": it has 16 hex digits, lower case\n'),
        (["databases", "x"], 'Error: too many arguments: "x" is one too many (see: litestream databases -h)\n'),
        (["replicate", "a.db"], "Error: must specify at least one replica URL for a.db\n"),
        (["demo", "-duration", "1s"], 'Error: -duration: "1s" is not between 2s and 1h\n'),
    ],
)
def test_every_failure_is_one_line_on_stderr(argv: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, one line on stderr that says what to do, nothing on stdout."""
    assert cli.run(argv) == 1
    assert capsys.readouterr() == ("", text)


def test_a_missing_configuration_says_what_to_do(tmp_path: Path) -> None:
    """Without any configuration the error names the places looked at and the ways out."""
    if os.path.exists("/etc/litestream.yml"):
        pytest.skip("this machine has /etc/litestream.yml")
    done = OURS.run("databases", cwd=tmp_path)
    assert done.code == 1
    assert done.out == ""
    assert all(part in done.err for part in ("./litestream.yml", "/etc/litestream.yml", "-config", "LITESTREAM_CONFIG"))
    assert done.err.count("\n") == 1


def test_all_mistakes_of_a_configuration_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each mistake has a line of its own, with its place."""
    config = tmp_path / "c.yml"
    config.write_text("dbss: []\ndbs:\n  - path: /x.db\n    replcas: []\n")
    assert cli.run(["databases", "-config", str(config)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"Error: {config}:1: dbss: ")
    assert lines[-1] == f'{config}:4: dbs[0].replcas: unknown key (did you mean "replicas"?)'


def fail_with(error: BaseException) -> object:
    def run(parsed: Parsed) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("x"), "internal error: KeyError: 'x' (run it again with -log-level debug to see where, and report"),
        (PermissionError(13, "Permission denied", "/a\nb"), "Error: Permission denied: /a\\nb\n"),
        (OSError("odd"), "Error: odd\n"),
        (MemoryError(), "Error: out of memory\n"),
        (KeyboardInterrupt(), "Error: interrupted\n"),
    ],
)
def test_unexpected_errors_are_one_line_without_a_traceback(
    error: BaseException, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever goes wrong inside, a person gets one line and exit code 1."""
    monkeypatch.delenv("LOG_LEVEL", raising=False)
    monkeypatch.setattr(databases, "run", fail_with(error))
    assert cli.run(["databases"]) == 1
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_debug_level_shows_where_an_unexpected_error_happened(
    how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With -log-level debug or trace, or LOG_LEVEL, the traceback comes before the line."""
    monkeypatch.delenv("LOG_LEVEL", raising=False)
    monkeypatch.setattr(databases, "run", fail_with(KeyError("x")))
    argv = ["databases"]
    if how == "flag":
        argv += ["-log-level", "debug"]
    else:
        monkeypatch.setenv("LOG_LEVEL", "TRACE")
    assert cli.run(argv) == 1
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.endswith("Error: internal error: KeyError: 'x'\n")


def test_a_reader_that_has_gone_is_no_news(tmp_path: Path) -> None:
    """`litestream … | head`: no message, no traceback, exit code 1."""
    for argv in (["help"], ["version"], ["version", "-verbose"]):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [str(LITESTREAM), *argv], stdout=writing, stderr=subprocess.PIPE, env=environment(), check=False
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (1, b"")


def test_version_has_a_long_and_a_json_form(capsys: pytest.CaptureFixture[str]) -> None:
    """-verbose adds the SQLite library in use; -json gives the same as a document."""
    assert cli.run(["version", "-verbose", "-json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["version"] == litestream.__version__
    assert set(facts) == {"version", "python", "sqlite", "platform"}
    assert cli.run(["version", "-verbose"]) == 0
    assert f"sqlite: {facts['sqlite']}\n" in capsys.readouterr().out


def test_a_closed_stderr_does_not_hide_the_failure() -> None:
    """With no stderr at all the exit code still tells."""
    command = f"exec {LITESTREAM} nothing 2>&-"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, env=environment(), check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_interrupting_a_command_ends_it_with_one_line(tmp_path: Path) -> None:
    """Control-C while a command waits: cleaned up, one line, exit code 1."""
    fifo = tmp_path / "config.yml"
    os.mkfifo(fifo)
    command = [str(LITESTREAM), "databases", "-config", str(fifo)]
    # Opening our end of the fifo waits until the command has opened its own: it is reading then.
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, env=environment(), text=True) as process,
        open(fifo, "w"),
    ):
        wait_until(lambda: run_state(process.pid) == "S", "it waits for what we write")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (1, "Error: interrupted\n")


def wal_database(folder: Path) -> Path:
    path = folder / "app.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t AS SELECT 7 AS x")
    connection.close()
    return path


@pytest.mark.parametrize("argv", ["version", "version -json", "help", "wal -h", "databases -config CONFIG", "nothing"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_as_good_as_the_null_device(argv: str, closed: str, tmp_path: Path) -> None:
    """Started without standard streams, a command does its work, says nothing anywhere, and tells by its exit code."""
    config = tmp_path / "c.yml"
    config.write_text("dbs: []\n")
    command = f"exec {LITESTREAM} {argv.replace('CONFIG', str(config))} {closed}"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, env=environment(), check=False)
    assert done.returncode == (1 if argv == "nothing" else 0)
    assert b"Traceback" not in done.stderr
    if argv != "nothing":
        assert done.stderr == b""


def test_closed_streams_are_not_given_to_other_files(tmp_path: Path) -> None:
    """Descriptors 0 to 2 that are closed at the start become the null device.

    Otherwise a database or a new object would get such a number, and log lines would be written into it.
    """
    application = wal_database(tmp_path)
    config = write_config(tmp_path / "c.yml", [Database(application, [tmp_path / "rep"])])
    command = f"exec {LITESTREAM} replicate -config {config} <&- >&- 2>&-"
    with subprocess.Popen(["/bin/sh", "-c", command], env=environment()) as process:
        wait_until(lambda: list(tmp_path.glob("rep/generations/*/snapshots/*.lz4")), "a snapshot")
        streams = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)]
        process.terminate()
        assert process.wait(30) == 0
    assert streams == [os.devnull] * 3
    assert OURS.restore(f"file://{tmp_path}/rep", tmp_path / "out.db").code == 0


@pytest.mark.parametrize("argv", ["version", "version -json", "help", "wal -h", "databases -config CONFIG"])
def test_output_that_cannot_be_written_is_a_failure(argv: str, tmp_path: Path) -> None:
    """A full disk behind stdout: one line on stderr and exit code 1, also when it shows at the very end."""
    config = tmp_path / "c.yml"
    config.write_text("dbs: []\n")
    command = [str(LITESTREAM), *argv.replace("CONFIG", str(config)).split()]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (1, b"Error: cannot write the output: No space left on device\n")


def test_help_for_a_verb_that_is_none_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """`litestream help restor` names the verb that was meant instead of hiding the mistake."""
    assert cli.run(["help", "restor"]) == 1
    assert capsys.readouterr() == ("", "Error: litestream restor: unknown command (did you mean restore?)\n")


SIGNAL_WHEN_THE_VERB_IS_IMPORTED = """
import os, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "litestream.cli":
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Finder())
sys.argv = ["litestream", *{argv}]
from litestream.__main__ import main
main()
"""


def signalled_at_the_start(number: int, argv: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the command; it gets a signal before the first of its own modules is there."""
    code = SIGNAL_WHEN_THE_VERB_IS_IMPORTED.format(number=int(number), argv=argv)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_in_the_first_moment_still_gets_everything_copied(number: int, tmp_path: Path) -> None:
    """`replicate` that is stopped while it is still being loaded does its last sync, and ends with 0."""
    application = wal_database(tmp_path)
    done = signalled_at_the_start(number, ["replicate", str(application), f"file://{tmp_path}/rep"])
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "signal received, litestream shutting down" in done.stdout
    assert OURS.restore(f"file://{tmp_path}/rep", tmp_path / "out.db").code == 0
    connection = sqlite3.connect(tmp_path / "out.db")
    assert connection.execute("SELECT x FROM t").fetchall() == [(7,)]
    connection.close()


def test_a_restore_signalled_in_the_first_moment_does_nothing(tmp_path: Path) -> None:
    """It ends as one that is stopped later: one line, exit code 1, nothing written."""
    done = signalled_at_the_start(signal.SIGTERM, ["restore", "-o", str(tmp_path / "out.db"), f"file://{tmp_path}"])
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Error: interrupted\n")
    assert list(tmp_path.iterdir()) == []
