"""Replicas in services from the command line: with a file, and with nothing but a URL and the environment.

Each service runs for real; `place` makes an empty spot in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from helpers.cli import LITESTREAM, OURS, Daemon, Database, environment, write_config
from helpers.servers.azurite import Azurite
from helpers.servers.base import Server
from helpers.servers.dav import PASSWORD, USER, DAVServer
from helpers.servers.nats import NATSServer
from helpers.servers.s3 import S3Server
from helpers.servers.sshd import SSHD

VERBS = ("generations", "snapshots", "wal")


@dataclass(frozen=True)
class Place:
    """One empty spot in a running service."""

    replica: dict[str, Any]
    """How a file names it, credentials included."""
    url: str
    environ: Mapping[str, str]
    """The credentials, for a URL without a file."""
    secrets: tuple[str, ...]
    line: str
    """How the log of `replicate` names it, without name, type and interval."""
    top: dict[str, Any] = field(default_factory=dict)
    """The credentials as defaults of a file."""
    bare_url: str = ""
    """The URL without credentials, where `url` has them because the service has no variables for them."""

    @property
    def type(self) -> str:
        return str(self.replica["type"])


def _s3(server: S3Server) -> Place:
    bucket = server.new_bucket()
    keys = {"access-key-id": server.key, "secret-access-key": server.secret}
    place = {"bucket": bucket, "path": "deep/app", "endpoint": server.endpoint, "region": "us-east-1"}
    return Place(
        {"type": "s3", **place, "force-path-style": True, **keys},
        f"s3://{bucket}/deep/app?endpoint={server.endpoint}&forcePathStyle=true",
        {f"LITESTREAM_{name.replace('-', '_').upper()}": value for name, value in keys.items()},
        (server.secret,),
        f"bucket={bucket} path=deep/app region=us-east-1 endpoint={server.endpoint}",
        keys,
    )


def _abs(server: Azurite) -> Place:
    container = server.container()
    place = {"account-name": server.account, "bucket": container, "path": "deep/app", "endpoint": server.endpoint}
    return Place(
        {"type": "abs", **place, "account-key": server.key},
        f"abs://{server.account}@{container}/deep/app?endpoint={server.endpoint}",
        {"LITESTREAM_AZURE_ACCOUNT_KEY": server.key},
        (server.key,),
        f"bucket={container} path=deep/app endpoint={server.endpoint}",
        {"account-key": server.key},
    )


def _webdav(server: DAVServer) -> Place:
    folder = server.new_place()
    host, name = f"127.0.0.1:{server.port}", quote(folder.name)
    return Place(
        {
            "type": "webdav", "webdav-url": f"http://{host}/{name}", "path": "deep/app", "webdav-username": USER,
            "webdav-password": PASSWORD,
        },
        f"webdav://{USER}:{quote(PASSWORD, safe='')}@{host}/{name}/deep/app",
        {},
        (PASSWORD, quote(PASSWORD, safe="")),
        f"path=webdav://{host}/{name}/deep/app",
        {"webdav-username": USER, "webdav-password": PASSWORD},
        f"webdav://{host}/{name}/deep/app",
    )  # fmt: skip


@pytest.fixture(scope="session")
def ssh_agent(sshd: SSHD, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SSHD, Path]]:
    """The server, and the socket of an agent that has the right key."""
    folder = tmp_path_factory.mktemp("agent")
    socket = folder / "socket"
    with Server(["ssh-agent", "-D", "-a", str(socket)], folder) as agent:
        agent.wait_until(socket.exists)
        command = ["ssh-add", "-q", str(sshd.key)]
        subprocess.run(command, env={**os.environ, "SSH_AUTH_SOCK": str(socket)}, check=True, capture_output=True)
        yield sshd, socket


def _sftp(found: tuple[SSHD, Path]) -> Place:
    """The URL's key is with the agent, the server's below the home directory."""
    server, agent = found
    folder = server.folder()
    home = folder.with_name(folder.name + "-home")
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
    host = f"127.0.0.1:{server.port}"
    place = {"host": host, "user": server.user, "path": str(folder)}
    keys = {"key-path": str(server.key), "host-key": server.host_key}
    return Place(
        {"type": "sftp", **place, **keys},
        f"sftp://{server.user}@{host}{folder}",
        {"HOME": str(home), "SSH_AUTH_SOCK": str(agent)},
        (server.key.read_text().splitlines()[1],),
        f"host={host} user={server.user} path={folder}",
        keys,
    )


def _nats(server: NATSServer) -> Place:
    bucket = asyncio.run(server.bucket())
    url = f"nats://127.0.0.1:{server.port}/{bucket}/deep/app"
    keys = {"username": "admin", "password": "testsecret"}
    return Place(
        {"type": "nats", "url": url, **keys},
        url.replace("//", "//admin:testsecret@"),
        {},
        ("testsecret",),
        f"path={url}",
        keys,
        url,
    )


SERVERS: dict[str, Callable[[Any], Place]] = {
    "seaweedfs": _s3,
    "azurite": _abs,
    "rclone_webdav": _webdav,
    "ssh_agent": _sftp,
    "nats_server": _nats,
}
GROUPS = {"ssh_agent": "sshd"}
"""The fixture of the server itself, where that is another."""


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(GROUPS.get(name, name))) for name in SERVERS])
def place(request: pytest.FixtureRequest) -> Place:
    """An empty spot in each service."""
    return SERVERS[request.param](request.getfixturevalue(request.param))


def application(path: Path, rows: int) -> None:
    """Commit some rows to a database in WAL mode."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
    for row in range(rows):
        connection.execute("INSERT INTO t VALUES(?)", [row])
        connection.commit()
    connection.close()


def count(path: Path) -> int:
    """The rows of a restored database, which must be sound."""
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    found: int = connection.execute("SELECT count(*) FROM t").fetchone()[0]
    connection.close()
    return found


def replicate(config: Path, daemons: Callable[..., Daemon], app: Path) -> str:
    """Replicate 3 commits and then 4 more; the log."""
    application(app, 3)
    daemon = daemons(config).start()
    daemon.wait_for_log("snapshot written", timeout=30)
    application(app, 4)
    assert daemon.stop(timeout=40) == 0, daemon.text()
    return daemon.text()


def test_a_file_and_then_nothing_but_a_url(place: Place, daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """What a file replicates is listed and restored with it, and on a machine that has only URL and credentials."""
    app = tmp_path / "app.db"
    config = write_config(tmp_path / "c.yml", [Database(app, [place.replica])])
    log = replicate(config, daemons, app)
    assert f"replicating to: name={place.type} type={place.type} {place.line} sync-interval=100ms" in log
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    said = log
    for source, env, flags in ((place.url, place.environ, []), (str(app), {}, ["-config", str(config)])):
        for verb in VERBS:
            done = OURS.run(verb, *flags, "-json", source, env=env, cwd=elsewhere)
            assert done.code == 0, done.text
            rows = json.loads(done.out)
            assert rows, verb
            assert {row.get("replica", row.get("name")) for row in rows} == {place.type}
            said += done.text
        out = tmp_path / f"out{len(flags)}.db"
        done = OURS.run("restore", *flags, "-o", out, source, env=env, cwd=elsewhere)
        assert done.code == 0, done.text
        assert count(out) == 7
        said += done.text
    assert not [secret for secret in place.secrets if secret in said]


def test_a_url_takes_defaults_from_a_file_that_is_named(
    place: Place, daemons: Callable[..., Daemon], tmp_path: Path
) -> None:
    """With -config the file's own credentials apply to the URL, which is not in the file."""
    app = tmp_path / "app.db"
    replicate(write_config(tmp_path / "c.yml", [Database(app, [place.replica])]), daemons, app)
    (tmp_path / "keys.yml").write_text(json.dumps(place.top))
    out = tmp_path / "out.db"
    done = OURS.run("restore", "-config", tmp_path / "keys.yml", "-o", out, place.bare_url or place.url)
    assert done.code == 0, done.text
    assert count(out) == 7
    listed = OURS.run("snapshots", "-config", tmp_path / "keys.yml", place.bare_url or place.url)
    assert listed.code == 0
    assert len(listed.out.splitlines()) == 2


def test_urls_of_the_command_line_replicate(place: Place, tmp_path: Path) -> None:
    """`replicate DB URL PATH` needs no file; each replica is complete when it has ended, and has its own name."""
    app = tmp_path / "app.db"
    application(app, 3)
    command = [str(LITESTREAM), "replicate", str(app), place.url, str(tmp_path / "rep")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(place.environ), text=True
    ) as process:
        assert process.stdout is not None
        said = ""
        while said.count("snapshot written") < 2:
            line = process.stdout.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGTERM)
        said += process.stdout.read()
        assert process.wait(40) == 0, said
    assert f"replicating to: name={place.type} type={place.type} " in said
    assert f"replicating to: name=file type=file path={tmp_path}/rep " in said
    assert not [secret for secret in place.secrets if secret in said]
    for source in (place.url, f"file://{tmp_path}/rep"):
        out = tmp_path / "out.db"
        done = OURS.restore(source, out) if source is not place.url else restored(place, out)
        assert (done.code, count(out)) == (0, 3)


def restored(place: Place, out: Path) -> Any:  # noqa: ANN401 - what OURS.run gives
    """`restore` from the URL, with the credentials in the environment."""
    return OURS.run("restore", "-o", out, place.url, env=place.environ)


def test_wrong_credentials_show_nothing(place: Place, tmp_path: Path) -> None:
    """A listing that is refused is one line on stderr and exit code 1, and the secret that was tried is not in it."""
    env = {name: value[:-4] + "AAA=" for name, value in place.environ.items()}
    url = place.url.replace("@", "AAA@", 1) if place.bare_url else place.url
    for verb in VERBS:
        done = OURS.run(verb, url, env=env)
        assert (done.code, done.out.count("\n")) == (1, 1)
        assert re.fullmatch(rf"(Warning: [^\n]+\n)?Error: replica {place.type}: [^\n]+\n", done.err), done.err
        assert not [value for value in (*env.values(), *place.secrets) if value in done.text]
    done = OURS.run("restore", "-if-replica-exists", "-o", tmp_path / "o.db", url, env=env)
    assert done.code == 1, "a replica that cannot be read is not one without backups"
    assert not (tmp_path / "o.db").exists()


def test_an_empty_place(place: Place, tmp_path: Path) -> None:
    """Nothing there: listings have no rows, `restore` says so, and -if-replica-exists makes it no failure."""
    for verb in VERBS:
        done = OURS.run(verb, "-json", place.url, env=place.environ)
        assert (done.code, json.loads(done.out)) == (0, []), done.text
    done = restored(place, tmp_path / "o.db")
    assert (done.code, done.err.splitlines()[-1]) == (1, "Error: no matching backups found")
    done = OURS.run("restore", "-if-replica-exists", "-o", tmp_path / "o.db", place.url, env=place.environ)
    assert done.code == 0


@pytest.mark.xdist_group("seaweedfs")
def test_a_cap_and_metrics(seaweedfs: S3Server, daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """A monthly cap is counted in the database's local state, over restarts; at the cap the log says so."""
    place = _s3(seaweedfs)
    app = tmp_path / "app.db"
    capped = {**place.replica, "max-requests": {"per-month": 1000}}
    config = write_config(tmp_path / "c.yml", [Database(app, [capped])])
    replicate(config, daemons, app)
    (counter,) = (tmp_path / ".app.db-litestream").glob("requests-*.json")
    first = json.loads(counter.read_text())["requests"]
    assert 0 < first < 100
    daemon = daemons(config).start()
    daemon.wait_until_ready()
    application(app, 1)
    assert daemon.stop() == 0
    assert first < json.loads(counter.read_text())["requests"] < first + 100


def test_encrypted_replicas(daemons: Callable[..., Daemon], tmp_path: Path) -> None:
    """`age` of a file encrypts what is stored; only the identity reads it; a host that only reads cannot replicate."""
    pyrage = pytest.importorskip("pyrage")
    identity = pyrage.x25519.Identity.generate()
    app, rep = tmp_path / "app.db", tmp_path / "rep"
    database = [Database(app, [{"path": str(rep)}])]
    keys = {"recipients": [str(identity.to_public())]}
    writer = write_config(tmp_path / "w.yml", database, age=keys)
    reader = write_config(tmp_path / "r.yml", database, age={"identities": [str(identity)]})
    replicate(writer, daemons, app)
    bodies = [path.read_bytes() for path in rep.rglob("*.lz4")]
    assert bodies
    assert all(body.startswith(b"age-encryption.org/v1") for body in bodies)
    out = tmp_path / "out.db"
    assert OURS.run("restore", "-config", reader, "-o", out, app).code == 0
    assert count(out) == 7
    done = OURS.run("restore", "-config", writer, "-o", tmp_path / "no.db", app)
    assert done.code == 1
    assert "age.identities" in done.err
    done = OURS.run("replicate", "-config", reader)
    assert (done.code, done.err) == (
        1, f"Error: {app}(file): age has identities only: set age.recipients, for whom to encrypt\n",
    )  # fmt: skip
    assert str(identity) not in done.text


@pytest.mark.parametrize("verb", [*VERBS, "restore"])
def test_a_password_in_a_url_is_warned_about(verb: str, tmp_path: Path) -> None:
    """The line goes to stderr, once, and has neither the password nor the URL in it."""
    output = ["-o", str(tmp_path / "o.db")] if verb == "restore" else []
    done = OURS.run(verb, *output, "sftp://me:hush@127.0.0.1:1/x", timeout=90)
    assert done.code == 1
    assert done.err.count("Warning: the replica URL: everybody on this machine sees the secret in it (ps)") == 1
    assert "hush" not in done.text


def test_a_missing_package_names_the_replica(tmp_path: Path) -> None:
    """A replica whose library is not installed says what to install, and which flag chooses another replica."""
    config = write_config(
        tmp_path / "c.yml",
        [Database(tmp_path / "app.db", [tmp_path / "rep", {"type": "sftp", "host": "h", "user": "me", "path": "/x"}])],
    )
    command = ["wal", "-config", str(config), str(tmp_path / "app.db")]
    code = f"import sys; sys.modules['asyncssh'] = None\nimport litestream.cli as cli; sys.exit(cli.run({command!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        'Error: replica sftp: replica type sftp needs an extra package: install "litestream[sftp]" '
        "(-replica chooses another one)\n"
    )


def test_the_interpreter_is_not_taken_apart_below_foreign_threads() -> None:
    """With obstore in the process, threads and exit handlers end as always, and then the process at once."""
    code = (
        "import atexit, sys, threading, time, types\n"
        "from litestream.__main__ import _end\n"
        "class Late:\n    def __del__(self): print('taken apart', flush=True)\n"
        "sys.modules['obstore'] = types.ModuleType('obstore')\n"
        "sys.kept = Late()\n"
        "atexit.register(lambda: print('handler', flush=True))\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread', flush=True))).start()\n"
        "_end(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stdout.split("\n"), done.stderr) == (7, ["thread", "handler", ""], "")
