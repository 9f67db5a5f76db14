"""What is put into metrics of a database and its replicas before a scrape."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from helpers.app import App
from litestream.client import ReplicaClient
from litestream.config import loads
from litestream.daemon.database import DatabaseTask
from litestream.daemon.measures import Measures
from litestream.daemon.observe import Observer
from litestream.daemon.server import Entry
from litestream.daemon.watcher import Watcher
from litestream.db.db import DB
from litestream.errors import LocalStateError
from litestream.metrics import Metrics
from litestream.replica import Replica
from litestream.storage.memory import MemoryStore
from litestream.storage.wrappers.metered import Metered


async def test_disk_and_requests(tmp_path: Path, app: App) -> None:
    """A full disk shows while that is the reason; requests are counted by billing class, with what they cost."""
    app.create(tmp_path / "app.db")
    metrics = Metrics()
    config = loads(f"dbs: [{{path: {tmp_path}/app.db, replicas: [{{url: s3://bucket/app}}]}}]", environ={}).databases[0]
    db = DB(config.path)
    store = Metered(MemoryStore(), metrics)
    replica = Replica(db, ReplicaClient(store), name="s3", metrics=metrics)
    task = DatabaseTask(db, [replica], Watcher())
    entry = Entry(db, [replica], task.run, config=config, observer=Observer(task, [("s3", "here")]))
    forget = Measures(metrics).watch(entry)
    try:
        db.sync_now()
        await replica.sync()
        await store.delete(["x"])
        metrics.collect()
        made = store.requests
        assert made["PUT"] >= 1
        assert made["LIST"] >= 1
        requests = {key[2]: number for key, number in metrics.replica_requests_total.samples()}
        assert requests == {"A": made["PUT"] + made["LIST"], "B": made.get("GET", 0), "free": made["DELETE"]}
        cost = {key[2]: number for key, number in metrics.replica_request_cost_dollars_total.samples()}
        assert cost == pytest.approx({"A": 0.005 * requests["A"] / 1000, "B": 0.0004 * requests["B"] / 1000, "free": 0})
        assert metrics.txid.samples() == [((db.path,), db.pos().index << 32 | db.pos().offset)]
        full = LocalStateError("cannot keep the local state")
        full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
        for error, shown in ((None, 0), (full, 1), (LocalStateError("something else"), 0)):
            task.error = error
            metrics.collect()
            assert metrics.disk_full.samples() == [((db.path,), shown)]
            assert metrics.db_error.samples() == [((db.path,), error is not None)]
    finally:
        await replica.close()
        db.close()
    forget()
    left = [family.name for family in metrics.families() if "db" in family.label_names and list(family._text())]
    assert left == []
