"""Durations as Go writes them (`1h30m`, `1.5s`, `100ms`): the syntax of litestream.yml and of flags.

In this program a duration is a float in seconds; Go's is a whole number of nanoseconds of at most 63 bits, about 292
years, and what Go refuses or cuts off is refused and cut off here alike (time.ParseDuration, time.Duration.String).
"""

from __future__ import annotations

import math
import re

from litestream.errors import FormatError

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, the micro sign
    "μs": 1_000,  # U+03BC, the Greek letter
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_MAX = 1 << 63
_TERM = re.compile(r"([0-9]*)(?:(\.)([0-9]*))?([^0-9.]*)")


def parse_duration(text: str) -> float:
    """Seconds. Raises `FormatError`, whose text repeats `text`, for all that Go refuses."""
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0.0
    if not rest:
        raise FormatError(f"invalid duration {text!r}: write it as 10s, 1m30s or 24h")
    total = 0
    position = 0
    while position < len(rest):
        match = _TERM.match(rest, position)
        assert match is not None  # every part of the pattern may be empty
        total += _term(match, text)
        position = match.end()
        if total > _MAX:
            raise _too_long(text)
    if text[0] == "-":
        return -total / 1e9
    if total == _MAX:
        raise _too_long(text)
    return total / 1e9


def _term(match: re.Match[str], text: str) -> int:
    """Nanoseconds of one number with its unit."""
    whole, _, fraction, unit = match[1], match[2], match[3] or "", match[4]
    if not whole and not fraction:
        raise FormatError(f"invalid duration {text!r}: write it as 10s, 1m30s or 24h")
    if not unit:
        raise FormatError(f"missing unit in duration {text!r}: write it as 10s, 1m30s or 24h")
    if unit not in _UNITS:
        raise FormatError(f"unknown unit {unit!r} in duration {text!r}: the units are h, m, s, ms, us and ns")
    if len(whole.lstrip("0")) > 19:  # also keeps int() from working on a very long text
        raise _too_long(text)
    scale = _UNITS[unit]
    value = int(whole or "0") * scale
    # Digits past what 63 bits hold do not count; cut off, not rounded, and through a float: as Go does it.
    kept = 0
    power = 1.0
    for digit in fraction:
        if kept * 10 + int(digit) > _MAX:
            break
        kept = kept * 10 + int(digit)
        power *= 10
    return value + int(float(kept) * (float(scale) / power))


def _too_long(text: str) -> FormatError:
    return FormatError(f"invalid duration {text if len(text) < 60 else text[:60] + '…'!r}: longer than 292 years")


def format_duration(seconds: float) -> str:
    """The text that Go prints: `1h30m0s`, `1.5s`, `100ms`, `0s`. Nanoseconds are rounded.

    `FormatError` for what is no number, or over 292 years.
    """
    if not math.isfinite(seconds) or abs(seconds) * 1e9 > _MAX:
        raise FormatError(f"not a duration: {seconds}")
    total = round(seconds * 1e9)
    sign, total = ("-", -total) if total < 0 else ("", total)
    if total == 0:
        return "0s"
    for unit in ("ns", "µs", "ms"):
        if total < _UNITS[unit] * 1000:
            return f"{sign}{_decimal(total, _UNITS[unit])}{unit}"
    minutes, rest = divmod(total, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, _UNITS['s'])}s"
    if hours:
        text = f"{hours}h{minutes}m{text}"
    elif minutes:
        text = f"{minutes}m{text}"
    return sign + text


def _decimal(value: int, scale: int) -> str:
    """`value / scale` (a power of ten) exactly, without zeros at the end."""
    whole, fraction = divmod(value, scale)
    digits = f"{fraction:0{len(str(scale)) - 1}d}".rstrip("0") if fraction else ""
    return f"{whole}.{digits}" if digits else str(whole)
