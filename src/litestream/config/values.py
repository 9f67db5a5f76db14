"""Types of single values: text as a file has it, or plain Python, checked by our own words. No text repeats a value,
except that of a duration.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from litestream.config.key import FALSE, TRUE
from litestream.config.model import Check, JsonSchema, SecretStr
from litestream.config.paths import absolute_path
from litestream.core.durations import parse_duration
from litestream.errors import FormatError

MAX_COUNT = 0x7FFFFFFF
"""Pages: SQLite's own limit is 4294967294; a WAL of 2^31 frames has no 32-bit index any more."""


def _seconds(value: object) -> float:
    """Text as Go writes durations, or a number of seconds from Python."""
    if isinstance(value, str):
        try:
            value = parse_duration(value)
        except FormatError as error:
            raise ValueError(str(error)) from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("must be a duration such as 10s, 1m30s or 24h")  # noqa: TRY004 - a model collects ValueError
    if not 0 <= value < 1e10:
        raise ValueError("must not be negative" if value < 0 else "must be less than 292 years")
    return float(value)


def _some_seconds(value: object) -> float:
    seconds = _seconds(value)
    if seconds == 0:
        raise ValueError("must be greater than 0")
    return seconds


def _count(value: object) -> int:
    if isinstance(value, str):
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", value):
            raise ValueError("must be a whole number")
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a whole number")  # noqa: TRY004 - as above
    if not 0 <= value <= MAX_COUNT:
        raise ValueError("must not be negative" if value < 0 else f"must be at most {MAX_COUNT}")
    return value


def _positive_count(value: object) -> int:
    try:
        count = _count(value)
    except ValueError as error:
        if "negative" in str(error):
            raise ValueError("must be > 0") from None
        raise
    if count == 0:
        raise ValueError("must be > 0")
    return count


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in TRUE | FALSE:
        return value in TRUE
    raise ValueError("must be true or false")


def check_level(value: object) -> object:
    name = value.lower() if isinstance(value, str) else value
    if name == "warning":
        return "warn"
    if name not in {"trace", "debug", "info", "warn", "error"}:
        raise ValueError("must be trace, debug, info, warn or error")
    return name


def check_log_type(value: object) -> object:
    if value not in {"text", "json"}:
        raise ValueError("must be text or json")
    return value


def check_address(value: object) -> object:
    """HOST:PORT; the host may be empty, or IPv6 in brackets."""
    match = (
        re.fullmatch(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]*):([0-9]{1,5})", value) if isinstance(value, str) else None
    )
    if match is None:
        raise ValueError("must specify port for bind address: HOST:PORT or :PORT")
    if int(match[1]) > 65535:
        raise ValueError("the port must be at most 65535")
    return value


def check_url(value: object) -> object:
    """An HTTP address, secret: whoever knows it can speak in our name."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if text in ("", None):
        return None  # as an unset variable leaves it behind
    if not isinstance(text, str) or not re.fullmatch(r"https?://[^\s/?#]+[^\s]*", text, re.IGNORECASE):
        raise ValueError("must be an address such as https://example.com/ping")
    return SecretStr(text)


def check_permissions(value: object) -> object:
    """File permissions as chmod has them: octal text with a leading 0, or a number from Python."""
    if isinstance(value, str):
        if not re.fullmatch(r"0o?[0-7]{1,4}", value):
            raise ValueError("must be octal with a leading 0, such as 0600")
        value = int(value.removeprefix("0o"), 8)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0o777:
        raise ValueError("must be from 0000 to 0777")
    return value


def check_heartbeat_interval(value: object) -> object:
    if _seconds(value) < 60:
        raise ValueError("must be at least 1m")
    return value


def path_by(function: Callable[[str], str]) -> Check:
    def check(value: object) -> object:
        return function(value) if isinstance(value, str) else value

    return Check(check)


_DURATION: dict[str, Any] = {
    "type": "string",
    "pattern": r"^[+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$",
}
_OFF: dict[str, Any] = {"enum": [0, "0"]}
Seconds = Annotated[float, Check(_seconds), JsonSchema({"anyOf": [_DURATION, _OFF]})]
"""Zero or more; zero switches the thing off, or means no pause."""
SomeSeconds = Annotated[float, Check(_some_seconds), JsonSchema(_DURATION)]
Count = Annotated[int, Check(_count), JsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_COUNT})]
SomeCount = Annotated[int, Check(_positive_count), JsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_COUNT})]
Flag = Annotated[bool, Check(_flag)]


_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)\s*([KMGT]?)I?B?", re.IGNORECASE)


def _size(value: object) -> int:
    """Bytes: a number, or `16MiB`; `16MB` is taken for the same."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError("must be a size such as 16MiB")
        value = round(float(match[1]) * 1024 ** (" KMGT".index(match[2].upper()) if match[2] else 0))
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a size such as 16MiB")  # noqa: TRY004 - as above
    if not 0 < value < 1 << 50:
        raise ValueError("must be > 0" if value <= 0 else "must be less than 1 PiB")
    return value


def _tries(value: object) -> int:
    """A count, or -1 for no end."""
    return -1 if value in {"-1", -1} and not isinstance(value, bool) else _count(value)


def _text(value: object) -> object:
    """Empty text, as an unset variable leaves it behind, is as good as none."""
    return None if value == "" else value


def _secret(value: object) -> object:
    if isinstance(value, SecretStr):
        return value if value.get_secret_value() else None
    if value is not None and not isinstance(value, str):
        raise ValueError("must be text")
    return SecretStr(value) if value else None


def _needed(value: object) -> object:
    if value == "" or (isinstance(value, SecretStr) and not value.get_secret_value()):
        raise ValueError("is empty: give it a value, or take it away")
    return value


def _bare_address(value: object) -> object:
    """An address is shown in logs and errors: nothing secret may be in it."""
    if isinstance(value, str) and ("@" in value or "?" in value):
        raise ValueError("takes no user, password or query: they have keys of their own")
    return _text(value)


def _file(value: object) -> object:
    return absolute_path(value) if isinstance(value, str) and value else _text(value)


Size = Annotated[
    int,
    Check(_size),
    JsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?[KMGTkmgt]?[Ii]?[Bb]?$"},
            ]
        }
    ),
]
Tries = Annotated[int, Check(_tries), JsonSchema({"type": "integer", "minimum": -1, "maximum": MAX_COUNT})]
Text = Annotated[str | None, Check(_text)]
NeededText = Annotated[str | None, Check(_needed)]
Address = Annotated[str | None, Check(_bare_address)]
File = Annotated[str | None, Check(_file)]
"""The absolute path of a file."""
NeededFile = Annotated[str | None, Check(_file), Check(_needed)]
Secret = Annotated[SecretStr | None, Check(_secret), JsonSchema({"type": "string"})]
"""Shown as asterisks in a repr or a dump."""
NeededSecret = Annotated[SecretStr | None, Check(_secret), Check(_needed), JsonSchema({"type": "string"})]
