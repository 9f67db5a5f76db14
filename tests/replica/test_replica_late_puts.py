"""Stores that carry out requests late, twice or after a kill, show old listings, and know no conditions."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from helpers.fakedb import FakeDB
from helpers.latestore import LateStore
from litestream.client import ReplicaClient
from litestream.core.position import Pos
from litestream.errors import LitestreamError, LocalStateError, PositionError
from litestream.metrics import Metrics
from litestream.replica import Replica
from litestream.replica.attempt import Attempt
from litestream.restore import RestoreOptions, restore

SEEDS = int(os.environ.get("LITESTREAM_LATE_SEEDS", "12"))


class World:
    """A database, a store that lies, and one replicator after another."""

    def __init__(self, seed: int, folder: Path, *, conditional: bool) -> None:
        self.rng = random.Random(seed)
        self.db = FakeDB(seed=seed)
        self.store = LateStore(self.rng, conditional=conditional)
        self.client = ReplicaClient(self.store)
        self.output = folder / "restored.db"
        self.states: dict[bytes, int] = {}
        self.seen = -1
        self.generations = 1
        self.start()

    def start(self) -> None:
        """A new process: nothing is known but the local state and the store."""
        self.replica = Replica(self.db, ReplicaClient(self.store), metrics=Metrics())

    def commit(self) -> None:
        self.db.commit(self.rng.randint(1, 3))
        self.states[self.db.state()] = len(self.states)

    async def sync(self) -> None:
        """What the monitor does; a new generation where one was asked for."""
        try:
            await self.replica.sync()
        except LitestreamError:
            pass
        if self.db.reasons:
            self.db.reasons.clear()
            self.db.checkpoint()
            self.db.begin()
            self.generations += 1

    async def check(self) -> int:
        """A restore gives a committed state, never an older one than a restore before."""
        before, self.store.stale = self.store.stale, False
        options = RestoreOptions(integrity_check="none", force=True)
        await restore([("test", ReplicaClient(self.store))], str(self.output), options=options)
        self.store.stale = before
        state = self.states.get(self.output.read_bytes())
        assert state is not None, "no committed state"
        assert state >= self.seen, f"{self.seen} was restorable, now {state}"
        self.seen = state
        return state

    async def step(self) -> None:
        match self.rng.choice("ccccsssskldtC"):
            case "c":
                self.commit()
            case "s":
                await self.sync()
            case "k":
                self.start()
            case "l" if self.store.astray:
                await self.store.land()
            case "d":
                self.store.chance = self.rng.choice([0.0, 0.3, 0.8])
            case "t":
                self.store.stale = not self.store.stale
                await self.store.freshen()
            case "C":
                self.db.checkpoint()


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_late_puts(tmp_path: Path, seed: int, conditional: bool) -> None:
    """Whatever lands late, and from whomever: what was restorable stays so, and in the end everything is."""
    world = World(seed, tmp_path, conditional=conditional)
    world.db.begin()
    world.commit()
    await world.sync()
    try:
        for _ in range(80):
            await world.step()
            await world.check()
        world.store.chance, world.store.stale = 0.0, False
        for _ in range(4):
            world.commit()
            await world.sync()
        for _ in world.store.astray * 2:
            await world.store.land()
            assert await world.check() == len(world.states) - 1
        assert world.generations <= 3
    finally:
        world.db.close()


async def test_same_bytes_again_after_a_kill(tmp_path: Path) -> None:
    """What a killed process sent is sent again as it was, although more has been committed since."""
    world = World(1, tmp_path, conditional=False)
    world.db.begin()
    world.commit()
    await world.sync()
    world.commit()
    world.store.chance = 1.0
    await world.sync()
    [(key, body)] = [entry for entry in world.store.astray if "/wal/" in entry[0]]
    await world.store.inner.delete([key])
    world.store.astray.clear()

    world.store.chance = 0.0
    world.commit()
    world.commit()
    world.start()
    await world.sync()
    assert b"".join([chunk async for chunk in world.store.get(key)]) == body
    assert await world.check() == 3
    assert not world.db.reasons
    world.db.close()


async def test_what_cannot_be_repeated_is_given_up(tmp_path: Path) -> None:
    """If the same bytes cannot be made again (another LZ4, say), nothing goes up under that name: a new generation."""
    world = World(1, tmp_path, conditional=False)
    world.db.begin()
    world.commit()
    await world.sync()
    world.commit()
    world.store.chance = 1.0
    await world.sync()
    [note] = world.db.notes
    attempt = Attempt.parse(world.db.notes[note])
    assert attempt is not None
    await world.store.inner.delete([key for key, _ in world.store.astray])
    world.db.notes[note] = Attempt(attempt.after, attempt.previous, attempt.start, attempt.end, "0" * 64).pack()
    world.store.chance = 0.0
    world.start()
    with pytest.raises(PositionError, match="cannot be sent again"):
        await world.replica.sync()
    assert world.db.reasons
    world.db.close()


@pytest.mark.parametrize("conditional", [True, False])
async def test_note_that_cannot_be_written(tmp_path: Path, conditional: bool) -> None:
    """On a full disk uploads go on where the store refuses a second content itself, and wait where it does not."""
    world = World(1, tmp_path, conditional=conditional)
    world.db.begin()
    world.commit()
    world.db.note_error = LocalStateError("cannot keep the local state: No space left on device")
    if conditional:
        await world.replica.sync()
        assert await world.check() == 0
    else:
        with pytest.raises(LocalStateError):
            await world.replica.sync()
        world.db.note_error = None
        await world.replica.sync()
        assert await world.check() == 0
    world.db.close()


async def test_another_store_of_the_same_name(tmp_path: Path) -> None:
    """The note belongs to one destination: a replica that was moved starts there with what that one has."""
    world = World(1, tmp_path, conditional=True)
    world.db.begin()
    world.commit()
    await world.sync()
    world.commit()
    await world.sync()
    moved = LateStore(world.rng, conditional=True, name="elsewhere")
    replica = Replica(world.db, ReplicaClient(moved), metrics=Metrics())
    await replica.sync()
    world.store = moved
    assert await world.check() == 1
    world.db.close()


def test_attempt_text() -> None:
    """The note's line and back; anything else is none."""
    pos = Pos("0123456789abcdef", 3, 4128)
    attempt = Attempt(pos, Pos(), pos, Pos(pos.generation, 3, 8248), "ab" * 32)
    assert Attempt.parse(attempt.pack()) == attempt
    for bad in ("", "x", attempt.pack() + "0", attempt.pack().replace(",", ";"), "g" + attempt.pack()[1:]):
        assert Attempt.parse(bad) is None
