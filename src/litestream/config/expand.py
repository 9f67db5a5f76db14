"""`$VAR` and `${VAR}` in the text of litestream.yml, before YAML is parsed.

As in the official programs: over the whole text, by Go's rules (os.Expand), an unset variable is empty, and `PID` is
our process. Unlike them, an unset variable is reported, and so is a dollar sign that would vanish silently.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_REFERENCE = re.compile(r"\$(?:\{([^}\n]*)(\}?)|([A-Za-z_][A-Za-z0-9_]*)|([*#$@!?\-0-9]))")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMMENT = re.compile(r"(?:^|\s)#")


@dataclass(slots=True)
class Expanded:
    """A text after expansion."""

    text: str
    origins: list[int] = field(default_factory=list)
    """For each line of `text` (from 0) its line in the file (from 1): values may hold line breaks."""
    values: frozenset[str] = frozenset()
    """What variables held: never shown in a message."""
    warnings: list[tuple[int, str]] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)

    def line(self, number: int) -> int:
        """The file's line for line `number` (from 1) of the text."""
        if not self.origins:
            return number
        return self.origins[min(number, len(self.origins)) - 1]


def expand(text: str, environ: Mapping[str, str]) -> Expanded:
    """Replace every reference. Problems are collected, not raised; none of them shows a value."""
    result = Expanded("")
    pieces: list[str] = []
    values: set[str] = set()
    line, end = 1, 0
    origins = [1]
    for match in _REFERENCE.finditer(text):
        literal = text[end : match.start()]
        breaks = literal.count("\n")
        origins.extend(range(line + 1, line + breaks + 1))
        line += breaks
        quiet = _COMMENT.search(text[text.rfind("\n", 0, match.start()) + 1 : match.start()]) is not None
        value = _value(match, environ, line, result, quiet=quiet)
        if value:
            values.add(value)
            origins.extend([line] * value.count("\n"))
        pieces += (literal, value)
        end = match.end()
    rest = text[end:]
    origins.extend(range(line + 1, line + rest.count("\n") + 1))
    result.text = "".join(pieces) + rest
    result.origins = origins
    result.values = frozenset(values)
    return result


def names_in(line: str) -> list[str]:
    """The variables that a line of a file refers to, those of a comment not counted."""
    found = []
    for match in _REFERENCE.finditer(line):
        braced, _, bare, _ = match.groups()
        if _COMMENT.search(line[: match.start()]) is None and (bare or braced):
            found.append(bare or braced)
    return found


def _value(match: re.Match[str], environ: Mapping[str, str], line: int, result: Expanded, *, quiet: bool) -> str:
    """The value of one reference; in a comment nothing is reported."""
    braced, closing, bare, special = match.groups()
    if special is not None:
        if not quiet:
            result.warnings.append((line, f"${special} is no variable and becomes empty; {_DOLLARS}"))
        return ""
    name = bare if bare is not None else braced
    if name == "PID":
        return str(os.getpid())
    value = environ.get(name)
    if bare is None and not quiet and (not closing or (value is None and not _NAME.fullmatch(name))):
        why = "holds no variable name (defaults as in a shell are not supported)" if closing else "has no closing }"
        result.problems.append((line, f"a ${{ {why}; {_DOLLARS}"))
        return ""
    if value is None:
        if not quiet:
            result.warnings.append((line, f"the environment variable {name} is not set and becomes empty"))
        return ""
    if not _is_unicode(value):
        result.problems.append((line, f"the value of the environment variable {name} is not UTF-8"))
        return ""
    return value


_DOLLARS = "use -no-expand-env to keep dollar signs as they are"


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
