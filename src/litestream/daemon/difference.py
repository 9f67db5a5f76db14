"""What a configuration that was read again asks to be done: a comparison of two values, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from litestream.config import Config, DatabaseConfig
from litestream.config.rules import problems_between

LIVE = frozenset({"logging", "shutdown_sync_timeout", "shutdown_sync_interval", "defaults"})
"""Settings of the top of the file that are applied at once."""
_NONE = frozenset({"databases", "directories", "source", "warnings"})
"""What is no setting of the top of the file."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Between what runs and what the file says now. Databases of directories are not in here."""

    added: tuple[DatabaseConfig, ...] = ()
    removed: tuple[DatabaseConfig, ...] = ()
    """As they were."""
    changed: tuple[DatabaseConfig, ...] = ()
    """As they are now."""
    directories: bool = False
    """Whether any entry with `dir` is another one."""
    settings: tuple[str, ...] = ()
    """Keys of the top of the file that changed and have been applied by now."""
    restart: tuple[str, ...] = ()
    """Keys that changed and take effect only when the program is started again."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.directories or self.settings or self.restart)


def difference(old: Config, new: Config) -> Difference:
    """What to do so that `new` holds where `old` held."""
    before = {database.path: database for database in old.databases}
    after = {database.path: database for database in new.databases}
    differing = [name for name in Config.KEYS if name not in _NONE and getattr(old, name) != getattr(new, name)]
    return Difference(
        added=tuple(database for path, database in after.items() if path not in before),
        removed=tuple(database for path, database in before.items() if path not in after),
        changed=tuple(database for path, database in after.items() if before.get(path, database) != database),
        directories=old.directories != new.directories,
        settings=tuple(_key(name) for name in differing if name in LIVE),
        restart=tuple(_key(name) for name in differing if name not in LIVE),
    )


def waiting_for(added: Iterable[DatabaseConfig], leaving: Iterable[DatabaseConfig]) -> set[str]:
    """The paths of those that can begin only when others have let go of what they need."""
    entries = [((f"leaving {other.path}",), other) for other in leaving] + [((new.path,), new) for new in added]
    paths = {new.path for new in added}
    return {str(loc[0]) for loc, _, _ in problems_between(entries) if loc[0] in paths}


def needs_new_start(old: DatabaseConfig, new: DatabaseConfig) -> bool:
    """Whether a change asks for a new beginning: the local state is elsewhere, or it follows another (or did)."""
    return old.meta_path != new.meta_path or old.upstream is not None or new.upstream is not None


def _key(name: str) -> str:
    return Config.KEYS[name]
