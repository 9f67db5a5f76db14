"""Comparing a replica with its live database while an application writes and a replicator runs, each in its process."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.app import App
from helpers.cli import OURS, environment, wait_until
from helpers.rig import Rig
from litestream.client import open_client
from litestream.verify.model import Report, Status
from litestream.verify.replica import VerifyOptions, verify


def _verify(rig: Rig, *flags: str, target: str = "", scratch: Path | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of the command on the rig's database."""
    folder = scratch or rig.folder / "scratch"
    folder.mkdir(exist_ok=True)
    result = OURS.run(
        "verify",
        "-config",
        rig.folder / "litestream.yml",
        "-json",
        *flags,
        target or rig.db,
        env={"TMPDIR": str(folder)},
    )
    assert list(folder.iterdir()) == []
    assert result.out, result.err
    (document,) = json.loads(result.out)
    return result.code, document


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_while_an_application_writes(page_size: int, rig: Rig, app: App) -> None:
    """Again and again, at whatever position it is caught, the database is exactly what the replica restores."""
    app.create(rig.db, pragmas=[f"page_size={page_size}"])
    app.ledger(20)
    rig.start(min_checkpoint_page_count=50).wait_for_objects(rig.replica)
    app.start_writing(rig.db, pause=0.001, every=[(90, "VACUUM")] if page_size == 4096 else [])
    positions = set()
    for _ in range(4):
        code, document = _verify(rig)

        assert (code, document["status"]) == (0, "ok"), document
        assert document["compared"]["different"] == 0
        assert document["restored"]["integrity"] == ["ok"]
        positions.add(document["compared"]["pos"])
    assert len(positions) == 4  # it was written to all the time
    app.stop_writing()
    assert rig.daemon.stop() == 0


def test_nobody_is_disturbed(rig: Rig, app: App) -> None:
    """The application's commits take no longer, and the replicator goes on in its generation."""
    app.create(rig.db)
    app.fill(2000)
    rig.start().wait_for_objects(rig.replica)
    app.start_writing(rig.db, pause=0.002)
    for _ in range(3):
        assert _verify(rig)[0] == 0
    report = app.stop_writing()
    assert report.failures == []
    assert report.slowest < 1.0
    assert len(rig.generations()) == 1
    assert "ERROR" not in rig.daemon.text()


def test_at_rest_without_a_replicator(rig: Rig, app: App) -> None:
    """What a replicator left complete is equal; after one more commit it could not be told."""
    app.create(rig.db)
    app.ledger(5)
    rig.start().wait_for_objects(rig.replica)
    rig.reach(5)
    assert rig.daemon.stop() == 0

    code, document = _verify(rig, "-timeout", "0s")
    assert (code, document["compared"]["different"]) == (0, 0)

    app.ledger(1)
    code, document = _verify(rig, "-timeout", "300ms")
    assert (code, document["status"], document["compared"]) == (2, "could not tell", None)
    assert "the replica did not get to" in document["could_not_tell"][0]


def test_waits_for_a_replica_that_is_behind(rig: Rig, app: App) -> None:
    """With a slow sync-interval it waits until the newest commit has arrived."""
    app.create(rig.db)
    app.ledger(5)
    rig.start(sync="2s").wait_for_objects(rig.replica)
    rig.reach(5)
    app.ledger(1)
    app.ledger(1)

    code, document = _verify(rig)

    assert (code, document["status"]) == (0, "ok")
    assert rig.restored_n() == 7


@pytest.mark.parametrize("checkpoint", ["TRUNCATE", "RESTART"])
def test_empty_wal(checkpoint: str, rig: Rig, app: App) -> None:
    """After a checkpoint that empties the WAL the newest state has to be the database; else it cannot be told."""
    app.create(rig.db)
    app.ledger(5)
    rig.start().wait_for_objects(rig.replica)
    rig.reach(5)
    wait_until(lambda: app.checkpoint(checkpoint)[0] == 0, "the WAL is empty")

    code, document = _verify(rig)
    assert (code, document["compared"]["different"]) == (0, 0), document

    rig.daemon.stop()
    app.ledger(2)
    wait_until(lambda: app.checkpoint(checkpoint)[0] == 0, "the WAL is empty")
    code, document = _verify(rig, "-timeout", "100ms")
    assert (code, document["status"]) == (2, "could not tell"), document


def test_page_changed_behind_sqlites_back(rig: Rig, app: App) -> None:
    """A page that somebody overwrote in the live file is found, and named by its number."""
    app.create(rig.db)
    app.fill(50)
    app.ledger(3)
    rig.start().wait_for_objects(rig.replica)
    rig.reach(3)
    wait_until(lambda: len(set(app.checkpoint("PASSIVE")[1:])) == 1, "all is backfilled")
    page = 20
    # dd, so that no descriptor of this process is ever closed on the database.
    subprocess.run(
        ["dd", f"of={rig.db}", "bs=1", f"seek={(page - 1) * 4096 + 2000}", "conv=notrunc", "status=none"],
        input=b"\xa5\x5a",
        check=True,
    )

    code, document = _verify(rig)

    assert (code, document["status"]) == (1, "failed"), document
    assert (document["compared"]["different"], document["compared"]["first_different"]) == (1, [page])
    assert "invalid replica, checksum mismatch: 1 of" in document["failures"][0]["reason"]


def test_replica_of_another_database(rig: Rig, apps: Callable[[], App], tmp_path: Path) -> None:
    """A sound replica of another database, even one with the same rows, is never taken for this one's."""
    one, two = apps(), apps()
    one.create(rig.db)
    one.ledger(4)
    rig.start().wait_for_objects(rig.replica)
    rig.reach(4)
    rig.daemon.stop()
    other = tmp_path / "other.db"
    two.create(other)
    two.ledger(4)
    config = json.loads((tmp_path / "litestream.yml").read_text())
    config["dbs"][0]["path"] = str(other)
    (tmp_path / "litestream.yml").write_text(json.dumps(config))

    code, document = _verify(rig, "-timeout", "300ms", target=str(other))

    assert (code, document["status"], document["compared"]) == (2, "could not tell", None)
    assert "no WAL in the replica is the one that the database has now" in document["could_not_tell"][0]
    assert document["failures"] == []


def test_no_database_and_no_wal_mode(rig: Rig, app: App) -> None:
    """Without the database the replica alone is verified; one that left WAL mode cannot be compared."""
    app.create(rig.db)
    app.ledger(2)
    rig.start().wait_for_objects(rig.replica)
    rig.reach(2)
    rig.daemon.stop()
    app.sql("PRAGMA journal_mode=DELETE")
    code, document = _verify(rig)
    assert (code, document["status"]) == (2, "could not tell")
    assert "not in WAL mode" in document["could_not_tell"][0]
    app.close()
    rig.db.unlink()

    code, document = _verify(rig)

    assert (code, document["compared"]) == (0, None)
    assert "nothing to compare with" in document["notes"][0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_nothing_is_left_of_one_that_was_killed(number: signal.Signals, rig: Rig, app: App) -> None:
    """A signal ends it soon and without a trace; what SIGKILL leaves behind the next one removes."""
    app.create(rig.db)
    app.fill(20000)
    rig.start().wait_for_objects(rig.replica, 2)
    app.ledger(1)
    rig.reach(1)
    rig.daemon.stop()
    scratch = rig.folder / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        [str(OURS.binary), "verify", "-config", str(rig.folder / "litestream.yml"), str(rig.db)],
        env=environment({"TMPDIR": str(scratch)}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: list(scratch.glob("*/*")), "a scratch file is there", pause=0.002)
    process.send_signal(number)
    code = process.wait(10)

    if number is signal.SIGKILL:
        assert list(scratch.iterdir()) != []
    else:
        assert (code, list(scratch.iterdir())) == (2, [])
    assert _verify(rig)[0] == 0  # looks itself that nothing is left


async def test_cancelled(rig: Rig, app: App, tmp_path: Path) -> None:
    """Cancelled at any moment it ends within a second and leaves nothing."""
    app.create(rig.db)
    app.fill(8000)
    rig.start().wait_for_objects(rig.replica, 2)
    rig.daemon.stop()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for delay in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4):
        work: asyncio.Task[Report] = asyncio.create_task(
            verify("file", open_client(str(rig.replica)), VerifyOptions(str(scratch)))
        )
        await asyncio.sleep(delay)
        began = time.monotonic()
        work.cancel()
        outcome = (await asyncio.gather(work, return_exceptions=True))[0]
        assert time.monotonic() - began < 1
        assert isinstance(outcome, asyncio.CancelledError) or (
            isinstance(outcome, Report) and outcome.status is Status.OK
        )
        assert list(scratch.iterdir()) == []


_MEASURE = """
import re, sys
from litestream.__main__ import main
sys.argv = ["litestream", *sys.argv[1:]]
try:
    main()
finally:
    status = open("/proc/self/status").read()
    sys.stderr.write("HWM %s\\n" % re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
"""


def test_memory_is_bounded(rig: Rig, app: App) -> None:
    """200 MiB are verified and compared in less than 150 MB."""
    app.create(rig.db)
    app.fill(51200)
    app.ledger(3)
    rig.start().wait_for_objects(rig.replica, 2, timeout=60)
    rig.reach(3, timeout=60)
    assert rig.db.stat().st_size + rig.db.with_name("app.db-wal").stat().st_size > 200 << 20

    result = subprocess.run(
        [sys.executable, "-c", _MEASURE, "verify", "-config", str(rig.folder / "litestream.yml"), str(rig.db)],
        env=environment({"TMPDIR": str(rig.folder)}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert "equal" in result.stdout, result.stderr
    kilobytes = int(result.stderr.rpartition("HWM ")[2])
    assert kilobytes < 150_000
