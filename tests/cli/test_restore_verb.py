"""`litestream restore`: its flags, what it says, and that nothing is left when it is stopped."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest

from helpers.cli import LITESTREAM, OURS, Database, environment, wait_until, write_config
from helpers.rows import count_rows
from litestream import cli
from litestream.core.layout import V03
from litestream.streams import compress

GEN = "0123456789abcdef"


@pytest.fixture
def replica(tmp_path: Path) -> Path:
    """A replica as the official program leaves it after its first snapshot: no WAL yet, no stamps."""
    source = tmp_path / "source.db"
    with sqlite3.connect(source) as connection:
        connection.execute("CREATE TABLE t(x)")
        connection.executemany("INSERT INTO t VALUES(?)", [(i,) for i in range(500)])
    connection.close()
    folder = tmp_path / "replica"
    path = folder / V03.snapshot_key(GEN, 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(compress(source.read_bytes()))
    return folder


def test_restore_from_a_url_says_what_it_restored(replica: Path, tmp_path: Path) -> None:
    """The seed's lines and the result on stdout; nothing on stderr where that is no terminal."""
    done = OURS.run("restore", "-o", tmp_path / "out.db", f"file://{replica}")
    assert (done.code, done.err) == (0, "")
    texts = [line.partition(" INFO ")[2] for line in done.out.splitlines()]
    assert texts[:3] == [
        f"restoring snapshot {GEN}/00000000 to {tmp_path}/out.db",
        "no wal files found, snapshot only",
        "renaming database from temporary location",
    ]
    assert texts[3].startswith(
        f"database restored: {tmp_path}/out.db replica=file pos={GEN}/00000000:00000000 segments=0"
    )
    assert len(texts) == 4
    assert count_rows(tmp_path / "out.db") == 500


def test_restore_by_database_path_goes_to_that_path(replica: Path, tmp_path: Path) -> None:
    """Without -o the database itself is the output; flags may stand behind the path."""
    config = write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [replica])])
    done = OURS.run("restore", tmp_path / "app.db", "--config", config, "-integrity-check=full", "-parallelism", "1")
    assert done.code == 0, done.text
    assert count_rows(tmp_path / "app.db") == 500


def test_json_is_the_only_thing_on_stdout(replica: Path, tmp_path: Path) -> None:
    """-json prints one document; log lines are for those who ask for them, on stderr."""
    done = OURS.run("restore", "-json", "-o", tmp_path / "out.db", f"file://{replica}")
    result = json.loads(done.out)
    assert result["db_path"] == str(tmp_path / "out.db")
    assert (result["generation"], result["index"], result["segments"]) == (GEN, "00000000", 0)
    assert result["integrity_check"] == "quick"
    assert done.err == ""
    told = OURS.run("restore", "-json", "-log-level", "info", "-o", tmp_path / "2.db", f"file://{replica}")
    assert json.loads(told.out)["db_path"] == str(tmp_path / "2.db")
    assert f" INFO restoring snapshot {GEN}/00000000 to {tmp_path}/2.db\n" in told.err
    assert result["size"] == (tmp_path / "source.db").stat().st_size


def test_dry_run_shows_the_plan_and_writes_nothing(replica: Path, tmp_path: Path) -> None:
    """As text a table of objects, as JSON the same; no output file appears."""
    key = V03.snapshot_key(GEN, 0)
    text = OURS.run("restore", "-dry-run", "-o", tmp_path / "out.db", f"file://{replica}")
    assert text.code == 0
    assert f"would restore {tmp_path}/out.db from replica file, generation {GEN}:\n1 object, " in text.out
    assert f"\n{key}  " in text.out
    plan = json.loads(OURS.run("restore", "-dry-run", "-json", "-o", tmp_path / "out.db", f"file://{replica}").out)
    assert plan["dry_run"] is True
    assert [file["key"] for file in plan["files"]] == [key]
    assert not (tmp_path / "out.db").exists()


def test_if_db_not_exists_skips_with_exit_code_0(replica: Path, tmp_path: Path) -> None:
    """An existing output is left alone, and that is success; without the flag it is an error."""
    out = tmp_path / "out.db"
    out.write_bytes(b"mine")
    done = OURS.run("restore", "-if-db-not-exists", "-o", out, f"file://{replica}")
    assert done.code == 0
    assert done.out.endswith("INFO database already exists, skipping\n")
    assert OURS.run("restore", "-o", out, f"file://{replica}").code == 1
    assert out.read_bytes() == b"mine"


def test_if_replica_exists_is_about_proved_absence_only(replica: Path, tmp_path: Path) -> None:
    """An empty replica is skipped with exit code 0; one that cannot be read is an error with or without the flag."""
    out = tmp_path / "out.db"
    done = OURS.run("restore", "-if-replica-exists", "-o", out, f"file://{tmp_path}/nothing")
    assert done.code == 0
    assert done.out.endswith("INFO no matching backups found, skipping\n")
    done = OURS.run("restore", "-if-replica-exists", "-json", "-o", out, f"file://{tmp_path}/nothing")
    assert json.loads(done.out) == {"skipped": "no matching backups found, skipping"}
    done = OURS.run("restore", "-o", out, f"file://{tmp_path}/nothing")
    assert (done.code, done.err) == (1, "Error: no matching backups found\n")
    unreadable = tmp_path / "file"
    unreadable.write_text("no directory")
    assert OURS.run("restore", "-if-replica-exists", "-o", out, f"file://{unreadable}").code == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["-index", "xyz"], 'invalid index "xyz"'),
        (["-generation", "1"], 'invalid generation "1"'),
        (["-timestamp", "yesterday"], "invalid timestamp 'yesterday'"),
        (["-timestamp", ""], "the value of flag -timestamp is empty"),
        (["-index="], "the value of flag -index is empty"),
        (["-generation", ""], "the value of flag -generation is empty"),
        (["-timestamp", "2026-01-02T03:04:05Z", "-index", "0"], "give one of them"),
        (["-integrity-check", "some"], 'invalid value "some" for flag -integrity-check'),
        (["-parallelism", "-1"], 'invalid value "-1" for flag -parallelism'),
        (["-f", "-resume"], "the -resume flag does not go with -f"),
        (["-f", "-update"], "the -update flag does not go with -f"),
        (["-update", "-if-db-not-exists"], "the -if-db-not-exists flag does not go with -update"),
    ],
)
def test_bad_flags_are_refused(
    flags: list[str], text: str, replica: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flag's value that is none is one line on stderr, and nothing is written."""
    assert cli.run(["restore", *flags, "-o", str(tmp_path / "out.db"), f"file://{replica}"]) == 1
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out.db").exists()


def test_update_says_what_it_did(replica: Path, tmp_path: Path) -> None:
    """The first time all is restored; then nothing is fetched; a file that was changed is refused in one line."""
    out, url = tmp_path / "out.db", f"file://{replica}"
    first = OURS.run("restore", "-update", "-resume", "-json", "-o", out, url)
    assert json.loads(first.out)["updated"] is False
    plan = OURS.run("restore", "-update", "-dry-run", "-o", out, url)
    assert plan.out.startswith(f"would update {out} from replica file, generation {GEN}:\n0 objects, 0 bytes\n")
    again = OURS.run("restore", "-update", "-o", out, url)
    texts = [line.partition(" INFO ")[2] for line in again.out.splitlines()]
    assert texts[0] == f"updating {out} from {GEN}/00000000:00000000"
    assert texts[1].startswith(f"database restored: {out} replica=file pos={GEN}/00000000:00000000 segments=0")
    assert " fetched=0 " in texts[1]
    with sqlite3.connect(out) as connection:
        connection.execute("DELETE FROM t WHERE x=1")
    connection.close()
    refused = OURS.run("restore", "-update", "-o", out, url)
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert f"{out}: it was changed after it was restored (-force replaces it)" in refused.err
    assert count_rows(out) == 499
    assert OURS.run("restore", "-update", "-force", "-o", out, url).code == 0
    assert count_rows(out) == 500


def test_a_terminal_gets_a_progress_bar(replica: Path, tmp_path: Path) -> None:
    """With stderr on a terminal a bar is drawn there, between log lines, which are alone on stdout."""
    ours, theirs = pty.openpty()
    command = [str(LITESTREAM), "restore", "-o", str(tmp_path / "out.db"), f"file://{replica}"]
    env = environment({"TERM": "xterm-256color", "COLUMNS": "120"})
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=env, check=True)
    os.close(theirs)
    try:
        drawn = os.read(ours, 1 << 16)
    finally:
        os.close(ours)
    assert b"restoring" in drawn
    assert done.stdout.count(b" INFO ") == done.stdout.count(b"\n") == 4
    assert b"\x1b" not in done.stdout


def test_a_terminal_for_everything_shows_whole_lines(replica: Path, tmp_path: Path) -> None:
    """With bar and log lines on one terminal no line begins behind a piece of the bar."""
    ours, theirs = pty.openpty()
    command = [str(LITESTREAM), "restore", "-o", str(tmp_path / "out.db"), f"file://{replica}"]
    env = environment({"TERM": "xterm-256color", "COLUMNS": "200"})
    subprocess.run(command, stdout=theirs, stderr=theirs, env=env, check=True)
    os.close(theirs)
    try:
        drawn = os.read(ours, 1 << 16)
    finally:
        os.close(ours)
    assert len(re.findall(rb"(?:\A|\n|\x1b\[2K)20[0-9T:.-]+Z INFO ", drawn)) == 4, drawn


@pytest.mark.parametrize("where", ["-config", "LITESTREAM_CONFIG"])
def test_the_configuration_says_how_to_log_here_too(where: str, replica: Path, tmp_path: Path) -> None:
    """logging.type and logging.stderr hold for a restore, and what the file is warned about is told."""
    database = Database(tmp_path / "app.db", [{"path": str(replica), "auto-recover": True}])
    config = write_config(tmp_path / "c.yml", [database], logging={"type": "json", "stderr": True})
    env = {"LITESTREAM_CONFIG": str(config)} if where == "LITESTREAM_CONFIG" else {}
    flags = ["-config", str(config)] if where == "-config" else []
    done = OURS.run("restore", *flags, tmp_path / "app.db", env=env)
    assert (done.code, done.out) == (0, "")
    entries = [json.loads(line) for line in done.err.splitlines()]
    assert [entry["level"] for entry in entries] == ["WARN", "INFO", "INFO", "INFO", "INFO"]
    assert "auto-recover: has no effect" in entries[0]["msg"]
    assert entries[1]["msg"] == f"restoring snapshot {GEN}/00000000 to {tmp_path}/app.db"


@pytest.mark.parametrize("verb", ["restore", "snapshots", "wal", "generations"])
@pytest.mark.parametrize(
    ("url", "text"),
    [
        (
            "s3://key@bucket/app",
            "an s3 URL takes no credentials: set access-key-id and secret-access-key, or the environment's",
        ),
        ("memory://app", 'unknown replica type in config: "memory"'),
        ("foo://x", 'unknown replica type in config: "foo"'),
    ],
)
def test_a_url_that_names_no_store_is_refused_by_name(
    verb: str, url: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be opened is told in the words of the configuration's errors, without the URL."""
    output = ["-o", str(tmp_path / "out.db")] if verb == "restore" else []
    assert cli.run([verb, *output, url]) == 1
    assert capsys.readouterr() == ("", f"Error: {text}\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_restore_that_is_stopped_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    """A signal in the middle: temporary files removed, one line on stderr, exit code 1."""
    replica = large_replica(tmp_path)
    folder = tmp_path / "out"
    folder.mkdir()
    command = [str(LITESTREAM), "restore", "-o", str(folder / "out.db"), f"file://{replica}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment(), text=True) as process:
        wait_until(lambda: any(folder.iterdir()) or process.poll() is not None, "it has begun", pause=0.001)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (1, "Error: interrupted\n")
    assert list(folder.iterdir()) == []


def large_replica(tmp_path: Path) -> Path:
    """A replica whose restore takes a while: 100 MB that compress to almost nothing."""
    source = tmp_path / "large.db"
    with sqlite3.connect(source) as connection:
        connection.execute("CREATE TABLE t AS SELECT zeroblob(100000000) AS x")
    connection.close()
    path = tmp_path / "large" / V03.snapshot_key(GEN, 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(compress(source.read_bytes()))
    source.unlink()
    return tmp_path / "large"
