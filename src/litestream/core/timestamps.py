"""Points in time as text: RFC 3339, the form of `-timestamp` and of every table and log line."""

from __future__ import annotations

import datetime as dt
import math
import re

from litestream.errors import FormatError

_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,64}))?"
    r"(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_SECOND = 1_000_000_000


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since 1970-01-01T00:00:00Z (negative before). Digits below nanoseconds are cut off.

    The offset is required: a time without one is a different moment on each host. Capital T and Z, no leap seconds,
    as in Go. Raises `FormatError`, whose text repeats `text`.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise FormatError(f"invalid timestamp {text!r}: write it as 2006-01-02T15:04:05Z or 2006-01-02T15:04:05+02:00")
    hours, minutes = int(match[9] or 0), int(match[10] or 0)
    if hours > 23 or minutes > 59:
        raise FormatError(f"invalid timestamp {text!r}: there is no such offset")
    try:
        year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
        local = dt.datetime(year, month, day, hour, minute, second, tzinfo=dt.UTC)
    except ValueError as exc:
        raise FormatError(f"invalid timestamp {text!r}: {exc}") from exc
    since = local - _EPOCH
    offset = (hours * 3600 + minutes * 60) * (-1 if match[8] == "-" else 1)
    fraction = int((match[7] or "").ljust(9, "0")[:9])
    return (since.days * 86400 + since.seconds - offset) * _SECOND + fraction


def format_rfc3339(moment: float, *, fraction: bool = False) -> str:
    """`2006-01-02T15:04:05Z`: always UTC; an `int` is nanoseconds, a `float` seconds since 1970.

    Parts of a second are cut off, or with `fraction` written as far as they go (`05.25Z`).
    `FormatError` for what does not fall into the years 1 to 9999.
    """
    if isinstance(moment, int):
        seconds, nanoseconds = divmod(moment, _SECOND)
    else:
        if not math.isfinite(moment):
            raise FormatError(f"not a time: {moment}")
        seconds = math.floor(moment)
        nanoseconds = min(int((moment - seconds) * _SECOND), _SECOND - 1)
    try:
        date = _EPOCH + dt.timedelta(seconds=seconds)
    except OverflowError as exc:
        raise FormatError(f"not a time in the years 1 to 9999: {moment}") from exc
    digits = f"{nanoseconds:09d}".rstrip("0") if fraction else ""
    return f"{date:%Y-%m-%dT%H:%M:%S}".rjust(19, "0") + (f".{digits}" if digits else "") + "Z"
