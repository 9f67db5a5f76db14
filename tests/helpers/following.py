"""A source, its followers, and their readers, as processes."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from helpers.app import TESTS
from helpers.cli import OURS, Daemon, Yaml, environment, wait_until

TOKEN = "sesame"


@dataclass(frozen=True)
class Seen:
    """What a reader has seen."""

    last: int
    looks: int
    busy: int
    problems: list[str] = field(default_factory=list)


class Reader:
    """Reads a copy all the time, in its own process, until `end`."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "helpers.copyreader", str(path)],
            cwd=TESTS,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def end(self) -> Seen:
        out, _ = self._process.communicate(timeout=60)
        return Seen(**json.loads(out))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Pair:
    """A database, its replicator that others may follow, and one follower. Nothing runs until it is started."""

    def __init__(self, folder: Path, daemons: Callable[..., Daemon], *, scheme: str = "http", **top: Yaml) -> None:
        self.db = folder / "app.db"
        self.copy = folder / "far" / "copy.db"
        self.copy.parent.mkdir()
        self.meta = self.copy.parent / ".copy.db-litestream"
        self.port = free_port()
        self.url = f"{scheme}://localhost:{self.port}"
        replica = {"type": "file", "path": str(folder / "replica"), "sync-interval": "1s"}
        source = folder / "source.yml"
        source.write_text(
            json.dumps(
                {
                    "addr": f":{self.port}",
                    "stream-token": TOKEN,
                    "dbs": [{"path": str(self.db), "replicas": [replica]}],
                    **top,
                }
            )
        )
        self.source = daemons(source)
        self._config = folder / "follower.yml"
        self.follower = daemons(self._config)
        self.upstream()

    def upstream(self, **changed: Yaml) -> None:
        """What the follower's configuration says."""
        upstream = {"url": self.url, "path": str(self.db), "token": TOKEN, **changed}
        self._config.write_text(json.dumps({"dbs": [{"path": str(self.copy), "upstream": upstream}]}))

    def start(self) -> None:
        self.source.start()
        self.follower.start()
        wait_until(self.copy.exists, "there is a copy")

    def wait_for(self, sql: str, value: object, timeout: float = 20) -> None:
        """Until a query on the copy gives a single value."""

        def found() -> object:
            try:
                return query(self.copy, sql)
            except sqlite3.OperationalError as error:
                return str(error)

        wait_until(lambda: found() == value, lambda: f"{sql} gives {value}: {found()}", timeout)


def query(path: Path, sql: str) -> object:
    """The single value of a query, asked in a process of its own: this one must not open databases."""
    code = (
        "import sqlite3, sys, json\n"
        "c = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True, timeout=5)\n"
        "try: print(json.dumps(c.execute(sys.argv[2]).fetchone()[0]))\n"
        "except sqlite3.OperationalError as e: print(json.dumps({'error': str(e)}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path), sql], capture_output=True, text=True, check=True)
    value = json.loads(done.stdout)
    if isinstance(value, dict):
        raise sqlite3.OperationalError(value["error"])
    return value


def content(path: Path) -> str:
    """Everything in a database, as SQL's own dump; asked in a process of its own."""
    code = (
        "import sqlite3, sys, hashlib\n"
        "c = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True, timeout=5)\n"
        "h, one = hashlib.sha256(), lambda name: c.execute(f'PRAGMA {name}').fetchall()\n"
        "for line in c.iterdump(): h.update(line.encode())\n"
        "print(one('integrity_check'), one('page_count'), h.hexdigest())\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    ).stdout.strip()


def restoring(log: Path, *args: str) -> subprocess.Popen[bytes]:
    """`litestream restore ARGS` in the background."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [str(OURS.binary), "restore", *args], env=environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
