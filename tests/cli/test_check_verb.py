"""`check`: tables, JSON and exit codes. What it finds out is tested with `probe`, on services elsewhere."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pyrage
import pytest

from helpers.cli import LITESTREAM, Database, Yaml, environment, write_config
from helpers.destinations import DESTINATIONS, Destination
from litestream import cli
from litestream.storage.probe import PREFIX

OPERATIONS = [
    "write", "read", "read range", "list", "read absent", "create only", "overwrite", "delete", "gone after delete",
]  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], *argv: object, code: int = 0) -> tuple[str, str]:
    assert cli.run(["check", *map(str, argv)]) == code
    out, err = capsys.readouterr()
    return out, err


def documents(capsys: pytest.CaptureFixture[str], *argv: object, code: int = 0) -> list[dict[str, Yaml]]:
    out, err = run(capsys, "-json", *argv, code=code)
    assert err == ""
    found: list[dict[str, Yaml]] = json.loads(out)
    return found


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """One database with two directories as replicas."""
    replicas: list[Path | dict[str, Yaml]] = [
        {"name": "near", "path": str(tmp_path / "one")},
        {"name": "far", "path": str(tmp_path / "two")},
    ]
    return write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", replicas)])


def service(tmp_path: Path, port: int, **more: Yaml) -> Path:
    """A configuration with an S3 replica that nobody serves."""
    keys = {"access-key-id": "k", "secret-access-key": "s", "region": "us-east-1"}
    replica = {"type": "s3", "bucket": "b", "path": "app", "endpoint": f"http://127.0.0.1:{port}", **keys, **more}
    return write_config(tmp_path / "s.yml", [Database(tmp_path / "app.db", [replica])], sync=None)


@pytest.fixture
def closed_port() -> int:
    """Nobody listens there."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_directory_that_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each operation, a verdict, exit code 0, and nothing left in the directory."""
    out, err = run(capsys, f"file://{tmp_path}/replica")
    lines = out.splitlines()
    assert lines[0] == f"replica file: file://{tmp_path}/replica"
    assert lines[2].split() == ["operation", "result", "latency", "needed", "for", "note"]
    assert [line[:17].strip() for line in lines[3:12]] == OPERATIONS
    assert all(" works " in line for line in lines[3:12])
    assert "everything works that replicating and restoring need" in lines
    assert not any(line.endswith(" ") for line in lines)
    assert err == ""
    assert os.listdir(tmp_path / "replica") == []


def test_the_same_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that the table says, with latencies in seconds."""
    (found,) = documents(capsys, f"file://{tmp_path}")
    assert (found["replica"], found["type"], found["database"], found["usable"]) == ("file", "file", None, True)
    assert [entry["operation"] for entry in found["operations"]] == OPERATIONS
    assert all(entry["result"] == "works" and 0 < entry["latency_seconds"] < 60 for entry in found["operations"])
    assert found["operations"][3]["needed_for"] == ["replicate", "restore", "retention"]
    assert (found["encrypted"], found["estimate"]) == (False, None)


@pytest.mark.parametrize("how", ["nothing", "file", "flag", "database"])
def test_what_is_tried(
    how: str, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The usual configuration, a named one, or one database of it: each replica by itself."""
    monkeypatch.setenv("LITESTREAM_CONFIG", str(config if how in {"nothing", "database"} else config.parent / "no"))
    database = config.parent / "app.db"
    ways: dict[str, list[object]] = {"file": [config], "flag": ["-config", config], "database": [database]}
    argv = ways.get(how, [])
    found = documents(capsys, *argv)
    assert [(entry["replica"], entry["database"]) for entry in found] == [
        ("near", str(config.parent / "app.db")),
        ("far", str(config.parent / "app.db")),
    ]
    assert [entry["replica"] for entry in documents(capsys, "-replica", "far", *argv)] == ["far"]


def test_one_that_fails_does_not_hide_the_others(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A replica that cannot be written is a table of its own, with what to do; the exit code is 1."""
    (config.parent / "one").write_text("no directory")
    out, err = run(capsys, config, code=1)
    near, far = out.split("\nreplica far")
    assert "write              failed " in near
    assert "NOT everything works" in near
    assert "\nfailed: write, needed for replicate: file://" in near
    assert "allow" not in near
    assert "everything works that replicating" in far
    assert err == ""


def test_a_replica_that_cannot_be_opened_does_not_hide_the_others(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing package is an error line, and the next replica is tried."""
    from litestream.config import ReplicaConfig
    from litestream.errors import StoreConfigError

    original = ReplicaConfig.open

    def open_(self: ReplicaConfig) -> object:
        if self.label == "near":
            raise StoreConfigError("type", "install something")
        return original(self)

    monkeypatch.setattr(ReplicaConfig, "open", open_)
    out, err = run(capsys, config, code=1)
    assert "replica far" in out and "replica near" not in out
    assert err == f"Error: replica {config.parent}/app.db(near): install something\n"


@pytest.mark.parametrize("destination", DESTINATIONS, indirect=True)
def test_real_services(destination: Destination, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With all rights everything works that is needed, twice in a row, and no secret is told."""
    config = write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [destination.entry])])
    for _ in range(2):
        out, err = run(capsys, config)
        assert "everything works that replicating and restoring need" in out
        assert " denied " not in out and " failed " not in out and " not tried " not in out
        assert not any(secret in out + err for secret in destination.secrets)
        assert "stays" not in out and err == ""


def test_nobody_answers(tmp_path: Path, closed_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A refused connection is said once, everything else is not tried, and no secret is shown."""
    out, err = run(capsys, service(tmp_path, closed_port, **{"secret-access-key": "hush-hush"}), code=1)
    assert "connection refused" in out.lower()
    assert out.count("not tried") == 8
    assert "hush-hush" not in out + err


def test_a_server_that_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With -timeout, silence is an answer soon enough."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        (found,) = documents(capsys, "-timeout", "200ms", service(tmp_path, server.getsockname()[1]), code=1)
        assert time.monotonic() - began < 20
    assert found["operations"][0]["result"] == "failed"
    assert "0.2" in found["operations"][0]["note"]
    assert not found["usable"]


def test_the_estimate(tmp_path: Path, closed_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Requests of the worst case and of a typical month from the intervals; a server of one's own has no price."""
    (found,) = documents(capsys, service(tmp_path, closed_port, **{"sync-interval": "10s"}), code=1)
    estimate = found["estimate"]
    assert estimate["worst_case"]["put"] == 259_200 + 30 + 2  # the lease
    assert estimate["typical"]["put"] == 43_200 + 30 + 2
    assert (estimate["prices"], estimate["worst_case"]["cost_usd"], estimate["storage_usd"]) == (None, None, None)
    out, _ = run(capsys, service(tmp_path, closed_port), code=1)
    assert "no price of requests is known" in out
    assert "worst case  2592032  " in out


def test_the_estimate_of_a_cloud(tmp_path: Path) -> None:
    """Prices of the provider, and storage from the size of the database: as text with what they rest on."""
    from litestream.cli.check_show import Checked, document, text
    from litestream.config import load

    database = tmp_path / "app.db"
    database.write_bytes(b"")
    os.truncate(database, 500_000_000)
    keys = {"access-key-id": "k", "secret-access-key": "s", "region": "us-east-1"}
    replica: dict[str, Yaml] = {"type": "s3", "bucket": "b", "path": "app", **keys}
    config = load(str(write_config(tmp_path / "c.yml", [Database(database, [replica])], sync="1s")))
    entry = config.databases[0].replicas[0]
    checked = Checked(config.databases[0], entry, entry.open().store, [])
    out = text(checked)
    assert "AWS S3 Standard, us-east-1, list prices of 20" in out
    assert "estimate for 30 days" in out
    # two snapshots of 0.5 GB; 30 + 2 parts of 16 MiB each time
    assert "at most 1.000 GB of snapshots ($0.02)" in out
    estimate = document(checked)["estimate"]
    assert isinstance(estimate, dict)
    assert estimate["worst_case"]["put"] == 2_592_000 + 30 * 32 + 2
    assert estimate["worst_case"]["cost_usd"] == pytest.approx(13.95, abs=0.2)
    assert estimate["snapshots_gb"] == 1.0


@pytest.mark.parametrize(("cap", "warned"), [(100_000, True), (5_000_000, False)])
def test_a_cap_below_the_worst_case(
    cap: int, warned: bool, tmp_path: Path, closed_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """max-requests that may be reached within a month is warned about, with both numbers."""
    config = service(tmp_path, closed_port, **{"max-requests": {"per-month": cap}})
    out, _ = run(capsys, config, code=1)
    assert (f"Warning: max-requests.per-month is {cap}, less than the " in out) is warned
    (found,) = documents(capsys, config, code=1)
    assert (found["estimate"]["warning"] is not None) is warned
    assert found["estimate"]["max_requests_per_month"] == cap


def test_encryption_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether age is on, and whether this host can read; writing only is no failure, but reading only is."""
    identity = pyrage.x25519.Identity.generate()
    to, key = str(identity.to_public()), str(identity)
    for age, note, code in (
        ({"recipients": [to], "identities": [key]}, "this host can write and read", 0),
        ({"recipients": [to]}, "this host can write and not read", 0),
        ({"identities": [key]}, "set age.recipients", 1),
    ):
        replica: dict[str, Yaml] = {"path": str(tmp_path / "replica"), "age": age}
        config = write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [replica])])
        out, _ = run(capsys, config, code=code)
        assert len([line for line in out.splitlines() if line.startswith("encryption ")]) == 1
        assert note in out
        assert key not in out
        assert "age is off" not in out
    assert "age is off" in run(capsys, f"file://{tmp_path}/replica")[0]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["memory://x"], 'unknown replica type in config: "memory"'),
        (["-replica", "a", "file:///x"], "the -replica flag needs a database path"),
        (["-replica", "a"], 'replica "a" not found: the configuration has far, near'),
        (["-timeout", "0s"], "-timeout"),
        (["-timeout", "soon"], "invalid duration"),
        (["other.db"], "database not found in config"),
        (["."], "is a directory: write a replica that is one as file:///"),
        (["-config", "c.yml", "c.yml"], "named twice"),
        (["a", "b"], "too many arguments"),
    ],
)
def test_what_cannot_be_tried_is_said(
    argv: list[str], text: str, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that names what is wrong."""
    monkeypatch.chdir(config.parent)
    monkeypatch.setenv("LITESTREAM_CONFIG", str(config))
    out, err = run(capsys, *argv, code=1)
    assert text in err
    assert (out, err.count("\n")) == ("", 1)


def test_a_configuration_without_databases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to try is an error, not a success."""
    config = tmp_path / "c.yml"
    config.write_text("addr: ':9090'\n")
    assert "nothing to check" in run(capsys, config, code=1)[1]


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """Interrupted while a server is silent, it ends soon with exit code 1 and one line."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = service(tmp_path, server.getsockname()[1])
        command = [str(LITESTREAM), "check", str(config)]
        with subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            server.settimeout(20)
            connection, _ = server.accept()
            while b"/b/app/" not in connection.recv(65536):  # the port may have been another server's before
                connection.close()
                connection, _ = server.accept()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
            connection.close()
    assert (process.returncode, out, err) == (1, "", "Error: interrupted\n")


def test_objects_of_the_replica_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the replica holds is neither changed nor removed, and the probe is no object of it."""
    keep = tmp_path / "generations" / "0123456789abcdef" / "snapshots" / "00000000.snapshot.lz4"
    keep.parent.mkdir(parents=True)
    keep.write_bytes(b"x")
    run(capsys, f"file://{tmp_path}")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [keep]
    assert not (tmp_path / PREFIX).exists()
