"""`litestream config check` and `config migrate`, as processes."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from helpers.cli import OURS
from litestream.config import loads
from litestream.config.effective import Effective
from litestream.config.loader import read

TEXT = """\
addr: ":9090"
logging: {type: json}
snapshot: {interval: 24h}
access-key-id: $KEY
secret-access-key: hush
sync-interval: 5s
exec: app --token $KEY
dbs:
- path: /var/lib/app.db
  replicas:
  - url: s3://bucket/x
    retention: 3h
  - path: ${PLACE}/b
    name: second
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.yml"
    path.write_text(TEXT)
    return path


def test_check_shows_every_value_and_its_source(file: Path) -> None:
    """Lines, defaults, variables and flags; what is secret, or comes from a variable into a command, is masked."""
    env = {"KEY": "topsecret", "PLACE": "/somewhere", "LOG_LEVEL": "warn"}
    done = OURS.run("config", "check", "-config", file, env=env)
    assert done.code == 0, done
    assert "topsecret" not in done.text
    assert "hush" not in done.text
    lines = {" ".join(line.split()) for line in done.out.splitlines()}
    assert lines >= {
        f"# {file}",
        'addr: ":9090" # line 1',
        "level: warn # environment LOG_LEVEL",
        "type: json # line 2",
        "path: /var/run/litestream.sock # default",
        'exec: "***" # line 7 $KEY',
        "- path: /var/lib/app.db # line 9",
        "meta-path: /var/lib/.app.db-litestream # default",
        "type: s3 # line 11",
        "retention: 3h0m0s # line 12",
        "snapshot-interval: 24h0m0s # line 3",
        'access-key-id: "***" # line 4 $KEY',
        "path: /somewhere/b # line 13 $PLACE",
        "- name: second # line 14",
        "retention: 24h0m0s # default",
    }
    assert loads(done.out.replace("$", "")).databases[0].path == "/var/lib/app.db"  # it is a configuration itself
    flagged = OURS.run("config", "check", "-log-level", "debug", file, env=env)
    assert "debug" in flagged.out
    assert "# flag -log-level" in flagged.out


def test_check_as_json(file: Path) -> None:
    """A list of places, values and sources, and the warnings."""
    done = OURS.run("config", "check", "-json", file, env={"KEY": "k"})
    found = json.loads(done.out)
    assert (done.code, found["ok"], found["path"]) == (0, True, str(file))
    settings = {setting.pop("key"): setting for setting in found["settings"]}
    assert settings["dbs[0].replicas[1].path"] == {"value": "/b", "source": "file", "line": 13, "names": ["PLACE"]}
    assert settings["dbs[0].busy-timeout"] == {"value": "1s", "source": "default"}
    assert settings["dbs[0].replicas[0].secret-access-key"] == {"value": "***", "source": "file", "line": 5}
    assert found["warnings"] == [f"{file}:13: the environment variable PLACE is not set and becomes empty"]


def test_check_of_many_databases(tmp_path: Path) -> None:
    """The work goes with the number of databases, and not with its square."""

    def steps(count: int) -> int:
        dbs = [{"path": f"{tmp_path}/{n}.db", "replicas": [{"path": f"{tmp_path}/r/{n}"}]} for n in range(count)]
        text = json.dumps({"retention": {"enabled": False}, "dbs": dbs})
        reading = read(text, name="c.yml", expand_env=False, environ={})
        calls: Counter[str] = Counter()
        sys.setprofile(lambda frame, event, argument: calls.update([event]))
        try:
            Effective(reading).tree()
        finally:
            sys.setprofile(None)
        return calls.total()

    assert steps(400) < 5 * steps(100)


def test_a_variable_in_the_place_of_a_key_is_shown(tmp_path: Path) -> None:
    """Credentials of the environment count where the file has none."""
    (tmp_path / "c.yml").write_text("dbs: [{path: /a, replica: {url: 's3://bucket/x'}}]")
    env = {"LITESTREAM_ACCESS_KEY_ID": "k", "LITESTREAM_SECRET_ACCESS_KEY": "hush"}
    done = OURS.run("config", "check", tmp_path / "c.yml", env=env)
    assert 'secret-access-key: "***"' in done.out
    assert "# environment LITESTREAM_SECRET_ACCESS_KEY" in done.out
    assert "hush" not in done.text


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("dbs: [{path: /a, replica: {path: /b, retention: soon}}]\nnonsense: 1", 2),
        ("addr: ':1'", 1),
        ("", 1),
    ],
)
def test_check_of_what_cannot_be_used(tmp_path: Path, text: str, errors: int) -> None:
    """Exit code 1 and every mistake, on stderr or in the JSON."""
    (tmp_path / "c.yml").write_text(text)
    done = OURS.run("config", "check", tmp_path / "c.yml")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", errors), done
    found = json.loads(OURS.run("config", "check", "-json", tmp_path / "c.yml").out)
    assert (found["ok"], len(found["errors"])) == (False, errors)


def test_migrate_writes_what_works_and_names_the_rest(file: Path, tmp_path: Path) -> None:
    """The new file on stdout or in a file, which is not replaced unless told to; notes on stderr."""
    file.write_text(TEXT + "l0-retention: 5m\n")
    env = {"KEY": "k", "PLACE": "/p"}
    done = OURS.run("config", "migrate", file, env=env)
    assert done.code == 0, done
    assert "secret-access-key: hush\n" in done.out
    assert "path: ${PLACE}/b\n" in done.out
    assert f"Warning: {file}:15: l0-retention: left out: has no effect" in done.err
    new = tmp_path / "new.yml"
    assert OURS.run("config", "migrate", "-o", new, file, env=env).code == 0
    assert new.read_text() == done.out
    assert new.stat().st_mode & 0o777 == 0o600
    again = OURS.run("config", "migrate", "-to", "0.5", "-o", new, file, env=env)
    assert (again.code, new.read_text()) == (1, done.out)
    assert again.err.splitlines()[-1] == f"Error: there is a file already: {new}: -force replaces it"
    assert OURS.run("config", "migrate", "-to", "0.5", "-force", "-o", new, file, env=env).code == 0
    assert "replica:" in new.read_text()


def test_migrate_of_what_is_wrong_in_itself(tmp_path: Path) -> None:
    """A file that no version could use gives no new one."""
    (tmp_path / "c.yml").write_text("dbs: [{path: /a, replicas: [{path: /b, retention: soon}]}]")
    done = OURS.run("config", "migrate", tmp_path / "c.yml")
    assert (done.code, done.out) == (1, "")
    assert "retention" in done.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "check or migrate required"),
        (["show"], "litestream config show: unknown command (it is check or migrate)"),
        (["check", "-to", "0.5"], "litestream config check has no flag -to"),
        (["migrate", "-json"], "litestream config migrate has no flag -json"),
        (["check", "-config", "a", "b"], "the configuration is named twice"),
        (["check", "/nowhere.yml"], "config file not found: /nowhere.yml"),
    ],
)
def test_mistakes_on_the_command_line(args: list[str], message: str) -> None:
    """One line, and exit code 1."""
    done = OURS.run("config", *args)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"Error: {message}")
