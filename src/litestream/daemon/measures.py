"""What the daemon's objects count, put into metrics before each scrape."""

from __future__ import annotations

import os
from collections.abc import Sequence

from litestream.daemon.database import DatabaseTask
from litestream.db.db import DB
from litestream.metrics import Metrics
from litestream.replica import Replica


class Measures:
    """The official metrics of databases, and those of ours that say that something is wrong."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def watch(self, task: DatabaseTask) -> None:
        """Have a database and its replicas in every scrape from now on."""
        self._metrics.before_collect(lambda: self._collect(task))

    def _collect(self, task: DatabaseTask) -> None:
        db = task.db
        self._collect_official(db)
        self._metrics.db_error.labels(db=db.path).set(task.error is not None)
        self._metrics.wal_pinned_seconds.labels(db=db.path).set(db.stats.pinned_seconds)
        self._metrics.seal_seconds_max.labels(db=db.path).set(db.stats.seal_seconds_max)
        self._collect_replicas(db, task.replicas)

    def _collect_replicas(self, db: DB, replicas: Sequence[Replica]) -> None:
        for replica in replicas:
            self._metrics.replica_error.labels(db=db.path, name=replica.name).set(replica.error is not None)

    def _collect_official(self, db: DB) -> None:
        metrics, path, stats, pos = self._metrics, db.path, db.stats, db.pos()
        metrics.db_size.labels(db=path).set(_size(db.real_path))
        metrics.wal_size.labels(db=path).set(_size(db.wal_path))
        metrics.total_wal_bytes.labels(db=path).set(stats.wal_bytes)
        metrics.shadow_wal_index.labels(db=path).set(pos.index)
        metrics.shadow_wal_size.labels(db=path).set(pos.offset)
        metrics.sync_count.labels(db=path).set(stats.syncs)
        metrics.sync_error_count.labels(db=path).set(stats.sync_errors)
        metrics.sync_seconds.labels(db=path).set(stats.sync_seconds)
        for mode, count in list(stats.checkpoints.items()):
            metrics.checkpoint_count.labels(db=path, mode=mode).set(count)
            metrics.checkpoint_seconds.labels(db=path, mode=mode).set(stats.checkpoint_seconds.get(mode, 0.0))
        for mode, count in list(stats.checkpoint_errors.items()):
            metrics.checkpoint_error_count.labels(db=path, mode=mode).set(count)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
