"""From a path to a `Config`: find, read, expand, parse, check, resolve. Every error of a file is reported at once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

from litestream.config.check import Checker, Problem
from litestream.config.defaults import applying, unused
from litestream.config.document import DocumentError, parse
from litestream.config.expand import Expanded, expand
from litestream.config.key import FALSE, TRUE
from litestream.config.model import Detail, Model, ValidationError
from litestream.config.models import (
    Config,
    DatabaseConfig,
    DirectoryConfig,
    LoggingConfig,
    ReplicaConfig,
    ReplicaDefaults,
    SnapshotConfig,
    SocketConfig,
    ValidationConfig,
)
from litestream.config.paths import DestinationError, absolute_path, destination, is_url, shown
from litestream.config.rules import NO_REPLICA, Loc, problems_between
from litestream.config.store_settings import SettingError
from litestream.config.upstream import NO_REPLICAS
from litestream.errors import ConfigError
from litestream.storage import VISIBLE, shows_secret

DEFAULT_PATH = "/etc/litestream.yml"
LOCAL_PATH = "litestream.yml"
MAX_SIZE = 4 << 20
"""Bytes of a configuration file: over ten thousand databases with a replica each."""
MAX_PROBLEMS = 50
"""Problems shown; the rest is counted."""

_OF_DIRECTORIES = frozenset({"pattern", "recursive", "watch", "meta-dir"})

M = TypeVar("M", bound=Model)


def find(path: str | None, environ: Mapping[str, str]) -> str:
    """The file to read: `path`, or LITESTREAM_CONFIG, ./litestream.yml, /etc/litestream.yml. Raises `ConfigError`."""
    explicit = path or environ.get("LITESTREAM_CONFIG")
    if explicit:
        try:
            return absolute_path(explicit)
        except ValueError as error:
            raise ConfigError(f"config file {shown(explicit)}: {error}") from None
    for candidate in (LOCAL_PATH, DEFAULT_PATH):
        if os.path.lexists(candidate):
            return candidate
    raise ConfigError(
        f"no configuration: neither ./{LOCAL_PATH} nor {DEFAULT_PATH} exists; write one, name one with -config PATH or "
        "LITESTREAM_CONFIG, or give replica URLs on the command line (`litestream COMMAND -h` shows how)"
    )


def load(path: str | None = None, *, expand_env: bool = True, environ: Mapping[str, str] | None = None) -> Config:
    """Read and check a configuration file.

    Args:
        path: the file; None searches (see `find`).
        expand_env: replace `$VAR` and `${VAR}` in the text first.
        environ: the environment, `os.environ` by default.

    Raises `ConfigError`: no file, not readable, or all that is wrong in it, one problem a line.
    """
    environ = os.environ if environ is None else environ
    file = find(path, environ)
    return loads(read_text(file), name=file, expand_env=expand_env, environ=environ)


def loads(
    text: str, *, name: str = LOCAL_PATH, expand_env: bool = True, environ: Mapping[str, str] | None = None
) -> Config:
    """The same for a text at hand; `name` stands in messages and in `Config.source`."""
    return read(text, name=name, expand_env=expand_env, environ=os.environ if environ is None else environ).config


class Entry(NamedTuple):
    """A database, or a directory of databases, of the file."""

    loc: Loc
    database: DatabaseConfig | DirectoryConfig | None
    """None: it has problems of its own."""
    replicas: list[Loc]
    """The places of its replicas that have none."""


class Reading(NamedTuple):
    """A configuration, and where each part of it stands in the file."""

    config: Config
    lines: Mapping[Loc, int]
    """The file's line of each key and list item."""
    entries: Sequence[Entry]


def read(text: str, *, name: str, expand_env: bool, environ: Mapping[str, str]) -> Reading:
    """What `loads` does, with the places. Raises `ConfigError`."""
    expanded = expand(text, environ) if expand_env else Expanded(text)
    problems = [Problem(line, (), message) for line, message in expanded.problems]
    try:
        document = parse(expanded.text, expanded.values)
    except DocumentError as error:
        _fail(name, [*problems, Problem(expanded.line(error.line), (), str(error))])
    problems += [Problem(expanded.line(line), (), message) for line, message in document.problems]
    checker = Checker(document, expanded.values)
    builder = _Builder(checker, expanded)
    config = builder.config(checker.check())
    found = [Problem(expanded.line(problem.line), problem.loc, problem.text) for problem in checker.problems]
    problems += found
    if problems or config is None:
        _fail(name, problems)
    notes = [Problem(line, (), message) for line, message in expanded.warnings]
    notes += [Problem(expanded.line(note.line), note.loc, note.text) for note in checker.warnings() + builder.notes]
    warnings = tuple(f"{shown(name)}:{note}" for note in sorted(notes, key=lambda note: note.line))
    lines = {loc: expanded.line(line) for loc, line in checker.lines.items()}
    return Reading(config.model_copy(update={"source": name, "warnings": warnings}), lines, builder.entries)


def for_command_line(db_path: str, replica_urls: Sequence[str]) -> Config:
    """The configuration of `replicate DB URL...`. Raises `ConfigError`.

    Replicas of one type get the names `file`, `file-2`, and so on, so that several can be given.
    """
    if not replica_urls:
        raise ConfigError(f"must specify at least one replica URL for {shown(db_path)}")
    replicas: list[ReplicaConfig] = []
    for number, url in enumerate(replica_urls, 1):
        replica = _replica_at(url, {}, f"replica URL {number}: ")
        taken = sum(other.type == replica.type for other in replicas)
        replicas.append(replica.model_copy(update={"name": f"{replica.type}-{taken + 1}" if taken else ""}))
    secret = [str(number) for number, url in enumerate(replica_urls, 1) if shows_secret(url)]
    warnings = (f"replica URL {', '.join(secret)}: {VISIBLE}",) if secret else ()
    try:
        return Config(databases=(DatabaseConfig(path=db_path, replicas=tuple(replicas)),), warnings=warnings)
    except ValidationError as error:
        text = "; ".join(detail.text for detail in error.details)
        # The places of a file are those of the command line.
        raise ConfigError(re.sub(r"dbs\[0\]\.replicas\[(\d+)\]", _argument, text)) from None


def replica_at(url: str, defaults: ReplicaDefaults) -> ReplicaConfig:
    """The replica at a URL that no file has, with a file's defaults. Raises `ConfigError`."""
    return _replica_at(url, defaults.given(), "")


def _replica_at(url: str, defaults: Mapping[str, Any], prefix: str) -> ReplicaConfig:
    key = "url" if is_url(url) or url.startswith("file:") else "path"
    try:
        kind, _ = destination(None, url if key == "path" else None, url if key == "url" else None)
        return ReplicaConfig.model_validate(applying(defaults, {key: url}, kind))
    except DestinationError as error:
        raise ConfigError(f"{prefix}{error}") from None
    except ValidationError as error:
        raise ConfigError(prefix + "; ".join(detail.text for detail in error.details)) from None


def _argument(place: re.Match[str]) -> str:
    return f"replica URL {int(place[1]) + 1}"


def read_text(file: str) -> str:
    """The text of the file: UTF-8, with or without a byte order mark. Raises `ConfigError`."""
    label = shown(file)
    try:
        with open(file, "rb") as stream:  # also a pipe, such as /dev/stdin
            data = stream.read(MAX_SIZE + 1)
    except FileNotFoundError:
        raise ConfigError(f"config file not found: {label}") from None
    except OSError as error:
        raise ConfigError(f"cannot read config file {label}: {error.strerror or error}") from None
    if len(data) > MAX_SIZE:
        raise ConfigError(f"config file {label} is larger than {MAX_SIZE >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{label}:{line}: not UTF-8: save the file in that encoding") from None


def _fail(name: str, problems: list[Problem]) -> NoReturn:
    ordered = sorted(dict.fromkeys(problems), key=lambda problem: problem.line)
    lines = [f"{shown(name)}:{problem}" for problem in ordered[:MAX_PROBLEMS]]
    if len(ordered) > MAX_PROBLEMS:
        lines.append(f"{shown(name)}: and {len(ordered) - MAX_PROBLEMS} more problems")
    raise ConfigError("\n".join(lines))


class _Builder:
    """Turns checked text into models, with the file's defaults put into each replica."""

    def __init__(self, checker: Checker, expanded: Expanded) -> None:
        self.checker = checker
        self.expanded = expanded
        self.notes: list[Problem] = []
        self.entries: list[Entry] = []

    def config(self, top: dict[str, Any]) -> Config | None:
        """None if there were problems, all of which are with the checker then."""
        keep_all = self._retention_off(top)
        logging = self._logging(top.pop("logging", None) or {})
        socket = self._validate(SocketConfig, top.pop("socket", None) or {}, ("socket",))
        given, defaults = self._defaults(top, keep_all=keep_all)
        entries = top.pop("dbs", None) or []
        self.entries = databases = [
            self._database(entry, ("dbs", i), defaults) for i, entry in enumerate(entries) if entry is not None
        ]
        self._compare(databases)
        self._tell_unused(given, databases)
        if "heartbeat-interval" in top and not top.get("heartbeat-url"):
            self._note(("heartbeat-interval",), "has no effect without heartbeat-url")
        plain = self._validate(Config, top, ())
        if self.checker.problems or plain is None or logging is None or socket is None:
            return None
        return Config(
            addr=plain.addr,
            exec=plain.exec,
            stream_token=plain.stream_token,
            stream=plain.stream,
            tls_cert=plain.tls_cert,
            tls_key=plain.tls_key,
            logging=logging,
            socket=socket,
            heartbeat_url=plain.heartbeat_url,
            heartbeat_interval=plain.heartbeat_interval,
            shutdown_sync_timeout=plain.shutdown_sync_timeout,
            shutdown_sync_interval=plain.shutdown_sync_interval,
            databases=tuple(entry.database for entry in databases if isinstance(entry.database, DatabaseConfig)),
            directories=tuple(entry.database for entry in databases if isinstance(entry.database, DirectoryConfig)),
            defaults=given or ReplicaDefaults(),
        )

    def _tell_unused(self, given: ReplicaDefaults | None, entries: list[Entry]) -> None:
        """Warn of defaults that no replica has: what they ask for is not done."""
        kinds = {replica.type for entry in entries if entry.database for replica in entry.database.replicas}
        for name, text in unused(given, kinds) if given is not None else ():
            self._note((name,), text)

    def _logging(self, raw: dict[str, Any]) -> LoggingConfig | None:
        if raw.get("type") == "pretty":
            raw["type"] = "text"
            self._note(("logging", "type"), "pretty is taken as text")
        return self._validate(LoggingConfig, raw, ("logging",))

    def _retention_off(self, top: dict[str, Any]) -> bool:
        """`retention: {enabled: false}` of 0.5; a plain duration stays in `top` as a default."""
        if not isinstance(top.get("retention"), dict):
            return False
        loc = ("retention", "enabled")
        enabled = top.pop("retention").get("enabled")
        try:
            off = enabled is not None and not LoggingConfig(stderr=enabled).stderr
        except ValidationError as error:
            self._problem(loc, error.details[0].text)
            return False
        if off:
            self._note(loc, "nothing is ever deleted from the replicas: they grow without bound")
        return off

    def _defaults(self, top: dict[str, Any], *, keep_all: bool) -> tuple[ReplicaDefaults | None, dict[str, Any]]:
        """What the file gives for all replicas, and what each replica starts from, by key."""
        names = ReplicaDefaults.KEYS.values()
        given = self._validate(ReplicaDefaults, {name: top.pop(name) for name in names if name in top}, ())
        values = given.given() if given else {}
        sections = {"snapshot": self._snapshot(top.pop("snapshot", None), ("snapshot",))}
        sections["validation"] = self._validation(top.pop("validation", None))
        for section, found in sections.items():
            for name, value in found.items():
                if values.setdefault(name, value) != value:
                    self._problem((section,), f"{name} is given at the top of the file too, with another value")
        if keep_all:
            values["retention-check-interval"] = 0.0
        return given, {**values, "keep-all": keep_all}

    def _snapshot(self, raw: dict[str, Any] | None, loc: Loc) -> dict[str, Any]:
        """A `snapshot` section as defaults of replicas."""
        section = self._validate(SnapshotConfig, raw or {}, loc)
        pairs = {} if section is None else {"snapshot-interval": section.interval, "retention": section.retention}
        return {name: value for name, value in pairs.items() if value is not None}

    def _validation(self, raw: dict[str, Any] | None) -> dict[str, Any]:
        """The `validation` section as defaults of replicas."""
        section = self._validate(ValidationConfig, raw or {}, ("validation",))
        if section is None or section.interval is None:
            return {}
        return {"validation-interval": section.interval}

    def _database(self, raw: dict[str, Any], loc: Loc, defaults: dict[str, Any]) -> Entry:
        defaults = {**defaults, **self._snapshot(raw.pop("snapshot", None), (*loc, "snapshot"))}
        entries: list[tuple[Loc, dict[str, Any] | None]] = []
        if raw.get("replica") is not None and raw.get("replicas"):
            self._problem((*loc, "replicas"), "cannot specify 'replica' and 'replicas' on a database")
        if "replica" in raw:
            entries.append(((*loc, "replica"), raw.pop("replica")))
        for number, entry in enumerate(raw.pop("replicas", None) or []):
            entries.append(((*loc, "replicas", number), entry))
        if not entries and raw.get("upstream") is None:
            self._problem(loc, NO_REPLICA)
        elif entries and raw.get("upstream") is not None:
            self._problem((*loc, "upstream"), NO_REPLICAS)
        replicas = [(place, self._replica(entry, place, defaults)) for place, entry in entries]
        good = {place: replica for place, replica in replicas if replica is not None}
        raw = {**raw, "replicas": tuple(good.values())}
        database = self._directory(raw, loc) if "dir" in raw else self._single(raw, loc)
        if database is not None and 0 < database.max_checkpoint_page_count < database.min_checkpoint_page_count:
            self._note(
                (*loc, "max-checkpoint-page-count"), "is below min-checkpoint-page-count, which then never counts"
            )
        return Entry(loc, database, list(good))

    def _directory(self, raw: dict[str, Any], loc: Loc) -> DirectoryConfig | None:
        if "upstream" in raw:
            self._problem((*loc, "upstream"), "cannot be used with 'dir': name each database by its path")
            return None
        if "path" in raw:
            self._problem((*loc, "dir"), "cannot specify both 'path' and 'dir'")
            return None
        if not raw.get("pattern"):
            self._problem((*loc, "dir"), "'pattern' is required when using 'dir'")
            return None
        name = "restore-if-db-not-exists"
        if raw.pop(name, None) not in (None, *FALSE):
            self._problem((*loc, name), "cannot be used with 'dir': which databases are missing in it is not known")
        return self._validate(DirectoryConfig, raw, loc)

    def _single(self, raw: dict[str, Any], loc: Loc) -> DatabaseConfig | None:
        if "path" not in raw:
            self._problem(loc, "must specify either 'path' or 'dir'")
            return None
        if "meta-dir" in raw:
            self._problem((*loc, "meta-dir"), "'meta-dir' can only be used with a directory")
        if raw.get("watch") in TRUE:
            self._problem((*loc, "watch"), "'watch' can only be enabled with a directory")
        for name in ("pattern", "recursive"):
            if name in raw and raw[name] not in FALSE:
                self._note((*loc, name), "has no effect without 'dir'")
        alone = {name: value for name, value in raw.items() if name not in _OF_DIRECTORIES}
        return self._validate(DatabaseConfig, alone, loc)

    def _replica(self, raw: dict[str, Any] | None, loc: Loc, defaults: dict[str, Any]) -> ReplicaConfig | None:
        if raw is None:
            return None
        keep_all = defaults["keep-all"]
        others = {name: value for name, value in defaults.items() if name != "keep-all"}
        try:
            # A default may say the place of a replica that has no URL to say it.
            settings = raw if raw.get("url") else {**others, **raw}
            kind, _ = destination(raw.get("type"), raw.get("path"), raw.get("url"), settings)
        except DestinationError as error:
            hidden = self._is_hidden(error.value)
            self._problem((*loc, error.key), "the replica type is not supported" if hidden else str(error))
            # The other keys are still checked, one by one.
            alone = {name: value for name, value in raw.items() if name not in {"type", "name", "path", "url"}}
            self._validate(ReplicaDefaults, alone, loc)
            return None
        values = applying(others, raw, kind)
        if keep_all:
            values["retention-check-interval"] = 0.0
        return self._validate(ReplicaConfig, values, loc)

    def _compare(self, entries: list[Entry]) -> None:
        """The rules between entries, for those that are right in themselves."""
        pairs = [(entry.loc, entry.database) for entry in entries if entry.database is not None]
        places = [entry.replicas for entry in entries if entry.database is not None]
        for loc, text, with_values in problems_between(pairs, places):
            self._problem(loc, text if self._is_hidden(with_values) else with_values)

    def _validate(self, model: type[M], raw: dict[str, Any], loc: Loc) -> M | None:
        try:
            return model.model_validate({name: value for name, value in raw.items() if value is not None})
        except ValidationError as error:
            for detail in error.details:
                place, value, text = self._place(loc, detail), detail.value, detail.text
                if self._is_hidden(value if isinstance(value, str) else text):
                    text = "is not valid (not shown: the value comes from the environment)"
                self._problem(place, text)
            return None

    def _place(self, loc: Loc, detail: Detail) -> Loc:
        """Where a value stands that is wrong: in the section itself, or among the defaults at the top of the file."""
        reason = detail.cause
        inside = (*detail.loc, *(reason.key.split(".") if isinstance(reason, SettingError) and reason.key else ()))
        return inside if (*loc, *inside) not in self.checker.lines and inside in self.checker.lines else (*loc, *inside)

    def _is_hidden(self, value: str) -> bool:
        return any(hidden in value for hidden in self.expanded.values)

    def _problem(self, loc: Loc, text: str) -> None:
        self.checker.problems.append(Problem(self.checker.line(loc), loc, text))

    def _note(self, loc: Loc, text: str) -> None:
        self.notes.append(Problem(self.checker.line(loc), loc, text))
