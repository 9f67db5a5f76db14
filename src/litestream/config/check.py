"""The tree of litestream.yml against the table of known keys: what is left are plain values of keys that work.

Everything else becomes a problem or a warning with its place. Nothing in here knows what a value means.
"""

from __future__ import annotations

from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from litestream.config import known_keys
from litestream.config.document import Document, Mapping, Node, Scalar, Sequence, is_word
from litestream.config.key import Fate, Key, Kind
from litestream.config.known_keys import SECTIONS
from litestream.config.paths import destination_type
from litestream.config.rules import Loc, display
from litestream.config.store_keys import belongs_elsewhere

MAX_ALIASED = 200_000
"""Values reached beyond those written out, that is by aliases: about a quarter of a second of work."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or worth a warning."""

    line: int
    loc: Loc
    text: str

    def __str__(self) -> str:
        place = display(self.loc)
        return f"{self.line}: {place}: {self.text}" if place else f"{self.line}: {self.text}"


class TooMuchError(Exception):
    """Aliases multiply the document; what was collected up to here stays."""


@dataclass(slots=True)
class Checker:
    """Walks the tree once. `values` are what environment variables held: never shown."""

    document: Document
    hidden: frozenset[str] = frozenset()
    problems: list[Problem] = field(default_factory=list)
    lines: dict[Loc, int] = field(default_factory=dict)
    """The line of each key and list item that was looked at."""
    _visited: int = 0
    _warned: dict[tuple[str, str], list[Problem]] = field(default_factory=dict)

    def check(self) -> dict[str, Any]:
        """The values: nested dicts and lists with text at the leaves, without anything that is null or was answered."""
        self.lines[()] = 1
        root = self.document.root
        if root is None or (isinstance(root, Scalar) and root.null):
            return {}
        try:
            return self._section(root, known_keys.TOP, ()) if self._is_mapping(root, ()) else {}
        except TooMuchError:
            self.problems.append(Problem(root.line, (), "aliases multiply this document beyond what is read"))
            return {}

    def warnings(self) -> list[Problem]:
        """One for each key of the table, however many databases have it."""
        result: list[Problem] = []
        for first, *more in self._warned.values():
            also = f" (and in {len(more)} more place{'s' if len(more) > 1 else ''})" if more else ""
            result.append(Problem(first.line, first.loc, first.text + also))
        return result

    def line(self, loc: Loc) -> int:
        """The line of a place, or of the nearest known one around it."""
        while loc not in self.lines:
            loc = loc[:-1]
        return self.lines[loc]

    def _is_mapping(self, node: Node, loc: Loc) -> TypeGuard[Mapping]:
        if not isinstance(node, Mapping):
            self._problem(node.line, loc, "must be a section of keys with values")
        return isinstance(node, Mapping)

    def _section(self, node: Mapping, section: str, loc: Loc) -> dict[str, Any]:
        self._visit(node)
        table = SECTIONS[section]
        kind = _replica_type(node) if section == known_keys.REPLICA else ""
        result: dict[str, Any] = {}
        for name, (key_node, value) in node.entries.items():
            key = table.get(name)
            if key is None:
                self._unknown(key_node, name, section, loc)
                continue
            place = (*loc, name)
            self.lines[place] = key_node.line
            self._visit(value)
            elsewhere = belongs_elsewhere(key, kind) if kind else ""
            if isinstance(value, Scalar) and value.null and key.fate is not Fate.REFUSED:
                if key.needs_value and not elsewhere:
                    self._problem(key_node.line, place, "is empty: give it a value, or take it away")
                continue
            if elsewhere:
                self._problem(key_node.line, place, elsewhere)
            elif key.fate is Fate.WORKS:
                result[name] = self._value(key, value, place)
            else:
                self._answer(key, value, section, place)
        return result

    def _value(self, key: Key, node: Node, loc: Loc) -> Any:  # noqa: ANN401 - text, list or dict, as the table says
        if key.kind is Kind.LIST:
            return self._list(node, key.section, loc) if key.section else self._texts(node, loc)
        if key.section and not (key.name == "retention" and isinstance(node, Scalar)):
            return self._section(node, key.section, loc) if self._is_mapping(node, loc) else None
        if isinstance(node, Scalar):
            return node.text
        self._problem(node.line, loc, f"must be a single value ({key.kind.value})")
        return None

    def _list(self, node: Node, section: str, loc: Loc) -> list[dict[str, Any] | None]:
        if not isinstance(node, Sequence):
            self._problem(node.line, loc, 'must be a list: each entry begins with "- "')
            return [None]
        items: list[dict[str, Any] | None] = []
        for number, item in enumerate(node.items):
            place = (*loc, number)
            self.lines[place] = item.line
            self._visit(item)
            items.append(self._section(item, section, place) if self._is_mapping(item, place) else None)
        return items

    def _texts(self, node: Node, loc: Loc) -> list[str] | None:
        if not isinstance(node, Sequence):
            self._problem(node.line, loc, 'must be a list: each entry begins with "- "')
            return None
        texts: list[str] = []
        for number, item in enumerate(node.items):
            self._visit(item)
            if isinstance(item, Scalar) and not item.null and item.text:
                texts.append(item.text)
            else:
                nothing = isinstance(item, Scalar)
                self._problem(item.line, (*loc, number), "is empty" if nothing else "must be a single value (text)")
        return texts

    def _answer(self, key: Key, value: Node, section: str, loc: Loc) -> None:
        """A key that is known and does not work."""
        if isinstance(value, Scalar) and value.text in key.off:
            return
        if key.fate is Fate.REFUSED:
            self._problem(self.lines[loc], loc, key.note)
            return
        self._warned.setdefault((section, key.name), []).append(Problem(self.lines[loc], loc, key.note))

    def _unknown(self, key: Scalar, name: str, section: str, loc: Loc) -> None:
        if is_word(name, self.hidden):
            self._problem(key.line, (*loc, name), f"unknown key{known_keys.suggestion(name, section)}")
        else:
            self._problem(key.line, loc, "unknown key (not shown: it is no word)")

    def _problem(self, line: int, loc: Loc, text: str) -> None:
        self.problems.append(Problem(line, loc, text))

    def _visit(self, node: Node) -> None:
        self._visited += 1
        if self._visited > 2 * self.document.nodes + MAX_ALIASED:
            raise TooMuchError


def _text(entries: AnyMapping[str, tuple[Scalar, Node]], name: str) -> str:
    node = entries[name][1] if name in entries else None
    return node.text if isinstance(node, Scalar) and not node.null else ""


def _replica_type(node: Mapping) -> str:
    return destination_type(_text(node.entries, "type"), _text(node.entries, "url"))
