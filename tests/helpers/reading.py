"""Snapshots of a database, read piece by piece."""

from __future__ import annotations

from collections.abc import Iterator

from litestream.replica.source import SnapshotSource


def pieces(snapshot: SnapshotSource, size: int = 1 << 20) -> Iterator[bytes]:
    """What a snapshot reads, in pieces of `size` bytes."""
    buffer = memoryview(bytearray(size))
    while count := snapshot.read(buffer):
        yield bytes(buffer[:count])
