"""`validation-interval`: the daemon restores its replicas in the background and compares them with the database."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.app import App
from helpers.cli import Daemon, Database, wait_until, write_config
from helpers.rig import Rig
from litestream.client import ReplicaClient, open_client
from litestream.core.position import Pos
from litestream.db.db import DB
from litestream.errors import NoGenerationError, StorageError
from litestream.metrics import Metrics
from litestream.replica import Replica
from litestream.replica.validation import Verdict
from litestream.storage.file import FileStore
from litestream.storage.protocol import ObjectInfo
from litestream.verify.running import RunningValidator


def _metrics(daemon: Daemon) -> dict[str, float]:
    """The validation's metrics, by name and status."""
    url = daemon.wait_for_log(r"serving metrics on (http://\S+)")[1]
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(r"^litestream_replica_(validation_total|verified_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE)
    values = {}
    for name, labels, number in found:
        status = re.search(r'status="(\w+)"', labels)
        values[f"{name} {status[1]}" if status else name] = float(number)
    return values


def _lines(daemon: Daemon, status: str) -> list[str]:
    return [line for line in daemon.text().splitlines() if f"validator status={status}" in line.replace('"', "")]


def test_a_sound_replica(rig: Rig, app: App) -> None:
    """While an application writes, each validation ends well, is logged in the official form, and is counted."""
    app.create(rig.db)
    app.ledger(5)
    daemon = rig.start(
        replica={"validation-interval": "100ms"}, top={"addr": "127.0.0.1:0"}, min_checkpoint_page_count=40
    )
    app.start_writing(rig.db, pause=0.001)
    wait_until(lambda: daemon.text().count(": validator ") >= 6, lambda: daemon.text()[-2000:])

    values = _metrics(daemon)

    app.stop_writing()
    assert daemon.stop() == 0
    positions = set(re.findall(r"validator.*status=ok.*position=(\w{16}/\w{8}:\w{8})", daemon.text()))
    assert len(positions) >= 5, daemon.text()
    assert "status=mismatch" not in daemon.text()
    assert (values["validation_total ok"] >= 5, values["verified_ok"]) == (True, 1)
    assert values["verified_timestamp_seconds"] > 1_000_000_000
    assert "validation_total error" not in values
    assert not list(rig.meta.glob(".litestream-verify*"))
    assert "restoring snapshot" not in daemon.text()  # told at debug level only


def test_a_damaged_replica(rig: Rig, app: App) -> None:
    """Damage to an object that a restore needs is an error in log and metric; replication goes on."""
    app.create(rig.db)
    app.ledger(5)
    daemon = rig.start(replica={"validation-interval": "200ms"}, top={"addr": "127.0.0.1:0"})
    wait_until(lambda: "status=ok" in daemon.text(), lambda: daemon.text()[-2000:])
    (snapshot,) = rig.replica.rglob("*.snapshot.lz4")
    data = snapshot.read_bytes()
    snapshot.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])

    daemon.wait_for_log(r"ERROR .*validator.*status=mismatch.*snapshot\.lz4")

    values = _metrics(daemon)
    assert (values["validation_total error"] >= 1, values["verified_ok"]) == (True, 0)
    app.ledger(1)
    snapshot.write_bytes(data)
    daemon.wait_for_log("status=ok", after=len(daemon.text()))
    assert rig.reach(6) == 6
    assert _metrics(daemon)["verified_ok"] == 1


def test_a_page_changed_in_the_live_file(rig: Rig, app: App) -> None:
    """What was changed behind SQLite's back is the official `invalid replica, checksum mismatch`."""
    import subprocess

    app.create(rig.db)
    app.fill(50)
    daemon = rig.start(replica={"validation-interval": "200ms"})
    wait_until(lambda: "status=ok" in daemon.text(), lambda: daemon.text()[-2000:])
    wait_until(lambda: len(set(app.checkpoint("PASSIVE")[1:])) == 1, "all is backfilled")
    subprocess.run(
        ["dd", f"of={rig.db}", "bs=1", f"seek={19 * 4096 + 2000}", "conv=notrunc", "status=none"],
        input=b"\xa5\x5a",
        check=True,
    )

    found = daemon.wait_for_log(r"validator.*status=mismatch.*position=.*invalid replica, checksum mismatch: (.*)")

    assert re.match(r"1 of \d+ pages differ from the database at \S+ \(page 20\)", found[1]), found[0]


def test_default_of_all_replicas(tmp_path: Path, app: App, daemons: Callable[..., Daemon]) -> None:
    """`validation.interval` of 0.5 holds for every replica of every database, one validation at a time."""
    databases = []
    for name in ("one", "two"):
        app.create(tmp_path / f"{name}.db", name=name)
        app.ledger(3, name=name)
        places = [{"name": place, "path": str(tmp_path / f"{name}-{place}")} for place in ("near", "far")]
        databases.append(Database(tmp_path / f"{name}.db", list(places)))
    daemon = daemons(write_config(tmp_path / "c.yml", databases, validation={"interval": "200ms"})).start()

    for name in ("one", "two"):
        for place in ("near", "far"):
            daemon.wait_for_log(rf"{name}\.db\({place}\): validator.*status=ok")


@pytest.mark.parametrize("hard", [False, True], ids=["SIGTERM", "SIGKILL"])
def test_stopped_while_it_validates(hard: bool, rig: Rig, app: App) -> None:
    """A stop does not wait for a validation; scratch files go at once, after a kill with the next start."""
    app.create(rig.db)
    app.fill(20000)
    daemon = rig.start(replica={"validation-interval": "50ms"})
    wait_until(lambda: list(rig.meta.glob(".litestream-verify*/*")), "a validation runs", pause=0.002)
    if not hard:
        assert daemon.stop(timeout=5) == 0
        assert list(rig.meta.glob(".litestream-verify*")) == []
        return
    daemon.kill()
    left = list(rig.meta.glob(".litestream-verify*"))
    assert left != []
    daemon.start()
    wait_until(lambda: not any(path.exists() for path in left), "the left-over is removed")


# -- in one process, where failures can be made


@pytest.fixture
def lane() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def db(tmp_path: Path, app: App, lane: ThreadPoolExecutor) -> Iterator[DB]:
    """A database that is attached here and written elsewhere."""
    app.create(tmp_path / "app.db")
    app.ledger(3)
    database = DB(str(tmp_path / "app.db"), lane=lane)
    yield database
    database.close()


async def test_what_cannot_be_told(db: DB, tmp_path: Path) -> None:
    """A replica that is behind, and a store that does not answer, prove nothing; nothing is left behind."""
    replica = Replica(db, open_client(str(tmp_path / "replica")), metrics=Metrics())
    validator = RunningValidator(db, asyncio.Semaphore(1), patience=0.2)
    with pytest.raises(NoGenerationError):
        await validator.validate(replica)
    await db.call(db.sync_now)

    found = await validator.validate(replica)
    assert (found.verdict, "did not get to" in found.reason) == (Verdict.UNKNOWN, True)

    await replica.sync()
    found = await validator.validate(replica)
    assert (found.verdict, found.pos) == (Verdict.OK, db.pos())

    class Mute(FileStore):
        async def list(self, prefix: str) -> list[ObjectInfo]:
            raise StorageError("the service does not answer")

    mute = Replica(db, ReplicaClient(Mute(str(tmp_path / "replica"))), metrics=Metrics())
    mute._durable = replica.pos  # as if it had uploaded
    found = await validator.validate(mute)
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, "the service does not answer")
    assert not list(Path(db.meta_path).glob(".litestream-verify*"))


async def test_first_snapshot_on_its_way(db: DB, tmp_path: Path) -> None:
    """A new generation's WAL is there before its snapshot: that is no damage, and it is waited for."""
    replica = Replica(db, open_client(str(tmp_path / "replica")), metrics=Metrics())
    await db.call(db.sync_now)
    pos = db.pos()
    await replica._send(pos.generation, Pos(pos.generation, pos.index, 0))
    assert replica.pos == pos
    found = await RunningValidator(db, asyncio.Semaphore(1), patience=0.2).validate(replica)
    assert (found.verdict, "did not get to" in found.reason) == (Verdict.UNKNOWN, True)

    patient = asyncio.create_task(RunningValidator(db, asyncio.Semaphore(1)).validate(replica))
    await asyncio.sleep(0.2)
    await replica.sync()
    assert (await patient).verdict is Verdict.OK


async def test_cancelled_while_it_reads(db: DB, tmp_path: Path, app: App) -> None:
    """Cancelled at any moment, no read transaction stays open: the application can start its WAL over."""
    replica = Replica(db, open_client(str(tmp_path / "replica")), metrics=Metrics())
    app.fill(3000)
    await db.call(db.sync_now)
    await replica.sync()
    validator = RunningValidator(db, asyncio.Semaphore(1))
    for delay in (0.0, 0.001, 0.005, 0.02, 0.05, 0.1, 0.2):
        work = asyncio.create_task(validator.validate(replica))
        await asyncio.sleep(delay)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    await asyncio.sleep(0.05)
    assert not list(Path(db.meta_path).glob(".litestream-verify*"))
    await db.call(db.maintain)
    await db.call(db.maintain)
    assert app.checkpoint("TRUNCATE")[0] == 0
    assert (await validator.validate(replica)).verdict is Verdict.OK


async def test_at_each_position(db: DB, tmp_path: Path, app: App) -> None:
    """Empty WAL, restarted WAL, a WAL that was backfilled or was not: the position is right each time."""
    replica = Replica(db, open_client(str(tmp_path / "replica")), metrics=Metrics())
    validator = RunningValidator(db, asyncio.Semaphore(1), patience=0.1)
    for step in (
        "",
        "ledger",
        "PASSIVE",
        "maintain",
        "ledger",
        "TRUNCATE",
        "",
        "ledger",
        "RESTART",
        "ledger",
        "VACUUM",
    ):
        if step == "ledger":
            app.ledger(3)
        elif step == "maintain":
            await db.call(db.maintain)
        elif step == "VACUUM":
            app.sql("VACUUM")
        elif step:
            await db.call(db.maintain)
            app.checkpoint(step)
        await db.call(db.sync_now)
        await replica.sync()

        found = await validator.validate(replica)

        assert (found.verdict, found.pos) == (Verdict.OK, db.pos()), (step, found)
