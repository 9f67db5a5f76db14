"""Random histories of applications against the replicator, stopped or killed between any two of its steps.

The model is the ledger: transaction n's content is a function of n, so a restored file is recognised as "exactly after
transaction n" or as no committed state at all. LITESTREAM_MODEL_SEEDS sets how many histories are tried (default 12),
LITESTREAM_MODEL_FIRST the first seed; a failure names its seed, which replays the same choices.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import ledger
from helpers.app import TESTS, App, AppError
from litestream.client import open_client
from litestream.core.timestamps import format_rfc3339
from litestream.errors import CorruptObjectError, NoBackupError, NoSnapshotsError, RestoreError
from litestream.restore import RestoreOptions, restore

SEEDS = int(os.environ.get("LITESTREAM_MODEL_SEEDS", "12"))
FIRST = int(os.environ.get("LITESTREAM_MODEL_FIRST", "1"))
ROUNDS = 70
RARE = ["second", "second", "break", "retain", "lose state", "lose replica"]
HASHES = ["hash", "hash", "hash", "away", "away", "spoil hashes"]
PATIENCE = 0.05
"""Seconds that applications wait for a lock: who holds it may stand still in the middle of a step."""


class Replicator:
    """The test's side of `helpers.replicator_process`."""

    def __init__(self, *arguments: Path | str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "helpers.replicator_process", *map(str, arguments)],
            cwd=TESTS,
            env={**os.environ, "PYTHONPATH": str(TESTS), "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _send(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        got = self._process.stdout.readline()
        assert got, f"the replicator died: {self._process.wait()}"
        answer: dict[str, Any] = json.loads(got)
        return answer

    def do(self, command: str, stop: int = 0, meanwhile: Callable[[str], bool] = lambda _name: False) -> dict[str, Any]:
        """Run a command. At step `stop`, `meanwhile` runs and says whether to kill; then the answer is empty."""
        answer = self._send(json.dumps({"do": command, "stop": stop}))
        if "at" not in answer:
            return answer
        if meanwhile(answer["at"]):
            assert self._send("die") == {"ended": True}
            return {}
        return self._send("go")

    def restart(self) -> None:
        """End it in order, and begin the next."""
        assert self._send('{"do": "end"}') == {"ended": True}

    def close(self) -> None:
        """End it in order, if it lives."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=30)


class World:
    """Applications, a replicator, and what must be restorable."""

    def __init__(self, seed: int, folder: Path, *, compact: bool) -> None:
        self.rnd = random.Random(seed)
        self.compact = compact
        self.folder = folder
        self.path = folder / "app.db"
        self.replica = folder / "replica"
        self.apps = [App(), App()]
        size = self.rnd.choice([512, 1024, 4096, 4096, 16384])
        vacuum = self.rnd.choice([0, 0, 1, 2])
        self.apps[0].create(self.path, pragmas=[f"page_size={size}", f"auto_vacuum={vacuum}"])
        self._open()
        self.second = folder / "second"
        self.replicator = Replicator(self.path, self.replica, self.second, *["compact"] * compact)
        self.reader = False
        self.spilled = False
        self.acknowledged = 0
        self.robbed = False
        """Whether objects were deleted from the replica."""
        self.trace: list[str] = []

    def close(self) -> None:
        self.replicator.close()
        for app in self.apps:
            app.kill()

    # -- applications

    def _open(self) -> None:
        for app in self.apps:
            app.open(self.path, timeout=PATIENCE)
        self.reader = self.spilled = False

    def app_step(self) -> None:
        if self.spilled and self.rnd.random() < 0.5:
            self.apps[0].sql("ROLLBACK")
            self.spilled = False
        name = self.rnd.choice(
            ["ledger"] * 8
            + [
                "burst",
                "large",
                "spill",
                "checkpoint",
                "checkpoint",
                "vacuum",
                "incremental",
                "reader",
                "reopen",
                "kill",
            ]
        )
        self.trace.append(f"app {name}")
        with contextlib.suppress(AppError):  # busy: an application's own business
            getattr(self, f"_app_{name}")()

    def _app_ledger(self) -> None:
        self.rnd.choice(self.apps).ledger(self.rnd.randint(1, 3))

    def _app_burst(self) -> None:
        self.rnd.choice(self.apps).ledger(self.rnd.randint(20, 60))

    def _app_large(self) -> None:
        self.apps[0].sql("BEGIN IMMEDIATE")
        try:
            self.apps[0].sql("CREATE TABLE IF NOT EXISTS junk(x)")
            self.apps[0].sql("INSERT INTO junk SELECT zeroblob(3000) FROM ledger LIMIT 200")
            if self.rnd.random() < 0.5:
                self.apps[0].sql("DELETE FROM junk")
        finally:
            self.apps[0].sql(self.rnd.choice(["COMMIT", "ROLLBACK"]))

    def _app_spill(self) -> None:
        self.spilled = True  # also if it is only begun
        self.apps[0].spill(100)  # stays open for a while, and is never committed

    def _app_checkpoint(self) -> None:
        mode = self.rnd.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
        self.rnd.choice(self.apps).checkpoint(mode, wait=0.02)

    def _app_vacuum(self) -> None:
        self.apps[0].sql("VACUUM")

    def _app_incremental(self) -> None:
        self.apps[0].sql("PRAGMA incremental_vacuum(20)")

    def _app_reader(self) -> None:
        self.reader = not self.reader
        self.apps[1].sql("BEGIN" if self.reader else "ROLLBACK")
        if self.reader:
            self.apps[1].sql("SELECT count(*) FROM ledger")

    def _app_reopen(self) -> None:
        for app in self.apps:
            app.close()
        self._open()

    def _app_kill(self) -> None:
        self.apps[1].kill()
        self.reader = False
        self.apps[1] = App().open(self.path, timeout=PATIENCE)

    # -- the replicator

    def replicator_step(self) -> None:
        command = self.rnd.choice(
            ["sync"] * 3
            + ["maintain"] * 4
            + ["upload"] * 4
            + ["seal", "snapshot", "restart"]
            + RARE
            + HASHES
            + ["switch", "switch"] * self.compact
        )
        self.trace.append(f"replicator {command}")
        if command == "lose state":
            shutil.rmtree(self.folder / ".app.db-litestream", ignore_errors=True)
            return
        if command == "lose replica":
            shutil.rmtree(self.replica, ignore_errors=True)
            self.acknowledged, self.robbed = 0, True
            return
        if command == "restart":
            self.replicator.restart()
            return
        if command == "spoil hashes":
            self.spoil_hashes()
            return
        if command == "away":  # long enough for applications to start the WAL over, more than once perhaps
            self.replicator.restart()
            for _ in range(self.rnd.randint(1, 8)):
                self.app_step()
            return
        stop = self.rnd.randint(1, 40) if self.rnd.random() < 0.6 else 0
        self.replicator.do(command, stop, self._meanwhile)

    def spoil_hashes(self) -> None:
        """Delete, tear or put back an older copy of the hashes of pages, also while somebody writes to them."""
        path, kept = self.folder / ".app.db-litestream" / "pages", self.folder / "pages-kept"
        if not path.exists():
            return
        how = self.rnd.choice(["keep", "keep", "put back", "put back", "delete", "tear", "zero"])
        self.trace.append(f"  {how}")
        if how == "keep":
            shutil.copyfile(path, kept)
        elif how == "put back" and kept.exists():
            os.replace(kept, path)
        elif how == "delete":
            path.unlink()
        elif how == "tear":
            os.truncate(path, self.rnd.randint(0, path.stat().st_size))
        elif how == "zero":
            with path.open("r+b") as file:
                file.seek(self.rnd.randint(0, path.stat().st_size - 1))
                file.write(bytes(64))

    def _meanwhile(self, name: str) -> bool:
        self.trace.append(f"  at {name}")
        for _ in range(self.rnd.randint(0, 3)):
            self.app_step()
        if self.rnd.random() < 0.35:
            self.trace.append("  kill -9")
            return True
        return False

    # -- the truth

    def newest(self) -> int:
        self.apps[0].open(self.path, name="truth")
        n: int = self.apps[0].one("SELECT coalesce(max(n), 0) FROM ledger", name="truth")
        self.apps[0].close("truth")
        return n

    def restored(self, options: RestoreOptions | None = None, replica: Path | None = None) -> int:
        """The transaction up to which a restore goes; NotACommittedStateError if it is no committed state."""
        out = self.folder / f"out-{time.monotonic_ns()}.db"
        client = open_client(str(replica or self.replica))
        asyncio.run(restore([("file", client)], str(out), options=options))
        try:
            return ledger.check(out)
        finally:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{out}{suffix}").unlink(missing_ok=True)

    def check(self) -> None:
        """What can be restored is a committed state, not older than before, not newer than the database."""
        try:
            n = self.restored()
        except (NoBackupError, NoSnapshotsError):  # nothing, or WAL whose first snapshot was cut off
            n = 0
        except CorruptObjectError:
            if not self.robbed:
                raise
            n = 0  # and it says so, until that is noticed
        assert self.acknowledged <= n <= self.newest()
        self.acknowledged = n

    def settle(self) -> None:
        """With nobody disturbing, everything arrives."""
        self.replicator.do("repair")
        for _ in range(200):
            answers = [self.replicator.do(command) for command in ("sync", "maintain", "retain", "upload", "second")]
            if all("ok" in a and a["pos"] == answers[0]["pos"] for a in answers) and all(
                a["pos"] == a["uploaded"] for a in answers[3:]
            ):
                break
            time.sleep(0.02)
        assert self.restored() == self.newest(), answers
        assert self.restored(replica=self.second) == self.newest(), answers
        self.acknowledged = self.newest()


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_any_history_restores(seed: int, tmp_path: Path) -> None:
    """Whatever happens between whatever steps, a restore is a committed state that never goes back; in the end all."""
    run_history(seed, tmp_path, compact=False)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + (SEEDS + 1) // 2))
def test_any_history_restores_in_compact_mode(seed: int, tmp_path: Path) -> None:
    """The same where each page of a batch is stored once, and that is switched off and on."""
    run_history(seed, tmp_path, compact=True)


def run_history(seed: int, folder: Path, *, compact: bool) -> None:
    """One history, checked now and then and in the end."""
    world = World(seed, folder, compact=compact)
    try:
        for number in range(ROUNDS):
            for _ in range(world.rnd.randint(0, 3)):
                world.app_step()
            world.replicator_step()
            if number % 10 == 9:
                world.check()
        world.settle()
        check_every_time(world)
    except BaseException:
        sys.stderr.write(f"seed {seed}:\n" + "\n".join(world.trace[-60:]) + "\n")
        raise
    finally:
        world.close()


def check_every_time(world: World) -> None:
    """A restore to each time at which something was published is a committed state, and they only go forward."""
    client = open_client(str(world.replica))

    async def times() -> list[int]:
        found = set()
        generation = (await newest_generation())[0]
        for info in await client.wal_segments(generation):
            stamp = await client.stamp_of(info)
            assert stamp is not None
            found.add(stamp.last_commit_ns)
        return sorted(found)

    async def newest_generation() -> list[str]:
        overview = await client.overview()
        names = [name for name, view in overview.items() if view.snapshots]
        return sorted(names, key=lambda name: -max(s.created_at for s in overview[name].snapshots))

    last = reached = 0
    moments = asyncio.run(times())
    for moment in moments:
        try:
            n = world.restored(RestoreOptions(timestamp_ns=moment))
        except RestoreError as error:
            if reached or "the first snapshot is later" not in str(error):
                raise AssertionError(f"restore at {format_rfc3339(moment)}: {error}") from error
            continue  # nothing can be restored until the first snapshot is complete
        except CorruptObjectError:
            if not world.robbed:
                raise
            continue  # what was deleted is missing, and the restore says so
        assert n >= last
        last, reached = n, reached + 1
    assert reached or world.robbed or not moments, "not one published position could be restored"
