"""Append-only use on a real S3 server: `check`, `replicate`, `restore` and `prune`, each with the rights it needs.

The writer may read, list and put below its path, and nothing else: SeaweedFS enforces the bucket's policy. The owner of
the bucket may do everything.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers import ledger
from helpers.cli import OURS, Daemon, Database, Yaml, write_config
from helpers.servers.s3 import S3Server
from helpers.servers.seaweedfs import READER, READER_SECRET
from litestream import cli

pytestmark = pytest.mark.xdist_group("seaweedfs")

WRITER = "arn:aws:iam::000000000000:user/reader"
HOUR = 3600.0


@dataclass
class Bucket:
    """A bucket, and what the writer may do in it."""

    server: S3Server
    name: str
    folder: Path

    def allow(self, *actions: str, below: str = "app/*") -> None:
        """The writer may do this, beside reading and listing."""
        statement = {
            "Effect": "Allow",
            "Principal": {"AWS": WRITER},
            "Action": list(actions),
            "Resource": [f"arn:aws:s3:::{self.name}/{below}"],
        }
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        self.server.admin.put_bucket_policy(Bucket=self.name, Policy=json.dumps(policy))

    def config(self, who: str, **settings: Yaml) -> Path:
        """A configuration of the writer or of the owner."""
        key, secret = (READER, READER_SECRET) if who == "writer" else (self.server.key, self.server.secret)
        keys = {"access-key-id": key, "secret-access-key": secret}
        place = {"bucket": self.name, "path": "app", "endpoint": self.server.endpoint, "region": "us-east-1"}
        replica: dict[str, Yaml] = {"type": "s3", **place, **keys, **settings}
        return write_config(self.folder / f"{who}.yml", [Database(self.db, [replica])])

    @property
    def db(self) -> Path:
        return self.folder / "app.db"

    def names(self, match: str = "") -> list[str]:
        return [name for name in self.server.names(self.name) if match in name]


@pytest.fixture
def bucket(seaweedfs: S3Server, tmp_path: Path) -> Bucket:
    """A bucket of its own in which the writer may put objects below app/."""
    found = Bucket(seaweedfs, seaweedfs.new_bucket(), tmp_path)
    found.allow("s3:PutObject")
    return found


def run(capsys: pytest.CaptureFixture[str], *argv: object, code: int = 0) -> tuple[str, str]:
    assert cli.run(list(map(str, argv))) == code
    out, err = capsys.readouterr()
    assert READER_SECRET not in out + err
    return out, err


def results(capsys: pytest.CaptureFixture[str], config: Path, *, code: int = 0) -> dict[str, dict[str, Yaml]]:
    """The operations of `check` by name."""
    (found,) = json.loads(run(capsys, "check", "-json", config, code=code)[0])
    assert found["usable"] is (code == 0)
    return {entry["operation"]: entry for entry in found["operations"]}


def wrong(entries: dict[str, dict[str, Yaml]]) -> dict[str, str]:
    return {name: entry["result"] for name, entry in entries.items() if entry["result"] != "works"}


# -- check


def test_the_owner_can_do_everything(bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it works, conditions and the list of uploads too, and nothing stays."""
    entries = results(capsys, bucket.config("owner"))
    assert wrong(entries) == {}
    assert "refuses a second content itself" in entries["create only"]["note"]
    assert entries["list uploads"]["result"] == "works"
    assert all(0 < entry["latency_seconds"] < 10 for entry in entries.values())
    assert bucket.names() == []


def test_the_writer_lacks_deleting_alone(bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    """An append-only writer passes; what it cannot do is said with the action to allow, and one object stays."""
    config = bucket.config("writer", retention="0s")
    entries = results(capsys, config)
    assert wrong(entries) == {"delete": "denied", "gone after delete": "not tried"}
    assert entries["delete"]["right"] == f"s3:DeleteObject on {bucket.name}/app/*"
    assert len(bucket.names()) == 1 and bucket.names("app/.litestream-check/")
    out, err = run(capsys, "check", config)
    assert "\ndenied: delete, needed for retention: .litestream-check/" in out
    assert f"\n  allow s3:DeleteObject on {bucket.name}/app/*\n" in out
    assert "run `litestream prune`" in out
    assert err == ""


def test_who_may_only_read(bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the right to write, the action to allow is named and reading is tried all the same."""
    key = f"app/generations/{'a' * 16}/snapshots/00000000.snapshot.lz4"
    bucket.server.admin.put_object(Bucket=bucket.name, Key=key, Body=b"x" * 100)
    bucket.allow("s3:PutObjectTagging")
    entries = results(capsys, bucket.config("writer"), code=1)
    assert entries["write"]["result"] == "denied"
    assert entries["write"]["right"] == f"s3:PutObject on {bucket.name}/app/*"
    assert {entries[name]["result"] for name in ("read", "read range", "list", "read absent")} == {"works"}
    assert bucket.names() == [key]


def test_a_bucket_that_is_not_there(bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named as missing, once, and nothing else is tried."""
    entries = results(capsys, bucket.config("owner", bucket="no-such-bucket"), code=1)
    assert entries["write"]["result"] == "missing"
    assert "no-such-bucket" in entries["write"]["note"]
    assert set(wrong(entries).values()) == {"missing", "not tried"}


def test_wrong_keys(bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    """Keys that nobody knows are a failure of the first request."""
    entries = results(capsys, bucket.config("writer", **{"secret-access-key": "other"}), code=1)
    assert entries["write"]["result"] in {"denied", "failed"}
    assert not any(entry["result"] == "works" for entry in entries.values())
    assert bucket.names() == []


# -- replicate, restore, prune


def test_from_the_first_commit_to_pruning(
    bucket: Bucket, daemons: Callable[..., Daemon], capsys: pytest.CaptureFixture[str]
) -> None:
    """A writer that cannot delete replicates under load, survives kill -9 and is restored from exactly; its own
    credentials prune nothing, the owner's show what they would.
    """
    config = bucket.config("writer", retention="0s", **{"sync-interval": "50ms"})
    db = sqlite3.connect(bucket.db, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    ledger.init(db)
    daemon = daemons(config).start()
    daemon.wait_until_ready()
    for n in range(1, 60):
        ledger.write(db)
        if n == 30:
            daemon.kill()
            daemon.start()
    last = ledger.write(db)
    daemon.wait_until_ready()  # before that it has no handler for the signal
    assert daemon.stop() == 0
    assert "error" not in daemon.text().lower()
    out = bucket.folder / "out.db"
    assert OURS.restored_n(bucket.db, out, config=config) == last
    before = bucket.names()

    text, err = run(capsys, "prune", "-config", config, "-retention", "24h", "-execute", bucket.db)
    assert "deleted 0 objects" in text and err == ""  # all of it is young
    text, _ = run(capsys, "prune", "-config", bucket.config("owner"), bucket.db)
    assert "would delete 0 objects" in text
    assert bucket.names() == before
    db.close()


def _fill(bucket: Bucket, snapshots: int) -> None:
    """A replica whose snapshots are a little over a second apart, so that the server's clock tells them apart."""
    for index in range(snapshots):
        for kind in (
            f"wal/{index:08x}_00000000.wal",
            f"wal/{index:08x}_00001038.wal",
            f"snapshots/{index:08x}.snapshot",
        ):
            name = f"app/generations/{'a' * 16}/{kind}.lz4"
            bucket.server.admin.put_object(Bucket=bucket.name, Key=name, Body=b"x" * 10)
        time.sleep(1.3 if index == snapshots - 2 else 0)


@pytest.fixture
def aged(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """Three snapshots and their WAL; for `prune` it is two hours later, and the last one is just within two hours."""
    _fill(bucket, 3)
    listed = bucket.server.admin.list_objects_v2(Bucket=bucket.name)["Contents"]
    newest = max(entry["LastModified"] for entry in listed if "/snapshots/" in entry["Key"]).timestamp()

    class Later:
        @staticmethod
        def time() -> float:
            return float(newest + 2 * HOUR)

    monkeypatch.setattr("litestream.cli.prune.time", Later)
    return bucket


def test_the_owner_prunes(aged: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    """With the right to delete exactly the old objects go, in one run."""
    config = aged.config("owner")
    shown, _ = run(capsys, "prune", "-config", config, "-retention", "2h", aged.db)
    assert "would delete 6 objects (2 snapshots, 4 WAL segments), 60 bytes" in shown
    assert len(aged.names()) == 9
    text, err = run(capsys, "prune", "-config", config, "-retention", "2h", "-execute", aged.db)
    assert "deleted 6 objects (2 snapshots, 4 WAL segments), 60 bytes" in text and err == ""
    assert sorted(name.rsplit("/", 1)[1] for name in aged.names()) == [
        "00000002.snapshot.lz4",
        "00000002_00000000.wal.lz4",
        "00000002_00001038.wal.lz4",
    ]


def test_the_writer_cannot_prune(aged: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    """Every delete is refused by the server: told with the action to allow, exit code 1, and all of it is there."""
    argv = ("prune", "-config", aged.config("writer"), "-retention", "2h", "-execute", aged.db)
    out, err = run(capsys, *argv, code=1)
    assert "deleted 0 objects" in out
    assert "2 objects could not be deleted: " in err and "s3:DeleteObject" in err
    assert len(aged.names()) == 9


def test_a_locked_object_does_not_stop_the_rest(aged: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    """One snapshot may not be deleted: it stays with its WAL, whole; the others go, though in the same request."""
    generation = f"app/generations/{'a' * 16}"
    deletable = [f"{generation}/snapshots/00000000.*", f"{generation}/wal/*"]
    statements = [
        {"Effect": "Allow", "Principal": {"AWS": WRITER}, "Action": ["s3:DeleteObject"], "Resource": [resource]}
        for resource in (f"arn:aws:s3:::{aged.name}/{name}" for name in deletable)
    ]
    policy = {"Version": "2012-10-17", "Statement": statements}
    aged.server.admin.put_bucket_policy(Bucket=aged.name, Policy=json.dumps(policy))
    argv = ("prune", "-json", "-config", aged.config("writer"), "-retention", "2h", "-execute", aged.db)
    out, err = run(capsys, *argv, code=1)
    (found,) = json.loads(out)
    status = {entry["key"].rsplit("/", 1)[1]: entry["status"] for entry in found["objects"]}
    assert status == {
        "00000000.snapshot.lz4": "deleted",
        "00000001.snapshot.lz4": "refused",
        "00000000_00000000.wal.lz4": "deleted",
        "00000000_00001038.wal.lz4": "deleted",
        "00000001_00000000.wal.lz4": "kept",
        "00000001_00001038.wal.lz4": "kept",
    }
    assert "1 object could not be deleted" in err
    assert len(aged.names()) == 6


def test_object_lock(seaweedfs: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a bucket with object lock everything works; what is overwritten or deleted stays as an older version."""
    name = f"locked-{time.time_ns() % 10**9}"
    seaweedfs.admin.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    seaweedfs.admin.put_object_lock_configuration(
        Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    bucket = Bucket(seaweedfs, name, tmp_path)
    assert wrong(results(capsys, bucket.config("owner"))) == {}
    assert bucket.names() == []
    listed = seaweedfs.admin.list_object_versions(Bucket=name)
    assert len(listed["Versions"]) > 1 and len(listed["DeleteMarkers"]) == 1
