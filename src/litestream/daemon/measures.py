"""What the daemon's objects count, put into metrics before each scrape."""

from __future__ import annotations

import errno
from collections.abc import Callable

from litestream.config import ReplicaConfig
from litestream.daemon.observe import Observer
from litestream.daemon.server import Entry
from litestream.daemon.status import DatabaseStatus, ReplicaStatus, txid_of
from litestream.db.stats import Stats
from litestream.metrics import Metrics
from litestream.replica import Replica

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Measures:
    """The official metrics of databases, and those of ours that say that something is wrong."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def watch(self, entry: Entry) -> Callable[[], None]:
        """Have a database and its replicas in every scrape, until the result is called; then nothing is left of them.

        The entry has an observer.
        """
        stop = self._metrics.before_collect(lambda: self._collect(entry))

        def forget() -> None:
            stop()
            for replica in entry.replicas:
                self._metrics.forget_replica(entry.db.path, replica.name)
            self._metrics.forget_database(entry.db.path)

        return forget

    def watch_follower(self, look: Callable[[], DatabaseStatus], behind: Callable[[], float]) -> Callable[[], None]:
        """The same for a database that follows another. `behind`: seconds for which it has not been following."""
        metrics, path = self._metrics, look().path

        def collect() -> None:
            status, lag = look(), behind()
            metrics.db_size.labels(db=path).set(status.size)
            metrics.wal_size.labels(db=path).set(status.wal_size)
            metrics.txid.labels(db=path).set(txid_of(status.pos))
            metrics.follower_connected.labels(db=path).set(lag == 0)
            metrics.follower_lag_seconds.labels(db=path).set(lag)

        stop = metrics.before_collect(collect)

        def forget() -> None:
            stop()
            metrics.forget_database(path)

        return forget

    def _collect(self, entry: Entry) -> None:
        observer = entry.observer
        assert observer is not None
        status, stats = observer.look(), observer.task.db.stats
        self._collect_official(status, stats)
        self._collect_ours(observer, status, stats)
        for replica in status.replicas:
            self._collect_replica(status.path, replica)
        configs = entry.config.replicas if entry.config is not None else []
        for running, config in zip(observer.task.replicas, configs, strict=False):
            self._collect_requests(status.path, running, config)

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
        metrics.txid.labels(db=path).set(txid_of(status.pos))
        for mode, count in list(stats.checkpoints.items()):
            metrics.checkpoint_count.labels(db=path, mode=mode).set(count)
            metrics.checkpoint_seconds.labels(db=path, mode=mode).set(stats.checkpoint_seconds.get(mode, 0.0))
        for mode, count in list(stats.checkpoint_errors.items()):
            metrics.checkpoint_error_count.labels(db=path, mode=mode).set(count)

    def _collect_ours(self, observer: Observer, status: DatabaseStatus, stats: Stats) -> None:
        metrics, path = self._metrics, status.path
        metrics.disk_full.labels(db=path).set(_is_disk_full(observer.task.error))
        metrics.db_error.labels(db=path).set(observer.task.error is not None)
        metrics.shadow_wal_bytes.labels(db=path).set(status.spool_bytes)
        metrics.wal_pinned_seconds.labels(db=path).set(stats.pinned_seconds)
        metrics.seal_seconds_max.labels(db=path).set(stats.seal_seconds_max)

    def _collect_replica(self, path: str, replica: ReplicaStatus) -> None:
        metrics, labels = self._metrics, {"db": path, "name": replica.name}
        metrics.replica_error.labels(**labels).set(bool(replica.error))
        metrics.replica_lag_seconds.labels(**labels).set(replica.lag_seconds)
        metrics.replica_lag_bytes.labels(**labels).set(replica.lag_bytes)
        metrics.replica_last_upload_timestamp_seconds.labels(**labels).set(replica.uploaded_at)

    def _collect_requests(self, path: str, replica: Replica, config: ReplicaConfig) -> None:
        from litestream.core.costs import CLASSES, Usage, prices_of
        from litestream.storage.wrappers.metered import requests_made

        made = requests_made(replica.client.store)
        if made is None:
            return
        prices = prices_of(config.type, getattr(config.backend, "endpoint", ""))
        for kind in dict.fromkeys(CLASSES.values()):
            counts = {operation.lower(): count for operation, count in made.items() if CLASSES[operation] == kind}
            labels = {"db": path, "name": replica.name, "class": kind}
            self._metrics.replica_requests_total.labels(**labels).set(sum(counts.values()))
            if prices is not None:
                usage = Usage(**({"put": 0, "list": 0, "get": 0, "delete": 0} | counts))
                self._metrics.replica_request_cost_dollars_total.labels(**labels).set(usage.cost(prices))


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether that is why something failed: the reason may be several causes down."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False
