"""RFC 3339."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestream.core.timestamps import format_rfc3339, parse_rfc3339
from litestream.errors import FormatError

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
LAST = 253_402_300_800  # 10000-01-01
FIRST = -62_135_596_800  # 0001-01-01


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2006-01-02T15:04:05Z", 1136214245_000000000),
        ("2006-01-02T15:04:05+02:00", 1136207045_000000000),
        ("2006-01-02T15:04:05-07:30", 1136241245_000000000),
        ("2006-01-02T15:04:05.5Z", 1136214245_500000000),
        ("2006-01-02T15:04:05.123456789Z", 1136214245_123456789),
        ("2006-01-02T15:04:05.1234567899Z", 1136214245_123456789),
        ("1969-12-31T23:59:59.9Z", -100000000),
        ("2024-02-29T00:00:00+00:00", 1709164800_000000000),
    ],
)
def test_accepted(text: str, nanoseconds: int) -> None:
    """A timestamp is read to the nanosecond."""
    assert parse_rfc3339(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2006-01-02",
        "2006-01-02T15:04:05",
        "2006-01-02 15:04:05Z",
        "2006-01-02t15:04:05Z",
        "2006-01-02T15:04:05z",
        "2006-01-02T15:04Z",
        "2006-01-02T15:04:05.Z",
        "2006-01-02T15:04:05,5Z",
        "2006-01-02T15:04:05+0200",
        "2006-01-02T15:04:05+02",
        "2006-01-02T15:04:05+24:00",
        "2006-01-02T15:04:05+02:60",
        "2006-01-02T15:04:60Z",
        "2006-01-02T24:00:00Z",
        "2006-13-02T15:04:05Z",
        "2023-02-29T15:04:05Z",
        "0000-01-02T15:04:05Z",
        "2006-01-02T15:04:05Z\n",
        " 2006-01-02T15:04:05Z",
        "200\u0666-01-02T15:04:05Z",
        "1136214245",
    ],
)
def test_refused(text: str) -> None:
    """What is not exactly RFC 3339 is refused, and the error repeats the text."""
    with pytest.raises(FormatError, match=re.escape(repr(text))):
        parse_rfc3339(text)


def test_form() -> None:
    """The table form has whole seconds in UTC, cut off and not rounded; parts on request."""
    assert format_rfc3339(1136214245.999) == "2006-01-02T15:04:05Z"
    assert format_rfc3339(1136214245_999999999) == "2006-01-02T15:04:05Z"
    assert format_rfc3339(1136214245_050000000, fraction=True) == "2006-01-02T15:04:05.05Z"
    assert format_rfc3339(1136214245.25, fraction=True) == "2006-01-02T15:04:05.25Z"
    assert format_rfc3339(1136214245.0, fraction=True) == "2006-01-02T15:04:05Z"
    assert format_rfc3339(-0.5) == "1969-12-31T23:59:59Z"
    assert format_rfc3339(-1) == "1969-12-31T23:59:59Z"
    assert format_rfc3339(float(FIRST)) == "0001-01-01T00:00:00Z"


@given(st.integers(FIRST * 10**9, LAST * 10**9 - 1))
def test_round_trip(nanoseconds: int) -> None:
    """Every nanosecond of the years 1 to 9999 survives being written and read."""
    assert parse_rfc3339(format_rfc3339(nanoseconds, fraction=True)) == nanoseconds


@given(st.datetimes(min_value=dt.datetime(2, 1, 1), max_value=dt.datetime(9998, 1, 1)), st.integers(-1439, 1439))  # noqa: DTZ001  # the zone is added below
def test_offsets(local: dt.datetime, minutes: int) -> None:
    """A time with an offset is the moment that the standard library says."""
    moment = local.replace(tzinfo=dt.timezone(dt.timedelta(minutes=minutes)))
    since = moment - EPOCH
    assert (
        parse_rfc3339(moment.isoformat()) == ((since.days * 86400 + since.seconds) * 10**6 + since.microseconds) * 1000
    )


@given(st.floats(FIRST, LAST - 1))
def test_seconds(seconds: float) -> None:
    """A time in seconds is written as the second that it falls into."""
    whole = parse_rfc3339(format_rfc3339(seconds)) // 10**9
    assert whole <= seconds < whole + 1


@pytest.mark.parametrize(
    "moment", [float("nan"), float("inf"), 1e300, float(LAST), LAST * 10**9, FIRST * 10**9 - 1, -1e13]
)
def test_not_a_time(moment: float) -> None:
    """What is outside the years 1 to 9999 is an error, not a wrong text."""
    with pytest.raises(FormatError, match="not a time"):
        format_rfc3339(moment)
