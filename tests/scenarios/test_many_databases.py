"""A server's many databases under one replicator: all restored equal, and what they cost.

The suite's form is 100 databases, 10 of them active; LITESTREAM_LONG makes it 1,000 and 50.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.app import App
from helpers.cli import Daemon, objects, wait_until
from helpers.rig import LONG
from helpers.swarm import cost_of, wait_restored, write_directory

MANY, ACTIVE, SECONDS = (1000, 50, 60) if LONG else (100, 10, 3)
IDLE = 20 if LONG else 3
"""Seconds over which the processor time at rest is measured."""

KILLS = int(os.environ.get("LITESTREAM_KILLS", "4"))


def create(app: App, data: Path, names: list[str]) -> None:
    for name in names:
        app.create(data / name, name=name)
        app.ledger(1, name=name)
        app.close(name)


def names_of(count: int) -> list[str]:
    """In folders of a hundred each."""
    return [f"{number // 100:02}/d{number:04}.db" for number in range(count)]


@pytest.mark.timeout(1200 if LONG else 120)
def test_all_are_restored_equal(tmp_path: Path, apps: Callable[[], App], daemons: Callable[..., Daemon]) -> None:
    """Idle and active ones, through a restart: in the end each restores to its last commit; at rest nothing runs."""
    data, replica = tmp_path / "data", tmp_path / "replica"
    names = names_of(MANY)
    for folder in {data / name.split("/")[0] for name in names}:
        folder.mkdir(parents=True)
    writers = [apps(), apps()]
    for number, app in enumerate(writers):
        create(app, data, names[number::2])
    config = write_directory(tmp_path / "c.yml", data, replica, recursive=True)
    daemon = daemons(config)
    began = time.monotonic()
    daemon.start()
    wait_until(lambda: daemon.text().count("snapshot written") >= MANY, "the first snapshots", 300, 0.1)
    first = time.monotonic() - began
    time.sleep(3)
    rest = cost_of(daemon.pid)
    time.sleep(IDLE)
    idle = (cost_of(daemon.pid).cpu - rest.cpu) / IDLE
    active = random.Random(1).sample(names, ACTIVE)
    for number, name in enumerate(active):
        writers[number % 2].start_writing(data / name, pause=0.05, name=name)
    time.sleep(SECONDS / 2)
    busy = cost_of(daemon.pid)
    assert daemon.stop() == 0
    daemon.start()
    time.sleep(SECONDS / 2)
    wanted = dict.fromkeys(names, 1)
    for number, name in enumerate(active):
        report = writers[number % 2].stop_writing(name)
        assert report.failures == []
        wanted[name] = report.n
    began = time.monotonic()
    wait_restored(replica, {name: wanted[name] for name in active}, tmp_path / "out", 60)
    print(
        f"\n{MANY} databases: first snapshots {first:.1f} s; at rest {rest}, {100 * idle:.2f} % of a core; busy {busy}"
    )
    assert idle < 0.05
    assert daemon.stop(timeout=60) == 0
    wait_restored(replica, wanted, tmp_path / "out", 1)
    assert len(objects(replica / names[0])) >= 1


@pytest.mark.timeout(60 + 10 * KILLS)
def test_kills_lose_nothing(tmp_path: Path, app: App, daemons: Callable[..., Daemon]) -> None:
    """Kill -9 at random moments while databases appear and are written to: what was restorable stays so."""
    rnd = random.Random(int(os.environ.get("LITESTREAM_SEEDS", "1").split(",")[0]))
    data, replica = tmp_path / "data", tmp_path / "replica"
    data.mkdir()
    daemon = daemons(write_directory(tmp_path / "c.yml", data, replica)).start()
    app.create(data / "w.db", name="w")
    app.close("w")
    app.start_writing(data / "w.db", pause=0.003)
    wait_until(lambda: objects(replica / "w.db"), daemon.text)
    wanted: dict[str, int] = {}
    least = 0
    for number in range(KILLS):
        name = f"new{number}.db"
        app.create(data / name, name=name)
        app.ledger(number, name=name)
        wanted[name] = number
        time.sleep(rnd.uniform(0.05, 0.9))
        daemon.kill()
        restored = daemon.program.restored_n(f"file://{replica}/w.db", tmp_path / "w.db")
        assert restored >= least
        least = restored
        daemon.start()
    report = app.stop_writing()
    assert report.failures == []
    wait_restored(replica, {**wanted, "w.db": report.n}, tmp_path / "out")
    assert daemon.stop() == 0
