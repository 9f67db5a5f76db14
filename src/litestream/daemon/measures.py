"""What the daemon's objects count, put into metrics before each scrape."""

from __future__ import annotations

from collections.abc import Callable

from litestream.daemon.observe import Observer
from litestream.daemon.status import DatabaseStatus, ReplicaStatus
from litestream.db.stats import Stats
from litestream.metrics import Metrics


class Measures:
    """The official metrics of databases, and those of ours that say that something is wrong."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def watch(self, observer: Observer) -> Callable[[], None]:
        """Have a database and its replicas in every scrape, until the result is called."""
        stop = self._metrics.before_collect(lambda: self._collect(observer))

        def forget() -> None:
            stop()
            self._metrics.forget_database(observer.task.db.path)

        return forget

    def _collect(self, observer: Observer) -> None:
        status, stats = observer.look(), observer.task.db.stats
        self._collect_official(status, stats)
        self._metrics.db_error.labels(db=status.path).set(observer.task.error is not None)
        self._metrics.shadow_wal_bytes.labels(db=status.path).set(status.spool_bytes)
        self._metrics.wal_pinned_seconds.labels(db=status.path).set(stats.pinned_seconds)
        self._metrics.seal_seconds_max.labels(db=status.path).set(stats.seal_seconds_max)
        for replica in status.replicas:
            self._collect_replica(status.path, replica)

    def _collect_replica(self, path: str, replica: ReplicaStatus) -> None:
        metrics, labels = self._metrics, {"db": path, "name": replica.name}
        metrics.replica_error.labels(**labels).set(bool(replica.error))
        metrics.replica_lag_seconds.labels(**labels).set(replica.lag_seconds)
        metrics.replica_lag_bytes.labels(**labels).set(replica.lag_bytes)
        metrics.replica_last_upload_timestamp_seconds.labels(**labels).set(replica.uploaded_at)

    def _collect_official(self, status: DatabaseStatus, stats: Stats) -> None:
        metrics, path = self._metrics, status.path
        metrics.db_size.labels(db=path).set(status.size)
        metrics.wal_size.labels(db=path).set(status.wal_size)
        metrics.total_wal_bytes.labels(db=path).set(stats.wal_bytes)
        metrics.shadow_wal_index.labels(db=path).set(status.pos.index)
        metrics.shadow_wal_size.labels(db=path).set(status.pos.offset)
        metrics.sync_count.labels(db=path).set(stats.syncs)
        metrics.sync_error_count.labels(db=path).set(stats.sync_errors)
        metrics.sync_seconds.labels(db=path).set(stats.sync_seconds)
        for mode, count in list(stats.checkpoints.items()):
            metrics.checkpoint_count.labels(db=path, mode=mode).set(count)
            metrics.checkpoint_seconds.labels(db=path, mode=mode).set(stats.checkpoint_seconds.get(mode, 0.0))
        for mode, count in list(stats.checkpoint_errors.items()):
            metrics.checkpoint_error_count.labels(db=path, mode=mode).set(count)
