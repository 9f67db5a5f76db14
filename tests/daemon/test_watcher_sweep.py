"""The looks at databases of which no event told anything: when they come, and that one timer is enough for all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from litestream.daemon.watcher import Watcher


class Looks:
    """Looks at one database that come every `pause` seconds."""

    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.at: list[float] = []

    def __call__(self) -> float:
        self.at.append(time.monotonic())
        return self.pause


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    """A watcher that hears of nothing, as on a file system without events."""
    watcher = Watcher()
    yield watcher
    watcher.close()


async def until(true: Callable[[], bool]) -> None:
    """Wait for something, at most 5 s."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


def nothing() -> None:
    """What a change calls."""


async def test_each_look_says_when_the_next_one_comes(watcher: Watcher, tmp_path: Path) -> None:
    """One database is looked at ten times as often as another, if their looks say so."""
    often, seldom = Looks(0.02), Looks(0.2)
    watcher.add(str(tmp_path / "a"), nothing, often, 0.02)
    watcher.add(str(tmp_path / "b"), nothing, seldom, 0.02)
    await until(lambda: len(seldom.at) == 4)
    assert 12 <= len(often.at) <= 45
    assert all(later - earlier >= 0.19 for earlier, later in zip(seldom.at, seldom.at[1:], strict=False))


async def test_a_look_far_away_can_be_hastened(watcher: Watcher, tmp_path: Path) -> None:
    """A database that is looked at every minute is looked at soon after something happened there, and once."""
    looks = Looks(60)
    watcher.add(str(tmp_path / "a"), nothing, looks, 0.01)
    await until(lambda: len(looks.at) == 1)
    watcher.hasten(str(tmp_path / "a"), 0.05)
    watcher.hasten(str(tmp_path / "a"), 5)  # it comes earlier already
    began = time.monotonic()
    await until(lambda: len(looks.at) == 2)
    assert 0.04 <= time.monotonic() - began < 2
    await asyncio.sleep(0.1)
    assert len(looks.at) == 2


async def test_a_look_that_fails_ends_no_other(watcher: Watcher, tmp_path: Path) -> None:
    """An exception in the look at one database is told to the loop, and all others are looked at as before."""
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(str(context["exception"])))

    def fails() -> float:
        raise RuntimeError("a look failed")

    others = [Looks(0.02) for _ in range(20)]
    watcher.add(str(tmp_path / "a"), nothing, fails, 0.02)
    for number, looks in enumerate(others):
        watcher.add(str(tmp_path / f"b{number}"), nothing, looks, 0.02)
    await until(lambda: all(len(looks.at) > 5 for looks in others))
    assert told and set(told) == {"a look failed"}


async def test_no_look_after_the_removal(watcher: Watcher, tmp_path: Path) -> None:
    """A database that is removed, also by its own look, is looked at no more; one of the same path begins anew."""
    path = str(tmp_path / "a")
    looked: list[str] = []

    def last() -> float:
        looked.append("last")
        watcher.remove(path)
        return 0.01

    watcher.add(path, nothing, last, 0.01)
    await until(lambda: bool(looked))
    await asyncio.sleep(0.1)
    assert looked == ["last"]
    again = Looks(0.01)
    watcher.add(path, nothing, again, 0.01)
    await until(lambda: len(again.at) > 2)
    assert looked == ["last"]


async def test_looks_far_away_are_put_together(watcher: Watcher, tmp_path: Path) -> None:
    """A thousand databases that are looked at every 10 s wake the loop twice a second, not a hundred times."""
    everybody = [Looks(10.0) for _ in range(1000)]
    for number, looks in enumerate(everybody):
        watcher.add(str(tmp_path / f"{number}"), nothing, looks, 0.1)
    await until(lambda: all(looks.at for looks in everybody))
    assert len({at for at, _, _ in watcher._queue}) <= 3
