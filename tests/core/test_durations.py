"""Go's durations."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestream.core.durations import format_duration, parse_duration
from litestream.errors import FormatError

# From Go's own table (time_test.go), with the result in nanoseconds.
SECOND, MINUTE, HOUR = 10**9, 60 * 10**9, 3600 * 10**9
ACCEPTED = {
    "0": 0,
    "5s": 5 * SECOND,
    "30s": 30 * SECOND,
    "1478s": 1478 * SECOND,
    "-5s": -5 * SECOND,
    "+5s": 5 * SECOND,
    "-0": 0,
    "+0": 0,
    "5.0s": 5 * SECOND,
    "5.6s": 5_600_000_000,
    "5.s": 5 * SECOND,
    ".5s": 500_000_000,
    "1.0s": SECOND,
    "1.00s": SECOND,
    "1.004s": 1_004_000_000,
    "1.0040s": 1_004_000_000,
    "100.00100s": 100_001_000_000,
    "10ns": 10,
    "11us": 11_000,
    "12µs": 12_000,
    "12\u03bcs": 12_000,
    "13ms": 13_000_000,
    "14s": 14 * SECOND,
    "15m": 15 * MINUTE,
    "16h": 16 * HOUR,
    "3h30m": 3 * HOUR + 30 * MINUTE,
    "10.5s4m": 4 * MINUTE + 10_500_000_000,
    "-2m3.4s": -(2 * MINUTE + 3_400_000_000),
    "1h2m3s4ms5us6ns": HOUR + 2 * MINUTE + 3 * SECOND + 4_005_006,
    "39h9m14.425s": 39 * HOUR + 9 * MINUTE + 14_425_000_000,
    "52763797000ns": 52_763_797_000,
    "0.3333333333333333333h": 20 * MINUTE,
    "9007199254740993ns": (1 << 53) + 1,
    "9223372036854775807ns": (1 << 63) - 1,
    "9223372036854775.807us": (1 << 63) - 1,
    "9223372036s854ms775us807ns": (1 << 63) - 1,
    "-9223372036854775808ns": -1 << 63,
    "-9223372036854775.808us": -1 << 63,
    "-9223372036s854ms775us808ns": -1 << 63,
    "-2562047h47m16.854775808s": -1 << 63,
    "0.100000000000000000000h": 6 * MINUTE,
    "0.830103483285477580700h": 49 * MINUTE + 48_372_539_827,
}

REFUSED = [
    "",
    "3",
    "-",
    "s",
    ".",
    "-.",
    ".s",
    "+.s",
    "1d",
    "1 s",
    " 1s",
    "1s ",
    "1s\n",
    "1S",
    "--1s",
    "1s-1s",
    "1h30",
    "0x1s",
    "1e3s",
    "1,5s",
    "1..5s",
    "inf",
    "nan",
    "\u0661s",
    "9223372036854775808ns",
    "9223372036854775.808us",
    "9223372036854ms775us808ns",
    "3000000h",
    "-9223372036854775809ns",
    "1h" + "9" * 5000 + "s",
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_accepted(text: str) -> None:
    """What Go accepts means the same here."""
    assert parse_duration(text) == ACCEPTED[text] / 1e9


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:30]))
def test_refused(text: str) -> None:
    """What Go refuses is refused, and the error repeats the text."""
    with pytest.raises(FormatError, match=re.escape(f"duration {repr(text[:20])[:-1]}")):
        parse_duration(text)


def test_errors_help() -> None:
    """An error says what is wrong and how it is written."""
    with pytest.raises(FormatError, match=r"missing unit in duration '10': write it as 10s, 1m30s or 24h"):
        parse_duration("10")
    with pytest.raises(FormatError, match=r"unknown unit 'd' in duration '7d': the units are h, m, s, ms, us and ns"):
        parse_duration("7d")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-0.0, "0s"),
        (1e-9, "1ns"),
        (1.1e-6, "1.1µs"),
        (2.2e-3, "2.2ms"),
        (0.1, "100ms"),
        (3.3, "3.3s"),
        (1.5, "1.5s"),
        (10, "10s"),
        (90, "1m30s"),
        (60, "1m0s"),
        (3600, "1h0m0s"),
        (86400, "24h0m0s"),
        (4 * 60 + 5, "4m5s"),
        (4 * 60 + 5.001, "4m5.001s"),
        (5 * 3600 + 6 * 60 + 7.001, "5h6m7.001s"),
        (8 * 60 + 1e-9, "8m0.000000001s"),
        (-1.5, "-1.5s"),
        (-3723, "-1h2m3s"),
        (4e-10, "0s"),
    ],
)
def test_format(seconds: float, text: str) -> None:
    """Durations are written as Go writes them."""
    assert format_duration(seconds) == text


@given(st.integers(-(1 << 50), 1 << 50))
def test_round_trip(nanoseconds: int) -> None:
    """Every nanosecond of durations up to some 12 days survives being written and read."""
    text = format_duration(nanoseconds / 1e9)
    assert round(parse_duration(text) * 1e9) == nanoseconds


@given(st.lists(st.tuples(st.integers(0, 99), st.sampled_from(["h", "m", "s", "ms", "us", "ns"])), min_size=1))
def test_sum(terms: list[tuple[int, str]]) -> None:
    """A duration is the sum of its terms, in any order and number."""
    scale = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
    text = "".join(f"{n}{unit}" for n, unit in terms)
    assert parse_duration(text) == sum(n * scale[unit] for n, unit in terms) / 1e9


@given(st.text(alphabet="0123456789.+-hmsnuµd \u0660", max_size=12))
def test_any_text(text: str) -> None:
    """Any text is a duration or one clear error, and nothing else."""
    try:
        seconds = parse_duration(text)
    except FormatError:
        return
    assert abs(seconds) <= 2**63 / 1e9
    if abs(seconds) < 2**50 / 1e9:
        assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -float("inf"), 1e300, 9.3e9])
def test_not_a_duration(seconds: float) -> None:
    """What is no duration is not written as one."""
    with pytest.raises(FormatError, match="not a duration"):
        format_duration(seconds)
