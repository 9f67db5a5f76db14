"""`databases`, `generations`, `snapshots`, `wal`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from helpers.cli import Database, write_config
from litestream import cli
from litestream.cli.generations import shown_lag
from litestream.core.layout import SEED, V03, Layout

GEN = "0123456789abcdef"
OLD = "00000000000000aa"
T0 = 1_767_323_045


def put(replica: Path, key: str, *, at: int, size: int = 10) -> None:
    path = replica / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (at, at))


def fill(replica: Path, layout: Layout = V03) -> None:
    """Two generations: an old one with a snapshot alone, and one with a snapshot and two segments."""
    put(replica, layout.snapshot_key(OLD, 3), at=T0, size=7)
    put(replica, layout.snapshot_key(GEN, 0), at=T0 + 10)
    put(replica, layout.wal_key(GEN, 0, 0), at=T0 + 11, size=20)
    put(replica, layout.wal_key(GEN, 0x1F, 4152), at=T0 + 21, size=30)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with one database and two replicas, the first of which is filled."""
    fill(tmp_path / "one")
    (tmp_path / "two").mkdir()
    replicas: list[Path | dict[str, object]] = [
        {"name": "near", "path": str(tmp_path / "one")},
        {"name": "far", "path": str(tmp_path / "two")},
    ]
    return write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", list(replicas))])


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    code = cli.run([str(a) for a in argv])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def test_databases_lists_paths_and_replica_names(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The official columns, the names joined by commas; JSON has them as a list."""
    path = config.parent / "app.db"
    width = len(str(path)) + 2
    assert run(capsys, "databases", "-config", config) == f"{'path':{width}}replicas\n{path}  near,far\n"
    assert json.loads(run(capsys, "databases", "-json", "-config", config)) == [
        {"path": str(path), "replicas": ["near", "far"]}
    ]


@pytest.mark.parametrize("layout", [V03, SEED])
def test_generations_of_a_url_have_no_lag(tmp_path: Path, layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    """For a URL there is no database to compare with: the lag is a dash."""
    fill(tmp_path, layout)
    assert run(capsys, "generations", f"file://{tmp_path}") == (
        "name  generation        lag  start                 end\n"
        f"file  {OLD}  -    2026-01-02T03:04:05Z  2026-01-02T03:04:05Z\n"
        f"file  {GEN}  -    2026-01-02T03:04:15Z  2026-01-02T03:04:26Z\n"
    )


def test_lag_is_from_the_newest_object_to_the_last_change(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The later one of database and WAL counts; without a database the lag is a dash."""
    db = config.parent / "app.db"
    row = json.loads(run(capsys, "generations", "-json", "-config", config, db))[1]
    assert (row["lag"], row["lag_seconds"]) == ("-", None)
    for name, at in ((str(db), T0 + 1), (f"{db}-wal", T0 + 23.5)):
        Path(name).touch()
        os.utime(name, (at, at))
    row = json.loads(run(capsys, "generations", "-json", "-config", config, db))[1]
    assert row == {
        "name": "near",
        "generation": GEN,
        "lag": "2.5s",
        "start": "2026-01-02T03:04:15Z",
        "end": "2026-01-02T03:04:26Z",
        "lag_seconds": 2.5,
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.9, "12s"), (1.28, "1.2s"), (0.0129, "12ms"), (0.0000129, "12µs"), (1e-9, "0s"), (-3.59, "-3.5s"), (None, "-")],
)
def test_lag_is_cut_to_what_matters(seconds: float | None, text: str) -> None:
    """Whole seconds from 10 s on, tenths from 1 s on, then whole milliseconds and microseconds."""
    assert shown_lag(seconds) == text


def test_snapshots_are_listed_newest_first_with_hex_index(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The official columns; the index as in the object's name."""
    assert run(capsys, "snapshots", "-config", config, config.parent / "app.db") == (
        "replica  generation        index     size  created\n"
        f"near     {GEN}  00000000  10    2026-01-02T03:04:15Z\n"
        f"near     {OLD}  00000003  7     2026-01-02T03:04:05Z\n"
    )


def test_wal_segments_are_listed_newest_first_with_hex_offset(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Index and offset as in the objects' names; JSON adds the position."""
    assert run(capsys, "wal", "-config", config, config.parent / "app.db") == (
        "replica  generation        index     offset    size  created\n"
        f"near     {GEN}  0000001f  00001038  30    2026-01-02T03:04:26Z\n"
        f"near     {GEN}  00000000  00000000  20    2026-01-02T03:04:16Z\n"
    )
    newest = json.loads(run(capsys, "wal", "-json", "-config", config, config.parent / "app.db"))[0]
    assert (newest["pos"], newest["size"], newest["offset"]) == (f"{GEN}/0000001f:00001038", 30, "00001038")


def test_generation_and_replica_flags_narrow_the_list(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-generation and -replica leave out the rest; an empty list is a header."""
    header = "replica  generation  index  offset  size  created\n"
    db = config.parent / "app.db"
    assert run(capsys, "wal", "-config", config, "-generation", OLD, db) == header
    assert run(capsys, "wal", "-config", config, "-replica", "far", db) == header
    assert GEN in run(capsys, "wal", "-config", config, "-replica", "near", db)


def test_a_failing_replica_is_told_and_the_others_are_listed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What can be read is listed on stdout, the failure is one line on stderr, the exit code is 1."""
    broken = config.parent / "two"
    broken.rmdir()
    broken.write_text("no directory")
    assert cli.run(["snapshots", "-config", str(config), str(config.parent / "app.db")]) == 1
    out, err = capsys.readouterr()
    assert f"near     {GEN}" in out
    assert err.startswith("Error: replica far: ")
    assert err.count("\n") == 1


def test_a_replica_of_the_official_05_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An LTX replica is not listed as empty: an error says what it is."""
    put(tmp_path, f"ltx/0/{1:016x}-{1:016x}.ltx", at=T0)
    assert cli.run(["snapshots", f"file://{tmp_path}"]) == 1
    assert "LTX format of the official 0.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["other.db"], "database not found in config: "),
        (["-replica", "fra", "app.db"], 'replica "fra" not found for database '),
        (["s4://bucket/x"], 'unknown replica type in config: "s4" (did you mean "s3"?)'),
        (["-replica", "near", "file:///x"], "the -replica flag needs a database path"),
        (["~somebody/x"], "~somebody/x: only"),
    ],
)
def test_what_cannot_be_found_is_said(
    argv: list[str], text: str, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database or replica that is not there is one line that names it."""
    monkeypatch.chdir(config.parent)
    assert cli.run(["wal", "-config", str(config), *argv]) == 1
    out, err = capsys.readouterr()
    assert text in err
    assert (out, err.count("\n")) == ("", 1)


def test_a_wrong_configuration_is_told_with_a_url_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-config beside a URL is read, and what is wrong in it is told."""
    config = tmp_path / "c.yml"
    config.write_text("nonsense: 1\n")
    assert cli.run(["wal", "-config", str(config), f"file://{tmp_path}"]) == 1
    assert "nonsense" in capsys.readouterr().err


def test_a_database_is_found_by_any_spelling_of_its_path(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Relative paths and sqlite:// name the same database as the configuration does."""
    monkeypatch.chdir(config.parent)
    for path in ("app.db", "./app.db", "sqlite://app.db"):
        assert GEN in run(capsys, "snapshots", "-config", config, path)


@pytest.mark.parametrize("verb", ["databases", "generations", "snapshots", "wal"])
def test_what_a_configuration_is_warned_about_is_told(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unset variable may make another place of a replica: said on stderr, never between the table's lines."""
    monkeypatch.delenv("BACKUPS_ARE_HERE", raising=False)
    config = tmp_path / "c.yml"
    config.write_text(f"dbs:\n  - path: {tmp_path}/app.db\n    replica: {{path: '{tmp_path}/$BACKUPS_ARE_HERE'}}\n")
    argv = [verb, "-json", "-config", str(config), *([] if verb == "databases" else [str(tmp_path / "app.db")])]
    assert cli.run(argv) == 0
    out, err = capsys.readouterr()
    assert isinstance(json.loads(out), list)
    assert err == f"Warning: {config}:3: the environment variable BACKUPS_ARE_HERE is not set and becomes empty\n"
