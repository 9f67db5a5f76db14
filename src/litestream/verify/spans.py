"""Which states of a generation can be restored, from what is known of its objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from litestream.core.position import Pos, SnapshotInfo, WALSegmentInfo
from litestream.core.stamp import Stamp
from litestream.verify.model import Span

Info = SnapshotInfo | WALSegmentInfo
Stamps = Mapping[Info, Stamp | None]


@dataclass(frozen=True, slots=True)
class Link:
    """One segment in its chain."""

    info: WALSegmentInfo
    sound: bool
    """Nothing is wrong with it, as far as it was looked at."""
    joined: bool
    """It follows the one before it."""
    end: int | None
    """Offset behind its last byte; None: it was not read."""


def chain_of(snapshot: SnapshotInfo, links: Sequence[Link]) -> list[Link]:
    """The sound segments that follow a snapshot without a gap."""
    chain: list[Link] = []
    for link in links:
        if link.info.index < snapshot.index:
            continue
        if not link.sound or (chain and not link.joined):
            break
        if not chain and (link.info.index, link.info.offset) != (snapshot.index, 0):
            break
        chain.append(link)
    return chain


def end_of(link: Link, stamps: Stamps) -> Pos:
    """Where a segment ends; where it begins if that is not known."""
    info, stamp = link.info, stamps.get(link.info)
    if stamp is not None:
        return Pos(info.generation, *stamp.required)
    return Pos(info.generation, info.index, link.end if link.end is not None else info.offset)


def span_of(snapshot: SnapshotInfo, links: Sequence[Link], stamps: Stamps) -> Span | None:
    """What can be restored from one snapshot on; None if the WAL that it needs is not there."""
    stamp, chain = stamps.get(snapshot), chain_of(snapshot, links)
    first = Pos(snapshot.generation, *(stamp.required if stamp is not None else (snapshot.index, 0)))
    last = end_of(chain[-1], stamps) if chain else Pos(snapshot.generation, snapshot.index, 0)
    if last < first:
        return None
    first_ns = _time(snapshot, stamps)
    return Span(first, last, first_ns, _time(chain[-1].info, stamps) if chain else first_ns)


def spans_of(snapshots: Sequence[SnapshotInfo], links: Sequence[Link], stamps: Stamps) -> list[Span]:
    """The spans of all (sound) snapshots, those that touch put together."""
    found = [span for info in snapshots if (span := span_of(info, links, stamps)) is not None]
    merged: list[Span] = []
    for span in sorted(found, key=lambda s: (s.first.index, s.first.offset)):
        if merged and span.first <= merged[-1].last:
            before = merged.pop()
            longer = span if before.last < span.last else before
            span = Span(before.first, longer.last, before.first_ns, longer.last_ns)
        merged.append(span)
    return merged


def _time(info: Info, stamps: Stamps) -> int:
    stamp = stamps.get(info)
    return stamp.last_commit_ns if stamp is not None else int(info.created_at * 1e9)
