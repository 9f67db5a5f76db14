"""The command itself, killed at random moments: `restore -resume` over a slow line, and `restore -update`."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from helpers.cli import LITESTREAM, OURS, Database, environment, write_config
from helpers.recording import Recorder, Recording, replica, write_tree
from helpers.servers.s3 import S3Server
from helpers.tcpproxy import Direction, TCPProxy

pytestmark = pytest.mark.xdist_group("seaweedfs")

_RATE = 3 << 20
"""Bytes a second of the slow line."""


class SlowLine(TCPProxy):
    """Passes on what the server says slowly, and counts it."""

    def __init__(self, upstream_port: int) -> None:
        super().__init__(upstream_port)
        self.passed = 0
        self.alarm = 1 << 60
        self.ringing = threading.Event()

    def ring_at(self, passed: int) -> None:
        """Set `ringing` when so many bytes have passed."""
        self.ringing.clear()
        self.alarm = passed

    async def _pump(self, side: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(8 << 10):
            if side == "server":
                await asyncio.sleep(len(data) / _RATE)
            writer.write(data)
            await writer.drain()
            if side == "server":
                self.passed += len(data)
                if self.passed >= self.alarm:
                    self.ringing.set()
        if writer.can_write_eof():
            writer.write_eof()


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A snapshot of less than 1 MiB (what is larger comes in pieces of 1 MiB from S3), and 44 segments in two WALs."""
    with Recorder(tmp_path_factory.mktemp("life"), 4096) as r:
        r.run("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
        r.run(*[("INSERT INTO t(body) VALUES(randomblob(?))", (9000,)) for _ in range(70)])
        r.restart()
        r.run("INSERT INTO t(body) VALUES('second WAL')")
        r.snapshot()
        for n in range(44):
            if n == 22:
                r.restart()
            r.run(*[("INSERT INTO t(body) VALUES(randomblob(?))", (9000,)) for _ in range(8)])
        return r.recording


def _sound(path: Path) -> bool:
    connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    try:
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    finally:
        connection.close()


def test_resumed_until_it_is_done(seaweedfs: S3Server, life: Recording, tmp_path: Path) -> None:
    """Killed again and again, a restore from S3 fetches hardly more than the replica, and the result is exact."""
    bucket, rng = seaweedfs.new_bucket(), random.Random(17)
    objects = {k: body for k, (body, _) in replica(life).items() if "snapshot" in k or "/wal/00000000" not in k}
    for key, body in objects.items():
        seaweedfs.admin.put_object(Bucket=bucket, Key=f"p/{key}", Body=body)
    size, out, kills = sum(map(len, objects.values())), tmp_path / "out.db", 0
    with SlowLine(seaweedfs.port) as line:
        settings = seaweedfs.settings(bucket, path="p") | {"endpoint": f"http://127.0.0.1:{line.port}"}
        entry = {"type": "s3"} | {name.replace("_", "-"): value for name, value in settings.items()}
        config = write_config(tmp_path / "c.yml", [Database(tmp_path / "app.db", [entry])], sync=None)
        command = [str(LITESTREAM), "restore", "-resume", "-json", "-config", str(config), "-o", str(out)]
        command += ["-parallelism", "2"]  # what is on its way when it is killed is lost
        while True:
            line.ring_at(line.passed + rng.randrange(300_000, 1_200_000))
            with subprocess.Popen(
                [*command, str(tmp_path / "app.db")], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as process:
                while process.poll() is None and not line.ringing.wait(0.02):
                    pass
                how = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT])
                process.send_signal(how)
                said, _ = process.communicate(timeout=30)
            if process.returncode == 0:
                break
            assert process.returncode in (-signal.SIGKILL, -signal.SIGINT, 1, 130)
            assert not out.exists()
            kills += 1
            assert kills < 30
    assert kills >= 3
    assert line.passed < 1.2 * size, f"{line.passed / size:.2f} of the replica after {kills} kills"
    assert out.read_bytes() == life.last.image
    assert _sound(out)
    assert json.loads(said)["fetched"] < 0.7 * size
    assert sorted(os.listdir(tmp_path)) == ["c.yml", "out.db"]


def test_full_disk(life: Recording, tmp_path: Path) -> None:
    """A limit on files stands for a full disk: one line, exit code 1, and what was kept is used when there is room."""
    root = write_tree(replica(life), tmp_path / "replica")
    limit = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (700 << 10, 700 << 10)); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = ("restore", "-resume", "-json", "-o", tmp_path / "out.db", f"file://{root}")
    failed = OURS.run(*command, wrapper=(sys.executable, "-c", limit))
    assert (failed.code, failed.out, failed.err.count("\n")) == (1, "", 1)
    assert sorted(os.listdir(tmp_path)) == [".out.db-litestream-resume", "replica"]
    done = OURS.run(*command)
    assert done.code == 0, done.text
    result = json.loads(done.out)
    assert 0 < result["fetched"] < sum(path.stat().st_size for path in root.rglob("*.lz4"))
    assert (tmp_path / "out.db").read_bytes() == life.last.image


def test_update_is_killed(life: Recording, tmp_path: Path) -> None:
    """Killed at any moment, an update leaves the old file or the new one, and the next one goes on from it."""
    rng, out = random.Random(23), tmp_path / "out.db"
    objects = replica(life)
    root = tmp_path / "replica"
    points = [point for point in life.points if point.index]
    images = {point.image for point in life.points}
    command = [str(LITESTREAM), "restore", "-update", "-json", "-o", str(out), f"file://{root}"]
    took = 0.0
    for number, point in enumerate(points[::7]):
        upto = (point.index, point.offset)
        write_tree({k: o for k, o in objects.items() if _at(k) < upto}, root)
        if number:
            with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as process:
                time.sleep(rng.uniform(0.6, 1.05) * took)
                process.kill()
            assert out.read_bytes() in images
            assert _sound(out)
        began = time.monotonic()
        done = OURS.run(*command[1:])
        took = time.monotonic() - began
        assert done.code == 0, done.text
        assert json.loads(done.out)["updated"] is (number > 0)
        assert out.read_bytes() == point.image


def _at(key: str) -> tuple[int, int]:
    name = key.rpartition("/")[2].split(".")[0]
    index, _, offset = name.partition("_")
    return int(index, 16), int(offset or "0", 16)
