"""YAML text to a small tree that knows its lines: safe, bounded, without duplicate keys.

The tree is built from libyaml's events (`CSafeLoader`), so no object is ever constructed from a tag, an alias stays a
reference instead of a copy, and a document that nests without end is refused after `MAX_DEPTH` levels, before any
recursion. No text raised here repeats a part of the document: it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

MAX_DEPTH = 32
"""The deepest official file nests 7 levels (dbs, item, replicas, item, age, recipients, item)."""
MAX_MERGED = 100_000
"""Keys copied by `<<` in one file; ten thousand databases with ten shared settings each."""

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NULLS = {"", "~", "null", "Null", "NULL"}
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")} | {"!"}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value as written; `null` for nothing, `~` and `null`."""

    text: str
    line: int
    null: bool = False


@dataclass(frozen=True, slots=True)
class Sequence:
    items: list[Node]
    line: int


@dataclass(frozen=True, slots=True)
class Mapping:
    entries: dict[str, tuple[Scalar, Node]]
    """By key text: the key itself (for its line) and the value."""
    line: int


Node: TypeAlias = Scalar | Sequence | Mapping


class DocumentError(Exception):
    """The text is no YAML that we read; nothing after it was looked at."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


@dataclass(slots=True)
class Document:
    """`root` is None for an empty file. `nodes` counts what was written out, aliases as one."""

    root: Node | None
    nodes: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Open:
    """A collection that has begun and not ended."""

    line: int
    anchor: str | None
    is_mapping: bool
    children: list[Node] = field(default_factory=list)


def parse(text: str, hidden: frozenset[str] = frozenset()) -> Document:
    """Build the tree. Raises `DocumentError` at the first error of syntax; the rest is collected in `problems`.

    A key that contains one of `hidden` is not named in a problem.
    """
    import yaml

    bad = _UNPRINTABLE.search(text)
    if bad is not None:
        line = text.count("\n", 0, bad.start()) + 1
        raise DocumentError(line, f"a character that YAML does not allow (U+{ord(bad[0]):04X})")
    builder = _Builder(hidden)
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            builder.feed(event)
    except yaml.MarkedYAMLError as error:
        mark = error.context_mark or error.problem_mark
        if error.problem_mark is not None and "end of stream" not in str(error.problem):
            mark = error.problem_mark
        # libyaml's problems are fixed sentences. The pure Python parser's quote the text: those are not repeated.
        detail = str(error.problem) if hasattr(yaml, "CSafeLoader") else "not valid YAML"
        hint = " (quote values that begin with @ or `, indent with spaces)" if "cannot start" in detail else ""
        raise DocumentError(mark.line + 1 if mark is not None else 1, f"{detail}{hint}") from None
    return builder.document


class _Builder:
    def __init__(self, hidden: frozenset[str]) -> None:
        import yaml.events

        self.events = yaml.events
        self.hidden = hidden
        self.document = Document(None)
        self.stack: list[_Open] = []
        self.anchors: dict[str, Node] = {}
        self.merged = 0
        self.documents = 0

    def feed(self, event: object) -> None:
        events = self.events
        if isinstance(event, events.ScalarEvent):
            line = event.start_mark.line + 1
            self._check_tag(event.tag, line)
            plain = event.implicit[0] or event.tag == "tag:yaml.org,2002:null"
            self._add(Scalar(event.value, line, null=bool(plain) and event.value in _NULLS), event.anchor)
        elif isinstance(event, (events.MappingStartEvent, events.SequenceStartEvent)):
            line = event.start_mark.line + 1
            self._check_tag(event.tag, line)
            if len(self.stack) >= MAX_DEPTH:
                raise DocumentError(line, f"nested more than {MAX_DEPTH} levels deep")
            self.stack.append(_Open(line, event.anchor, isinstance(event, events.MappingStartEvent)))
        elif isinstance(event, (events.MappingEndEvent, events.SequenceEndEvent)):
            done = self.stack.pop()
            node: Node = self._mapping(done) if done.is_mapping else Sequence(done.children, done.line)
            self._add(node, done.anchor)
        elif isinstance(event, events.AliasEvent):
            line = event.start_mark.line + 1
            target = self.anchors.get(event.anchor)
            if target is None:
                raise DocumentError(
                    line, "an alias (*) without its anchor (&) before it; quote values that begin with *"
                )
            self._add(target, None)
        elif isinstance(event, events.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise DocumentError(event.start_mark.line + 1, "a second document (---): only one is read")

    def _check_tag(self, tag: str | None, line: int) -> None:
        if tag is not None and tag not in _PLAIN_TAGS:
            self.document.problems.append((line, "YAML tags are not supported; quote values that begin with !"))

    def _add(self, node: Node, anchor: str | None) -> None:
        self.document.nodes += 1
        if anchor is not None:
            self.anchors[anchor] = node
        if self.stack:
            self.stack[-1].children.append(node)
        else:
            self.document.root = node

    def _mapping(self, done: _Open) -> Mapping:
        entries: dict[str, tuple[Scalar, Node]] = {}
        merges: list[Node] = []
        pairs = iter(done.children)
        for key, value in zip(pairs, pairs, strict=True):
            if not isinstance(key, Scalar):
                self.document.problems.append((key.line, "a key must be a word"))
            elif key.text == "<<":
                merges.append(value)
            elif key.text in entries:
                first = entries[key.text][0].line
                name = f' "{key.text}"' if is_word(key.text, self.hidden) else ""
                self.document.problems.append((key.line, f"duplicate key{name} (first on line {first})"))
            else:
                entries[key.text] = (key, value)
        for value in merges:
            self._merge(value, entries)
        return Mapping(entries, done.line)

    def _merge(self, value: Node, entries: dict[str, tuple[Scalar, Node]]) -> None:
        """`<<`: the keys of other mappings, where not given; of two the earlier counts."""
        for source in _flat(value):
            if not isinstance(source, Mapping):
                self.document.problems.append((source.line, "<< takes an alias of a mapping, or a list of them"))
                continue
            self.merged += len(source.entries) + 1
            if self.merged > MAX_MERGED:
                raise DocumentError(source.line, "too many keys merged with <<")
            for name, entry in source.entries.items():
                entries.setdefault(name, entry)


def _flat(node: Node) -> Iterator[Node]:
    if isinstance(node, Sequence):
        yield from node.items
    else:
        yield node


def is_word(key: str, hidden: frozenset[str]) -> bool:
    """Whether a key is safe and useful to repeat in a message."""
    return re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", key) is not None and not any(value in key for value in hidden)
