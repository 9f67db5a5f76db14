"""`litestream verify` as a process: what it prints, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.app import App
from helpers.cli import OURS, Daemon, Database, Result, write_config
from helpers.recorded import tiny as tiny
from helpers.recording import GENERATION, Recording, replica, write_tree
from litestream.core.layout import V03


@pytest.fixture
def sound(tiny: Recording, tmp_path: Path) -> Path:
    """A small replica in files."""
    return write_tree(replica(tiny), tmp_path / "replica")


def _damage(root: Path, key: str) -> None:
    path = root / key
    path.write_bytes(path.read_bytes()[:-1])


def _verify(*arguments: str | Path) -> Result:
    return OURS.run("verify", *arguments)


def test_sound_url(sound: Path, tiny: Recording) -> None:
    """A table of what can be restored, a summary, and exit code 0."""
    done = _verify(f"file://{sound}")

    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split() == ["generation", "objects", "checked", "from", "to", "until"]
    end = f"{tiny.last.index:08x}:{tiny.last.offset:08x}"
    assert lines[1].split() == [GENERATION, "8", "8", "2023-11-14T22:13:20Z", "2023-11-14T22:13:25Z", end]
    assert lines[3] == f"replica file: ok, file://{sound}"
    assert lines[4] == f"restored {len(tiny.last.image)} bytes at {GENERATION}/{end}: integrity check ok"
    assert len(lines) == 5


def test_damage(sound: Path) -> None:
    """Exit code 1, a line on stderr for each object, and what can still be restored."""
    first, last = V03.wal_key(GENERATION, 0, 0), V03.snapshot_key(GENERATION, 1)
    for key in (first, last):
        _damage(sound, key)

    done = _verify(f"file://{sound}")

    assert done.code == 1
    errors = done.err.splitlines()
    assert all(line.startswith("Error: file: generations/") for line in errors)
    assert sum(first in line for line in errors) == sum(last in line for line in errors) == 1
    assert "nothing can be restored" in done.out
    assert "replica file: failed" in done.out


def test_json(sound: Path) -> None:
    """The document says all of it, for scripts; stderr still has the reason."""
    key = V03.wal_key(GENERATION, 0, 0)
    _damage(sound, key)

    done = _verify("-json", f"file://{sound}")

    (document,) = json.loads(done.out)
    assert (done.code, document["status"], document["database"]) == (1, "failed", None)
    assert [problem["key"] for problem in document["failures"]] == [key]
    (generation,) = document["generations"]
    assert (generation["generation"], generation["objects"], generation["checked"]) == (GENERATION, 8, 7)
    assert [span["first"][:25] for span in generation["restorable"]] == [f"{GENERATION}/00000001"]
    assert document["restored"]["integrity"] == ["ok"]
    assert key in done.err


def test_every_database_of_the_configuration(
    tmp_path: Path, app: App, daemons: Callable[..., Daemon], sound: Path
) -> None:
    """Without an argument all replicas are verified; the worst result decides; -replica chooses."""
    databases = []
    for name in ("one", "two"):
        app.create(tmp_path / f"{name}.db", name=name)
        app.ledger(3, name=name)
        places = [{"name": place, "path": str(tmp_path / f"{name}-{place}")} for place in ("near", "far")]
        databases.append(Database(tmp_path / f"{name}.db", list(places)))
    config = write_config(tmp_path / "c.yml", databases)
    daemon = daemons(config).start()
    for name in ("one-near", "one-far", "two-near", "two-far"):
        daemon.wait_for_objects(tmp_path / name, 2)

    done = _verify("-config", config)
    assert (done.code, done.err, done.out.count(": ok, file://")) == (0, "", 4)
    assert done.out.count("equal") == 4

    (snapshot,) = (tmp_path / "two-far").rglob("*.snapshot.lz4")
    _damage(tmp_path / "two-far", str(snapshot.relative_to(tmp_path / "two-far")))
    done = _verify("-config", config)
    assert (done.code, done.out.count(": ok, file://"), done.out.count(": failed, file://")) == (1, 3, 1)
    assert all("two.db(far): generations/" in line for line in done.err.splitlines())
    assert _verify("-config", config, "-replica", "near").code == 0
    assert _verify("-config", config, tmp_path / "one.db").code == 0
    daemon.stop()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-sample", "0%", "file:///x"], 'invalid sample "0%"'),
        (["-sample", "101", "file:///x"], 'invalid sample "101"'),
        (["-sample", "some", "file:///x"], 'invalid sample "some"'),
        (["-timeout", "-1s", "file:///x"], "must not be negative"),
        (["-generation", "XYZ", "file:///x"], 'invalid generation "XYZ"'),
        (["-config", "/nowhere/c.yml"], "config file not found"),
        (["-replica", "x", "file:///x"], "needs a database path"),
        (["-nope"], "nope"),
    ],
)
def test_mistakes_prove_nothing(arguments: list[str], text: str) -> None:
    """What keeps the command from its work is exit code 2, never that of a bad replica."""
    done = _verify(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Error: ")
    assert text in done.err


def test_store_that_cannot_be_read(tmp_path: Path) -> None:
    """A store that does not answer is exit code 2, an empty one is a failure."""
    done = _verify("s3://bucket.localhost:1/app?endpoint=http://127.0.0.1:1&region=x")
    assert done.code == 2, done.text
    assert "could not tell" in done.err + done.out

    (tmp_path / "empty").mkdir()
    done = _verify(f"file://{tmp_path}/empty")
    assert (done.code, "no matching backups found" in done.err) == (1, True)


def test_a_sample(sound: Path) -> None:
    """With a tiny share only what the newest state needs is read."""
    done = _verify("-json", "-sample", "0.000001%", f"file://{sound}")
    (document,) = json.loads(done.out)
    assert (done.code, document["generations"][0]["checked"]) == (0, 4)
