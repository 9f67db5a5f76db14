"""When a checkpoint is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestream.core.checkpoint import Action, choose_checkpoint

NONE, PASSIVE, SEAL = Action.NONE, Action.PASSIVE, Action.SEAL


@pytest.mark.parametrize(
    ("frames", "backfilled", "since", "expected"),
    [
        (0, 0, 0.0, NONE),
        (0, 0, 1e9, NONE),
        (1, 0, 59.9, NONE),
        (1, 0, 60.0, PASSIVE),
        (1, 1, 60.0, NONE),
        (999, 0, 0.0, NONE),
        (1000, 0, 0.0, PASSIVE),
        (1000, 999, 0.0, PASSIVE),
        (1000, 1000, 0.0, NONE),
        (9999, 0, 1e9, PASSIVE),
        (10000, 0, 0.0, SEAL),
        (10000, 9999, 0.0, SEAL),
        (10000, 10000, 1e9, NONE),
    ],
)
def test_with_the_defaults(frames: int, backfilled: int, since: float, expected: Action) -> None:
    """1,000 frames or a minute ask for a PASSIVE checkpoint, 10,000 for a seal, none once all is backfilled."""
    assert (
        choose_checkpoint(
            wal_frames=frames,
            backfilled=backfilled,
            min_pages=1000,
            max_pages=10000,
            interval=60.0,
            since_checkpoint=since,
        )
        is expected
    )


@pytest.mark.parametrize(
    ("frames", "max_pages", "interval", "since", "expected"),
    [
        (10**9, 0, 0.0, 0.0, PASSIVE),
        (999, 0, 0.0, 1e9, NONE),
        (999, 500, 0.0, 0.0, SEAL),
    ],
)
def test_switched_off(frames: int, max_pages: int, interval: float, since: float, expected: Action) -> None:
    """A maximum of 0 never seals, an interval of 0 never counts, a maximum below the minimum still seals."""
    assert (
        choose_checkpoint(
            wal_frames=frames,
            backfilled=0,
            min_pages=1000,
            max_pages=max_pages,
            interval=interval,
            since_checkpoint=since,
        )
        is expected
    )


sizes = st.integers(0, 20_000)
seconds = st.floats(0, 1e6)


@given(frames=sizes, more=sizes, backfilled=sizes, low=sizes, high=sizes, interval=seconds, since=seconds)
def test_never_calmer_as_the_wal_grows(
    frames: int, more: int, backfilled: int, low: int, high: int, interval: float, since: float
) -> None:
    """A longer WAL never calls for less, and nothing is due while nothing is left to backfill."""
    order = [NONE, PASSIVE, SEAL]

    def due(wal_frames: int) -> Action:
        return choose_checkpoint(
            wal_frames=wal_frames,
            backfilled=backfilled,
            min_pages=low,
            max_pages=high,
            interval=interval,
            since_checkpoint=since,
        )

    assert order.index(due(frames)) <= order.index(due(frames + more))
    if frames <= backfilled:
        assert due(frames) is NONE
