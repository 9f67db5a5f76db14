"""Power cuts: of what was not fsynced anything may be missing. Nothing promised is, and a start repairs it.

A traced run of the replicator gives every step that it took on disk; cuts fall between any two of them. By default a
sample of about 60 cuts; LITESTREAM_LONG tries every one in several ways, LITESTREAM_CUTS_SEED draws another sample.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers import ledger, powercut, state
from helpers.app import App
from helpers.cli import LITESTREAM, environment, wait_until
from helpers.rig import LONG, Rig
from litestream.client import open_client
from litestream.db.db import DB
from litestream.errors import NoBackupError, NoSnapshotsError, PositionError
from litestream.metrics import Metrics
from litestream.replica import Replica
from litestream.restore import RestoreOptions, restore

SEED = int(os.environ.get("LITESTREAM_CUTS_SEED", "1"))
CUTS = 60
COMMITS = 8


@dataclass
class Moment:
    """The application's database from `time` on."""

    time: float
    n: int
    database: bytes
    wal: bytes


@dataclass
class Cut:
    """One state of the disk, the database beside it, and the transaction that had been promised."""

    files: dict[str, bytes | None]
    moment: Moment
    promised: int
    text: str


class Bench:
    """Traces the replicator, and sets the disk up as a power cut may leave it."""

    def __init__(self, rig: Rig, app: App) -> None:
        self.rig = rig
        self.app = app
        self.disk = rig.folder / "disk"
        self.disk.mkdir()
        self.db = self.disk / "app.db"
        self.wal = self.disk / "app.db-wal"
        self.replica = self.disk / "replica"
        self.trace = rig.folder / "trace"
        self.log = rig.folder / "log"
        self.out = rig.folder / "out.db"
        self.moments: list[Moment] = []

    # -- the run

    def record(self) -> None:
        """Commit, with checkpoints of every kind, while the replicator works; note the database at each commit."""
        self.app.create(self.db, pragmas=["synchronous=FULL"])
        self.commit()
        command = [str(LITESTREAM), "replicate", "-config", str(self.config())]
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [*powercut.wrapper(self.trace), *command], env=environment(), stdout=log, stderr=log
            )
        try:
            for number in range(COMMITS):
                wait_until(lambda: self.restored() == self.moments[-1].n, self.log.read_text)
                time.sleep(0.3)  # maintenance, checkpoints, pruning, retention
                if number % 2:
                    self.app.checkpoint(("PASSIVE", "RESTART", "TRUNCATE")[number // 2 % 3], wait=2)
                self.commit()
            wait_until(lambda: self.restored() == self.moments[-1].n, self.log.read_text)
        finally:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for child in children:
                os.kill(int(child), signal.SIGTERM)
            process.wait(60)

    def config(self) -> Path:
        path = self.rig.folder / "c.yml"
        path.write_text(
            f"dbs: [{{path: {self.db}, min-checkpoint-page-count: 8, replicas: [{{path: {self.replica}, "
            "sync-interval: 20ms, snapshot-interval: 700ms, retention: 900ms, retention-check-interval: 300ms}]}]\n"
        )
        return path

    def commit(self) -> None:
        began = time.time()
        n = self.app.ledger(1)
        copy = state.copy_of(self.db, self.rig.folder / "copy.db")
        wal = copy.with_name("copy.db-wal")
        self.moments.append(Moment(began, n, copy.read_bytes(), wal.read_bytes()))

    # -- the cuts

    def cuts(self, rnd: random.Random) -> list[Cut]:
        """A sample of states, in order of time."""
        disk = powercut.Disk(self.disk, lambda path: path in {str(self.db), str(self.wal), f"{self.db}-shm"})
        steps = []
        found, promised = [], 0
        for call in powercut.calls(self.trace):
            if disk.run(call):
                steps.append(call.number)
                for keep, torn in self.manners(rnd):
                    files = disk.after_a_cut(rnd, keep, torn)
                    text = f"after call {call.number} ({call.name}), keep {keep}, torn {torn}"
                    found.append(Cut(files, self.moment(call.time, rnd), promised, text))
            elif call.name == "write" and call.fds[0][1] == str(self.log) and b" written" in b"".join(call.texts):
                self.set_up(disk.after_a_cut(rnd, 1, 0))
                promised = max(promised, self.restored())
        assert promised == self.moments[-1].n
        assert len(steps) > 100
        return found if LONG else [found[at] for at in sorted(rnd.sample(range(len(found)), CUTS))]

    def manners(self, rnd: random.Random) -> list[tuple[float, float]]:
        """Everything lost; everything kept; some of each, with torn bytes."""
        return [(0, 0), (1, 0), (rnd.choice((0.3, 0.5, 0.9)), rnd.choice((0, 0.3)))]

    def moment(self, at: float, rnd: random.Random) -> Moment:
        """The database then; now and then the one before it, as if the application had not fsynced."""
        known = [moment for moment in self.moments if moment.time <= at]
        return known[-2] if len(known) > 1 and rnd.random() < 0.15 else known[-1]

    # -- one state

    def set_up(self, files: dict[str, bytes | None]) -> None:
        """Replica and local state as in `files`; the database is left alone."""
        for path in self.disk.iterdir():
            if path not in (self.db, self.wal):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, content in files.items():
            path = self.disk / name
            if content is None:
                path.mkdir(mode=0o700)
            else:
                path.write_bytes(content)

    def set_up_database(self, moment: Moment) -> None:
        """In the same inode: the local state knows which one it belongs to."""
        with self.db.open("r+b") as file:
            file.truncate()
            file.write(moment.database)
        self.wal.write_bytes(moment.wal)

    def restored(self) -> int:
        """The transaction that a restore gives, 0 for no backup. Anything but a committed state is an error."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.out}{suffix}").unlink(missing_ok=True)
        client = open_client(str(self.replica))
        try:
            asyncio.run(restore([("file", client)], str(self.out), options=RestoreOptions(integrity_check="none")))
        except (NoBackupError, NoSnapshotsError):
            return 0
        return ledger.check(self.out)

    async def replicate(self, db: DB) -> None:
        """Bring the replica up to date, as the replicator would: one that is ahead makes it begin a new generation."""
        replica = Replica(db, open_client(str(self.replica)), metrics=Metrics())
        for _ in range(3):
            db.sync_now()
            with contextlib.suppress(PositionError):
                await replica.sync()
            db.maintain()
        assert replica.pos == db.pos()
        await replica.close()

    def survives(self, cut: Cut) -> None:
        """What was promised is there; a start brings the rest, and later commits after it."""
        self.set_up(cut.files)
        self.set_up_database(cut.moment)
        assert self.restored() >= cut.promised
        db = DB(str(self.db), min_checkpoint_page_count=8)
        try:
            asyncio.run(self.replicate(db))
            assert self.restored() == cut.moment.n
            self.app.open(self.db)
            self.app.ledger(1)
            asyncio.run(self.replicate(db))
            assert self.restored() == cut.moment.n + 1
            self.app.close()
        finally:
            db.close()


@pytest.mark.skipif(not powercut.available(), reason="needs strace")
@pytest.mark.timeout(3600 if LONG else 240)
def test_power_cut_at_any_step(rig: Rig, app: App) -> None:
    """Whatever of the unsynced is lost or torn: a restore is a committed state and has what was promised."""
    bench = Bench(rig, app)
    bench.record()
    app.close()
    for cut in bench.cuts(random.Random(SEED)):
        try:
            bench.survives(cut)
        except BaseException as error:
            error.add_note(f"{cut.text}, database at {cut.moment.n}, promised {cut.promised}, files {list(cut.files)}")
            raise
