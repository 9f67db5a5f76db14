"""What we write, the official programs restore."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import batch, state
from helpers.app import App
from helpers.batch import Batch
from helpers.cli import OURS, Daemon, Program, objects

STAMP_SIZE = 232


@pytest.mark.parametrize("seeds", batch.seeds(1000), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_official_programs_restore_what_we_write(
    tmp_path: Path,
    apps: Callable[[], App],
    daemons: Callable[..., Daemon],
    official_v03: Program,
    official_v05: Program,
    seeds: list[int],
) -> None:
    """After random histories, stops, writes in between and a kill -9, both official programs restore equal."""
    lives = Batch(tmp_path, seeds, apps)
    daemon = daemons(lives.config(min_checkpoint_page_count=50, max_checkpoint_page_count=500)).start()
    lives.run(9)
    lives.wait_replicated(daemon)
    assert daemon.stop() == 0
    compare(lives, [official_v03, official_v05])
    lives.run(11)
    daemon.start()
    lives.run(15)
    daemon.kill()
    lives.run(16)
    daemon.start()
    lives.run(19)
    lives.wait_replicated(daemon)
    assert daemon.stop() == 0
    compare(lives, [official_v03, official_v05, OURS])


@pytest.mark.parametrize("seeds", batch.seeds(5000)[::3], ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_official_programs_restore_what_compact_mode_writes(
    tmp_path: Path,
    apps: Callable[[], App],
    daemons: Callable[..., Daemon],
    official_v03: Program,
    official_v05: Program,
    seeds: list[int],
) -> None:
    """WALs in which each page stands once are restored equal by both, across a kill -9 and switching it off and on."""
    lives = Batch(tmp_path, seeds, apps)
    some = {"min_checkpoint_page_count": 50, "max_checkpoint_page_count": 500}
    daemon = daemons(lives.config(**some, compact=True)).start()
    lives.run(9)
    lives.wait_replicated(daemon)
    daemon.kill()
    lives.run(11)
    daemon.start()
    lives.run(14)
    lives.wait_replicated(daemon)
    assert daemon.stop() == 0
    compare(lives, [official_v03, official_v05, OURS])
    lives.config(**some)
    daemon.start()
    lives.run(17)
    lives.wait_replicated(daemon)
    assert daemon.stop() == 0
    lives.config(**some, compact=True)
    daemon.start()
    lives.run(19)
    lives.wait_replicated(daemon)
    assert daemon.stop() == 0
    compare(lives, [official_v03, official_v05, OURS])


def compare(lives: Batch, programs: list[Program]) -> None:
    """Every program restores every database exactly as it is."""
    for life in lives.lives:
        want = state.source(life.db)
        for program in programs:
            got = program.restored(f"file://{life.replica}", lives.folder / "out.db")
            assert got == want, f"{program.name}, history {life.seed}"


def test_stamps_can_be_taken_away(tmp_path: Path, apps: Callable[[], App], daemons: Callable[..., Daemon]) -> None:
    """Without its stamps a replica of ours is one as the official program writes it, and restores the same."""
    lives = Batch(tmp_path, range(3000, 3004), apps)
    daemon = daemons(lives.config(min_checkpoint_page_count=50)).start()
    lives.run(15)
    assert daemon.stop() == 0
    for life in lives.lives:
        for path in objects(life.replica):
            raw = path.read_bytes()
            assert raw[-STAMP_SIZE : -STAMP_SIZE + 12] == b"\x5a\x2a\x4d\x18\xe0\x00\x00\x00LSP\x01", path
            path.write_bytes(raw[:-STAMP_SIZE])
    compare(lives, [OURS])
