"""Either side is killed at any moment, while writers and readers go on.

The suite's form takes about 10 s; LITESTREAM_LONG makes it four minutes, LITESTREAM_FOLLOW_SEED draws other moments.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.app import App
from helpers.cli import Daemon, wait_until
from helpers.following import Pair, Reader, content
from helpers.rig import LONG

SECONDS = 240.0 if LONG else 7.0
SEED = int(os.environ.get("LITESTREAM_FOLLOW_SEED", "1"))


@pytest.mark.timeout(900)
def test_readers_see_committed_states_only_whoever_is_killed(
    tmp_path: Path, apps: Callable[[], App], daemons: Callable[..., Daemon]
) -> None:
    """Readers of the copy never see anything but one committed state after the other, and in the end the last one."""
    chance = random.Random(SEED)
    pair = Pair(tmp_path, daemons)
    app = apps().create(pair.db)
    app.fill(200)
    every = [
        (150, "VACUUM"),
        (97, "CREATE TABLE IF NOT EXISTS more(a, b)"),
        (113, "DELETE FROM bulk WHERE rowid % 3 = 0"),
    ]
    app.start_writing(pair.db, pause=0.003, every=every)
    pair.start()
    readers = [Reader(pair.copy) for _ in range(2)]
    kills = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        time.sleep(chance.random() * 1.2)
        victim = pair.follower if chance.random() < 0.7 else pair.source
        victim.kill()
        kills += 1
        time.sleep(chance.random() * 0.3)
        victim.start()
    written = app.stop_writing()
    pair.wait_for("SELECT max(n) FROM ledger", written.n, timeout=60)
    seen = [reader.end() for reader in readers]
    print(f"{kills} kills, {written.n} transactions, {seen}")
    for found in seen:
        assert found.problems == []
        assert found.last > 0
        assert found.looks > 20
    assert kills >= 3
    assert "deleted" not in pair.follower.text(), "the follower's locks keep readers from deleting the WAL"
    wait_until(lambda: content(pair.copy) == content(pair.db), "the copy is the database")
