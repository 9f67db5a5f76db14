"""The estimate of a month's requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestream.core.costs import MONTH, PRICES, Intervals, Usage, prices_of, usage

HOUR, DAY = 3600.0, 86400.0
DEFAULTS = Intervals(sync=1.0, snapshot=0.0, retention=DAY, retention_check=HOUR)


def test_the_defaults_by_hand() -> None:
    """One upload a second, a snapshot a day, 720 looks: each lists the segments of 25 hours, and 3 times more."""
    found = usage(DEFAULTS, 0.0)
    assert found.put == 30 * 86400 + 30
    pages = -(-(25 * 3600 + 2) // 1000)
    assert found.list == 720 * (pages + 3) + 4
    assert found.get == 4
    assert found.delete == 30 + -(-(30 * 86400 + 30) // 1000)
    assert found.total == found.put + found.list + found.get + found.delete


def test_the_price_by_hand() -> None:
    """Requests by the thousand; deletes cost nothing."""
    assert Usage(put=1_000_000, list=10_000, get=5_000, delete=10**9).cost(PRICES["s3"]) == pytest.approx(5.052)


def test_storage_with_a_base_by_hand() -> None:
    """What is in the base costs nothing more; what is above it by the GB."""
    assert PRICES["s3"].stored(100) == pytest.approx(2.3)
    assert PRICES["do"].stored(0) == PRICES["do"].stored(250) == 5
    assert PRICES["do"].stored(350) == pytest.approx(7)


def test_append_only_never_lists_after_the_start() -> None:
    """Without retention, or without looks at it, there are no listings and no deletes."""
    for intervals in (Intervals(1.0, 0.0, 0.0, HOUR), Intervals(1.0, 12 * HOUR, DAY, 0.0)):
        found = usage(intervals, 60.0)
        assert (found.list, found.delete) == (4, 0)
    assert usage(Intervals(1.0, 12 * HOUR, 0.0, HOUR), 60.0).put == 43_200 + 60


def test_a_lease_by_hand() -> None:
    """A claim, a listing for each 20 seconds in which something is uploaded or deleted, and the end."""
    without, held = usage(DEFAULTS, 0.0), usage(DEFAULTS, 0.0, lease=True)
    assert held == Usage(without.put + 2, without.list + 1 + 30 * 86400 // 20, without.get + 1, without.delete + 1)
    rare = usage(DEFAULTS, HOUR, lease=True).list - usage(DEFAULTS, HOUR).list
    assert rare == 1 + 720 + 30 + 720  # uploads, snapshots, looks at what may be deleted


def test_large_snapshots_are_several_requests() -> None:
    """Each snapshot is as many requests as its parts."""
    one, many = usage(DEFAULTS, 60.0), usage(DEFAULTS, 60.0, snapshot_requests=10)
    assert many.put - one.put == 9 * 30


def test_snapshots_kept() -> None:
    """One that covers the beginning of the window, and those within; without retention all of the month."""
    assert DEFAULTS.snapshots_kept == 2
    assert Intervals(1.0, 6 * HOUR, DAY, HOUR).snapshots_kept == 5
    assert Intervals(1.0, DAY, 0.0, HOUR).snapshots_kept == 31
    assert Intervals(1.0, 0.0, 0.0, HOUR).snapshots_kept == 1


SOME = st.one_of(st.just(0.0), st.floats(0.5, 2 * MONTH))


@given(SOME, SOME, SOME, SOME, st.floats(0, MONTH))
def test_any_intervals(sync: float, snapshot: float, retention: float, check: float, change: float) -> None:
    """Whatever the settings, the estimate is a number, and fewer changes never cost more."""
    intervals = Intervals(sync, snapshot, retention, check)
    worst, other = usage(intervals, 0.0), usage(intervals, change)
    assert 0 < other.put <= worst.put
    assert 0 < other.list <= worst.list
    assert 0 <= other.delete <= worst.delete
    assert other.put >= MONTH / max(sync, change, 0.01)


@pytest.mark.parametrize(
    ("kind", "endpoint", "where"),
    [
        ("s3", "", "AWS"),
        ("s3", "https://s3.eu-west-1.amazonaws.com", "AWS"),
        ("s3", "https://abc.r2.cloudflarestorage.com", "Cloudflare"),
        ("s3", "https://s3.us-west-004.backblazeb2.com", "Backblaze"),
        ("s3", "https://fly.storage.tigris.dev", "Tigris"),
        ("s3", "https://t3.storage.dev", "Tigris"),
        ("s3", "https://fra1.digitaloceanspaces.com", "DigitalOcean"),
        ("s3", "https://fsn1.your-objectstorage.com", "Hetzner"),
        ("s3", "https://s3.eu-central-1.wasabisys.com", "Wasabi"),
        ("gs", "", "Google"),
        ("abs", "https://account.blob.core.windows.net", "Azure"),
    ],
)
def test_who_is_asked_for_the_price(kind: str, endpoint: str, where: str) -> None:
    """The provider behind an endpoint decides."""
    prices = prices_of(kind, endpoint)
    assert prices is not None and where in prices.where


@pytest.mark.parametrize(
    ("kind", "endpoint"), [("s3", "http://127.0.0.1:9000"), ("sftp", ""), ("webdav", ""), ("nats", "")]
)
def test_no_price_is_made_up(kind: str, endpoint: str) -> None:
    """A server of one's own has no known price."""
    assert prices_of(kind, endpoint) is None
