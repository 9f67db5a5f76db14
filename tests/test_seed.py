"""The seed, row by row: names, defaults, texts and edge cases that ours must have.

One test or more per row of "Replica API", "DB API" and "ReplicaClient interface", named after it. Where ours is
different on purpose the test says how. The database's rows use real applications, in processes of their own. (The
metrics have a file of their own, test_metrics.py.)
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from helpers import ledger
from helpers.app import App
from helpers.cli import Database, write_config
from helpers.fakedb import FakeDB
from helpers.faultstore import FOREVER, Fault, FaultStore
from litestream.client import ReplicaClient
from litestream.config import load
from litestream.core.layout import SEED, V03, V04
from litestream.core.plan import choose_snapshot
from litestream.core.position import Pos, SnapshotInfo, is_generation
from litestream.daemon.database import DatabaseTask
from litestream.daemon.server import Entry, Server
from litestream.daemon.watcher import Watcher
from litestream.db.db import DB
from litestream.errors import (
    ConfigError,
    CorruptObjectError,
    DatabaseAbsentError,
    GenerationChangedError,
    LitestreamError,
    LocalStateError,
    NoGenerationError,
    NoSnapshotsError,
    ObjectNotFoundError,
    PositionError,
    ReplicaError,
    StorageError,
)
from litestream.metrics import Metrics
from litestream.replica import Replica, latest_replica
from litestream.replica.bounds import time_bounds
from litestream.replica.validation import Validation, Verdict
from litestream.restore import RestoreOptions, restore
from litestream.storage.file import FileStore
from litestream.storage.memory import MemoryStore
from litestream.streams import compress, open_object

G1, G2 = "0000000000000001", "0000000000000002"
HOUR = 3600.0


@pytest.fixture
def db() -> Iterator[FakeDB]:
    """A database without a generation yet."""
    db = FakeDB("/data/app.db")
    yield db
    db.close()


@pytest.fixture
def store() -> FaultStore:
    """An empty store."""
    return FaultStore(MemoryStore())


@pytest.fixture
def client(store: FaultStore) -> ReplicaClient:
    """The replica's objects."""
    return ReplicaClient(store)


@pytest.fixture
def replica(db: FakeDB, client: ReplicaClient) -> Replica:
    """Not started."""
    return Replica(db, client, name="s", metrics=Metrics())


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    """What was logged at `level` or above."""
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


def put(store: FaultStore, key: str, created_at: float, body: bytes = b"") -> None:
    """An object with a time of its own."""
    inner = store.inner
    assert isinstance(inner, MemoryStore)
    inner._objects[key] = (body or compress(b"x"), created_at)


async def soon() -> None:
    """Let the loops go round."""
    await asyncio.sleep(0.05)


# -- 4. Replica API


def test_constructor(client: ReplicaClient, db: FakeDB) -> None:
    """A replica is made of a database (or none), a client that does not change, and perhaps a name."""
    replica = Replica(db, client, name="s")
    assert replica.client is client
    assert replica.db is db
    with pytest.raises(AttributeError):
        replica.client = client  # type: ignore[misc]
    alone = Replica(None, client)
    assert alone.db is None
    assert alone.pos == Pos()


def test_name(client: ReplicaClient, tmp_path: Path) -> None:
    """The name is the one given, or else the client's type."""
    assert Replica(None, client, name="offsite").name == "offsite"
    assert Replica(None, client).name == "memory"
    assert Replica(None, ReplicaClient(FileStore(str(tmp_path)))).name == "file"


def test_fields(client: ReplicaClient) -> None:
    """The defaults: sync interval 1 s, no snapshot interval, retention 24 h, checked each hour, monitor on."""
    replica = Replica(None, client)
    assert replica.sync_interval == 1
    assert replica.snapshot_interval == 0
    assert replica.retention == 24 * HOUR
    assert replica.retention_check_interval == HOUR
    assert replica.monitor_enabled is True


async def test_validation_interval(db: FakeDB, client: ReplicaClient) -> None:
    """The field is there, 0 by default; nothing comes of it without somebody who validates."""
    assert Replica(None, client).validation_interval == 0
    replica = Replica(db, client, validation_interval=0.01, metrics=Metrics())
    assert replica.validation_interval == 0.01
    await replica.start()
    names = [task.get_name() for task in asyncio.all_tasks()]
    assert names.count("/data/app.db(memory)") == 2  # monitor and retainer
    await replica.stop()


async def test_validator(db: FakeDB, client: ReplicaClient) -> None:
    """As in 0.3, each interval a validation runs, is logged, and is counted by its status."""

    class Twice:
        """Finds the replica good, then bad, then cannot tell."""

        def __init__(self) -> None:
            self.prepared = 0
            self.done = asyncio.Event()
            self.left = [Verdict.OK, Verdict.ERROR, Verdict.UNKNOWN]

        async def prepare(self) -> None:
            self.prepared += 1

        async def validate(self, replica: Replica) -> Validation:
            if not self.left:
                self.done.set()
                raise NoGenerationError
            return Validation(self.left.pop(0), Pos(G1, 1, 32), "why")

    validator, metrics = Twice(), Metrics()
    replica = Replica(db, client, validation_interval=0.001, validator=validator, metrics=metrics)
    await replica.start()
    await asyncio.wait_for(validator.done.wait(), 10)
    await replica.stop()

    assert validator.prepared == 1
    values = {labels[2]: count for labels, count in metrics.replica_validation_total.samples()}
    assert values == {"ok": 1, "error": 1}
    assert [count for _, count in metrics.replica_verified_ok.samples()] == [0]
    (_, when), *_ = metrics.replica_verified_timestamp_seconds.samples()
    assert abs(when - time.time()) < 60


@pytest.mark.parametrize(("path", "prefix"), [("/data/100%s.db", "/data/100%s.db(s): "), (None, "s: ")])
def test_logger(client: ReplicaClient, caplog: pytest.LogCaptureFixture, path: str | None, prefix: str) -> None:
    """Lines begin with `DB(NAME): `, or `NAME: ` without a database. (The seed shortens paths of its own tests.)"""
    db = FakeDB(path) if path is not None else None
    Replica(db, client, name="s", metrics=Metrics()).logger.error("no %s", "disk")
    assert messages(caplog) == [f"{prefix}no disk"]
    if db is not None:
        db.close()


async def test_start_monitor_disabled(db: FakeDB, client: ReplicaClient) -> None:
    """Start does nothing if the monitor is disabled."""
    before = asyncio.all_tasks()
    await Replica(db, client, monitor_enabled=False, metrics=Metrics()).start()
    assert asyncio.all_tasks() == before
    assert db.subscribers == []


async def test_start(db: FakeDB, client: ReplicaClient) -> None:
    """Start stops what runs and begins three loops: monitor, retainer, snapshotter."""
    replica = Replica(db, client, snapshot_interval=HOUR, metrics=Metrics())
    before = asyncio.all_tasks()
    for _ in range(2):
        await replica.start()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks() - before) == 3
        assert len(db.subscribers) == 1
    await replica.stop()


async def test_stop(db: FakeDB, replica: Replica) -> None:
    """Stop cancels and waits; it may be called twice, or before any start."""
    await replica.stop()
    before = asyncio.all_tasks()
    await replica.start()
    await replica.stop()
    await replica.stop()
    assert asyncio.all_tasks() == before
    assert db.subscribers == []


async def test_close(db: FakeDB, store: FaultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Close stops and closes the client. (The long-lived descriptor of the seed's replica is the database's here.)"""
    closed: list[bool] = []

    async def close() -> None:
        closed.append(True)

    monkeypatch.setattr(store, "close", close)
    replica = Replica(db, ReplicaClient(store), metrics=Metrics())
    await replica.start()
    await replica.close()
    assert closed == [True]
    assert db.subscribers == []


async def test_sync(db: FakeDB, replica: Replica, client: ReplicaClient, store: FaultStore) -> None:
    """Sync takes a snapshot if the generation has none, works the position out, and uploads the WAL.

    Better on purpose: snapshots are listed once, not at every sync, and a snapshot appears after its WAL.
    """
    generation = db.begin()
    db.commit()
    await replica.sync()
    assert [s.index for s in await client.snapshots(generation)] == [0]
    assert replica.pos == db.pos()
    store.calls.clear()
    db.commit()
    await replica.sync()
    assert len(await client.snapshots(generation)) == 1
    assert store.count("list") == 1  # ours


async def test_sync_no_generation(db: FakeDB, replica: Replica) -> None:
    """Sync without a generation is an error."""
    with pytest.raises(NoGenerationError, match=r"^no generation, waiting for data$"):
        await replica.sync()


async def test_sync_generation_changed(db: FakeDB, replica: Replica) -> None:
    """A generation that changes during the snapshot ends the sync."""
    db.begin()
    db.on_chunk = db.begin
    with pytest.raises(GenerationChangedError, match=r"^generation changed during snapshot, exiting sync$"):
        await replica.sync()


async def test_sync_error_forgets_position(db: FakeDB, replica: Replica, store: FaultStore) -> None:
    """After any error the position is zero."""
    db.begin()
    db.commit()
    await replica.sync()
    db.commit()
    store.add(Fault("put"))
    with pytest.raises(StorageError):
        await replica.sync()
    assert replica.pos == Pos()


async def test_sync_cannot_determine_position(db: FakeDB, replica: Replica, store: FaultStore) -> None:
    """An error while the position is worked out says so."""
    generation = db.begin()
    await replica.sync()
    store.add(Fault("put"))
    db.commit()
    with pytest.raises(StorageError):
        await replica.sync()
    store.add(Fault("list", match="/wal/", error=StorageError("denied")))
    with pytest.raises(StorageError, match=r"^cannot determine replica position: denied$"):
        await replica.sync()
    assert generation == db.pos().generation


async def test_sync_wal(db: FakeDB, replica: Replica, client: ReplicaClient) -> None:
    """Pending segments are grouped by index, one object each; ours begin where the seed's do."""
    generation = db.begin()
    db.commit()
    await replica.sync()
    middle = db.pos().offset
    for _ in range(2):
        db.commit()
        db.commit()
        db.checkpoint()
    db.commit()
    await replica.sync()
    names = [(s.index, s.offset) for s in await client.wal_segments(generation)]
    assert names == [(0, 0), (0, middle), (1, 0), (2, 0)]


async def test_write_index_segments_skipped(db: FakeDB, replica: Replica) -> None:
    """A first segment that is neither at the position nor the next index is an error."""
    db.begin()
    await replica.sync()
    start = db.pos()
    db.commit()
    second = db.pos()
    db.commit()
    db.segments.pop(start)
    text = f"^write index segments: index=0 err=replica skipped position: replica={start} initial={second}$"
    with pytest.raises(PositionError, match=text):
        await replica.sync()


async def test_write_index_segments_non_contiguous(db: FakeDB, replica: Replica) -> None:
    """Segments of one index that do not follow each other are an error.

    The seed's "compare pos", "lz4 writer close" and "pipe writer close" cannot occur: positions of two generations
    are never compared, and there is no pipe.
    """
    db.begin()
    db.commit()
    await replica.sync()
    db.commit()
    second = db.pos()
    db.commit()
    third = db.pos()
    db.commit()
    db.segments.pop(second)
    text = (
        f"^write index segments: index=0 err=wal segment: pos={third} "
        f"err=non-contiguous segment: expected={second} current={third}$"
    )
    with pytest.raises(PositionError, match=text):
        await replica.sync()


async def test_calc_pos(db: FakeDB, replica: Replica, client: ReplicaClient) -> None:
    """The position is the end of the newest segment, else the newest snapshot's index, else an error."""
    with pytest.raises(NoSnapshotsError, match=f"^no snapshot available: generation={G1}$"):
        await replica.calc_pos(G1)
    for index in (1, 3):
        await client.write_snapshot(G1, index, compress(b"x"))
    assert await replica.calc_pos(G1) == Pos(G1, 3, 0)
    await client.write_wal_segment(Pos(G1, 3, 0), compress(bytes(568)))
    await client.write_wal_segment(Pos(G1, 3, 568), compress(bytes(536)))
    assert await replica.calc_pos(G1) == Pos(G1, 3, 1104)
    db.begin(G2)
    db.commit()
    await replica.sync()
    assert await replica.calc_pos(G2) == db.pos()


async def test_pos(db: FakeDB, replica: Replica) -> None:
    """The position is zero until it is known."""
    assert replica.pos == Pos()
    db.begin()
    assert replica.pos == Pos()
    db.commit()
    await replica.sync()
    assert replica.pos == db.pos()


async def test_snapshots(replica: Replica, client: ReplicaClient, store: FaultStore) -> None:
    """Snapshots of all generations, by generation and index.

    Better on purpose: where the seed returns a part of the list together with an error, there is the error only.
    """
    assert await replica.snapshots() == []
    for generation, index in ((G2, 0), (G1, 10), (G1, 2)):
        await client.write_snapshot(generation, index, compress(b"x"))
    assert [(s.generation, s.index) for s in await replica.snapshots()] == [(G1, 2), (G1, 10), (G2, 0)]
    store.add(Fault("list"))
    with pytest.raises(StorageError):
        await replica.snapshots()


async def test_snapshot(db: FakeDB, replica: Replica, client: ReplicaClient, caplog: pytest.LogCaptureFixture) -> None:
    """A snapshot holds the database file, is of the position's index, and is logged."""
    generation = db.begin()
    db.commit()
    db.checkpoint()
    db.commit()
    caplog.set_level(logging.INFO)
    info = await replica.snapshot()
    assert (info.generation, info.index) == (generation, 1)
    body = b"".join([chunk async for chunk in client.snapshot_reader(generation, 1)])
    assert open_object(body)[0] == db.file
    assert info.size == len(body)
    assert messages(caplog)[-1] == f"/data/app.db(s): snapshot written {generation}/00000001"


async def test_snapshot_errors(db: FakeDB, replica: Replica, client: ReplicaClient) -> None:
    """Without a database or a generation there is nothing to take one of."""
    with pytest.raises(ReplicaError, match=r"^no database available$"):
        await Replica(None, client).snapshot()
    with pytest.raises(NoGenerationError, match=r"^no generation available$"):
        await replica.snapshot()


async def test_enforce_retention(
    db: FakeDB, replica: Replica, client: ReplicaClient, store: FaultStore, caplog: pytest.LogCaptureFixture
) -> None:
    """What is older than the retention goes: snapshots, segments, whole generations; each is logged.

    Better on purpose: the index in "snapshot deleted" is the deleted one, not the first that is kept.
    """
    now = time.time()
    caplog.set_level(logging.INFO)
    put(store, V03.snapshot_key(G1, 0), now - 100 * HOUR)
    for index, age in ((0, 90), (1, 50), (2, 10)):
        put(store, V03.snapshot_key(G2, index), now - age * HOUR)
        put(store, V03.wal_key(G2, index, 0), now - age * HOUR)
    await replica.enforce_retention(now)
    assert await client.generations() == [G2]
    assert [s.index for s in await client.snapshots(G2)] == [2]
    assert [s.index for s in await client.wal_segments(G2)] == [2]
    assert [text.removeprefix("/data/app.db(s): ") for text in messages(caplog)] == [
        f"generation deleted {G1}",
        f"snapshot deleted {G2}/00000000",
        f"snapshot deleted {G2}/00000001",
        f"wal segmented deleted: {G2}/00000000:00000000",
        f"wal segmented deleted: {G2}/00000001:00000000",
    ]


async def test_enforce_retention_new_snapshot(
    db: FakeDB, replica: Replica, client: ReplicaClient, store: FaultStore
) -> None:
    """If no snapshot is inside the window one is taken first, and kept."""
    put(store, V03.snapshot_key(G1, 0), time.time() - 25 * HOUR)
    generation = db.begin(G2)
    await replica.enforce_retention()
    assert [(s.generation, s.index) for s in await replica.snapshots()] == [(generation, 0)]


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault("list", error=StorageError("down")), r"^snapshots: down$"),
        (Fault("put", match=f"{G2}/snapshots", error=StorageError("down")), r"^snapshot: down$"),
        (Fault("delete", match=G1, error=StorageError("down")), r"^delete generation: down$"),
        (Fault("delete", match=f"{G2}/snap", error=StorageError("down")), r"^delete snapshots before index: down$"),
        (Fault("delete", match=f"{G2}/wal", error=StorageError("down")), r"^delete wal segments before index: down$"),
    ],
)
async def test_enforce_retention_errors(
    db: FakeDB, replica: Replica, store: FaultStore, fault: Fault, text: str
) -> None:
    """An error says at which step it happened."""
    put(store, V03.snapshot_key(G1, 0), 1.0)
    db.begin(G2)
    db.commit()
    await replica.sync()
    db.checkpoint()
    db.commit()
    await replica.sync()
    store.add(fault)
    with pytest.raises(StorageError, match=text):
        await replica.enforce_retention(time.time() + 25 * HOUR)


async def test_monitor(db: FakeDB, replica: Replica, store: FaultStore, caplog: pytest.LogCaptureFixture) -> None:
    """The first sync is at once, then one per sync interval; an error is logged and does not end it.

    Better on purpose: no generation yet is no error to log, retries wait longer each time, and the first change after
    a quiet time does not wait for the interval.
    """
    store.add(Fault("list", error=StorageError("down")))
    await replica.start()
    await soon()
    assert messages(caplog, logging.ERROR) == []
    db.begin()
    await soon()
    assert messages(caplog, logging.ERROR) == ["/data/app.db(s): monitor error: down"]
    async with asyncio.timeout(5):
        while replica.pos.is_zero or replica.pos != db.pos() or replica.error:
            await soon()
    await replica.stop()


async def test_retainer(db: FakeDB, client: ReplicaClient, store: FaultStore, caplog: pytest.LogCaptureFixture) -> None:
    """Off at a retention of 0; else its interval is the lesser of check interval and retention; errors are logged."""
    off = Replica(db, client, retention=0, metrics=Metrics())
    before = asyncio.all_tasks()
    await off.start()
    assert len(asyncio.all_tasks() - before) == 1
    await off.stop()
    store.add(Fault("list", match="generations/", times=FOREVER, error=StorageError("down")))
    for check, retention in ((0.1, HOUR), (HOUR, 0.1)):
        replica = Replica(db, client, name="s", retention=retention, retention_check_interval=check, metrics=Metrics())
        caplog.clear()
        await replica.start()
        await soon()
        assert messages(caplog) == []  # the first run is after one interval
        await asyncio.sleep(0.2)
        assert messages(caplog)[0].startswith("/data/app.db(s): retainer error: snapshots: ")
        await replica.stop()


async def test_snapshotter(
    db: FakeDB, client: ReplicaClient, store: FaultStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Off at an interval of 0; no generation is ignored; other errors are logged.

    Better on purpose: the first tick is aligned to the newest snapshot (as in 0.3.13), and nothing is uploaded while
    the database stands still.
    """
    replica = Replica(db, client, name="s", snapshot_interval=0.05, metrics=Metrics())
    await replica.start()
    await asyncio.sleep(0.12)
    assert messages(caplog) == []
    generation = db.begin()
    async with asyncio.timeout(5):
        while replica.pos != db.pos() or not await client.snapshots(generation):
            await soon()
    puts = store.count("put", "snapshots/")
    await asyncio.sleep(0.15)
    assert store.count("put", "snapshots/") == puts
    store.add(Fault("put", match="snapshots/00000001", error=StorageError("down")))
    db.commit()
    db.checkpoint()
    db.commit()
    async with asyncio.timeout(5):
        while len(await client.snapshots(generation)) < 2:
            await soon()
    await replica.stop()
    assert messages(caplog, logging.ERROR) == ["/data/app.db(s): snapshotter error: down"]


async def test_generation_created_at(replica: Replica, store: FaultStore) -> None:
    """The time of a generation's first snapshot. (The seed's zero time is None.)"""
    assert await replica.generation_created_at(G1) is None
    put(store, V03.wal_key(G1, 0, 0), 1.0)
    put(store, V03.snapshot_key(G1, 0), 20.0)
    put(store, V03.snapshot_key(G1, 1), 10.0)
    assert await replica.generation_created_at(G1) == 10.0


async def test_snapshot_index_at(replica: Replica, store: FaultStore) -> None:
    """The index of the newest snapshot at or before a time; without a time of the newest; or an error."""
    with pytest.raises(NoSnapshotsError, match=r"^no snapshots available$"):
        await replica.snapshot_index_at(G1)
    for index, at in ((0, 10.0), (1, 20.0), (2, 30.0)):
        put(store, V03.snapshot_key(G1, index), at)
    assert [await replica.snapshot_index_at(G1, at) for at in (10.0, 29.9, 30.0, 99.0)] == [0, 1, 2, 2]
    assert await replica.snapshot_index_at(G1) == 2
    with pytest.raises(NoSnapshotsError):
        await replica.snapshot_index_at(G1, 9.9)


async def test_latest_replica() -> None:
    """The replica with the newest object; none of none; an error of any ends it."""
    stores = [FaultStore(MemoryStore()) for _ in range(3)]
    replicas = [Replica(None, ReplicaClient(store), name=str(n)) for n, store in enumerate(stores)]
    assert await latest_replica([]) is None
    assert await latest_replica(replicas) is None
    put(stores[0], V03.snapshot_key(G2, 0), 10.0)
    put(stores[1], V03.snapshot_key(G1, 0), 5.0)
    put(stores[1], V03.wal_key(G1, 0, 0), 11.0)
    put(stores[2], V03.snapshot_key(G1, 0), 11.0)
    assert await latest_replica(replicas) is replicas[1]
    stores[2].add(Fault("list"))
    with pytest.raises(StorageError):
        await latest_replica(replicas)


async def test_free_functions(client: ReplicaClient, db: FakeDB, replica: Replica, tmp_path: Path) -> None:
    """The counterparts of the seed's functions: bounds, snapshot for an index, restore, positions and their order.

    Better on purpose: positions of two generations do not compare, they raise.
    """
    assert await time_bounds(client) is None
    db.begin(G1)
    db.commit()
    await replica.sync()
    bounds = await time_bounds(client)
    assert bounds is not None
    assert bounds[0] <= bounds[1] <= time.time()
    with pytest.raises(NoSnapshotsError):
        choose_snapshot([SnapshotInfo(G1, 3, 1, 0.0)], max_index=2)
    target = tmp_path / "out.db"
    await restore([("s", client)], str(target), options=RestoreOptions(integrity_check="none"))
    assert target.read_bytes() == db.state()
    assert str(Pos(G1, 0xA, 0x1000)) == f"{G1}/0000000a:00001000"
    assert Pos.parse(f"{G1}/0000000a:00001000") == Pos(G1, 10, 4096)
    assert str(Pos()) == ""
    assert Pos(G1, 1, 0) < Pos(G1, 1, 32) < Pos(G1, 2, 0)
    with pytest.raises(ValueError, match="different generations"):
        _ = Pos(G1) < Pos(G2)


def test_errors() -> None:
    """The texts of the seed's errors.

    Different on purpose: "no wal segments available" is never an error here (a snapshot alone can be restored), and
    a checksum that does not fit or a missing object is a `CorruptObjectError` that names the object.
    """
    assert str(NoGenerationError()) == "no generation available"
    assert str(NoSnapshotsError()) == "no snapshots available"
    assert all(issubclass(kind, LitestreamError) for kind in (NoGenerationError, NoSnapshotsError))


async def test_wal_segment_written(db: FakeDB, replica: Replica, caplog: pytest.LogCaptureFixture) -> None:
    """Each object is logged with its position and the uncompressed size."""
    db.begin(G1)
    await replica.sync()
    caplog.set_level(logging.INFO)
    caplog.clear()
    db.commit()
    db.commit(2)
    await replica.sync()
    assert messages(caplog) == [f"/data/app.db(s): wal segment written: {G1}/00000000:00000000 sz={32 + 3 * 536}"]
    assert caplog.records[0].__dict__["fields"]["replica"] == "s"


# -- 5. DB API


@pytest.fixture
def database(tmp_path: Path, app: App) -> Path:
    """A ledger with three transactions, its application alive."""
    path = tmp_path / "app.db"
    app.create(path)
    app.ledger(3)
    return path


@pytest.fixture
def real(database: Path) -> Iterator[DB]:
    """The database that the application writes, not attached yet."""
    db = DB(str(database))
    yield db
    db.close()


def test_db_fields() -> None:
    """The defaults: checkpoint past 1000 pages, by force past 10000, and at least once a minute; a logger."""
    db = DB("/data/app.db")
    assert db.min_checkpoint_page_count == 1000
    assert db.max_checkpoint_page_count == 10000
    assert db.checkpoint_interval == 60
    assert db.logger.name == "litestream.db"


@pytest.mark.parametrize("count", [0, -1])
def test_db_min_checkpoint_page_count_required(count: int) -> None:
    """A database cannot do without. Better on purpose: said when it is made, not when it is opened."""
    with pytest.raises(ValueError, match=r"^minimum checkpoint page count required$"):
        DB("/data/app.db", min_checkpoint_page_count=count)


def test_new_db(tmp_path: Path) -> None:
    """A new DB touches nothing: no file, no generation, the zero position."""
    db = DB(str(tmp_path / "app.db"))
    assert (db.pos(), db.current_generation(), db.page_size()) == (Pos(), "", 0)
    assert db.wal_segments("") == []
    assert list(tmp_path.iterdir()) == []


def test_db_sql_db(real: DB) -> None:
    """Different on purpose: there is no SQL handle to the user's database, and no table of ours in it."""
    assert not hasattr(real, "sql_db")
    real.sync_now()
    real.checkpoint(seal=True)
    with App() as other:
        other.open(Path(real.path))
        tables = other.sql("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    assert tables == [["account"], ["ledger"]]


def test_db_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path as configured, absolute."""
    monkeypatch.chdir(tmp_path)
    assert DB("app.db").path == str(tmp_path / "app.db")


def test_db_wal_path(tmp_path: Path) -> None:
    """`-wal` beside the database. Better on purpose: beside the file that a symbolic link points to."""
    assert DB(str(tmp_path / "app.db")).wal_path == str(tmp_path / "app.db-wal")
    (tmp_path / "link.db").symlink_to("app.db")
    assert DB(str(tmp_path / "link.db")).wal_path == str(tmp_path / "app.db-wal")


def test_db_meta_path(tmp_path: Path) -> None:
    """The local state: a directory beside the database, whose name begins with a dot; another one if configured."""
    assert DB(str(tmp_path / "app.db")).meta_path == str(tmp_path / ".app.db-litestream")
    assert DB(str(tmp_path / "app.db"), meta_path="/state").meta_path == "/state"


def test_db_generation_name_path(real: DB) -> None:
    """Different on purpose: the generation's name is in our `state.json`; a `generation` file is the official one's."""
    real.sync_now()
    meta = Path(real.meta_path)
    assert json.loads((meta / "state.json").read_bytes())["generation"] == real.current_generation()
    assert not (meta / "generation").exists()


def test_db_generation_path(real: DB) -> None:
    """`generations/GEN` below the local state; that of a generation that is over is removed."""
    real.sync_now()
    before = real.current_generation()
    generations = Path(real.meta_path) / "generations"
    assert [found.name for found in generations.iterdir()] == [before]
    real.new_generation("for the test")
    real.maintain()
    assert real.current_generation() != before
    assert [found.name for found in generations.iterdir()] == [real.current_generation()]


def test_db_shadow_wal_dir(real: DB) -> None:
    """`wal/INDEX/OFFSET.wal.lz4` below the generation: the objects as replicas get them."""
    pos = attached(real)
    shadow = Path(real.meta_path) / "generations" / pos.generation / "wal"
    assert [str(found.relative_to(shadow)) for found in shadow.rglob("*.lz4")] == ["00000000/00000000.wal.lz4"]


def test_db_replica(database: Path) -> None:
    """By name; none of another name. Better on purpose: the database's task has the list, DB knows none of them."""
    db = DB(str(database))
    replicas = [Replica(db, ReplicaClient(MemoryStore()), name=name, metrics=Metrics()) for name in ("a", "")]
    task = DatabaseTask(db, replicas, Watcher())
    assert task.replicas == replicas
    assert task.replica("a") is replicas[0]
    assert task.replica("memory") is replicas[1]
    assert task.replica("b") is None


def attached(db: DB) -> Pos:
    """The position after everything committed was copied."""
    db.sync_now()
    return db.pos()


def test_db_pos(real: DB, app: App) -> None:
    """Where the copied WAL ends: the zero position at first, then index 0, forward with each commit."""
    assert real.pos() == Pos()
    first = attached(real)
    assert (first.index, first.offset) == (0, os.path.getsize(real.wal_path))
    app.ledger(1)
    assert real.pos() == first
    assert attached(real) == Pos(first.generation, 0, os.path.getsize(real.wal_path))


def test_db_wal_reader(real: DB, app: App) -> None:
    """What is read from position to position is the WAL, byte for byte."""
    attached(real)
    app.ledger(2)
    pos = attached(real)
    segments = real.wal_segments(pos.generation)
    data = b"".join(open_object(real.read_wal_segment(segment.pos))[0] for segment in segments)
    assert data == Path(real.wal_path).read_bytes()[: pos.offset]


def test_db_notify_ch(real: DB, app: App) -> None:
    """Whoever subscribed is called when the position moved, and only then. (A channel in the seed.)"""
    calls: list[Pos] = []
    stop = real.subscribe(lambda: calls.append(real.pos()))
    first = attached(real)
    attached(real)
    app.ledger(1)
    second = attached(real)
    assert calls == [first, second]
    stop()
    app.ledger(1)
    attached(real)
    assert calls == [first, second]


async def test_db_wal_notify(real: DB, app: App) -> None:
    """A commit is noticed without being asked for, by its file event."""
    watcher = Watcher()
    watcher.start()
    moved = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell() -> None:
        loop.call_soon_threadsafe(moved.set)

    task = asyncio.create_task(DatabaseTask(real, [], watcher, sweep_interval=60).run())
    try:
        async with asyncio.timeout(20):
            while real.pos().is_zero:
                await soon()
            first = real.pos()
            real.subscribe(tell)
            await asyncio.to_thread(app.ledger, 1)
            await moved.wait()
        assert real.pos() > first
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        watcher.close()


def test_db_page_size(tmp_path: Path, app: App) -> None:
    """Bytes per page once attached."""
    app.create(tmp_path / "small.db", pragmas=["page_size=512"])
    db = DB(str(tmp_path / "small.db"))
    assert db.page_size() == 0
    attached(db)
    assert db.page_size() == 512
    db.close()


def test_db_open(real: DB) -> None:
    """Opening removes what a killed process left half written. A name twice is refused with the configuration."""
    pos = attached(real)
    real.close()
    meta = Path(real.meta_path)
    left = [
        f".state.json.{2**30}-{'0' * 16}.tmp",
        f"generations/{pos.generation}/wal/00000000/.x.{2**30}-{'0' * 16}.tmp",
    ]
    foreign = meta / "notes.tmp"
    for name in left:
        (meta / name).write_bytes(b"half")
    foreign.write_bytes(b"another's")
    assert attached(real) == pos
    assert not any((meta / name).exists() for name in left)
    assert foreign.exists()


def test_db_open_duplicate_replica_name(database: Path, tmp_path: Path) -> None:
    """Two replicas of one name would share their metrics and log lines."""
    replicas: list[Path | dict[str, object]] = [{"name": "x", "path": str(tmp_path / n)} for n in "ab"]
    config = write_config(tmp_path / "litestream.yml", [Database(database, replicas)])
    with pytest.raises(ConfigError, match='duplicate replica name: "x"'):
        load(str(config))


async def test_db_close(database: Path, app: App, tmp_path: Path) -> None:
    """The end: a last sync of database and replicas, then no reader, lock or descriptor of ours is left."""
    db = DB(str(database))
    client = ReplicaClient(FileStore(str(tmp_path / "replica")))
    replica = Replica(db, client, metrics=Metrics())
    stop = asyncio.Event()
    watcher = Watcher()
    server = Server([Entry(db, [replica], DatabaseTask(db, [replica], watcher).run)])
    running = asyncio.create_task(server.run(stop))
    async with asyncio.timeout(20):
        while replica.pos.is_zero:
            await soon()
    await asyncio.to_thread(app.ledger, 5)
    stop.set()
    assert (await running).missing == {}
    watcher.close()
    await restore([("file", client)], str(tmp_path / "out.db"), options=RestoreOptions(integrity_check="none"))
    assert ledger.check(tmp_path / "out.db") == 8
    assert open_files(database) == []
    assert app.checkpoint("TRUNCATE") == (0, 0, 0)
    db.close()


def open_files(database: Path) -> list[str]:
    """What this process has open of a database and its local state."""
    links = [entry.path for entry in os.scandir("/proc/self/fd")]
    targets = [os.readlink(link) for link in links if os.path.lexists(link)]
    return [target for target in targets if target.startswith(str(database.parent / "app.db"))]


def test_db_updated_at(real: DB, tmp_path: Path) -> None:
    """The later time of the database file and its WAL; without a database an error."""
    os.utime(real.path, (100, 100))
    os.utime(real.wal_path, (200, 200))
    assert real.updated_at() == 200
    os.utime(real.path, (300, 300))
    assert real.updated_at() == 300
    with pytest.raises(DatabaseAbsentError, match="absent"):
        DB(str(tmp_path / "absent.db")).updated_at()


def test_db_current_generation(real: DB) -> None:
    """None before the first sync, then 16 hex digits that a restart keeps."""
    assert real.current_generation() == ""
    generation = attached(real).generation
    assert is_generation(generation)
    assert real.current_generation() == generation
    real.close()
    assert real.current_generation() == ""
    assert attached(real).generation == generation


def test_db_sync(real: DB, app: App, caplog: pytest.LogCaptureFixture) -> None:
    """Everything committed is copied; a new generation is logged with its reason.

    Better on purpose: an error is raised, where the seed logs it, tries again and answers that all is well.
    """
    caplog.set_level(logging.INFO)
    assert real.sync_now() is True
    assert messages(caplog) == [f'sync: new generation "{real.current_generation()}", no generation exists']
    assert real.sync_now() is False
    app.ledger(1)
    assert real.sync_now() is True
    meta = Path(real.meta_path)
    real.close()
    shutil.rmtree(meta)
    meta.write_bytes(b"in the way")
    with pytest.raises(LocalStateError, match="cannot keep the local state in"):
        real.sync_now()


def test_db_wal_segment_reader(real: DB) -> None:
    """A segment is the object as a replica gets it; of a generation that is over, or not there, it is an error."""
    pos = attached(real)
    data, stamp = open_object(real.read_wal_segment(Pos(pos.generation, 0, 0)))
    assert len(data) == pos.offset
    assert stamp is not None and stamp.pos == Pos(pos.generation, 0, 0)
    with pytest.raises(GenerationChangedError, match=G1):
        real.read_wal_segment(Pos(G1, 0, 0))
    with pytest.raises(CorruptObjectError, match="shadow segment is gone"):
        real.read_wal_segment(Pos(pos.generation, 7, 0))


def test_db_wal_segments(real: DB, app: App) -> None:
    """In order of index and offset, all that some replica may still need; none of another generation."""
    real.acknowledge("s", Pos())
    attached(real)
    app.ledger(1)
    attached(real)
    real.checkpoint(seal=True)
    app.ledger(1)
    pos = attached(real)
    places = [(segment.index, segment.offset) for segment in real.wal_segments(pos.generation)]
    assert places == sorted(places)
    assert [index for index, _ in places] == [0, 0, 1]
    assert real.wal_segments(G1) == []
    real.acknowledge("s", pos)
    real.maintain()
    assert {segment.index for segment in real.wal_segments(pos.generation)} == {1}


@pytest.mark.parametrize("seal", [False, True])
def test_db_checkpoint(real: DB, app: App, seal: bool) -> None:
    """Everything goes into the database file and the next commit begins a new index; counted by mode.

    Better on purpose: never FULL, RESTART or TRUNCATE; in place of a mode there is a bounded seal. Writers go on.
    """
    attached(real)
    real.checkpoint(seal=seal)
    assert real.stats.checkpoints == {"SEAL" if seal else "PASSIVE": 1}
    busy, log, done = app.checkpoint("PASSIVE")
    assert (busy, log) == (0, done)
    app.ledger(1)
    assert attached(real).index == 1


async def test_server(database: Path, app: App, tmp_path: Path) -> None:
    """Databases are watched and unwatched while the server runs, looked up by path, and each only once."""
    entry = entry_for(database, tmp_path / "replica")
    server, stop = Server([]), asyncio.Event()
    running = asyncio.create_task(server.run(stop))
    await asyncio.sleep(0)
    server.watch(entry)
    assert server.entries == [entry]
    assert server.entry(str(database)) is entry
    with pytest.raises(ConfigError, match="replicated already"):
        server.watch(entry)
    async with asyncio.timeout(20):
        while entry.replicas[0].pos.is_zero:
            await soon()
    await asyncio.to_thread(app.ledger, 4)
    assert (await server.unwatch(str(database))).missing == {}
    assert server.entries == []
    assert server.entry(str(database)) is None
    assert open_files(database) == []
    assert (await server.unwatch(str(database))).missing == {}
    client = ReplicaClient(FileStore(str(tmp_path / "replica")))
    await restore([("file", client)], str(tmp_path / "out.db"), options=RestoreOptions(integrity_check="none"))
    assert ledger.check(tmp_path / "out.db") == 7
    again = entry_for(database, tmp_path / "replica")
    server.watch(again)
    async with asyncio.timeout(20):
        while again.replicas[0].pos != again.db.pos() or again.db.pos().is_zero:
            await soon()
    stop.set()
    assert (await running).missing == {}


def entry_for(database: Path, replica: Path) -> Entry:
    """What a server needs of a database with one file replica."""
    db = DB(str(database))
    replicas = [Replica(db, ReplicaClient(FileStore(str(replica))), metrics=Metrics())]
    return Entry(db, replicas, DatabaseTask(db, replicas, Watcher()).run)


# -- 6. ReplicaClient interface


@pytest.fixture(params=["memory", "file"])
def any_client(request: pytest.FixtureRequest, tmp_path: Path) -> ReplicaClient:
    """A client over each kind of store."""
    return ReplicaClient(MemoryStore() if request.param == "memory" else FileStore(str(tmp_path / "replica")))


async def read(chunks: AsyncIterator[bytes]) -> bytes:
    """All of it."""
    return b"".join([chunk async for chunk in chunks])


async def test_replica_client(any_client: ReplicaClient) -> None:
    """The eleven methods: type, generations, snapshots and WAL segments written, listed, read and deleted."""
    client = any_client
    assert client.type in {"memory", "file"}
    written = await client.write_snapshot(G1, 7, compress(b"snapshot"))
    segment = await client.write_wal_segment(Pos(G1, 7, 0), compress(b"segment"))
    assert await client.generations() == [G1]
    assert await client.snapshots(G1) == [written]
    assert await client.wal_segments(G1) == [segment]
    assert (written.generation, written.index, written.size) == (G1, 7, len(compress(b"snapshot")))
    assert (segment.generation, segment.index, segment.offset) == (G1, 7, 0)
    assert abs(written.created_at - time.time()) < 60
    assert await read(client.snapshot_reader(G1, 7)) == compress(b"snapshot")
    assert await read(client.wal_segment_reader(Pos(G1, 7, 0))) == compress(b"segment")
    await client.delete_snapshot(G1, 7)
    await client.delete_wal_segments([Pos(G1, 7, 0)])
    assert (await client.snapshots(G1), await client.wal_segments(G1)) == ([], [])
    await client.write_snapshot(G2, 0, compress(b"x"))
    await client.delete_generation(G2)
    assert await client.generations() == []


async def test_replica_client_absent(any_client: ReplicaClient) -> None:
    """Deleting what is not there is no error, listing it is empty, reading it is one."""
    client = any_client
    await client.delete_generation(G1)
    await client.delete_snapshot(G1, 0)
    await client.delete_wal_segments([Pos(G1)])
    assert await client.generations() == []
    assert await client.snapshots(G1) == []
    assert await client.wal_segments(G1) == []
    with pytest.raises(ObjectNotFoundError):
        await read(client.snapshot_reader(G1, 0))
    with pytest.raises(ObjectNotFoundError):
        await read(client.wal_segment_reader(Pos(G1)))


async def test_replica_client_names(any_client: ReplicaClient) -> None:
    """Generations are 16 lower-case hex digits, anything else is foreign; the seed's own layout is read."""
    client = any_client
    for name in ("0000000000000ABC", "xyz", "00000000000000011"):
        await client.store.put(f"generations/{name}/snapshots/00000000.snapshot.lz4", compress(b"x"))
    for layout, generation in ((SEED, G1), (V04, G2)):
        await client.store.put(layout.snapshot_key(generation, 1), compress(b"x"))
        await client.store.put(layout.wal_key(generation, 1, 0), compress(b"y"))
    assert await client.generations() == [G1, G2]
    for generation in (G1, G2):
        assert [s.index for s in await client.snapshots(generation)] == [1]
        assert [(s.index, s.offset) for s in await client.wal_segments(generation)] == [(1, 0)]
        assert await read(client.wal_segment_reader(Pos(generation, 1, 0))) == compress(b"y")


# -- the project


def test_command_is_ours() -> None:
    """The environment's `litestream` is this project's, not the official program's."""
    command = Path(sys.executable).with_name("litestream")
    run = subprocess.run([command, "version"], capture_output=True, text=True, check=True, env=dict(os.environ))
    from litestream import __version__

    assert __version__ in run.stdout
    assert command.read_bytes()[:2] == b"#!"
