"""Configurations turned into those of other versions: what they mean stays, what has no equal is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cli import Program
from litestream.config import loads
from litestream.config.migrate import migrate
from litestream.errors import ConfigError

Json = dict[str, Any]

FULL_05 = """\
# The head of the file.

addr: 127.0.0.1:9090     # metrics
mcp-addr: ":3001"
levels:
  - interval: 30s
l0-retention: 5m
verify-compaction: true
logging: {level: trace, type: pretty, source: true}
snapshot:
  interval: 12h
  retention: 48h
sync-interval: 5s

dbs:
  # the first
  - path: /var/lib/a.db
    truncate-page-n: 9
    monitor-interval: 2s    # slower
    replica:
      url: s3://bucket/a
      access-key-id: ${KEY}
      secret-access-key: $SECRET
      validation-interval: 1h
      auto-recover: true
      compress: zstd
  - dir: /data
    pattern: "*.db"
    watch: true
    replica:
      path: /backup
      region: eu
# the end
"""


def test_a_file_of_0_5_for_here() -> None:
    """What works stays as it stands, with its comments and variables; the rest is named with its line."""
    result = migrate(FULL_05, to="here", name="f")
    assert (
        result.text
        == """\
# The head of the file.

addr: 127.0.0.1:9090  # metrics
logging:
  level: trace
  type: text
snapshot:
  interval: 12h
  retention: 48h
sync-interval: 5s
dbs:
  # the first
  - path: /var/lib/a.db
    monitor-interval: 2s  # slower
    replica:
      url: s3://bucket/a
      access-key-id: ${KEY}
      secret-access-key: $SECRET
      validation-interval: 1h
  - dir: /data
    pattern: "*.db"
    watch: true
    replica:
      path: /backup
# the end
"""
    )
    notes = [note.removeprefix("f:").split(": ", 2) for note in result.notes]
    assert [(line, key) for line, key, _ in notes] == [
        ("4", "mcp-addr"),
        ("5", "levels"),
        ("7", "l0-retention"),
        ("8", "verify-compaction"),
        ("9", "logging.source"),
        ("9", "logging.type"),
        ("18", "dbs[0].truncate-page-n"),
        ("24", "dbs[0].replica.validation-interval"),
        ("25", "dbs[0].replica.auto-recover"),
        ("26", "dbs[0].replica.compress"),
        ("32", "dbs[1].replica.region"),
    ]
    config = loads(result.text, environ={"KEY": "k", "SECRET": "s"})
    assert config.warnings == ()
    assert [replica.snapshot_interval for replica in config.databases[0].replicas] == [43200.0]


def test_what_0_5_does_by_itself_is_said() -> None:
    """Its default of a snapshot every day is not that of here."""
    plain = "dbs: [{path: /a, busy-timeout: 2s, replica: {path: /b}}]"
    (note,) = migrate(plain, to="here", name="f").notes
    assert note == "f: snapshot.interval: 0.5 takes a snapshot every 24h, here one only when it is needed"
    older = "dbs: [{path: /a, replicas: [{path: /b}]}]"
    assert migrate(older, to="here", name="f").notes == ()


def test_replicas_for_0_5() -> None:
    """It has one replica per database, and retention once for all: that which keeps more."""
    text = """
    retention-check-interval: 30m
    dbs:
    - path: /a
      replicas:
      - {path: /b, name: near, retention: 72h, snapshot-interval: 6h}
      - {path: /c, name: far}
    - path: /d
      replicas: [{url: 'gcs://bucket/d', retention: 1h, validation-interval: 2h, max-requests: {per-second: 3}}]
    - path: /e
      max-checkpoint-page-count: 7000
      replica: {path: /f, retention: 0s}
    """
    result = migrate(text, to="0.5", name="f")
    assert (
        result.text
        == """\
dbs:
  - path: /a
    replica:
      path: /b
  - path: /d
    replica:
      url: gs://bucket/d
  - path: /e
    replica:
      path: /f
snapshot:
  interval: 6h
  retention: 72h
retention:
  enabled: false
validation:
  interval: 2h
"""
    )
    assert {note.partition(": ")[2].partition(": ")[0] for note in result.notes} == {
        "retention",
        "dbs[0].replica.name",
        "dbs[0].replicas[1]",
        "validation.interval",
        "dbs[1].replica.max-requests",
        "dbs[2].max-checkpoint-page-count",
        "retention.enabled",
    }


def test_defaults_for_0_3_go_into_each_replica() -> None:
    """It takes only the credentials at the top; what a replica's type does not have is not given to it."""
    text = """
    access-key-id: k
    secret-access-key: s
    region: eu
    retention: 9h
    sync-interval: 3s
    snapshot: {interval: 1h}
    dbs:
    - path: /a
      snapshot: {interval: 2h}
      replicas: [{url: 's3://bucket/a'}, {path: /b, sync-interval: 1s}, {type: gs, bucket: google}]
    - dir: /x
      pattern: '*'
      replica: {path: /y}
    - path: /n
      replica: {url: 'nats://h/b'}
    """
    result = migrate(text, to="0.3", name="f")
    assert "region: eu" in result.text
    replicas = loads(result.text).databases[0].replicas
    assert [(one.type, one.sync_interval, one.snapshot_interval, one.retention) for one in replicas] == [
        ("s3", 3.0, 7200.0, 32400.0),
        ("file", 1.0, 7200.0, 32400.0),
        ("gs", 3.0, 7200.0, 32400.0),
    ]
    assert "type: gcs" in result.text
    assert [note.partition(": ")[2] for note in result.notes] == [
        "dbs[1]: left out: 0.3 has no such thing as a directory of databases",
        "dbs[2]: left out: no replica of it is possible with 0.3",
        "dbs[2].replicas[0]: left out: 0.3 has no replicas of type nats",
    ]


@pytest.mark.parametrize(
    ("to", "replica"),
    [
        ("0.5", "path: /b, age: {recipients: [x]}"),
        ("0.3", "url: 's3://b/x', sse-kms-key-id: k"),
        ("0.5", "url: s3://b/x, sse: AES256"),
    ],
)
def test_encryption_is_not_lost(to: str, replica: str) -> None:
    """What would be stored in clear there is refused."""
    with pytest.raises(ConfigError, match="cannot encrypt this way"):
        migrate(f"dbs: [{{path: /a, replica: {{{replica}}}}}]", to=to, name="f")


def test_a_port_without_a_host_stays_closed() -> None:
    """Here it is this host alone, there it is everybody."""
    for to in ("0.3", "0.5"):
        result = migrate("addr: ':9090'", to=to, name="f")
        assert result.text == "addr: 127.0.0.1:9090\n"
        assert len(result.notes) == 1


@pytest.mark.parametrize("text", ["a: [", "- 1", "a: 1\na: 2", "a: !x 1"])
def test_what_is_no_configuration_is_refused(text: str) -> None:
    """With the line, and nothing else."""
    with pytest.raises(ConfigError, match=r"f:[12]: "):
        migrate(text, to="here", name="f")


# -- any configuration

DURATION = st.sampled_from(["1s", "90s", "1h30m", "250ms", "24h"])
NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.sampled_from(" #:'\"{}[]$*&!"), min_size=1
)
SHARED = {"sync-interval": DURATION, "validation-interval": DURATION}
RETENTION = {"retention": DURATION, "snapshot-interval": DURATION, "retention-check-interval": DURATION}
COUNTS = st.integers(1, 99999)


@st.composite
def replicas(draw: st.DrawFn, *, own: bool) -> Json:
    """A replica in a place of its own, which the caller numbers."""
    found: Json = draw(
        st.sampled_from(
            [
                {"path": "/r/NUMBER"},
                {"url": "file:///r/NUMBER"},
                {"url": "s3://bucket/NUMBER", "region": "eu", "force-path-style": True},
                {"type": "s3", "bucket": "bucket", "path": "NUMBER", "endpoint": "http://localhost:9"},
                {"type": "sftp", "host": "h", "user": "u", "path": "/NUMBER", "password": "p q"},
                {"type": "gs", "bucket": "bucket", "path": "NUMBER"},
            ]
        )
    )
    return {**found, **(draw(st.fixed_dictionaries({}, optional={**SHARED, **RETENTION})) if own else {})}


@st.composite
def files(draw: st.DrawFn, *, several: bool) -> Json:
    """A whole file as 0.3 has it, or (not `several`) one that 0.5 can have too."""
    number, dbs = 0, []
    for _ in range(draw(st.integers(1, 3))):
        number += 1
        options = {"checkpoint-interval": DURATION, "min-checkpoint-page-count": COUNTS, "monitor-interval": DURATION}
        entry: Json = {"path": f"/d/{number}-{draw(NAMES).replace('/', '').replace('~', '')}"}
        entry |= draw(st.fixed_dictionaries({}, optional=options))
        entry["replicas"] = []
        for _ in range(draw(st.integers(1, 3)) if several else 1):
            number += 1
            replica = draw(replicas(own=several))
            if several:
                replica["name"] = f"n{number}"
            numbered: Json = json.loads(json.dumps(replica).replace("NUMBER", str(number)))
            entry["replicas"].append(numbered)
        dbs.append(entry)
    top: Json = draw(
        st.fixed_dictionaries({}, optional={**SHARED, "retention": DURATION, "snapshot-interval": DURATION})
    )
    top |= draw(
        st.fixed_dictionaries({}, optional={"exec": NAMES, "addr": st.sampled_from(["127.0.0.1:9", "localhost:80"])})
    )
    if draw(st.booleans()):
        top["logging"] = {"level": "warn", "stderr": True}
    return {**top, "dbs": dbs}


def meaning(text: str) -> Json:
    config = loads(text, expand_env=False)
    return {"dbs": config.databases, "addr": config.addr, "exec": config.exec, "logging": config.logging}


@given(files(several=True))
@settings(max_examples=80, deadline=None)
def test_nothing_changes_for_here_or_0_3(file: Json) -> None:
    """A file that 0.3 can have means the same before, after, and after coming back."""
    text = json.dumps(file, ensure_ascii=False)
    before = meaning(text)
    assert meaning(migrate(text, to="here", name="f").text) == before
    there = migrate(text, to="0.3", name="f").text
    assert meaning(migrate(there, to="here", name="f").text) == before


@given(files(several=False))
@settings(max_examples=80, deadline=None)
def test_nothing_changes_for_0_5_and_back(file: Json) -> None:
    """A file that 0.5 can have, with one replica per database and retention for all, comes back as it was."""
    text = json.dumps(file, ensure_ascii=False)
    there = migrate(text, to="0.5", name="f").text
    assert meaning(migrate(there, to="here", name="f").text) == meaning(text)


# -- the programs themselves


def test_the_official_programs_take_the_result(tmp_path: Path, official_v03: Program, official_v05: Program) -> None:
    """Each lists the databases of the file that was written for it."""
    text = f"""
    addr: ":0"
    access-key-id: k
    secret-access-key: s
    sync-interval: 3s
    snapshot-interval: 5h
    validation-interval: 1h
    socket: {{enabled: true}}
    dbs:
    - path: {tmp_path}/a.db
      min-checkpoint-page-count: 500
      restore-if-db-not-exists: true
      replicas:
      - {{name: near, path: {tmp_path}/r, retention: 0s}}
      - {{name: far, url: "s3://bucket/x", force-path-style: true}}
    """
    for program, to, shown in ((official_v03, "0.3", "near,far"), (official_v05, "0.5", "file")):
        file = tmp_path / f"{to}.yml"
        file.write_text(migrate(text, to=to, name="f").text)
        done = program.run("databases", "-config", file)
        assert done.code == 0, done
        assert done.out.splitlines()[1].split() == [f"{tmp_path}/a.db", shown]
