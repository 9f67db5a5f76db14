"""Which position of a replica a live database stands at, and whether the replica has it yet.

A WAL is known by its two salts, which are chosen anew whenever it starts over; the offset in it says the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from litestream.core.position import Pos, WALSegmentInfo
from litestream.core.wal import WAL_HEADER_SIZE, WALHeader
from litestream.errors import CorruptObjectError
from litestream.restore.choose import Candidate
from litestream.storage.reading import closing
from litestream.streams import ObjectReader
from litestream.verify.live import Fingerprint

_GENERATIONS = 2
"""How many of the newest are searched: the one that goes on, and the one before it."""
_INDEXES = 64
"""How many of the last indexes of each: a live database is at the last, or a few that came while it was read."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


@dataclass(slots=True)
class Matcher:
    """Looks for the position of one fingerprint, as often as needed. Objects never change: each is read once."""

    found: Fingerprint
    _salts: dict[str, bytes] = field(default_factory=dict)
    _lengths: dict[str, int] = field(default_factory=dict)

    async def look(self, candidates: Sequence[Candidate]) -> tuple[Pos | None, bool]:
        """The position (None: no WAL there is the database's), and whether the replica has all of it.

        `candidates` are the generations, the one that goes on first.
        """
        for candidate in candidates[:_GENERATIONS]:
            starts = [segment for segment in candidate.segments if segment.offset == 0]
            for start in reversed(starts[-_INDEXES:]):
                if await self._salts_of(candidate, start) == self.found.salts:
                    pos = Pos(candidate.generation, start.index, self.found.offset)
                    return pos, await self._reaches(candidate, pos)
        return None, False

    async def _salts_of(self, candidate: Candidate, start: WALSegmentInfo) -> bytes:
        key = candidate.key(start)
        if key not in self._salts:
            stamp = None
            try:
                stamp = await candidate.stamp(start)
                header = stamp.wal_header if stamp is not None else await _head(candidate, key)
                self._salts[key] = WALHeader.parse(header).salts
            except CorruptObjectError:
                self._salts[key] = b""  # told by whoever checks the objects
        return self._salts[key]

    async def _reaches(self, candidate: Candidate, pos: Pos) -> bool:
        if any(segment.index > pos.index for segment in candidate.segments):
            return True
        last = [s for s in candidate.segments if s.index == pos.index][-1]
        if last.offset >= pos.offset:
            return True
        try:
            stamp = await candidate.stamp(last)
        except CorruptObjectError:
            return True  # as far as it goes; the restore will name it
        if stamp is not None:
            return stamp.required[1] >= pos.offset
        key = candidate.key(last)
        if key not in self._lengths:
            self._lengths[key] = await _length(candidate, key)
        return last.offset + self._lengths[key] >= pos.offset


async def wait_for(
    matcher: Matcher, survey: Callable[[], Awaitable[Sequence[Candidate]]], timeout: float
) -> tuple[Pos | None, str]:
    """The position once the replica has it; or None, and why not. `survey` lists the generations."""
    deadline, pause = time.monotonic() + timeout, _FIRST_PAUSE
    while True:
        pos, there = await matcher.look(await survey())
        if there:
            return pos, ""
        left = deadline - time.monotonic()
        if left <= 0:
            break
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE)
    if pos is None:
        return None, "no WAL in the replica is the one that the database has now"
    return None, f"the replica did not get to {pos}"


async def _head(candidate: Candidate, key: str) -> bytes:
    """The first bytes of a segment's content. They prove nothing."""
    reader = ObjectReader(key=key)
    head = b""
    async with closing(candidate.store.get(key)) as stream:
        async for chunk in stream:
            for piece in reader.feed(chunk):
                head += piece[:WAL_HEADER_SIZE]
                if len(head) >= WAL_HEADER_SIZE:
                    return head[:WAL_HEADER_SIZE]
    return head


async def _length(candidate: Candidate, key: str) -> int:
    """Bytes of a segment's content, by unpacking it; 0 if it is damaged."""
    reader = ObjectReader(key=key)
    try:
        async with closing(candidate.store.get(key)) as stream:
            async for chunk in stream:
                for _ in reader.feed(chunk):
                    pass
        reader.finish()
    except CorruptObjectError:
        return 0
    return reader.length
