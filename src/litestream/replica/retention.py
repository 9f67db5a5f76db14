"""Carrying out what `litestream.core.retention` decides."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from litestream.client import Overview, ReplicaClient
from litestream.core.position import SnapshotInfo, WALSegmentInfo
from litestream.core.retention import next_expiry, plan
from litestream.replica.log import ReplicaLogger, prefixed

T = TypeVar("T")

DELETE_BATCH = 1000
"""Objects deleted, and then logged, at once: what S3 takes in one request."""


async def enforce_retention(
    client: ReplicaClient,
    look: Callable[[], Awaitable[Overview]],
    snapshot: Callable[[], Awaitable[SnapshotInfo]],
    logger: ReplicaLogger,
    *,
    now: float,
    retention: float,
    current: str,
    hold: Callable[[], Awaitable[None]],
) -> set[tuple[str, int]]:
    """Delete what the plan says of what `look` sees. Returns generation and index of each snapshot that is left.

    `hold` returns, or raises, before each deletion: whether this process may delete.
    """
    with prefixed("snapshots: "):
        overview = await look()
    todo = plan(*_everything(overview), now, retention, current=current)
    if todo.need_snapshot:
        with prefixed("snapshot: "):
            info = await snapshot()
        with prefixed("generations: "):
            overview = await look()
        todo = plan(
            *_everything(overview), now, retention, current=info.generation, fresh={(info.generation, info.index)}
        )
    left = {(s.generation, s.index) for s in _everything(overview)[0]}

    for generation in todo.delete_generations:
        await hold()
        with prefixed("delete generation: "):
            await client.delete_generation(generation)
        left = {entry for entry in left if entry[0] != generation}
        logger.info("generation deleted %s", generation, extra={"fields": {"generation": generation}})
    for info in todo.delete_snapshots:
        await hold()
        with prefixed("delete snapshots before index: "):
            await client.delete_snapshot(info.generation, info.index)
        left.discard((info.generation, info.index))
        fields = {"generation": info.generation, "index": info.index}
        logger.info("snapshot deleted %s/%08x", info.generation, info.index, extra={"fields": fields})
    for batch in _batched(todo.delete_segments):
        await hold()
        with prefixed("delete wal segments before index: "):
            await client.delete_wal_segments([segment.pos for segment in batch])
        for segment in batch:
            logger.info("wal segmented deleted: %s", segment.pos, extra={"fields": {"position": str(segment.pos)}})
    return left


def expiry_of(overview: Overview, now: float, retention: float) -> float:
    """When the next of what is there is as old as `retention`, in Unix seconds."""
    return next_expiry(*_everything(overview), now, retention)


def _everything(overview: Overview) -> tuple[list[SnapshotInfo], list[WALSegmentInfo]]:
    views = list(overview.values())
    return [s for view in views for s in view.snapshots], [s for view in views for s in view.segments]


def _batched(items: Sequence[T]) -> Iterator[list[T]]:
    remaining = iter(items)
    while batch := list(itertools.islice(remaining, DELETE_BATCH)):
        yield batch
