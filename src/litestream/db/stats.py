"""What a database counts for the metrics."""

from __future__ import annotations


class Stats:
    """Counters for metrics. Written under the database's lock, read without it."""

    def __init__(self) -> None:
        self.syncs = 0
        self.sync_errors = 0
        self.sync_seconds = 0.0
        self.wal_bytes = 0
        self.checkpoints: dict[str, int] = {}
        self.checkpoint_errors: dict[str, int] = {}
        self.checkpoint_seconds: dict[str, float] = {}
        self.seal_seconds_max = 0.0
        """Longest time for which a seal held the write lock."""
        self.pinned_seconds = 0.0
        """For how long checkpoints have not come to an end; 0 if the last one did."""

    def checkpoint(self, mode: str, seconds: float) -> None:
        self.checkpoints[mode] = self.checkpoints.get(mode, 0) + 1
        self.checkpoint_seconds[mode] = self.checkpoint_seconds.get(mode, 0.0) + seconds

    def checkpoint_failed(self, mode: str) -> None:
        self.checkpoint_errors[mode] = self.checkpoint_errors.get(mode, 0) + 1
