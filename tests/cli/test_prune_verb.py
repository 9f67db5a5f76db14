"""`prune`: what it shows, deletes and refuses. How it picks is tested with `plan_prune`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from helpers.cli import Database, Yaml, write_config
from litestream import cli
from litestream.core.layout import V03
from litestream.core.lease import lease_key, released_key
from litestream.errors import StorageError
from litestream.storage.file import FileStore
from litestream.storage.probe import PREFIX

OLD, NOW = "00000000000000aa", "0123456789abcdef"
HOUR = 3600.0


def put(replica: Path, key: str, *, hours: float, size: int = 10) -> Path:
    path = replica / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    at = time.time() - hours * HOUR - 1
    os.utime(path, (at, at))
    return path


@pytest.fixture
def replica(tmp_path: Path) -> Path:
    """An old generation of two objects, and one in use with four old objects, two young ones, and one snapshot kept."""
    folder = tmp_path / "replica"
    put(folder, V03.snapshot_key(OLD, 3), hours=90, size=7)
    put(folder, V03.wal_key(OLD, 3, 0), hours=80, size=8)
    put(folder, V03.snapshot_key(NOW, 0), hours=50)
    put(folder, V03.wal_key(NOW, 0, 0), hours=49)
    put(folder, V03.wal_key(NOW, 1, 0), hours=30)
    put(folder, V03.wal_key(NOW, 1, 4152), hours=29)
    put(folder, V03.snapshot_key(NOW, 2), hours=20)
    put(folder, V03.wal_key(NOW, 2, 0), hours=19)
    return folder


KEPT = {V03.snapshot_key(NOW, 2), V03.wal_key(NOW, 2, 0)}


def names(replica: Path) -> set[str]:
    return {str(path.relative_to(replica)) for path in replica.rglob("*.lz4")}


def run(capsys: pytest.CaptureFixture[str], *argv: object, code: int = 0) -> tuple[str, str]:
    assert cli.run(["prune", *map(str, argv)]) == code
    out, err = capsys.readouterr()
    return out, err


def config_of(replica: Path, **settings: Yaml) -> tuple[Path, Path]:
    """A configuration and its database's path."""
    database = replica.parent / "app.db"
    entry: dict[str, Yaml] = {"path": str(replica), **settings}
    return write_config(replica.parent / "c.yml", [Database(database, [entry])]), database


def test_it_only_shows_what_it_would_do(replica: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without -execute nothing changes; each object that would go is a line, with its size and age."""
    before = names(replica)
    out, err = run(capsys, "-retention", "24h", f"file://{replica}")
    assert out == (
        "generation        kind      index     offset    size  age\n"
        f"{OLD}  snapshot  00000003  -         7     90h0m1s\n"
        f"{NOW}  snapshot  00000000  -         10    50h0m1s\n"
        f"{OLD}  wal       00000003  00000000  8     80h0m1s\n"
        f"{NOW}  wal       00000000  00000000  10    49h0m1s\n"
        f"{NOW}  wal       00000001  00000000  10    30h0m1s\n"
        f"{NOW}  wal       00000001  00001038  10    29h0m1s\n"
        "\n"
        f"replica file: file://{replica}, retention 24h0m0s\n"
        "would delete 6 objects (2 snapshots, 4 WAL segments), 55 bytes\n"
        "nothing was deleted: add -execute\n"
    )
    assert err == ""
    assert names(replica) == before


def test_execute_deletes_just_that(replica: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With -execute exactly those objects are gone; a second run finds nothing."""
    out, err = run(capsys, "-retention", "24h", "-execute", f"file://{replica}")
    assert out == (
        f"replica file: file://{replica}, retention 24h0m0s\n"
        "deleted 6 objects (2 snapshots, 4 WAL segments), 55 bytes\n"
    )
    assert err == ""
    assert names(replica) == KEPT
    assert "deleted 0 objects" in run(capsys, "-retention", "24h", "-execute", f"file://{replica}")[0]


def test_as_json(replica: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every object with its key, and what became of it."""
    out, _ = run(capsys, "-json", "-retention", "24h", f"file://{replica}")
    (found,) = json.loads(out)
    assert (found["execute"], found["retention_seconds"], found["size"], found["deleted"]) == (False, 86400.0, 55, 0)
    first = found["objects"][0]
    assert (first["key"], first["kind"], first["offset"]) == (V03.snapshot_key(OLD, 3), "snapshot", None)
    assert first["age_seconds"] == pytest.approx(90 * HOUR, abs=60)
    assert {entry["status"] for entry in found["objects"]} == {"would delete"}
    (found,) = json.loads(run(capsys, "-json", "-execute", "-retention", "24h", f"file://{replica}")[0])
    assert {entry["status"] for entry in found["objects"]} == {"deleted"}
    assert (found["deleted"], found["refused"], found["error"]) == (6, 0, None)


def test_the_retention_of_the_configuration(replica: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A database takes it from its replica's entry; the flag goes before."""
    config, database = config_of(replica, retention="60h")
    out, _ = run(capsys, "-config", config, database)
    assert "retention 60h0m0s" in out
    assert "would delete 2 objects" in out
    assert "would delete 6 objects" in run(capsys, "-config", config, "-retention", "24h", database)[0]


def test_a_configuration_that_keeps_everything(replica: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The writer's own configuration, which says 0, is no retention to prune by: the flag is needed."""
    config, database = config_of(replica, retention="0s")
    out, err = run(capsys, "-config", config, database, code=1)
    assert "give another one with -retention" in err
    assert out == ""
    run(capsys, "-config", config, "-retention", "24h", "-execute", database)
    assert names(replica) == KEPT


def test_without_a_young_snapshot_nothing_goes(replica: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is deleted before the replicator has taken a snapshot, and it is said how it comes to that."""
    before = names(replica)
    out, _ = run(capsys, "-retention", "10h", "-execute", f"file://{replica}")
    assert "no snapshot is younger than 10h0m0s" in out
    assert "snapshot-interval" in out
    assert "deleted 0 objects" in out
    assert names(replica) == before


def test_an_empty_replica(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing there is nothing to do."""
    out, err = run(capsys, "-retention", "10h", "-execute", f"file://{tmp_path}/none")
    assert "deleted 0 objects" in out and "there is nothing in this replica" in out
    assert err == ""
    assert not (tmp_path / "none").exists()


def test_a_retention_of_minutes_counts_as_an_hour(replica: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What may be on its way is never deleted, and it is said."""
    put(replica, V03.snapshot_key(NOW, 5), hours=0.5)
    put(replica, V03.wal_key(NOW, 4, 0), hours=0.6)
    out, _ = run(capsys, "-retention", "1m", "-execute", f"file://{replica}")
    assert "a retention of less than 1h0m0s counts as 1h0m0s" in out
    assert "1 object will go later" in out
    assert names(replica) == {V03.snapshot_key(NOW, 5), V03.wal_key(NOW, 4, 0)}


def test_a_locked_object_is_told_and_the_rest_goes(
    replica: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the store refuses is a line each, one error on stderr, and exit code 1; everything else is deleted."""
    original = FileStore._delete

    def delete(self: FileStore, paths: dict[str, str]) -> None:
        with self._errors("delete", next(iter(paths.values()))):
            if any(key == V03.snapshot_key(OLD, 3) for key in paths.values()):
                raise PermissionError(1, "Operation not permitted")
        original(self, paths)

    monkeypatch.setattr(FileStore, "_delete", delete)
    (found,) = json.loads(run(capsys, "-json", "-retention", "24h", "-execute", f"file://{replica}", code=1)[0])
    status = {entry["key"]: entry["status"] for entry in found["objects"]}
    assert status.pop(V03.snapshot_key(OLD, 3)) == "refused"
    assert status.pop(V03.wal_key(OLD, 3, 0)) == "kept"
    assert set(status.values()) == {"deleted"}
    out, err = run(capsys, "-retention", "24h", "-execute", f"file://{replica}", code=1)
    assert [line[: 16 + 10] for line in out.splitlines()[1:3]] == [f"{OLD}  snapshot", f"{OLD}  wal     "]
    assert "kept 1 object: needed by a snapshot" in out
    assert err.startswith("Error: replica file: 1 object could not be deleted: ")
    assert "Operation not permitted" in err and err.count("\n") == 1
    assert names(replica) == KEPT | {V03.snapshot_key(OLD, 3), V03.wal_key(OLD, 3, 0)}


def test_a_replica_that_fails_does_not_hide_the_others(
    replica: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each replica of a database by itself; -replica narrows it."""
    (tmp_path / "broken").write_text("no directory")
    replicas: list[Path | dict[str, Yaml]] = [
        {"name": "broken", "path": str(tmp_path / "broken")},
        {"name": "good", "path": str(replica), "retention": "24h"},
    ]
    config = write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", replicas)])
    out, err = run(capsys, "-config", config, tmp_path / "app.db", code=1)
    assert "replica good: " in out and "would delete 6 objects" in out
    assert err.startswith("Error: replica broken: ") and err.count("\n") == 1
    out, err = run(capsys, "-config", config, "-replica", "good", "-execute", tmp_path / "app.db")
    assert "deleted 6 objects" in out and err == ""


def test_a_replica_of_the_official_05_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files of another format are named, and stay."""
    path = put(tmp_path, f"ltx/0/{1:016x}-{1:016x}.ltx", hours=100)
    assert "LTX format" in run(capsys, "-retention", "24h", "-execute", f"file://{tmp_path}", code=1)[1]
    assert path.exists()


def test_uploads_that_were_broken_off_are_removed_too(
    replica: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the store knows of such uploads; only with -execute."""
    calls: list[int] = []

    async def clean_up(self: FileStore) -> int:
        calls.append(1)
        return 2

    monkeypatch.setattr(FileStore, "clean_up", clean_up, raising=False)
    assert "abandoned" not in run(capsys, "-retention", "24h", f"file://{replica}")[0]
    assert not calls
    assert "removed 2 abandoned uploads" in run(capsys, "-retention", "24h", "-execute", f"file://{replica}")[0]
    assert len(calls) == 1


def test_objects_that_checks_left_are_removed_too(replica: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A writer that cannot delete leaves one each time; old ones go, with -execute alone."""
    old, young = (put(replica, PREFIX + digit * 32, hours=hours) for digit, hours in (("a", 2), ("b", 0)))
    foreign = put(replica, PREFIX + "mine", hours=2)
    run(capsys, "-retention", "24h", f"file://{replica}")
    assert old.exists()
    assert (
        "removed 1 object of `litestream check`" in run(capsys, "-retention", "24h", "-execute", f"file://{replica}")[0]
    )
    assert (old.exists(), young.exists(), foreign.exists()) == (False, True, True)


def test_leftovers_that_cannot_be_removed_are_no_failure(
    replica: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody needs them gone: it is said, and the exit code is 0."""

    async def clean_up(self: FileStore) -> int:
        raise StorageError("AccessDenied", permanent=True, code="AccessDenied")

    monkeypatch.setattr(FileStore, "clean_up", clean_up, raising=False)
    out, err = run(capsys, "-retention", "24h", "-execute", f"file://{replica}")
    assert "may stay: AccessDenied" in out and err == ""
    assert names(replica) == KEPT


def test_leases_that_are_over_go(replica: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With -execute only; the highest epoch stays, with what says that it was given back, and foreign files do."""
    over = {lease_key(1), lease_key(2), released_key(2)}
    kept = {lease_key(3), released_key(3), "lease/notes"}
    for key in over | kept:
        put(replica, key, hours=0)

    def left() -> set[str]:
        return {f"lease/{path.name}" for path in (replica / "lease").iterdir()}

    run(capsys, "-retention", "24h", f"file://{replica}")
    assert left() == over | kept
    out, _ = run(capsys, "-retention", "24h", "-execute", f"file://{replica}")
    assert "removed 3 objects of leases that are over" in out
    assert left() == kept
    out, _ = run(capsys, "-json", "-retention", "24h", "-execute", f"file://{replica}")
    assert json.loads(out)[0]["leases_removed"] == 0
    assert left() == kept


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "database path or replica URL required"),
        (["file:///x"], "Give it with -retention"),
        (["-retention", "0s", "file:///x"], "must be longer than 0s"),
        (["-retention", "-1h", "file:///x"], "must be longer than 0s"),
        (["-retention", "7d", "file:///x"], "unknown unit"),
        (["-retention", "", "file:///x"], "retention"),
        (["-retention", "1h", "-replica", "a", "file:///x"], "the -replica flag needs a database path"),
        (["-retention", "1h", "a", "b"], "too many arguments"),
    ],
)
def test_what_cannot_be_done_is_said(argv: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names what is wrong, and exit code 1."""
    out, err = run(capsys, *argv, code=1)
    assert text in err
    assert (out, err.count("\n")) == ("", 1)
