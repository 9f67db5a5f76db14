"""Directories that go over to another configuration: who is given to whom, and who must not notice."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from helpers.cli import Yaml
from litestream.config import Config, DatabaseConfig, load
from litestream.core.position import Pos
from litestream.daemon.control import Controller
from litestream.daemon.directories import Changes, Directories
from litestream.daemon.server import Entry, Server
from litestream.daemon.watcher import Watcher
from litestream.errors import ConfigError

T = TypeVar("T")
LOGGER = logging.getLogger("litestream.test")


class Still:
    """A database that is never opened, and counts its last syncs."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.syncs = 0

    async def call(self, fn: Callable[..., T], *args: object) -> T:
        return fn(*args)

    async def sync(self) -> None:
        self.syncs += 1

    def sync_now(self) -> bool:
        self.syncs += 1
        return True

    def pos(self) -> Pos:
        return Pos()

    def close(self) -> None:
        pass


class Rig:
    """Directories below a folder, without a replicator: what the server has is what they want."""

    def __init__(self, folder: Path, watcher: Watcher) -> None:
        self.folder, self._watcher = folder, watcher
        for place in ("one/a.db", "one/b.db", "two/c.db"):
            path = folder / place
            path.parent.mkdir(exist_ok=True)
            connection = sqlite3.connect(path)
            connection.execute("CREATE TABLE t(x)")
            connection.close()

    def directory(self, name: str, to: str = "replica", **options: Yaml) -> dict[str, Yaml]:
        replica: dict[str, Yaml] = {"path": str(self.folder / to / name)}
        entry: dict[str, Yaml] = {"dir": str(self.folder / name), "pattern": "*.db", "watch": True}
        return {**entry, "replicas": [replica], **options}

    def config(self, *entries: dict[str, Yaml]) -> Config:
        path = self.folder / "c.yml"
        path.write_text(json.dumps({"dbs": list(entries)}))
        return load(str(path))

    async def begin(self, *entries: dict[str, Yaml]) -> Directories:
        config = self.config(*entries)
        self.server = Server([], logger=LOGGER)
        control = Controller(self.server, config, self.make, LOGGER)
        directories = Directories(config, self.server, control, self.make, self._watcher, LOGGER)
        await directories.begin()
        return directories

    def make(self, database: DatabaseConfig) -> Entry:
        async def run() -> None: ...

        work: Callable[[], Awaitable[None]] = run
        return Entry(Still(database.path), [], work, config=database)

    def entries(self) -> dict[str, Entry]:
        """By place below the folder."""
        return {str(Path(entry.db.path).relative_to(self.folder)): entry for entry in self.server.entries}

    def paths(self, *places: str) -> tuple[str, ...]:
        return tuple(str(self.folder / place) for place in places)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    watcher = Watcher()
    watcher.start()
    yield Rig(tmp_path, watcher)
    watcher.close()


async def test_the_same_again_changes_nothing(rig: Rig) -> None:
    """Also in another order: every database keeps its very entry."""
    one, two = rig.directory("one"), rig.directory("two")
    directories = await rig.begin(one, two)
    before = rig.entries()
    assert await directories.reconfigure(rig.config(two, one)) == Changes()
    assert rig.entries() == before
    assert list(before) == ["one/a.db", "one/b.db", "two/c.db"]


async def test_added_and_removed(rig: Rig) -> None:
    """What comes is begun with, what goes has a last sync, and the others keep their entry."""
    directories = await rig.begin(rig.directory("one"))
    before = rig.entries()
    changes = await directories.reconfigure(rig.config(rig.directory("one"), rig.directory("two")))
    assert changes == Changes(added=rig.paths("two/c.db"))
    between = rig.entries()
    assert [between[place] is before[place] for place in before] == [True, True]
    assert await directories.reconfigure(rig.config(rig.directory("two"))) == Changes(
        removed=rig.paths("one/a.db", "one/b.db")
    )
    assert rig.entries() == {"two/c.db": between["two/c.db"]}
    assert [entry.db.syncs for entry in before.values()] == [1, 1]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("to", "syncs"), [("replica", 0), ("elsewhere", 1)])
async def test_changed(to: str, syncs: int, rig: Rig) -> None:
    """Other settings begin anew; a last sync is needed only where the replica's place is another one."""
    two = rig.directory("two")
    directories = await rig.begin(rig.directory("one"), two)
    before = rig.entries()
    slower = rig.directory("one", to, **{"busy-timeout": "7s"})
    changes = await directories.reconfigure(rig.config(slower, two))
    assert changes == Changes(changed=rig.paths("one/a.db", "one/b.db"))
    after = rig.entries()
    assert after["two/c.db"] is before["two/c.db"]
    for place in ("one/a.db", "one/b.db"):
        config = after[place].config
        assert config is not None
        assert (config.busy_timeout, before[place].db.syncs) == (7.0, syncs)  # type: ignore[attr-defined]


async def test_a_narrower_pattern(rig: Rig) -> None:
    """What the directory no longer means is let go of; what it still means keeps its entry."""
    directories = await rig.begin(rig.directory("one"))
    before = rig.entries()
    changes = await directories.reconfigure(rig.config(rig.directory("one", pattern="a*.db")))
    assert changes == Changes(removed=rig.paths("one/b.db"))
    assert rig.entries() == {"one/a.db": before["one/a.db"]}


async def test_nothing_changes_if_a_new_one_is_empty(rig: Rig) -> None:
    """A directory without `watch` needs a database, or the whole configuration is refused."""
    directories = await rig.begin(rig.directory("one"))
    before = rig.entries()
    (rig.folder / "empty").mkdir()
    with pytest.raises(ConfigError, match="no SQLite databases found in directory"):
        await directories.reconfigure(rig.config(rig.directory("empty", watch=False)))
    assert rig.entries() == before
    assert directories.databases == [entry.config for entry in before.values()]


async def test_deleted_before_it_was_replicated(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """There is no local state, so nothing of it was ever stored: that is said."""
    one = rig.directory("one")
    directories = await rig.begin(one)
    (rig.folder / "one/a.db").unlink()
    with caplog.at_level(logging.WARNING, LOGGER.name):
        await directories.reconfigure(rig.config(one))
        await directories.close()
    (record,) = caplog.records
    assert record.getMessage() == "deleted before it was replicated: nothing of it was stored"
    assert record.__dict__["fields"]["db"] == str(rig.folder / "one/a.db")
    assert list(rig.entries()) == ["one/b.db"]
