"""Memory goes back to the system when a process has come to rest, and is let alone while it works."""

from __future__ import annotations

import asyncio
import sys

import pytest

from litestream.daemon import memory
from litestream.daemon.memory import AT_REST, INTERVAL, WORKED, Thrift, trim_heap


class Processor:
    """Processor time of a process that works as the test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_memory_is_given_back_after_work_and_not_during_it() -> None:
    """Once for a burst of work, when it is over; never for the little that goes on at rest."""
    processor, trims = Processor(), list[float]()
    thrift = Thrift(lambda: trims.append(processor.now), processor)
    for work, expected in ((2.0, 0), (1.0, 0), (0.001, 1), (0.001, 1), (WORKED, 1), (0.0, 2), (0.0, 2)):
        processor.now += work
        thrift.look(INTERVAL)
        assert len(trims) == expected, (processor.now, trims)


def test_little_work_adds_up() -> None:
    """What is done below the bound for one look counts all the same, together."""
    processor, trims = Processor(), list[float]()
    thrift = Thrift(lambda: trims.append(processor.now), processor)
    for _ in range(3):
        processor.now += AT_REST * INTERVAL * 0.9
        thrift.look(INTERVAL)
    assert len(trims) == 1


async def test_it_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task goes on until it is cancelled."""
    monkeypatch.setattr(memory, "INTERVAL", 0.001)
    processor, trimmed = Processor(), asyncio.Event()
    processor.now = 1.0
    task = asyncio.create_task(Thrift(trimmed.set, processor).run())
    await asyncio.wait_for(trimmed.wait(), 10)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has malloc_trim")
def test_the_heap_shrinks() -> None:
    """What was freed below something that is still in use is no longer resident."""
    blocks = [bytes(60_000) + b"x" for _ in range(2000)]
    kept = blocks[::200]
    before = _resident()
    del blocks
    trim_heap()
    assert len(kept) == 10
    assert before - _resident() > 60_000


def _resident() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
