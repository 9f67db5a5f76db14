"""Fixtures: recordings that several tests restore from. A test module imports those that it uses."""

from __future__ import annotations

import pytest

from helpers.recording import Recorder, Recording


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Four indexes, three snapshots (one while WAL was backfilled under it), growth, VACUUM, a large transaction."""
    with Recorder(tmp_path_factory.mktemp("history")) as r:
        r.run("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
        r.snapshot()
        for n in range(6):
            r.run(("INSERT INTO t(body) VALUES(randomblob(?))", (150 * n,)))
        r.restart()
        r.run("UPDATE t SET body=randomblob(300)")
        r.run(*[("INSERT INTO t(body) VALUES(randomblob(?))", (700,)) for _ in range(40)])

        def meanwhile() -> None:
            r.run("UPDATE t SET body=randomblob(100) WHERE id%2=0")
            r.passive()

        r.snapshot(during=meanwhile)
        r.run("DELETE FROM t WHERE id>10")
        r.db.execute("VACUUM")
        r.record()
        r.restart()
        r.run("INSERT INTO t(body) VALUES('small again')")
        r.restart()
        r.run("UPDATE t SET body=randomblob(20) WHERE id<4")
        r.snapshot()
        for n in range(3):
            r.run(("INSERT INTO t(body) VALUES(?)", (f"end {n}",)))
        return r.recording


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Two indexes with three segments each, two snapshots: small enough to damage every byte."""
    with Recorder(tmp_path_factory.mktemp("tiny")) as r:
        r.run("CREATE TABLE t(b)")
        r.snapshot()
        r.run("INSERT INTO t VALUES(1)")
        r.run("INSERT INTO t VALUES(2)")
        r.restart()
        r.run("INSERT INTO t VALUES(3)")
        r.snapshot()
        r.run("INSERT INTO t VALUES(4)")
        r.run("INSERT INTO t VALUES(5)")
        return r.recording
