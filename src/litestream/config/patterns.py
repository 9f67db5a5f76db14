"""Which names of a directory may be databases."""

from __future__ import annotations

import re
from functools import lru_cache

from litestream.fsutil import is_temp_name

_BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database."""

_STATE = re.compile(r".+-litestream|\.litestream-verify-.+", re.DOTALL)
"""Directories of local state, also those of the official programs, and our scratch directories."""

_CLASS = re.compile(r"(\^?)((?:\\.|[^\\\]])+)\]", re.DOTALL)


def may_be_database(name: str) -> bool:
    """Whether a file of that name is not something beside a database, or half written."""
    return not name.endswith(_BESIDE) and not is_temp_name(name)


def is_state(name: str) -> bool:
    """Whether a directory of that name holds local state, and no databases."""
    return _STATE.fullmatch(name) is not None


@lru_cache(maxsize=64)
def compile_pattern(text: str) -> re.Pattern[str]:
    """A pattern for names: `*`, `?`, `[a-z]`, `[^a-z]`, and a backslash before what stands for itself.

    Raises `ValueError` with the official text for one that is none.
    """
    found, at = "", 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*":
            found += ".*"
        elif char == "?":
            found += "."
        elif char == "[":
            match = _CLASS.match(text, at)
            if match is None:
                raise _wrong()
            found += f"[{match[1]}{_ranges(match[2])}]"
            at = match.end()
        elif char == "\\" and at == len(text):
            raise _wrong()
        else:
            if char == "\\":
                char, at = text[at], at + 1
            found += re.escape(char)
    return re.compile(found, re.DOTALL)


def _ranges(text: str) -> str:
    """The inside of a class: characters and ranges of them. Raises `ValueError`."""
    chars = re.findall(r"\\(.)|(.)", text, re.DOTALL)
    found, at = "", 0
    while at < len(chars):
        escaped, plain = chars[at]
        low = high = escaped or plain
        at += 1
        if plain == "-":
            raise _wrong()
        if chars[at : at + 1] == [("", "-")]:
            if at + 1 == len(chars):
                raise _wrong()
            high, at = "".join(chars[at + 1]), at + 2
        if low > high:
            raise _wrong()
        found += f"{re.escape(low)}-{re.escape(high)}"
    return found


def _wrong() -> ValueError:
    return ValueError("syntax error in pattern")
