"""What the official 0.3.13 writes, we restore: the newest state, each time in between, and each index."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from helpers import batch, state
from helpers.app import App
from helpers.batch import Batch, Life
from helpers.cli import OURS, Daemon, Database, Program, generations, wait_until, write_config
from helpers.state import State
from litestream.client import open_client
from litestream.core.timestamps import parse_rfc3339
from litestream.restore import RestoreOptions, restore

Marks = dict[int, list[tuple[str, State]]]


@pytest.mark.parametrize("seeds", batch.seeds(2000), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_we_restore_what_the_official_program_writes(
    tmp_path: Path, apps: Callable[[], App], daemons: Callable[..., Daemon], official_v03: Program, seeds: list[int]
) -> None:
    """Random histories under 0.3.13: ours equals its restore at the end, each mark and by index."""
    lives = Batch(tmp_path, seeds, apps)
    config = lives.config(monitor_interval="30ms", min_checkpoint_page_count=50, max_checkpoint_page_count=500)
    daemon = daemons(config, program=official_v03).start()
    marks: Marks = {seed: [] for seed in seeds}
    for last in (6, 11, 16):
        lives.run(last)
        note(lives, official_v03, marks)
    lives.close()
    daemon.stop()
    for life in lives.lives:
        url, out = f"file://{life.replica}", tmp_path / "out.db"
        assert OURS.restored(url, out) == official_v03.restored(url, out), f"history {life.seed}"
        for at, want in marks[life.seed]:
            got = restored(url, out, RestoreOptions(timestamp_ns=parse_rfc3339(at)))
            assert got.without_pages() == want, f"history {life.seed} at {at}"
        by_index(life, official_v03, out)


def note(lives: Batch, official: Program, marks: Marks) -> None:
    """Wait until every replica has everything, and note the time and the state."""
    caught_up = [life for life in lives.lives if reaches(official, life, lives.folder / "out.db")]
    # 0.3.13 now and then leaves the newest commit in a WAL of 64 KiB pages until the next one comes (history 2037).
    assert len(caught_up) >= len(lives.lives) - 2
    time.sleep(0.02)
    at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    for life in caught_up:
        marks[life.seed].append((at, state.source(life.db).without_pages()))
    time.sleep(0.02)


def reaches(official: Program, life: Life, out: Path) -> bool:
    """Whether the official program's replica comes to hold everything."""
    try:
        official.converge(life.db, life.replica, out, pages=False, timeout=5)
    except AssertionError:
        return False
    return True


def by_index(life: Life, official: Program, out: Path) -> None:
    """Restores up to an index of the newest generation are the same; one in between and the last are tried."""
    generation = generations(life.replica)[-1]
    folder = life.replica / "generations" / generation
    first = min(int(p.name[:8], 16) for p in (folder / "snapshots").iterdir())
    indexes = sorted({int(p.name[:8], 16) for p in (folder / "wal").iterdir()} - set(range(first)))
    for index in {random.Random(life.seed).choice(indexes), indexes[-1]}:
        flags = ("-generation", generation, "-index", f"{index:08x}")
        url = f"file://{life.replica}"
        got = restored(url, out, RestoreOptions(generation=generation, index=index))
        assert got == official.restored(url, out, *flags), f"history {life.seed} {flags}"


def restored(url: str, out: Path, options: RestoreOptions) -> State:
    """What our restore gives, in this process: starting the command a thousand times would take minutes."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{out}{suffix}").unlink(missing_ok=True)
    asyncio.run(restore([("file", open_client(url))], str(out), options=options))
    return state.read(out)


def test_an_ltx_replica_is_refused_by_name(
    tmp_path: Path, app: App, daemons: Callable[..., Daemon], official_v05: Program
) -> None:
    """A replica of the official 0.5 is recognised: one sentence says that it is one, and no file is left."""
    db, replica, out = tmp_path / "a.db", tmp_path / "replica", tmp_path / "out.db"
    app.create(db).ledger(5)
    daemon = daemons(write_config(tmp_path / "c.yml", [Database(db, [replica])]), program=official_v05).start()
    wait_until(lambda: list(replica.rglob("*.ltx")), daemon.text)
    daemon.stop()
    result = OURS.restore(f"file://{replica}", out)
    assert result.code == 1
    assert "LTX" in result.err
    assert len(result.text.splitlines()) == 1
    assert not list(tmp_path.glob("out.db*"))
