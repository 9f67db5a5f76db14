"""A configuration of another version turned into one for here, and the reverse; what has no equal is named.

Variables stay variables: nothing is expanded. Comments on lines of their own, and behind values, are kept; anchors and
`<<` are written out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from litestream.config import known_keys
from litestream.config.defaults import said_by_url
from litestream.config.document import Document, DocumentError, Node, Scalar, Sequence, parse
from litestream.config.document import Mapping as MappingNode
from litestream.config.key import FALSE, Fate
from litestream.config.known_keys import DATABASE, REPLICA, SECTIONS, TOP
from litestream.config.paths import destination_type, shown
from litestream.config.rules import Loc, display
from litestream.config.store_keys import AGE, BY_NAME, belongs_elsewhere
from litestream.config.writer import Section, Value, as_text
from litestream.core.durations import parse_duration
from litestream.errors import ConfigError, FormatError

HERE = "here"
_GLOBAL_03 = frozenset({"access-key-id", "secret-access-key"})
"""The defaults of replicas that 0.3 takes at the top of the file."""
_TYPES_03 = frozenset({"file", "s3", "gs", "abs", "sftp"})
_RETENTION = ("snapshot-interval", "retention", "retention-check-interval", "validation-interval")
"""What 0.5 has once for all replicas."""
_DEFAULTS = {"retention": Value("24h")}
"""What holds for a replica that says nothing."""


@dataclass(frozen=True, slots=True)
class Migrated:
    """The new file's text, and what is to be known about it, a line each."""

    text: str
    notes: tuple[str, ...]


def migrate(text: str, *, to: str, name: str) -> Migrated:
    """Turn a file's text into one for `to`: `here`, `0.5` or `0.3`.

    Raises `ConfigError`: it is no YAML, or it asks for encryption that the other program does not have.
    """
    try:
        document = parse(text)
    except DocumentError as error:
        raise ConfigError(f"{shown(name)}:{error.line}: {error}") from None
    _refuse(document, name)
    work = _Migration(to, name)
    root = document.root
    section: Section = {}
    if isinstance(root, MappingNode):
        section = _section(root)
    elif root is not None and not (isinstance(root, Scalar) and root.null):
        raise ConfigError(f"{shown(name)}:{root.line}: must be a section of keys with values")
    if to == HERE:
        work.to_here(section)
    else:
        work.to_official(section)
    if work.problems:
        raise ConfigError("\n".join(work.told(work.problems)))
    return Migrated(as_text(section, text), tuple(work.told(work.notes)))


def _refuse(document: Document, name: str) -> None:
    if document.problems:
        raise ConfigError("\n".join(f"{shown(name)}:{line}: {text}" for line, text in document.problems))


def _section(node: MappingNode) -> Section:
    return {key: _value(value, word.line) for key, (word, value) in node.entries.items()}


def _value(node: Node, line: int) -> Value:
    if isinstance(node, MappingNode):
        return Value(_section(node), line)
    if isinstance(node, Sequence):
        return Value([_value(item, item.line) for item in node.items], line)
    return Value(None if node.null else node.text, line)


@dataclass(slots=True)
class _Migration:
    to: str
    name: str
    notes: list[tuple[int, Loc, str]] = field(default_factory=list)
    problems: list[tuple[int, Loc, str]] = field(default_factory=list)

    def told(self, things: list[tuple[int, Loc, str]]) -> list[str]:
        """`FILE:LINE: KEY: TEXT`, in the order of the file."""
        lines = []
        for line, loc, text in sorted(things, key=lambda thing: thing[0]):
            place = f"{display(loc)}: " if loc else ""
            lines.append(f"{shown(self.name)}:{line}: {place}{text}" if line else f"{shown(self.name)}: {place}{text}")
        return list(dict.fromkeys(lines))

    def note(self, value: Value | None, loc: Loc, text: str) -> None:
        self.notes.append((value.line if value is not None else 0, loc, text))

    # -- for here

    def to_here(self, top: Section) -> None:
        """Keep what works here, name the rest."""
        newer = _is_of(top, "0.5")
        self._keep(top, TOP, ())
        logging = _inside(top, "logging")
        if "type" in logging and logging["type"].content == "pretty":
            logging["type"].content = "text"
            self.note(logging["type"], ("logging", "type"), "pretty is text here")
        address = top.get("addr")
        if address is not None and isinstance(address.content, str) and address.content.startswith(":"):
            self.note(address, ("addr",), "a port without a host listens on this host only: write 0.0.0.0 for all")
        if newer and "interval" not in _inside(top, "snapshot"):
            self.note(None, ("snapshot", "interval"), "0.5 takes a snapshot every 24h, here one only when it is needed")
        for _, loc, replica in _replicas(top):
            if newer and "validation-interval" in replica:
                text = "has no effect in 0.5, and restores and compares the replica here"
                self.note(replica["validation-interval"], (*loc, "validation-interval"), text)

    def _keep(self, section: Section, name: str, loc: Loc) -> None:
        """Drop what is not known here, or does not work, from a section and those inside it."""
        kind = _type(section) if name == REPLICA else ""
        for key in list(section):
            value, known, place = section[key], SECTIONS[name].get(key), (*loc, key)
            why = ""
            if known is None:
                why = f"unknown key{known_keys.suggestion(key, name)}"
            elif value.content is None:
                del section[key]  # as good as absent
                continue
            elif isinstance(value.content, str) and value.content in known.off and known.fate is not Fate.WORKS:
                del section[key]
                continue
            elif known.fate is not Fate.WORKS:
                why = known.note
            elif kind:
                why = belongs_elsewhere(known, kind)
            if why:
                self.note(value, place, f"left out: {why}")
                del section[key]
            elif known is not None and known.section:
                for inside, at in _sections(value, place):
                    self._keep(inside, known.section, at)

    # -- for the official programs

    def to_official(self, top: Section) -> None:
        """Rewrite what the other program has in another form, and name what it does not have."""
        self._not_encrypted(top)
        if self.to == "0.5":
            self._gather(top)
        else:
            self._spread(top)
        self._entries(top)
        self._drop_unknown(top, TOP, ())
        address = top.get("addr")
        if address is not None and isinstance(address.content, str) and address.content.startswith(":"):
            address.content = f"127.0.0.1{address.content}"
            self.note(address, ("addr",), f"a port without a host would be open to all there: {address.content}")

    def _not_encrypted(self, top: Section) -> None:
        """What is encrypted here must not be stored in clear there."""
        for _, loc, section in [(top, (), top), *_replicas(top)]:
            for key, value in section.items():
                known = BY_NAME.get(key)
                unknown = known is not None and known.needs_value and self.to not in known.versions
                if value.content is not None and (unknown or (key == AGE and self.to == "0.5")):
                    text = f"{self.to} cannot encrypt this way, and would store the data without: take it away first"
                    self.problems.append((value.line, (*loc, key), text))

    def _gather(self, top: Section) -> None:
        """For 0.5: one replica per database, and retention once for all."""
        found: dict[str, list[Value]] = {key: [] for key in _RETENTION}
        for number, database in _databases(top):
            self._single(database, number)
            for _, loc, replica in _replicas_of(database, number):
                for key in _RETENTION:
                    value = _effective(key, replica, database, top) or _DEFAULTS.get(key)
                    found[key] += [value] if value is not None else []
                    replica.pop(key, None)
                if "name" in replica:
                    self.note(replica.pop("name"), (*loc, "name"), "left out: replicas have no name there")
            database.pop("snapshot", None)
        for key in _RETENTION:
            top.pop(key, None)
        forever = [value for value in found["retention-check-interval"] + found["retention"] if _is_off(value)]
        kept = _inside(top, "retention").get("enabled")
        top.pop("snapshot", None)
        top.pop("validation", None)
        snapshot: Section = {}
        self._one(found["snapshot-interval"], snapshot, "interval", shortest=True)
        self._one([value for value in found["retention"] if not _is_off(value)], snapshot, "retention", shortest=False)
        if snapshot:
            top["snapshot"] = Value(snapshot)
        if forever and kept is None:
            top["retention"] = Value({"enabled": Value("false")})
            self.note(
                forever[0], ("retention", "enabled"), "nothing is deleted from any replica: it is so for all there"
            )
        intervals: Section = {}
        self._one(found["validation-interval"], intervals, "interval", shortest=True)
        if intervals:
            top["validation"] = Value(intervals)
            text = "0.5 looks for gaps between files, and compares nothing with the database"
            self.note(intervals["interval"], ("validation", "interval"), text)

    def _one(self, values: list[Value], section: Section, key: str, *, shortest: bool) -> None:
        """One value for what is several: that which keeps more."""
        values = [value for value in values if not _is_off(value)]
        if not any(value.line for value in values):
            return  # the default, which is the same there
        texts = {str(value.content) for value in values}
        try:
            best = sorted(values, key=lambda value: parse_duration(str(value.content)), reverse=not shortest)[0]
        except FormatError:
            best = values[0]  # a variable: nobody knows what it holds
        section[key] = Value(best.content, best.line)
        if len(texts) > 1:
            self.note(best, (key,), f"is one for all databases there: {best.content} of {', '.join(sorted(texts))}")

    def _single(self, database: Section, number: int) -> None:
        replicas = database.pop("replicas", None)
        if replicas is None or not isinstance(replicas.content, list) or not replicas.content:
            return
        database["replica"] = Value(replicas.content[0].content, replicas.line)
        for position, extra in enumerate(replicas.content[1:], 1):
            self.note(extra, ("dbs", number, "replicas", position), "left out: 0.5 has one replica per database")

    def _spread(self, top: Section) -> None:
        """For 0.3: everything in each replica."""
        shared = [key for key in SECTIONS[TOP] if key in SECTIONS[REPLICA] and key not in _GLOBAL_03]
        for number, database in _databases(top):
            if "replica" in database:
                single = database.pop("replica")
                database["replicas"] = Value([Value(single.content, single.line)], single.line)
            for _, _, replica in _replicas_of(database, number):
                kind, url = _type(replica), replica.get("url", Value("")).content
                said = said_by_url(url if isinstance(url, str) else "", kind)
                for key in dict.fromkeys([*shared, *_RETENTION]):
                    value = _effective(key, replica, database, top)
                    applies = key not in BY_NAME or not belongs_elsewhere(BY_NAME[key], kind)
                    if value is not None and applies and key not in said:
                        replica[key] = Value(value.content, value.line)
            database.pop("snapshot", None)
        logging = _inside(top, "logging")
        for key, old, new in (("type", "pretty", "text"), ("level", "trace", "debug")):
            if key in logging and logging[key].content == old:
                logging[key].content = new
                self.note(logging[key], ("logging", key), f"{old} is {new} there")
        for key in [*shared, "snapshot", "validation", "retention", *_RETENTION]:
            top.pop(key, None)

    def _entries(self, top: Section) -> None:
        """Databases and replicas that the other program cannot have, and names that differ."""
        entries = top.get("dbs")
        if entries is None or not isinstance(entries.content, list):
            return
        kept: list[Value] = []
        for number, entry in enumerate(entries.content):
            database, loc = entry.content, ("dbs", number)
            if not isinstance(database, dict):
                continue
            if "upstream" in database or (self.to == "0.3" and "dir" in database):
                what = "a follower" if "upstream" in database else "a directory of databases"
                self.note(entry, loc, f"left out: {self.to} has no such thing as {what}")
                continue
            self._places(database, number)
            if "replica" in database or database.get("replicas", Value(None)).content:
                kept.append(entry)
            else:
                self.note(entry, loc, f"left out: no replica of it is possible with {self.to}")
        entries.content = kept

    def _places(self, database: Section, number: int) -> None:
        replicas = database.get("replicas")
        kept: list[Value] = []
        for value, loc, replica in _replicas_of(database, number):
            kind = _type(replica)
            if self.to == "0.3" and kind not in _TYPES_03:
                self.note(value, loc, f"left out: 0.3 has no replicas of type {kind or 'that'}")
                continue
            if kind == "gs":
                self._rename_gs(replica)
            url = replica.get("url")
            if self.to == "0.3" and url is not None and "?" in str(url.content):
                self.note(url, (*loc, "url"), "0.3 takes no options behind ?: write them as keys")
            kept.append(value)
        if replicas is not None:
            replicas.content = kept

    def _rename_gs(self, replica: Section) -> None:
        """Google's scheme is gcs in 0.3 and gs in 0.5."""
        wanted = "gcs" if self.to == "0.3" else "gs"
        url = replica.get("url")
        if url is not None and isinstance(url.content, str):
            url.content = f"{wanted}://{url.content.partition('://')[2]}"
        if "type" in replica:
            replica["type"].content = wanted

    def _drop_unknown(self, section: Section, name: str, loc: Loc) -> None:
        for key in list(section):
            value, known, place = section[key], SECTIONS[name].get(key), (*loc, key)
            if known is None or self.to not in known.versions.split():
                if value.content is not None and not (known is not None and str(value.content) in known.off):
                    self.note(value, place, f"left out: {self.to} has no such key")
                del section[key]
            elif value.content is None:
                del section[key]
            elif known.section and not (key == "retention" and isinstance(value.content, str)):
                for inside, at in _sections(value, place):
                    self._drop_unknown(inside, known.section, at)


# -- looking around


def _sections(value: Value, loc: Loc) -> Iterator[tuple[Section, Loc]]:
    """The sections that a key's value consists of: itself, or those of a list."""
    if isinstance(value.content, dict):
        yield value.content, loc
    for number, item in enumerate(value.content if isinstance(value.content, list) else ()):
        if isinstance(item.content, dict):
            yield item.content, (*loc, number)


def _inside(section: Mapping[str, Value], key: str) -> Section:
    value = section.get(key)
    return value.content if value is not None and isinstance(value.content, dict) else {}


def _databases(top: Section) -> Iterator[tuple[int, Section]]:
    entries = top.get("dbs")
    for number, entry in enumerate(
        entries.content if entries is not None and isinstance(entries.content, list) else ()
    ):
        if isinstance(entry.content, dict):
            yield number, entry.content


def _replicas_of(database: Section, number: int) -> Iterator[tuple[Value, Loc, Section]]:
    """Each replica of a database: its value, its place, its keys."""
    single = database.get("replica")
    if single is not None and isinstance(single.content, dict):
        yield single, ("dbs", number, "replica"), single.content
    several = database.get("replicas")
    for position, item in enumerate(several.content if several and isinstance(several.content, list) else ()):
        if isinstance(item.content, dict):
            yield item, ("dbs", number, "replicas", position), item.content


def _replicas(top: Section) -> Iterator[tuple[Value, Loc, Section]]:
    for number, database in _databases(top):
        yield from _replicas_of(database, number)


def _type(replica: Section) -> str:
    texts = [replica[key].content if key in replica else "" for key in ("type", "url")]
    kind, url = (text if isinstance(text, str) else "" for text in texts)
    return destination_type(kind, url)


def _effective(key: str, replica: Section, database: Section, top: Section) -> Value | None:
    """What holds for a replica: its own value, or the nearest default."""
    inside = {"snapshot-interval": "interval", "retention": "retention"}.get(key, "")
    places = [replica.get(key), _inside(database, "snapshot").get(inside), top.get(key)]
    places += [_inside(top, "snapshot").get(inside)]
    places += [_inside(top, "validation").get("interval")] if key == "validation-interval" else []
    if key == "retention-check-interval" and _is_false(_inside(top, "retention").get("enabled")):
        return Value("0s", _inside(top, "retention")["enabled"].line)
    found = (value for value in places if value is not None and isinstance(value.content, str | list | dict))
    return next((value for value in found if not (key == "retention" and isinstance(value.content, dict))), None)


def _is_false(value: Value | None) -> bool:
    return value is not None and isinstance(value.content, str) and value.content in FALSE


def _is_off(value: Value) -> bool:
    try:
        return parse_duration(str(value.content)) == 0
    except FormatError:
        return False


def _is_of(top: Section, version: str) -> bool:
    """Whether a file has a key that only that official version knows."""

    def only(section: Section, name: str) -> bool:
        return any(SECTIONS[name][key].versions == version for key in section if key in SECTIONS[name])

    return (
        only(top, TOP)
        or any(only(database, DATABASE) for _, database in _databases(top))
        or any(only(replica, REPLICA) for _, _, replica in _replicas(top))
    )
