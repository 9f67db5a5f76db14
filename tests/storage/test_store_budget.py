"""The month's count of requests: never too low, whoever is killed when, and not much too high."""

from __future__ import annotations

import fcntl
import json
import logging
import multiprocessing
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestream.metrics import Metrics
from litestream.storage.wrappers.budget import STEP, Budget

NOVEMBER = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC).timestamp()


class Now:
    """The time of day, as one likes."""

    def __init__(self, seconds: float = NOVEMBER) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


def budget(path: Path, now: Now | None = None, metrics: Metrics | None = None) -> Budget:
    """A budget of which nothing leaves the test."""
    return Budget(path / "count.json", now=now or Now(), metrics=metrics or Metrics())


def written(path: Path) -> dict[str, object]:
    """What the file says."""
    found = json.loads((path / "count.json").read_bytes())
    assert isinstance(found, dict)
    return found


def test_counts_in_blocks(tmp_path: Path) -> None:
    """The file is written once per block, ahead of the requests; closing leaves the true number."""
    count = budget(tmp_path)
    assert not (tmp_path / "count.json").exists()
    for i in range(1, 2 * STEP + 2):
        assert count.take(1)
        assert count.used == i
        assert written(tmp_path) == {"month": "2026-11", "requests": -(-i // STEP) * STEP}
    count.close()
    count.close()
    assert written(tmp_path) == {"month": "2026-11", "requests": 2 * STEP + 1}
    assert count.take(1)  # it may be used again
    again = budget(tmp_path)
    assert again.take(5)
    again.close()
    count.close()
    assert written(tmp_path)["requests"] == 2 * STEP + 7


def test_cap(tmp_path: Path) -> None:
    """At the cap requests are refused, to the last one; what was done anyway is counted beyond it."""
    count = budget(tmp_path)
    assert all(count.take(1, 250) for _ in range(250))
    assert not count.take(1, 250)
    assert not count.take(1, 250)
    assert count.used == 250
    count.add(7, 250)
    assert count.used == 257
    count.close()
    assert written(tmp_path)["requests"] == 257
    assert not budget(tmp_path).take(1, 250)
    assert budget(tmp_path).take(3, 260)
    large = budget(tmp_path / "large")
    assert not large.take(1001, 1000)
    assert large.take(1000, 1000)
    assert not large.take(1, 1000)


def test_month(tmp_path: Path) -> None:
    """The count begins anew with the month in UTC, in a running process and in a new one; nobody gives back what
    belongs to the old month.
    """
    now = Now()
    count, other = budget(tmp_path, now), budget(tmp_path, now)
    assert count.take(300, 300)
    assert other.used == 0  # it did not ask yet
    assert not other.take(1, 300)
    assert other.used == 300
    assert count.next_month.timestamp() == DECEMBER
    assert count.seconds_left == DECEMBER - NOVEMBER
    now.seconds = DECEMBER - 0.001
    assert not count.take(1, 300)
    now.seconds = DECEMBER
    assert count.used == 0
    assert count.take(1, 300)
    assert written(tmp_path) == {"month": "2026-12", "requests": STEP}
    assert count.next_month == datetime(2027, 1, 1, tzinfo=UTC)
    other.close()
    assert written(tmp_path) == {"month": "2026-12", "requests": STEP}
    count.close()
    assert written(tmp_path) == {"month": "2026-12", "requests": 1}


def test_blocks_end_at_the_cap(tmp_path: Path) -> None:
    """What one process counted beyond the cap gives another one no room, and no process a block to use unasked."""
    first, second = budget(tmp_path), budget(tmp_path)
    first.add(1, 50)
    second.add(60, 50)
    assert first.take(49, 50)  # these were set aside before
    assert not first.take(1, 50)
    assert not second.take(1, 50)
    assert written(tmp_path)["requests"] == 110


def test_month_that_another_process_began(tmp_path: Path) -> None:
    """Who asks at the last moment of a month, and gets to the file after somebody began the new one, counts there."""

    class Turning(Now):
        def __call__(self) -> float:
            seconds, self.seconds = self.seconds, DECEMBER
            return seconds

    other = budget(tmp_path, Now(DECEMBER))
    assert other.take(50)
    other.close()
    assert budget(tmp_path, Turning(DECEMBER - 0.001)).take(1)
    assert written(tmp_path) == {"month": "2026-12", "requests": 50 + STEP}


def test_not_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At 80 % and at the cap there is a warning, once in a month each, and a metric tells all the time."""
    metrics, now = Metrics(), Now()
    count = budget(tmp_path, now, metrics)
    used = metrics.request_budget_used.labels(budget="count.json")
    assert count.take(79, 100)
    assert (used.value, caplog.records) == (79, [])
    assert metrics.request_budget_max.labels(budget="count.json").value == 100
    assert count.take(1, 100)
    assert count.take(20, 100)
    assert not count.take(1, 100)
    assert not count.take(1, 100)
    assert used.value == 100
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    near, reached = [record.message for record in caplog.records]
    begin, end = "count.json: max-requests: ", "nothing is uploaded before 2026-12-01 00:00 UTC"
    assert near == f"{begin}80 of 100 requests of this month are used: at the cap {end}"
    assert reached == f"{begin}100 of 100 requests of this month are used: {end}"
    now.seconds = DECEMBER
    assert count.take(80, 100)
    assert len(caplog.records) == 3


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 250)),
        st.tuples(st.just("add"), st.integers(1, 250)),
        st.tuples(st.sampled_from(["kill", "close", "other"]), st.just(0)),
    ),
    max_size=40,
)


@given(steps=STEPS, limit=st.integers(0, 1500))
def test_never_too_low(steps: list[tuple[str, int]], limit: int) -> None:
    """Two processes that are killed and started at any moment: after each step the file has at least what was used,
    and at most one block more for each that was killed or still runs. No more than the cap is ever given to who asked.
    """
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        processes = [budget(path), budget(path)]
        used, taken, kills = 0, 0, 0
        for step, count in steps:
            match step:
                case "take":
                    if processes[0].take(count, limit):
                        used += count
                        taken += count
                case "add":
                    processes[0].add(count, limit)
                    used += count
                case "kill":
                    processes[0] = budget(path)
                    kills += 1
                case "close":
                    processes[0].close()
                case "other":
                    processes.reverse()
            known = int(str(written(path)["requests"])) if (path / "count.json").exists() else 0
            assert used <= known <= used + STEP * (kills + len(processes))
            assert all(process.used >= 0 for process in processes)
        assert not limit or taken <= limit
        for process in processes:
            process.close()
        known = int(str(written(path)["requests"])) if (path / "count.json").exists() else 0
        assert used <= known <= used + STEP * kills


def _spend(path: str, count: int) -> None:
    mine = Budget(path, metrics=Metrics())
    for _ in range(count):
        assert mine.take(1)
    mine.close()


def test_processes_at_once(tmp_path: Path) -> None:
    """Real processes on one file lose no request."""
    context = multiprocessing.get_context("spawn")
    path = str(tmp_path / "deep" / "count.json")
    processes = [context.Process(target=_spend, args=(path, 1234)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert json.loads(Path(path).read_bytes())["requests"] == 3 * 1234


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"month": "2026-11", "requests": "1"}', b"[" * 100_000])
def test_damaged_file(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is none is begun anew, and said to be so."""
    (tmp_path / "count.json").write_bytes(content)
    assert budget(tmp_path).take(1, 10)
    assert "is damaged, requests of this month are counted anew" in caplog.text
    assert written(tmp_path) == {"month": "2026-11", "requests": 10}


def test_unwritable_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A count that cannot be written is kept in memory, with a warning, and written when that works again."""
    (tmp_path / "count.json").mkdir()
    count = budget(tmp_path)
    assert all(count.take(1, 300) for _ in range(300))
    assert not count.take(1, 300)
    assert caplog.text.count("cannot count requests in") == 1
    (tmp_path / "count.json").rmdir()
    assert not count.take(1, 300)
    assert count.take(1, 400)
    assert written(tmp_path)["requests"] == 400
    count.close()
    assert written(tmp_path)["requests"] == 301


def test_stuck_lock(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody who does not let go of the lock keeps nobody from working; what was counted meanwhile is not lost."""
    count = budget(tmp_path)
    fd = os.open(tmp_path / "count.json.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert count.take(STEP + 1)
    finally:
        os.close(fd)
    assert "cannot count requests in" in caplog.text
    assert not (tmp_path / "count.json").exists()
    assert count.take(STEP)
    assert written(tmp_path)["requests"] == 2 * STEP + 1
    assert count.take(1)
    count.close()
    assert written(tmp_path)["requests"] == 2 * STEP + 2


def test_unwritten_at_the_end(tmp_path: Path) -> None:
    """What could not be written until now is written when the budget is closed, if that works then."""
    (tmp_path / "count.json").mkdir()
    count = budget(tmp_path)
    assert count.take(STEP)
    (tmp_path / "count.json").rmdir()
    count.close()
    assert written(tmp_path)["requests"] == STEP
