"""Writing a configuration file: values as YAML, and the comments of the file that they come from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TypeAlias

from litestream.config.key import FALSE, TRUE, Kind
from litestream.config.known_keys import SECTIONS, TOP

_PLAIN = re.compile(r"[A-Za-z0-9_./~$+](?: ?[A-Za-z0-9_./:~$+@%=&?{}*-])*(?<!:)")
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n", "~"})
_SPECIAL = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")
_NUMBER = re.compile(
    r"[-+]?(0x[0-9a-f_]+|0o?[0-7_]+|0b[01_]+|[0-9][0-9_:]*(\.[0-9_]*)?(e[-+]?[0-9]+)?|\.[0-9_]+(e[-+]?[0-9]+)?|\.inf)"
    r"|\.nan|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*",
    re.IGNORECASE,
)
"""Also dates, and what YAML 1.1 takes for a number to base 60."""


@dataclass(slots=True)
class Value:
    """A part of the new file: text, list or section, and the line of the old one it comes from (0: none)."""

    content: str | list[Value] | Section | None
    line: int = 0


Section: TypeAlias = "dict[str, Value]"


def scalar(value: object) -> str:
    """A value as YAML has it; text is quoted where it would not be read back as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(_quoted(item) if isinstance(item, str) else scalar(item) for item in value)}]"
    if not isinstance(value, str):
        return str(value)
    plain = _PLAIN.fullmatch(value) and ": " not in value
    return value if plain and value.lower() not in _WORDS and not _NUMBER.fullmatch(value) else _quoted(value)


def _quoted(text: str) -> str:
    """As JSON, but for what YAML takes for a line break or does not allow."""
    return _SPECIAL.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def as_text(top: Section, original: str) -> str:
    """A new file, with the comments of the original."""
    comments = _Comments(original)
    lines = comments.head()
    lines += _lines(top, TOP, 0, comments, "")
    return "".join(f"{line}\n" for line in [*lines, *comments.rest()])


def _lines(section: Section, name: str, depth: int, comments: _Comments, first: str) -> list[str]:
    lines: list[str] = []
    for key, value in section.items():
        indent = "  " * depth
        start, first = first or indent, ""
        above = comments.above(value.line)
        if start == indent:
            lines += [f"{indent}{comment}" for comment in above]
        else:  # a comment above the first key of an item stands above the item
            lines += [f"{indent[:-2]}{comment}" for comment in above]
        known = SECTIONS.get(name, {}).get(key)
        kind, inside = (known.kind, known.section) if known is not None else (Kind.TEXT, "")
        behind = comments.behind(value.line)
        if isinstance(value.content, dict):
            lines.append(f"{start}{key}:{' {}' if not value.content else ''}{behind}")
            lines += _lines(value.content, inside, depth + 1, comments, "")
        elif isinstance(value.content, list):
            lines.append(f"{start}{key}:{' []' if not value.content else ''}{behind}")
            for item in value.content:
                lines += _item(item, inside, depth, comments)
        else:
            lines.append(f"{start}{key}: {_scalar(value.content, kind)}{behind}")
    return lines


def _item(item: Value, inside: str, depth: int, comments: _Comments) -> list[str]:
    dash = "  " * (depth + 1) + "- "
    if isinstance(item.content, dict):
        return _lines(item.content, inside, depth + 2, comments, dash) or [f"{dash}{{}}"]
    above = [f"{'  ' * (depth + 1)}{comment}" for comment in comments.above(item.line)]
    return [*above, f"{dash}{_scalar(str(item.content), Kind.TEXT)}{comments.behind(item.line)}"]


def _scalar(text: str | None, kind: Kind) -> str:
    """Flags and numbers stay plain: the official programs refuse them in quotes."""
    if text is None:
        return "null"
    plain = (kind is Kind.FLAG and text in TRUE | FALSE) or (kind is Kind.COUNT and text.lstrip("+-").isdigit())
    return text if plain else scalar(text)


class _Comments:
    """The comments of a file, given out once each: with the line that they stand above or behind."""

    def __init__(self, text: str) -> None:
        self._above: dict[int, list[str]] = {}
        self._behind: dict[int, str] = {}
        waiting: list[str] = []
        for number, line in enumerate(text.splitlines(), 1):
            bare = line.strip()
            if bare.startswith("#"):
                waiting.append(bare)
            elif not bare:
                if waiting and not self._above and not self._behind and number == len(waiting) + 1:
                    self._above[0], waiting = waiting, []  # the head of the file
            else:
                if waiting:
                    self._above[number], waiting = waiting, []
                before, mark, comment = line.partition(" #")
                if mark and not any(quote in before for quote in "\"'|>"):
                    self._behind[number] = f"  #{comment}".rstrip()
        self._rest = waiting

    def head(self) -> list[str]:
        """What stands before everything, with an empty line."""
        head = self._above.pop(0, [])
        return [*head, ""] if head else []

    def above(self, line: int) -> list[str]:
        """The comments directly above a line."""
        return self._above.pop(line, [])

    def behind(self, line: int) -> str:
        """The comment behind a line's value, with the space before it."""
        return self._behind.pop(line, "")

    def rest(self) -> list[str]:
        """What stands after everything."""
        return self._rest
