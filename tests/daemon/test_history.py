"""The last hour of a replica, and what the page's board tells of it."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from litestream.daemon.history import MINUTES, History

events = st.lists(
    st.tuples(st.integers(0, 3 * MINUTES * 60), st.integers(1, 50), st.integers(0, 1 << 40), st.integers(0, 100)),
    max_size=60,
)


@given(events)
def test_an_hour_by_minutes(found: list[tuple[int, int, int, int]]) -> None:
    """Whatever comes when: each minute has the sum of its uploads and the longest of its waits, older ones nothing."""
    history, start = History(), 1_700_000_040
    objects: dict[int, int] = {}
    sizes: dict[int, int] = {}
    delays: dict[int, float] = {}
    newest = 0
    for after, count, size, delay in found:
        newest = max(newest, (start + after) // 60)  # a clock that is set back: the newest minute goes on
        history.uploaded(start + after, count, size, delay)
        history.behind(start + after, delay / 2)
        objects[newest] = objects.get(newest, 0) + count
        sizes[newest] = sizes.get(newest, 0) + size
        delays[newest] = max(delays.get(newest, 0.0), delay)
    assert history.newest == newest
    minutes = range(newest - MINUTES + 1, newest + 1)
    assert history.objects() == [objects.get(minute, 0) for minute in minutes]
    assert history.bytes() == [sizes.get(minute, 0) for minute in minutes]
    assert history.delays() == [delays.get(minute, 0.0) for minute in minutes]


def test_its_size_is_bounded() -> None:
    """A replica's history takes less than 2 kB, however much has happened."""
    history = History()
    for second in range(0, 86400, 7):
        history.uploaded(1_700_000_000 + second, 1, 1 << 30, 0.5)
    parts = (history._objects, history._bytes, history._delays)
    assert sys.getsizeof(history) + sum(map(sys.getsizeof, parts)) < 2000
