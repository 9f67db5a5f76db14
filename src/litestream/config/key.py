"""What is known of one key of `litestream.yml`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Fate(Enum):
    """What becomes of a key."""

    WORKS = "works"
    WARNING = "warning"
    REFUSED = "refused"


class Kind(Enum):
    """What is written behind a key."""

    DURATION = "duration"
    COUNT = "number"
    SIZE = "size"
    FLAG = "true or false"
    TEXT = "text"
    SECTION = "section"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Key:
    """One key of one section."""

    name: str
    fate: Fate
    kind: Kind
    versions: str
    """Official releases that know the key; empty: it is ours."""
    note: str
    """WORKS: what it does. Otherwise the reason, in words that stand behind "KEY: " in an error or a warning."""
    off: frozenset[str] = frozenset()
    """Values that ask for nothing, so that nothing has to be said: the key is then accepted silently."""
    section: str = ""
    """SECTION and LIST: the section that is checked inside; empty for a list of texts, or where nothing matters."""
    types: tuple[str, ...] = ()
    """The replica types that have the key; empty: all of them."""
    needs_value: bool = False
    """Without a value it is an error: taking it for absent would leave something unencrypted."""


FALSE = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N"})
TRUE = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"})

ALL = "0.3 0.4 0.5"


def works(name: str, kind: Kind, versions: str, note: str, section: str = "") -> Key:
    return Key(name, Fate.WORKS, kind, versions, note, section=section)


def warned(name: str, kind: Kind, versions: str, note: str, off: frozenset[str] = frozenset()) -> Key:
    return Key(name, Fate.WARNING, kind, versions, note, off)


def refused(name: str, kind: Kind, versions: str, note: str, off: frozenset[str] = frozenset()) -> Key:
    return Key(name, Fate.REFUSED, kind, versions, note, off)


def table(*keys: Key) -> dict[str, Key]:
    return {key.name: key for key in keys}
