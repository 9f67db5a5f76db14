"""Random histories while the replicator is killed, frozen and stopped at random: in the end the replicas are equal.

LITESTREAM_STORMS=N makes it N storms of ten databases each instead of one.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import state
from helpers.app import App
from helpers.batch import Batch
from helpers.cli import OURS, Daemon

STORMS = int(os.environ.get("LITESTREAM_STORMS", "1"))


class Storm(threading.Thread):
    """Disturbs a replicator until it is told to stop; then the replicator runs."""

    def __init__(self, daemon: Daemon, rnd: random.Random) -> None:
        super().__init__()
        self.daemon_ = daemon
        self.rnd = rnd
        self.over = threading.Event()
        self.errors: list[BaseException] = []

    def run(self) -> None:
        try:
            while not self.over.wait(self.rnd.uniform(0.1, 0.8)):
                self.disturb()
        except BaseException as e:
            self.errors.append(e)

    def disturb(self) -> None:
        how = self.rnd.choice(("kill", "kill", "stop", "freeze"))
        if how == "freeze":
            self.daemon_.freeze()
            time.sleep(self.rnd.uniform(0.01, 0.4))
            self.daemon_.thaw()
            return
        if how == "kill":
            self.daemon_.kill()
        else:
            # At any moment of its start: before it has its handlers the signal simply ends it.
            assert self.daemon_.stop() in {0, -15}, self.daemon_.text()[-2000:]
        time.sleep(self.rnd.uniform(0, 0.3))
        self.daemon_.start()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", range(STORMS))
def test_storm(tmp_path: Path, apps: Callable[[], App], daemons: Callable[..., Daemon], seed: int) -> None:
    """Ten applications go through their histories under the storm; after each lull every replica equals its source."""
    rnd = random.Random(seed)
    lives = Batch(tmp_path, range(10_000 + 10 * seed, 10_010 + 10 * seed), apps)
    small = {
        "min_checkpoint_page_count": rnd.choice((10, 50, 1000)),
        "max_checkpoint_page_count": rnd.choice((30, 500)),
    }
    daemon = daemons(lives.config(**small)).start()
    for last in (25, 50):
        storm = Storm(daemon, rnd)
        storm.start()
        lives.run(last)
        storm.over.set()
        storm.join()
        assert storm.errors == []
        for life in lives.lives:
            OURS.converge(life.db, life.replica, tmp_path / "out.db", timeout=30)
    assert daemon.stop() == 0
    for life in lives.lives:
        assert OURS.restored(f"file://{life.replica}", tmp_path / "out.db") == state.source(life.db), life.seed
