"""From text to values: defaults, their order, paths, replicas, and what does not go together."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestream.config import Config, DatabaseConfig, ReplicaConfig, for_command_line, loads
from litestream.config.model import ValidationError
from litestream.core.durations import format_duration
from litestream.errors import ConfigError


def refused(text: str, **environ: str) -> list[str]:
    """The lines of the error, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        loads(text, name="f", environ=environ)
    return [line.removeprefix("f:") for line in str(caught.value).split("\n")]


def one(extra: str = "", top: str = "", replica: str = "") -> str:
    """A file with one database and one replica."""
    return f"{top}\ndbs:\n- path: /x/app.db\n  {extra}\n  replicas:\n  - path: /x/backup\n    {replica}\n"


def test_defaults() -> None:
    """The built-in values are those of the official programs."""
    config = loads(one(), name="f.yml")
    assert (config.addr, config.shutdown_sync_timeout, config.shutdown_sync_interval) == (None, 30, 0.5)
    assert (config.logging.level, config.logging.type, config.logging.stderr) == ("info", "text", False)
    assert (config.source, config.warnings) == ("f.yml", ())
    (database,) = config.databases
    assert (database.path, database.meta_path) == ("/x/app.db", None)
    assert (database.monitor_interval, database.checkpoint_interval, database.busy_timeout) == (1, 60, 1)
    assert (database.min_checkpoint_page_count, database.max_checkpoint_page_count) == (1000, 10000)
    (replica,) = database.replicas
    assert (replica.type, replica.name, replica.label, replica.location) == ("file", "", "file", "/x/backup")
    assert (replica.sync_interval, replica.snapshot_interval) == (1, 0)
    assert (replica.retention, replica.retention_check_interval) == (86400, 3600)


def test_every_value_arrives() -> None:
    """Each key that works sets its field."""
    config = loads(
        one(
            "meta-path: /m\n  monitor-interval: 20ms\n  checkpoint-interval: 2m\n  min-checkpoint-page-count: 5\n"
            "  max-checkpoint-page-count: 50\n  busy-timeout: 3s\n  compact: yes\n"
            "  restore-if-db-not-exists: yes",
            "addr: 'localhost:9090'\nlogging: {level: WARNING, type: json, stderr: yes}\n"
            "shutdown-sync-timeout: 0s\nshutdown-sync-interval: 1s",
            "name: n\n    sync-interval: 50ms\n    validation-interval: 5h\n    snapshot-interval: 1h\n"
            "    retention: 2h\n"
            "    retention-check-interval: 3m",
        )
    )
    assert config.addr == "localhost:9090"
    assert config.logging.model_dump() == {"level": "warn", "type": "json", "stderr": True}
    assert (config.shutdown_sync_timeout, config.shutdown_sync_interval) == (0, 1)
    assert config.databases[0].model_dump(exclude={"replicas"}) == {
        "path": "/x/app.db", "meta_path": "/m", "monitor_interval": 0.02, "checkpoint_interval": 120,
        "min_checkpoint_page_count": 5, "max_checkpoint_page_count": 50, "busy_timeout": 3,
        "restore_if_db_not_exists": True, "upstream": None, "compact": True,
    }  # fmt: skip
    assert config.databases[0].replicas[0].model_dump(exclude_none=True) == {
        "type": "file", "name": "n", "path": "/x/backup", "sync_interval": 0.05, "snapshot_interval": 3600,
        "retention": 7200, "retention_check_interval": 180, "validation_interval": 18000,
    }  # fmt: skip
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("top", "replica", "interval"),
    [
        ("", "", 0),
        ("validation-interval: 1h", "", 3600),
        ("validation: {interval: 24h}", "", 86400),
        ("validation: {interval: 24h}", "validation-interval: 6h", 21600),
        ("validation: {interval: 24h}", "validation-interval: 0s", 0),
        ("validation: {}", "", 0),
    ],
)
def test_how_often_replicas_are_validated(top: str, replica: str, interval: float) -> None:
    """A replica's own interval counts, else `validation.interval` of 0.5 or the key at the top of the file."""
    result = loads(f"{top}\ndbs: [{{path: /a, replica: {{path: /b, {replica}}}}}]").databases[0].replicas[0]
    assert result.validation_interval == interval


def test_two_validation_intervals_at_the_top() -> None:
    """The two spellings of one default must not contradict each other."""
    with pytest.raises(ConfigError, match="validation-interval is given at the top of the file too"):
        loads("validation-interval: 1h\nvalidation: {interval: 2h}\ndbs: [{path: /a, replica: {path: /b}}]")


@pytest.mark.parametrize(
    ("top", "extra", "replica", "snapshot", "retention"),
    [
        ("", "", "", 0, 86400),
        ("snapshot-interval: 1h\nretention: 2h", "", "", 3600, 7200),
        ("snapshot: {interval: 1h, retention: 2h}", "", "", 3600, 7200),
        ("snapshot: {interval: 1h, retention: 2h}", "snapshot: {interval: 3h}", "", 10800, 7200),
        ("retention: 2h", "snapshot: {retention: 3h}", "retention: 4h", 0, 14400),
        ("snapshot: {interval: 1h}", "snapshot: {interval: 2h}", "snapshot-interval: 0s", 0, 86400),
    ],
)
def test_the_nearest_default_counts(top: str, extra: str, replica: str, snapshot: float, retention: float) -> None:
    """A replica's own value, else its database's, else the file's, else the built-in one."""
    (result,) = loads(one(extra, top, replica)).databases[0].replicas
    assert (result.snapshot_interval, result.retention) == (snapshot, retention)


def test_global_replica_settings_of_05() -> None:
    """sync-interval at the top of the file is the default of all replicas."""
    config = loads(
        "sync-interval: 5s\ndbs: [{path: /a, replicas: [{path: /b}, {name: n, path: /c, sync-interval: 1s}]}]"
    )
    assert [replica.sync_interval for replica in config.databases[0].replicas] == [5, 1]


def test_contradicting_defaults() -> None:
    """Two spellings of one default with two values are an error; with one value they are not."""
    assert refused(one(top="retention: 1h\nsnapshot: {retention: 2h}")) == [
        "2: snapshot: retention is given at the top of the file too, with another value"
    ]
    assert loads(one(top="retention: 1h\nsnapshot: {retention: 60m}")).databases[0].replicas[0].retention == 3600


def test_retention_switched_off() -> None:
    """`retention: {enabled: false}` of 0.5 stops all deletion, says so, and beats a replica's own interval."""
    config = loads(one(top="retention: {enabled: false}", replica="retention-check-interval: 1m"), name="f")
    assert config.databases[0].replicas[0].retention_check_interval == 0
    assert config.warnings == (
        "f:1: retention.enabled: nothing is ever deleted from the replicas: they grow without bound",
    )
    assert loads(one(top="retention: {enabled: true}")).databases[0].replicas[0].retention_check_interval == 3600
    assert refused(one(top="retention: {enabled: perhaps}")) == ["1: retention.enabled: must be true or false"]


def test_pretty_logs_are_text() -> None:
    """`logging.type: pretty` of 0.5 is text, with a warning."""
    config = loads(one(top="logging: {type: pretty}"), name="f")
    assert config.logging.type == "text"
    assert config.warnings == ("f:1: logging.type: pretty is taken as text",)


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Home directory, relative paths, sqlite:// and file:// become absolute paths; links stay."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    config = loads(
        "dbs:\n"
        "- {path: ~/a.db, meta-path: ~/meta, replica: {path: ~/backup}}\n"
        "- {path: sqlite:///srv/b.db, replica: {path: b/../c}}\n"
        "- {path: sqlite3://d.db, replica: {url: 'file:///with%20space'}}\n"
        "- {path: link.db, replica: {path: '/per%20cent'}}\n"
    )
    assert [(database.path, database.replicas[0].location) for database in config.databases] == [
        ("/home/me/a.db", "/home/me/backup"),
        ("/srv/b.db", f"{tmp_path}/c"),
        (f"{tmp_path}/d.db", "/with space"),
        (f"{tmp_path}/link.db", "/per%20cent"),
    ]
    assert config.databases[0].meta_path == "/home/me/meta"
    assert config.database("sqlite://d.db") == config.databases[2]
    assert config.database("/nowhere.db") is None


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("s3://key:secret@bucket/db", "a database is a local file: give its path, not a URL"),
        ("file:/x", "a database is a local file: give its path, not a URL"),
        ("~root/x", 'only "~/" means a home directory: write the full path, or "./~…" for a file of that name'),
        ('"a\\0b"', "a path cannot hold a NUL byte"),
        ('""', "the path is empty"),
    ],
)
def test_paths_that_are_none(path: str, why: str) -> None:
    """A database path that cannot be meant is an error that does not repeat it."""
    assert refused(f"dbs:\n- path: {path}\n  replica: {{path: /b}}") == [f"2: dbs[0].path: {why}"]


@pytest.mark.parametrize(
    ("replica", "place", "why"),
    [
        ("{url: 'file:///b', path: /c}", ".path", "cannot specify url & path for file replica"),
        ("{path: 's3://key:hush@b/p'}", ".path", "replica path cannot be a url, please use the 'url' field instead"),
        ("{type: file}", ".path", "file replica path required"),
        ("{path: ''}", ".path", "file replica path required"),
        ("{type: foo, path: /b}", ".type", 'unknown replica type in config: "foo"'),
        ("{url: 'foo://key:hush@b'}", ".url", 'unknown replica type in config: "foo"'),
        ("{url: 'file://b/c'}", ".url", "a file URL has three slashes: file:///absolute/path"),
        ("{type: s3, url: 'file:///b'}", ".type", "the url is one of type file: take the type away"),
        ("{type: file, url: 's3://bucket'}", ".type", "the url is one of type s3: take the type away"),
        ("{type: webdav, url: 'sftp://u:hush@h'}", ".type", "the url is one of type sftp: take the type away"),
        ("{type: memory, path: x}", ".type", 'unknown replica type in config: "memory"'),
        ("{url: 'memory://x'}", ".url", 'unknown replica type in config: "memory"'),
        ("{type: azure, path: x}", ".type", 'unknown replica type in config: "azure"'),
        ("{type: sft, path: x}", ".type", 'unknown replica type in config: "sft" (did you mean "sftp"?)'),
        ("[/b]", "", "must be a section of keys with values"),
    ],
)
def test_replicas_that_name_no_place(replica: str, place: str, why: str) -> None:
    """The official texts, with the place, and never with the URL."""
    assert refused(f"dbs:\n- path: /a\n  replica: {replica}") == [f"3: dbs[0].replica{place}: {why}"]


def test_values_of_the_wrong_kind() -> None:
    """Every bad value of a file is reported, each at its line."""
    text = one(
        "monitor-interval: 0s\n  min-checkpoint-page-count: 0\n  max-checkpoint-page-count: many\n  busy-timeout: -1s",
        "addr: localhost\nlogging: {level: loud, type: xml, stderr: 2}",
        "sync-interval: 5\n    retention: 1d\n    name: [a]",
    )
    assert refused(text) == [
        "1: addr: must specify port for bind address: HOST:PORT or :PORT",
        "2: logging.level: must be trace, debug, info, warn or error",
        "2: logging.type: must be text or json",
        "2: logging.stderr: must be true or false",
        "5: dbs[0].monitor-interval: must be greater than 0",
        "6: dbs[0].min-checkpoint-page-count: must be > 0",
        "7: dbs[0].max-checkpoint-page-count: must be a whole number",
        "8: dbs[0].busy-timeout: must not be negative",
        "11: dbs[0].replicas[0].sync-interval: missing unit in duration '5': write it as 10s, 1m30s or 24h",
        "12: dbs[0].replicas[0].retention: unknown unit 'd' in duration '1d': the units are h, m, s, ms, us and ns",
        "13: dbs[0].replicas[0].name: must be a single value (text)",
    ]


def test_all_problems_at_once() -> None:
    """Typos, refusals, bad values, wrong destinations and contradictions of several databases come together."""
    text = (
        "adr: ':1'\n"
        "dbs:\n"
        "- path: /a\n"
        "  replicas:\n"
        "  - path: /b\n"
        "    sync-intervall: 1s\n"
        "  - type: s3\n"
        "    retention: 5\n"
        "- path: /x/../a\n"
        "  replica: {path: /b}\n"
        "- {}\n"
    )
    assert refused(text) == [
        '1: adr: unknown key (did you mean "addr"?)',
        '6: dbs[0].replicas[0].sync-intervall: unknown key (did you mean "sync-interval"?)',
        "7: dbs[0].replicas[1].bucket: bucket required for s3 replica",
        "8: dbs[0].replicas[1].retention: missing unit in duration '5': write it as 10s, 1m30s or 24h",
        "9: dbs[1].path: the same database as dbs[0]: /a",
        "10: dbs[1].replica: the same directory as dbs[0].replicas[0]: each replica needs one of its own",
        "11: dbs[2]: must specify replica for database",
        "11: dbs[2]: must specify either 'path' or 'dir'",
    ]


def test_many_problems_are_counted() -> None:
    """A file of nothing but mistakes does not flood the terminal."""
    lines = refused("".join(f"nonsense{number}: 1\n" for number in range(200)))
    assert len(lines) == 51
    assert lines[-1] == " and 150 more problems"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Addr: x", 'did you mean "addr"?'),
        ("dbs: [{path: /a, replica: {path: /b, sync_interval: 1s}}]", 'did you mean "sync-interval"?'),
        (
            "dbs: [{path: /a, replica: {path: /b}, sync-interval: 1s}]",
            "it belongs to top of the file or dbs[].replicas[]",
        ),
        ("dbs: [{path: /a, replica: {path: /b, recipient: x}}]", 'did you mean "recipients" of age?'),
        ("level: debug", "it belongs to logging"),
        ("replica: {path: /b}", "it belongs to dbs[]"),
    ],
)
def test_suggestions(text: str, hint: str) -> None:
    """An unknown key says what may have been meant, or where the key belongs."""
    assert hint in refused(text)[0]


def test_unknown_keys_without_a_guess() -> None:
    """A key like no other is just unknown; one that is no word is not repeated."""
    assert refused("zzz: 1") == ["1: zzz: unknown key"]
    assert refused("'hush hush': 1") == ["1: unknown key (not shown: it is no word)"]


def test_secrets_of_the_environment_stay_hidden() -> None:
    """What a variable held is in no message, in whatever place it was used."""
    text = (
        "addr: $S\nlogging: {level: $S}\n$S: 1\ndbs:\n- path: /a\n  $S: 1\n  $S: 2\n  busy-timeout: ${S}s\n"
        "  replicas:\n  - {path: /b, retention: 1$S}\n  - {type: $S}\n  - {url: '$S://x'}\n  - {path: 's3://$S'}\n"
    )
    lines = refused(text, S="hunter2")
    assert len(lines) == 10
    assert not [line for line in lines if "hunter2" in line]
    again = "{path: /$S, meta-path: /m$S, replicas: [{path: /b1, name: $S}, {path: /b2, name: $S}]}"
    lines = refused(f"dbs:\n- {again}\n- {{path: /c, meta-path: /m$S, replica: {{path: /b3}}}}\n- {again}", S="hunter2")
    assert lines == [
        "2: dbs[0].replicas[1].name: duplicate replica name",
        "3: dbs[1].meta-path: meta-path collision with another database",
        "4: dbs[2].path: the same database as dbs[0]",
        "4: dbs[2].replicas[0]: the same directory as dbs[0].replicas[0]: each replica needs one of its own",
        "4: dbs[2].replicas[1].name: duplicate replica name",
        "4: dbs[2].replicas[1]: the same directory as dbs[0].replicas[1]: each replica needs one of its own",
    ]


def test_one_file_twice(tmp_path: Path) -> None:
    """A database reached by a link, hard or symbolic, is the same database."""
    (tmp_path / "a.db").touch()
    (tmp_path / "soft.db").symlink_to("a.db")
    os.link(tmp_path / "a.db", tmp_path / "hard.db")
    text = "dbs:\n" + "".join(
        f"- {{path: {tmp_path}/{name}.db, replica: {{path: {tmp_path}/r-{name}}}}}\n" for name in ("a", "soft", "hard")
    )
    assert refused(text) == [
        f"3: dbs[1].path: the same database as dbs[0]: {tmp_path}/soft.db",
        f"4: dbs[2].path: the same database as dbs[0]: {tmp_path}/hard.db",
    ]


def test_things_that_must_not_be_shared(tmp_path: Path) -> None:
    """Local state and replica directories are one database's own; a replica is not the database itself."""
    text = (
        "dbs:\n"
        "- {path: /x/a, meta-path: /m, replicas: [{path: /r}, {path: /q}]}\n"
        "- {path: /x/b, meta-path: /m, replica: {path: /r/}}\n"
        "- {path: /x/c, meta-path: /x/.d-litestream, replica: {path: /x/c}}\n"
        "- {path: /x/d, replica: {path: /s}}\n"
    )
    assert refused(text) == [
        '2: dbs[0].replicas[1].name: duplicate replica name: "file": give each replica a name',
        "3: dbs[1].meta-path: meta-path collision: databases /x/a and /x/b would share meta-path /m",
        "3: dbs[1].replica: the same directory as dbs[0].replicas[0]: each replica needs one of its own",
        "4: dbs[2].replica: the replica's path is the database itself, or its local state",
        "5: dbs[3].meta-path: meta-path collision: databases /x/c and /x/d would share meta-path /x/.d-litestream",
    ]


def test_replica_names() -> None:
    """Names are unique within a database only."""
    text = (
        "dbs:\n- {path: /a, replicas: [{name: n, path: /b}, {name: n, path: /c}]}\n"
        "- {path: /d, replica: {name: n, path: /e}}"
    )
    assert refused(text) == ['2: dbs[0].replicas[1].name: duplicate replica name: "n"']


def test_replica_and_replicas() -> None:
    """The two forms do not mix."""
    lines = refused("dbs: [{path: /a, replica: {path: /b}, replicas: [{path: /c, name: n}]}]")
    assert lines == ["1: dbs[0].replicas: cannot specify 'replica' and 'replicas' on a database"]


def test_useless_checkpoint_bounds_warn() -> None:
    """A maximum below the minimum works and is remarked on."""
    config = loads(one("max-checkpoint-page-count: 10"), name="f")
    assert config.warnings == (
        "f:4: dbs[0].max-checkpoint-page-count: is below min-checkpoint-page-count, which then never counts",
    )


def test_warnings_are_summed_up() -> None:
    """One line per key, however many databases have it."""
    entry = "- {path: /a%d, truncate-page-n: 1, replica: {path: /b%d}}\n"
    config = loads("dbs:\n" + "".join(entry % (number, number) for number in range(500)), name="f")
    assert config.warnings == (
        "f:2: dbs[0].truncate-page-n: has no effect: see max-checkpoint-page-count (and in 499 more places)",
    )


@given(st.integers(0, 10**15))
def test_durations_of_the_file_are_gos(nanoseconds: int) -> None:
    """What Go prints for a duration is read as that duration."""
    text = format_duration(nanoseconds / 1e9)
    (replica,) = loads(one(replica=f"retention: {text}")).databases[0].replicas
    assert format_duration(replica.retention) == text


def test_command_line() -> None:
    """`replicate DB URL...` gives one database with all defaults, and names to replicas of one type."""
    config = for_command_line("sqlite://app.db", ["file:///r1", "/r2", "r3"])
    assert config == Config.for_command_line("app.db", ["file:///r1", "/r2", "r3"])
    (database,) = config.databases
    assert database.path == f"{os.getcwd()}/app.db"
    assert [(replica.name, replica.location) for replica in database.replicas] == [
        ("", "/r1"), ("file-2", "/r2"), ("file-3", f"{os.getcwd()}/r3"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("urls", "why"),
    [
        ([], "must specify at least one replica URL for a.db"),
        (["s3://key:hush@bucket"], "replica URL 1: an s3 URL takes no credentials"),
        (["s3://bucket/x", "s3://bucket/x/"], "replica URL 2: the same place as replica URL 1: each"),
        (["/r", "foo://hush"], 'replica URL 2: unknown replica type in config: "foo"'),
        ([""], "replica URL 1: file replica path required"),
        (["/r", "/r/"], "replica URL 2: the same directory as replica URL 1: each"),
        (["a.db"], "the replica's path is the database itself"),
    ],
)
def test_command_line_errors(urls: list[str], why: str) -> None:
    """Each is one line without the URL."""
    with pytest.raises(ConfigError) as caught:
        for_command_line("a.db", urls)
    assert why in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_models_from_python() -> None:
    """The models can be built by hand, read strings as the file does, and refuse typos, changes and contradictions."""
    replica = ReplicaConfig(path="r", sync_interval=2)
    assert replica.path == f"{os.getcwd()}/r"
    assert ReplicaConfig.model_validate({"path": "/r", "sync-interval": "1m"}).sync_interval == 60
    assert ReplicaConfig.model_validate(ReplicaConfig.model_validate({"url": "file:///r"}).model_dump()).path == "/r"
    with pytest.raises(ValidationError):
        ReplicaConfig.model_validate({"path": "/r", "sync-intervall": 1})
    with pytest.raises(AttributeError):
        replica.name = "n"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="duplicate replica name"):
        Config(databases=(DatabaseConfig(path="/a", replicas=(replica, ReplicaConfig(path="/b"))),))
    with pytest.raises(ValidationError, match="must specify replica for database"):
        Config(databases=(DatabaseConfig(path="/a"),))
