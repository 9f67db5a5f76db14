"""The effective configuration: every value that counts, and where it comes from. Secrets are masked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from litestream.config import known_keys
from litestream.config.databases import DatabaseConfig, DirectoryConfig
from litestream.config.expand import names_in
from litestream.config.key import Key, Kind
from litestream.config.loader import Entry, Reading
from litestream.config.model import Model, SecretStr
from litestream.config.replica import ReplicaConfig
from litestream.config.rules import Loc, default_meta_path, display
from litestream.config.store_keys import BY_NAME
from litestream.config.writer import scalar
from litestream.core.durations import format_duration

MASK = "***"
"""What stands for a secret."""

_ENVIRONMENT = {
    "access-key-id": ("s3", "LITESTREAM_ACCESS_KEY_ID"),
    "secret-access-key": ("s3", "LITESTREAM_SECRET_ACCESS_KEY"),
    "account-key": ("abs", "LITESTREAM_AZURE_ACCOUNT_KEY"),
    "sas-token": ("abs", "LITESTREAM_AZURE_SAS_TOKEN"),
}
"""Keys that a variable stands in for: the type of replica, and its name."""
_OF_CONFIG = frozenset({"databases", "directories", "defaults", "source", "warnings"})


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value comes from: `file`, `default`, `environment` or `flag`."""

    kind: str
    line: int = 0
    """FILE: the line, from 1."""
    names: tuple[str, ...] = ()
    """The environment variables, or the flag."""

    def __str__(self) -> str:
        if self.kind == "file":
            return " ".join([f"line {self.line}", *(f"${name}" for name in self.names)])
        return " ".join([self.kind, *self.names])


DEFAULT = Source("default")


@dataclass(frozen=True, slots=True)
class Setting:
    """A value as the file would have it: text, number, flag, or a list of texts."""

    value: object
    source: Source


Tree: TypeAlias = "dict[str, Setting | Tree | list[Tree]]"


@dataclass(slots=True)
class Effective:
    """Puts a configuration together with the places it was read from.

    Args:
        lines: the text of the file, by line; empty if variables were not expanded.
        overrides: what beats the file, by place.
        environ: the environment.
    """

    reading: Reading
    lines: Sequence[str] = ()
    overrides: Mapping[Loc, Setting] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    _keeps_all: bool = False
    """Whether `retention.enabled` of the file is what no replica is ever deleted from for."""

    def tree(self) -> Tree:
        """All of it, in the order of the documentation."""
        config = self.reading.config
        self._keeps_all = self._off(("retention", "enabled"))
        names = [name for name in config.KEYS if name not in _OF_CONFIG]
        tree = self._model(config, names, (), known_keys.TOP)
        for name, value in config.defaults.given().items():
            if (name,) in self.reading.lines:
                tree[name] = self._value(value, name, (name,), known_keys.TOP)
        tree["dbs"] = [self._entry(entry) for entry in self.reading.entries if entry.database is not None]
        return tree

    def _entry(self, entry: Entry) -> Tree:
        database = entry.database
        assert database is not None
        names = [name for name in database.KEYS if name != "replicas"]
        names.sort(key=lambda name: name not in {"path", "dir", "pattern"})
        tree = self._model(database, names, entry.loc, known_keys.DATABASE)
        if isinstance(database, DatabaseConfig) and database.meta_path is None:
            tree["meta-path"] = Setting(default_meta_path(database.path), DEFAULT)
        replicas = [
            self._replica(replica, loc, entry.loc)
            for replica, loc in zip(database.replicas, entry.replicas, strict=True)
        ]
        if replicas:
            tree["replicas"] = [*replicas]
        return tree

    def _replica(self, replica: ReplicaConfig, loc: Loc, database: Loc) -> Tree:
        names = ["name", "type", "url", "path", "sync_interval", "snapshot_interval", "retention"]
        names += [name for name in replica.KEYS if name not in names]
        tree: Tree = {}
        for name in names:
            key, value = name.replace("_", "-"), getattr(replica, name)
            if key == "name":
                value = replica.label
            elif key == "url" and value is not None:
                value = replica.location  # without what is secret in it
            if value is None or (key == "path" and not value) or (key == "path" and replica.url is not None):
                continue
            tree[key] = self._value(value, key, self._origin(key, loc, database), known_keys.REPLICA)
            if key == "type" and (*loc, "type") not in self.reading.lines and replica.url is not None:
                tree[key] = Setting(replica.type, self._source((*loc, "url")))
        for key, (kind, variable) in _ENVIRONMENT.items():
            if replica.type == kind and key not in tree and self.environ.get(variable):
                tree[key] = Setting(MASK, Source("environment", names=(variable,)))
        return tree

    def _origin(self, key: str, loc: Loc, database: Loc) -> Loc:
        """Where the value of a replica's key stands; the replica's own place if nowhere."""
        inside = {"snapshot-interval": "interval", "retention": "retention"}.get(key, "")
        places: list[Loc] = [(*loc, key)]
        if key == "retention-check-interval" and self._keeps_all:
            places.insert(0, ("retention", "enabled"))
        places += [(*database, "snapshot", inside), (key,), ("snapshot", inside)]
        places += [("validation", "interval")] if key == "validation-interval" else []
        return next((place for place in places if place in self.reading.lines), (*loc, key))

    def _off(self, place: Loc) -> bool:
        values = [replica.retention_check_interval for one in self._replicas() for replica in one]
        return place in self.reading.lines and bool(values) and not any(values)

    def _replicas(self) -> Iterator[tuple[ReplicaConfig, ...]]:
        for entry in self.reading.entries:
            if isinstance(entry.database, DatabaseConfig | DirectoryConfig):
                yield entry.database.replicas

    # -- values

    def _model(self, model: Model, names: Sequence[str], loc: Loc, section: str) -> Tree:
        tree: Tree = {}
        for name in names:
            key = model.KEYS[name]
            value = getattr(model, name)
            if value is not None:
                tree[key] = self._value(value, key, (*loc, key), section)
        return tree

    def _value(self, value: Any, key: str, loc: Loc, section: str) -> Setting | Tree:  # noqa: ANN401 - of any model
        known = known_keys.SECTIONS.get(section, {}).get(key) or BY_NAME.get(key)
        if isinstance(value, Model):
            return self._model(value, list(value.KEYS), loc, known.section if known else "")
        source = self._source(loc)
        # A command's words may hold what a variable keeps secret.
        shown = MASK if key == "exec" and source.names else _plain(value, key, known)
        return self.overrides.get(loc) or Setting(shown, source)

    def _source(self, loc: Loc) -> Source:
        line = self.reading.lines.get(loc)
        if line is None:
            return DEFAULT
        text = self.lines[line - 1] if line <= len(self.lines) else ""
        return Source("file", line, tuple(dict.fromkeys(names_in(text))))


def _plain(value: object, key: str, known: Key | None) -> object:
    """As the file would have it."""
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, tuple):
        return [_plain(item, key, known) for item in value]
    if key == "permissions" and isinstance(value, int):
        return f"0{value:03o}"
    if known is not None and known.kind is Kind.DURATION and isinstance(value, float | int):
        return format_duration(value)
    return value


def flat(tree: Tree, loc: Loc = ()) -> Iterator[tuple[str, Setting]]:
    """Every value with its place, as `dbs[0].path`."""
    for key, value in tree.items():
        if isinstance(value, Setting):
            yield display((*loc, key)), value
        elif isinstance(value, list):
            for number, item in enumerate(value):
                yield from flat(item, (*loc, key, number))
        else:
            yield from flat(value, (*loc, key))


def as_yaml(tree: Tree) -> str:
    """The tree as YAML, each value with its source in a comment."""
    lines = list(_yaml(tree, 0))
    width = min(60, max((len(text) for text, source in lines if source), default=0))
    return "".join(f"{text:{width}}  # {source}\n" if source else f"{text}\n" for text, source in lines)


def _yaml(tree: Tree, depth: int, first: str = "") -> Iterator[tuple[str, str]]:
    """Lines and sources; `first` stands before the first line."""
    for key, value in tree.items():
        start, first = first or "  " * depth, ""
        if isinstance(value, Setting):
            yield f"{start}{key}: {scalar(value.value)}", str(value.source)
            continue
        yield f"{start}{key}:", ""
        for item in value if isinstance(value, list) else ():
            yield from _yaml(item, depth + 2, "  " * (depth + 1) + "- ")
        if isinstance(value, dict):
            yield from _yaml(value, depth + 1)
