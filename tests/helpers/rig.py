"""One database, one file replica, one replicator: what most scenarios need."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from helpers import ledger, state
from helpers.app import App
from helpers.cli import OURS, Daemon, Database, Yaml, generations, objects, wait_until, write_config

LONG = bool(os.environ.get("LITESTREAM_LONG"))
"""Run campaigns and sizes that take minutes."""


class Rig:
    """Made by the `rig` fixture; nothing runs until `start`."""

    def __init__(self, folder: Path, apps: Callable[[], App], daemons: Callable[..., Daemon]) -> None:
        self.folder = folder
        self.db = folder / "app.db"
        self.replica = folder / "replica"
        self.out = folder / "out.db"
        self.meta = self.db.with_name(f".{self.db.name}-litestream")
        """The local state beside the database."""
        self.apps = apps
        self._daemons = daemons
        self._daemon: Daemon | None = None

    @property
    def url(self) -> str:
        return f"file://{self.replica}"

    @property
    def daemon(self) -> Daemon:
        """The replicator; `start` makes it."""
        assert self._daemon is not None
        return self._daemon

    def start(
        self,
        *,
        sync: str = "50ms",
        args: tuple[str, ...] = (),
        top: dict[str, Yaml] | None = None,
        replica: dict[str, Yaml] | None = None,
        **options: Yaml,
    ) -> Daemon:
        """Start the replicator. Options are those of the database, with _ for -; `replica` those of its replica.

        Later calls without arguments start it again as it was.
        """
        if self._daemon is None or options or args or top or replica:
            named = {name.replace("_", "-"): value for name, value in options.items()}
            place = {} if "url" in (replica or {}) else {"type": "file", "path": str(self.replica)}
            entry = {**place, **(replica or {})}
            config = write_config(
                self.folder / "litestream.yml", [Database(self.db, [entry], named)], sync=sync, **(top or {})
            )
            self._daemon = self._daemons(config, args=args)
        return self._daemon.start()

    def reach(self, n: int, *, timeout: float = 20, big: int = ledger.BIG) -> int:
        """Restore until ledger transaction n is there; each restore on the way must be a committed state."""
        return OURS.reach(self.replica, self.out, n, timeout=timeout, big=big)

    def converge(self, *, timeout: float = 20) -> state.State:
        """Restore until the result equals the database, which must be still."""
        return OURS.converge(self.db, self.replica, self.out, timeout=timeout)

    def restored_n(self, *flags: str) -> int:
        """The ledger transaction that a restore, which must succeed, gives."""
        return OURS.restored_n(self.url, self.out, *flags)

    def source_n(self) -> int:
        """The ledger transaction after which the application's database stands; it must be still."""
        return ledger.check(state.copy_of(self.db, self.folder / "source.db"))

    def objects(self) -> list[Path]:
        return objects(self.replica)

    def generations(self) -> list[str]:
        """Generations of the replica, newest last."""
        return generations(self.replica)

    def wait_generations(self, count: int) -> list[str]:
        """Wait until the replica holds `count` generations with objects."""
        return wait_until(
            lambda: found if len(found := self.generations()) >= count else [],
            lambda: f"{count} generations: {self.daemon.text()[-2000:]}",
        )
