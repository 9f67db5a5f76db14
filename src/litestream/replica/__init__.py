"""Replicas: what a database's copied WAL and snapshots become in a store, and how long they stay there."""

from litestream.replica.bounds import latest_replica
from litestream.replica.replica import Replica
from litestream.replica.source import SnapshotSource, WALSource

__all__ = ["Replica", "WALSource", "SnapshotSource", "latest_replica"]
