"""A copy's way to a later state: the WAL between the two, if there is all of it and it is less than a snapshot."""

from __future__ import annotations

import dataclasses

from litestream.core.checksum import Checksum
from litestream.core.plan import RestorePlan, order_segments
from litestream.core.position import SnapshotInfo, WALSegmentInfo
from litestream.errors import CorruptObjectError
from litestream.restore.base import State
from litestream.restore.choose import fetch_stamp
from litestream.restore.model import Plan, RestoreOptions
from litestream.restore.segment import Segment


class CannotUpdateError(Exception):
    """Why a state is not on the way to the one that is planned. Does not leave the package."""


async def plan_update(plan: Plan, state: State, options: RestoreOptions) -> Plan:
    """The same plan, from the state instead of the snapshot. Reads a stamp at most.

    The segment in which the state ends is in it, so that the WAL is seen to go on from there; what is applied of the
    frames before is what the state already has. Without segments there is nothing new. Raises `CannotUpdateError`.
    """
    pos = state.pos
    if plan.generation != pos.generation:
        raise CannotUpdateError("another generation has begun")
    if _is_later(state, plan, options):
        raise CannotUpdateError("the copy is later than the state that is asked for")
    segments = (*plan.earlier, *plan.objects.segments)
    if pos.offset and not any(s.index == pos.index and s.offset < pos.offset for s in segments):
        raise CannotUpdateError(f"the WAL at {pos} is not there any more")
    try:
        origin = SnapshotInfo(pos.generation, pos.index, 0, 0.0)
        ordered = order_segments(origin, segments, layout=plan.layout)
    except CorruptObjectError as error:
        raise CannotUpdateError(f"the WAL after {pos} is not all there: {error}") from error
    if plan.objects.snapshot.index > (ordered[-1].index if ordered else pos.index):
        raise CannotUpdateError("the newest snapshot is later than the WAL that is there")
    first = max((n for n, s in enumerate(ordered) if (s.index, s.offset) < (pos.index, pos.offset)), default=0)
    chosen = ordered[first:]
    if len(chosen) == 1 and pos.offset and await _is_end(plan, chosen[0], state):
        chosen = []
    if sum(segment.size for segment in chosen) >= plan.size:
        raise CannotUpdateError("the WAL since then is larger than the newest snapshot")
    return dataclasses.replace(plan, objects=RestorePlan(plan.objects.snapshot, tuple(chosen)), base=state)


def ends_within(segment: Segment, state: State) -> bool:
    """Whether a state ends in this segment, or at its end.

    Raises `CorruptObjectError` if it does, but not behind a transaction of the WAL that the state has.
    """
    info, pos = segment.info, state.pos
    if info.index != pos.index or not info.offset < pos.offset <= segment.end_offset:
        return False
    last = segment.frame(max(segment.frames_until(pos.offset) - 1, 0))
    same = (last.salts.hex(), last.checksum) == (state.salts, state.checksum)
    if not (same and last.commit):
        raise segment.corrupt(f"is not the WAL of the copy at {pos}: another history")
    return True


def last_of(segment: Segment, frames: int) -> tuple[str, Checksum]:
    """Salts and checksum of the last of so many frames, as a `State` has them."""
    last = segment.frame(frames - 1)
    return last.salts.hex(), last.checksum


def _is_later(state: State, plan: Plan, options: RestoreOptions) -> bool:
    at = (state.pos.index, state.pos.offset)
    if plan.position is not None:
        return at > (plan.position.index, plan.position.offset)
    if plan.until_ns is not None:
        return state.time_ns > plan.until_ns
    return options.index is not None and at[0] > options.index


async def _is_end(plan: Plan, last: WALSegmentInfo, state: State) -> bool:
    """Whether the last segment ends with the state, by its stamp."""
    if not plan.stamped:
        return False
    key = plan.layout.wal_key(last.generation, last.index, last.offset)
    stamp = await fetch_stamp(plan.store, key, last.size)
    if stamp is None or stamp.pos != last.pos or stamp.required != (state.pos.index, state.pos.offset):
        return False
    first, second = state.checksum
    return stamp.end_checksum == first.to_bytes(4, "big") + second.to_bytes(4, "big")
