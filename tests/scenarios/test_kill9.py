"""Kill -9 at random moments under a live writer: what was restorable once stays restorable.

The short form runs always. LITESTREAM_KILLS=N makes it N kills for each seed in LITESTREAM_SEEDS (default 1).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest

from helpers.app import App
from helpers.rig import Rig

KILLS = int(os.environ.get("LITESTREAM_KILLS", "8"))
SEEDS = [int(seed) for seed in os.environ.get("LITESTREAM_SEEDS", "1").split(",")]


@pytest.mark.timeout(60 + 8 * KILLS)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("truncating", [False, True], ids=["autocheckpoint", "app truncates too"])
def test_kill9_loses_nothing(rig: Rig, app: App, apps: Callable[[], App], truncating: bool, seed: int) -> None:
    """After each kill a restore is a committed state at or past every one before; after the last start it is equal."""
    rnd = random.Random(seed)
    app.create(rig.db)
    every = [(97, "PRAGMA wal_checkpoint(TRUNCATE)")] if truncating else []
    writer = apps()
    daemon = rig.start(monitor_interval="20ms")
    rig.reach(0)
    writer.start_writing(rig.db, pause=0.003, every=every, pragmas=["busy_timeout=5000"])
    acknowledged = 0
    for _ in range(KILLS):
        time.sleep(rnd.uniform(0.05, 0.9))
        if rnd.random() < 0.3:
            acknowledged = max(acknowledged, rig.restored_n())
        daemon.kill()
        restored = rig.restored_n()
        assert restored >= acknowledged, f"transaction {acknowledged} was restorable, now {restored}: {daemon.text()}"
        acknowledged = restored
        rig.start()
    report = writer.stop_writing()
    assert report.failures == []
    assert rig.reach(report.n) == report.n
    rig.converge()
    assert daemon.stop() == 0
