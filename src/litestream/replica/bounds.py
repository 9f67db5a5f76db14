"""Times of what replicas hold, as their stores say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from litestream.client import ReplicaClient
from litestream.core.position import SnapshotInfo, WALSegmentInfo

if TYPE_CHECKING:
    from litestream.replica.replica import Replica

Bounds = tuple[float, float]
"""Unix seconds of the oldest and of the newest object."""


def bounds_of(infos: Iterable[SnapshotInfo | WALSegmentInfo]) -> Bounds | None:
    """The bounds of some objects; None if there are none."""
    times = [info.created_at for info in infos]
    return (min(times), max(times)) if times else None


async def time_bounds(client: ReplicaClient) -> Bounds | None:
    """The bounds of a whole replica; None if it is empty."""
    overview = await client.overview()
    infos: list[SnapshotInfo | WALSegmentInfo] = []
    for view in overview.values():
        infos += [*view.snapshots, *view.segments]
    return bounds_of(infos)


async def latest_replica(replicas: Sequence[Replica]) -> Replica | None:
    """The replica with the newest object; the first of several, None if all are empty.

    An error of any replica is raised: one that cannot be read may be the latest.
    """
    latest: Replica | None = None
    newest = 0.0
    for replica in replicas:
        found = await time_bounds(replica.client)
        if found is not None and (latest is None or found[1] > newest):
            latest, newest = replica, found[1]
    return latest
