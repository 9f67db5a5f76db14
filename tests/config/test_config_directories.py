"""Entries with `dir`: which names they take, where each database's replica and local state are, what they refuse."""

from __future__ import annotations

import fnmatch
import os
import re
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestream.config import Config, DatabaseConfig, DirectoryConfig, ReplicaConfig, loads
from litestream.config.patterns import compile_pattern
from litestream.config.scan import configured
from litestream.errors import ConfigError


def directory(text: str = "", replica: str = "path: /b") -> DirectoryConfig:
    """The entry of a small file."""
    return loads(f"dbs: [{{dir: /data, pattern: '*.db', {text} replica: {{{replica}}}}}]").directories[0]


@pytest.mark.parametrize(
    ("replica", "place"),
    [
        ("path: /b", "/b/sub/a b%20#?.db"),
        ("url: 'file:///b/'", "/b/sub/a b%20#?.db"),
        ("url: 's3://bucket/base?region=eu-west-9'", "s3://bucket/base/sub/a b%20#?.db"),
        ("url: 's3://bucket'", "s3://bucket/sub/a b%20#?.db"),
        ("type: s3, bucket: bucket, path: /base/", "s3://bucket/base/sub/a b%20#?.db"),
        ("url: 'gs://bucket/base'", "gs://bucket/base/sub/a b%20#?.db"),
        ("url: 'sftp://me@host.example/base'", "sftp://me@host.example/base/sub/a%20b%2520%23%3F.db"),
        (
            "type: sftp, host: host.example, user: me, path: base",
            "sftp://me@host.example/~/base/sub/a%20b%2520%23%3F.db",
        ),
        ("url: 'webdav://dav.example/base'", "base/sub/a"),
        ("url: 'nats://nats.example/bucket/base'", "base/sub/a"),
        ("url: 'abs://account@container/base'", "base/sub/a"),
    ],
)
def test_the_place_below_the_directory_is_appended(replica: str, place: str) -> None:
    """As in 0.5, to a path or a URL, and percent-encoded where it becomes part of a URL."""
    found = directory(replica=replica).database("sub/a b%20#?.db")
    assert found.path == "/data/sub/a b%20#?.db"
    one = found.replicas[0]
    if place.startswith("base"):
        assert place in one.location
        assert one.backend.path.strip("/").endswith("base/sub/a b%20#?.db")  # type: ignore[attr-defined]
    else:
        assert one.location.split("?endpoint")[0] == place


def test_settings_reach_every_database() -> None:
    """The entry's own settings, and those of its replicas, secrets included."""
    text = """
dbs:
  - {dir: /data, pattern: "*", monitor-interval: 2s, busy-timeout: 3s, snapshot: {interval: 1h}, replicas: [
     {name: x, type: s3, bucket: b, access-key-id: hush, secret-access-key: hush2, sync-interval: 5s, retention: 9h}]}
"""
    found = loads(text).directories[0].database("a")
    assert (found.monitor_interval, found.busy_timeout) == (2, 3)
    replica = found.replicas[0]
    assert (replica.name, replica.sync_interval, replica.retention, replica.snapshot_interval) == ("x", 5, 32400, 3600)
    assert replica.store_settings()["secret_access_key"] == "hush2"
    assert "hush" not in repr(found)
    assert found == loads(text).directories[0].database("a")  # what is compared when a file is loaded again


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("", None),
        ("meta-dir: /m,", "/m/sub/a.db-litestream"),
        ("meta-path: /m,", "/m/sub/.a.db-litestream"),
    ],
)
def test_local_state_as_the_official_program_has_it(text: str, state: str | None) -> None:
    """Beside the database, or mirrored below a directory, with the names of 0.5."""
    assert directory(text).database("sub/a.db").meta_path == state


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.db", True), (".a.db", True), ("a.db-wal", False), ("a.DB", False), ("db", False), ("a\nb.db", True),
        ("\udcff.db", True), (".a.db.12-0123456789abcdef.tmp", False),
    ],
)  # fmt: skip
def test_names(name: str, expected: bool) -> None:
    """The pattern is for the name; what SQLite and we put beside a database never fits."""
    assert directory().matches(name) is expected
    assert loads("dbs: [{dir: /d, pattern: '*', replica: {path: /b}}]").directories[0].matches(name) is (
        not name.endswith(("-wal", ".tmp"))
    )


@given(st.text("ab-^!.", max_size=4), st.text("ab-^!.*?", max_size=5))
def test_patterns_without_classes_are_those_of_shells(name: str, pattern: str) -> None:
    """`*` and `?` mean what they mean everywhere; everything else stands for itself."""
    expected = re.fullmatch(fnmatch.translate(pattern), name) is not None
    assert (compile_pattern(pattern).fullmatch(name) is not None) is expected


@pytest.mark.parametrize(
    ("pattern", "fits", "not_these"),
    [
        ("[a-c]x", "ax cx", "dx -x x"),
        ("[^a-c]x", "dx -x", "ax x"),
        ("[ab-]", "", ""),
        (r"[\-a]", "- a", "b \\"),
        (r"a\*", "a*", "ab"),
        ("[a^]", "a ^", "b"),
        ("[!a]", "! a", "b"),
        ("{a,b}", "{a,b}", "a b"),
    ],
)
def test_classes(pattern: str, fits: str, not_these: str) -> None:
    """Classes are those of the official program: `^` negates, `!` and braces mean nothing."""
    if not fits:
        with pytest.raises(ValueError, match="syntax error in pattern"):
            compile_pattern(pattern)
        return
    compiled = compile_pattern(pattern)
    assert [name for name in fits.split() if not compiled.fullmatch(name)] == []
    assert [name for name in not_these.split() if compiled.fullmatch(name)] == []


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("dir: /d, replica: {path: /b}", "dbs[0].dir: 'pattern' is required when using 'dir'"),
        ("dir: /d, pattern: '', replica: {path: /b}", "dbs[0].dir: 'pattern' is required when using 'dir'"),
        ("dir: /d, path: /p, pattern: x, replica: {path: /b}", "dbs[0].dir: cannot specify both 'path' and 'dir'"),
        ("pattern: x, replica: {path: /b}", "dbs[0]: must specify either 'path' or 'dir'"),
        ("path: /p, watch: true, replica: {path: /b}", "dbs[0].watch: 'watch' can only be enabled with a directory"),
        (
            "path: /p, meta-dir: /m, replica: {path: /b}",
            "dbs[0].meta-dir: 'meta-dir' can only be used with a directory",
        ),
        (
            "dir: /d, pattern: x, meta-dir: /m, meta-path: /m, replica: {path: /b}",
            "dbs[0].meta-dir: cannot specify both 'meta-path' and 'meta-dir'",
        ),
        ("dir: /d, pattern: '[', replica: {path: /b}", "dbs[0].pattern: syntax error in pattern"),
        ("dir: /d, pattern: 'a\\', replica: {path: /b}", "dbs[0].pattern: syntax error in pattern"),
        (
            "dir: /d, pattern: 'a/*', replica: {path: /b}",
            "dbs[0].pattern: is for names and not for paths: recursive is what looks into subdirectories",
        ),
        ("dir: /d, pattern: x, replica: {path: /d/}", "dbs[0].replica: the replica's path is the directory itself"),
        ("dir: /d, pattern: x", "dbs[0]: must specify replica for database"),
    ],
)
def test_refusals(entry: str, problem: str) -> None:
    """Official texts where the official program refuses, and ours where it would replicate onto the databases."""
    with pytest.raises(ConfigError) as caught:
        loads(f"dbs: [{{{entry}}}]", name="f")
    assert str(caught.value) == f"f:1: {problem}"


@pytest.mark.parametrize("name", ["pattern: '*.db'", "recursive: true"])
def test_what_means_nothing_for_one_database_is_told(name: str) -> None:
    """The official program ignores it in silence; here it is a warning."""
    warnings = loads(f"dbs: [{{path: /p, {name}, replica: {{path: /b}}}}]").warnings
    assert [warning.partition(": ")[2] for warning in warnings] == [
        f"dbs[0].{name.partition(':')[0]}: has no effect without 'dir'"
    ]


def test_two_directories_cannot_share_a_replica_or_state() -> None:
    """Databases of one name would overwrite each other; two patterns for one directory are fine."""
    two = (
        "dbs: [{dir: %s, pattern: '*.db', %s replica: {path: %s}}, {dir: %s, pattern: '*.sq', %s replica: {path: %s}}]"
    )
    assert len(loads(two % ("/d", "meta-dir: /m,", "/b", "/d", "meta-dir: /m,", "/b")).directories) == 2
    with pytest.raises(ConfigError, match=r"the same directory as dbs\[0\].replica: each replica needs one of its own"):
        loads(two % ("/d", "", "/b", "/e", "", "/b"))
    with pytest.raises(ConfigError, match="meta-dir collision: directories /d and /e would share /m"):
        loads(two % ("/d", "meta-dir: /m,", "/b", "/e", "meta-dir: /m,", "/c"))


def make(path: Path) -> None:
    """A database in a folder that need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t(x)")
    connection.commit()
    connection.close()


def test_what_a_directory_has_now(tmp_path: Path) -> None:
    """Only databases, each once: by its own name, by its own entry if it has one, never one inside a replica."""
    data, replica = tmp_path / "data", tmp_path / "data/replica"
    for name in ("a.db", "own.db", "sub/b.db", ".hidden/c.db", ".x.db-litestream/d.db", "replica/e.db", "../out/f.db"):
        make(data / name)
    (data / "text.db").write_text("no database, but long enough to be one")
    (data / "empty.db").touch()
    os.mkfifo(data / "fifo.db")
    (data / "0alias.db").symlink_to(data / "a.db")
    (data / "link.db").symlink_to(tmp_path / "out/f.db")
    (data / "dangling.db").symlink_to(data / "nothing")
    (data / "folder.db").mkdir()
    (data / "linked").symlink_to(tmp_path / "out")

    def found(**options: object) -> list[str]:
        entry = DirectoryConfig.model_validate(
            {"dir": str(data), "pattern": "*.db", "replicas": [{"path": str(replica)}], **options}
        )
        own = DatabaseConfig(path=str(data / "own.db"), replicas=(ReplicaConfig(path=str(tmp_path / "own")),))
        config = Config(databases=(own,), directories=(entry,))
        return sorted(os.path.relpath(database.path, data) for database in config.all_databases())

    assert found(recursive=True) == [".hidden/c.db", "a.db", "link.db", "own.db", "sub/b.db"]
    assert found() == ["a.db", "link.db", "own.db"]


def test_a_database_that_is_gone_is_still_known(tmp_path: Path) -> None:
    """By its path alone, so that it can be restored; not one that the entry would never have had."""
    text = f"dbs: [{{dir: '{tmp_path}/d', pattern: '*.db', recursive: %s, replica: {{path: /b}}}}]"
    config = loads(text % "true")
    gone = config.database(f"{tmp_path}/d/sub/gone.db")
    assert gone is not None
    assert gone.replicas[0].path == "/b/sub/gone.db"
    for other in ("gone.dat", "../gone.db", ".x.db-litestream/gone.db", ""):
        assert config.database(f"{tmp_path}/d/{other}") is None
    assert loads(text % "false").database(f"{tmp_path}/d/sub/gone.db") is None


def test_bytes_that_are_no_text() -> None:
    """In a directory a name stays what it is; in a service such bytes are written as %XX."""
    assert directory().database("\udcff.db").replicas[0].path == "/b/\udcff.db"
    assert (
        directory(replica="url: 's3://bucket/b'").database("\udcff.db").replicas[0].location == "s3://bucket/b/%FF.db"
    )
    assert directory(replica="type: s3, bucket: b").database("\udcff.db").replicas[0].backend.url == "s3://b/%FF.db"


def test_a_name_that_a_replica_cannot_have_is_our_error() -> None:
    """It is told in one line with the path."""
    webdav = directory(replica="url: 'nats://host/bucket/base'")
    with pytest.raises(ConfigError) as caught:
        configured(webdav, "a\x00.db")
    assert "\n" not in str(caught.value)
    assert "/data/a" in str(caught.value)


def test_what_is_missing_in_a_directory_is_not_known() -> None:
    """Nobody who counts on a restore at the start goes without one unknowingly; false means nothing."""
    text = 'dbs:\n- {dir: /data, pattern: "*", restore-if-db-not-exists: %s, replicas: [path: /r]}\n'
    with pytest.raises(ConfigError, match="restore-if-db-not-exists: cannot be used with 'dir'"):
        loads(text % "true")
    assert loads(text % "false").directories[0].dir == "/data"
