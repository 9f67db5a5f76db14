"""Memory: how much the replicator and a restore need does not depend on how large the database is.

The suite's form is 200 MiB; LITESTREAM_LONG makes it 1 GiB. Peaks are the kernel's own, VmHWM of the running process.
"""

from __future__ import annotations

import filecmp
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from helpers.app import App
from helpers.cli import LITESTREAM, environment
from helpers.rig import LONG, Rig

SIZE = 1024 if LONG else 200
"""MiB of database."""

LIMIT = 150 if LONG else 130
"""MB that each process may have in memory. Measured at 200 MiB and 1 GiB: snapshot 68 and 71, restore 104 and 116."""

WAL = 64 if LONG else 24
"""MiB of one transaction that follows the snapshot."""


def peak(pid: int) -> float:
    """The most that a living process ever had in memory, in MB; 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0


def fill(app: App, rows: int) -> None:
    """Rows of a MiB each, one in four compressible."""
    app.sql(
        "WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM k WHERE i<?) "
        "INSERT INTO bulk SELECT CASE WHEN i % 4 THEN randomblob(1<<20) ELSE zeroblob(1<<20) END FROM k",
        rows,
    )


def peak_at_the_end(process: subprocess.Popen[bytes], timeout: float = 300) -> float:
    """Wait for the end of a process, which must be in order; the most that it ever had in memory, in MB."""
    highest, end = 0.0, time.monotonic() + timeout
    while process.poll() is None:
        highest = max(highest, peak(process.pid))
        assert time.monotonic() < end
        time.sleep(0.005)
    assert process.returncode == 0
    return highest


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
@pytest.mark.timeout(600)
def test_memory_is_bounded(rig: Rig, app: App) -> None:
    """The first snapshot, a large transaction and a restore stay within the bound; what is restored is equal."""
    app.open(rig.db, pragmas=["page_size=4096", "journal_mode=OFF", "synchronous=OFF"])
    app.sql("CREATE TABLE bulk(body BLOB)")
    fill(app, SIZE)
    app.sql("PRAGMA journal_mode=WAL")
    app.sql("PRAGMA synchronous=NORMAL")

    daemon = rig.start()
    daemon.wait_for_log("snapshot written", timeout=300)
    assert daemon.process is not None
    snapshot = peak(daemon.pid)
    fill(app, WAL)
    daemon.send(signal.SIGTERM)
    replicate = peak_at_the_end(daemon.process)
    command = [str(LITESTREAM), "restore", "-integrity-check", "none", "-o", str(rig.out), rig.url]
    restore = peak_at_the_end(subprocess.Popen(command, env=environment()))
    app.close()  # the last one: everything goes into the file

    assert filecmp.cmp(rig.db, rig.out, shallow=False)
    print(f"{SIZE} MiB: snapshot {snapshot:.0f} MB, replicate {replicate:.0f} MB, restore {restore:.0f} MB")
    assert 0 < snapshot < LIMIT
    assert 0 < replicate < LIMIT
    assert 0 < restore < LIMIT
