"""The entries of `dbs:`: one database, or all databases of a directory."""

from __future__ import annotations

import os
from typing import Annotated

from litestream.config.model import Check, JsonSchema, Model
from litestream.config.paths import absolute_path, database_path
from litestream.config.patterns import compile_pattern, is_state, may_be_database
from litestream.config.replica import ReplicaConfig
from litestream.config.store_settings import SettingError
from litestream.config.upstream import UpstreamConfig
from litestream.config.values import Count, Flag, Seconds, SomeCount, SomeSeconds, path_by


class DatabaseSettings(Model):
    """What both kinds of entry have."""

    meta_path: Annotated[str, path_by(absolute_path)] | None = None
    """Absolute directory of the local state; None: `.FILE-litestream` beside the database."""
    monitor_interval: SomeSeconds = 1.0
    checkpoint_interval: Seconds = 60.0
    """0: off."""
    min_checkpoint_page_count: SomeCount = 1000
    max_checkpoint_page_count: Count = 10000
    """0: off."""
    busy_timeout: Seconds = 1.0
    compact: Flag = False
    """Whether each page of what is copied at a time is stored once, in its newest version."""
    replicas: tuple[ReplicaConfig, ...] = ()


class DatabaseConfig(DatabaseSettings):
    """One database and its replicas."""

    path: Annotated[str, path_by(database_path)]
    """Absolute; symbolic links are kept."""
    upstream: UpstreamConfig | None = None
    """What it follows, instead of being replicated."""
    restore_if_db_not_exists: Flag = False
    """Whether it is restored at the start if it is missing."""


def _pattern(value: object) -> object:
    if isinstance(value, str):
        if not value:
            raise ValueError("is empty: give it a value")
        if "/" in value:
            raise ValueError("is for names and not for paths: recursive is what looks into subdirectories")
        compile_pattern(value)
    return value


class DirectoryConfig(DatabaseSettings):
    """All databases of a directory, each with a place of its own in every replica."""

    dir: Annotated[str, path_by(absolute_path)]
    """Absolute; symbolic links are kept."""
    pattern: Annotated[str, Check(_pattern), JsonSchema({"type": "string", "pattern": "^[^/]+$"})]
    recursive: Flag = False
    watch: Flag = False
    meta_dir: Annotated[str, path_by(absolute_path)] | None = None
    """Absolute directory below which the local state is, as the databases are below theirs; None: see `meta_path`."""

    def _after(self) -> None:
        if self.meta_path is not None and self.meta_dir is not None:
            raise SettingError("meta-dir", "cannot specify both 'meta-path' and 'meta-dir'")

    def matches(self, name: str) -> bool:
        """Whether a file of that name may be one of the databases."""
        return may_be_database(name) and compile_pattern(self.pattern).fullmatch(name) is not None

    def enters(self, name: str) -> bool:
        """Whether a subdirectory of that name is looked into."""
        return self.recursive and not is_state(name)

    def relative(self, path: str) -> str | None:
        """The place below the directory of a file that is one of its databases by name; None if it is not."""
        folder, name = os.path.split(path)
        for root, place in ((self.dir, folder), (os.path.realpath(self.dir), os.path.realpath(folder))):
            inside = os.path.relpath(place, root)
            parts = [] if inside == "." else inside.split("/")
            if ".." not in parts[:1] and self.matches(name) and all(map(self.enters, parts)):
                return os.path.join(*parts, name)
        return None

    def database(self, relative: str) -> DatabaseConfig:
        """What the database at that place below the directory is replicated by. Raises `ValidationError`
        where a replica cannot have such a name."""
        shared = {name: getattr(self, name) for name in DatabaseSettings.KEYS}
        shared["meta_path"] = self._meta_path(relative)
        shared["replicas"] = tuple(replica.below(relative) for replica in self.replicas)
        return DatabaseConfig(path=os.path.join(self.dir, relative), **shared)

    def _meta_path(self, relative: str) -> str | None:
        """As the official 0.5 has it: with a dot before the name below `meta-path`, without one below `meta-dir`."""
        if self.meta_dir is not None:
            return os.path.join(self.meta_dir, f"{relative}-litestream")
        if self.meta_path is not None:
            folder, name = os.path.split(relative)
            return os.path.join(self.meta_path, folder, f".{name}-litestream")
        return None


def replica_roots(entry: DatabaseSettings) -> set[str]:
    """The real paths of the directories in which an entry's replicas are: nothing in there is to be replicated."""
    return {os.path.realpath(replica.path) for replica in entry.replicas if replica.type == "file"}
