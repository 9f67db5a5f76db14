"""Every object of one generation: by itself, and with its neighbours.

Read one after the other, a few ahead, in bounded memory. What a restore has read and verified already is not read a
second time (`known`); with a share of less than one, chance decides what else is read. Names are always looked at.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

from litestream.core.layout import WALName
from litestream.core.plan import RestorePlan, check_follows
from litestream.core.position import Pos, SnapshotInfo, WALSegmentInfo
from litestream.core.stamp import Stamp
from litestream.errors import CorruptObjectError, EncryptionError, LitestreamError, ObjectNotFoundError
from litestream.restore.choose import Candidate
from litestream.restore.fetch import Fetcher
from litestream.restore.links import check_neighbours, check_snapshot_point, check_stamp
from litestream.restore.model import Plan
from litestream.restore.pages import HEADER_SIZE, database_header
from litestream.restore.segment import Segment
from litestream.verify.model import GenerationReport, Problem
from litestream.verify.spans import Link, chain_of, end_of, spans_of

Info = SnapshotInfo | WALSegmentInfo

_AHEAD = 3
"""Segments fetched at a time; each takes about 10 MB."""
_ROUNDS = 3
"""Times that a generation is looked at: retention and uploads go on while it is."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which objects are read."""

    known: Collection[str] = ()
    """Keys of objects that are verified already."""
    share: float = 1.0
    """Of the others, this many."""
    chance: Callable[[], float] = random.random

    def wants(self, key: str) -> bool:
        return key not in self.known and (self.share >= 1 or self.chance() < self.share)


async def check_generation(candidate: Candidate, choice: Choice, directory: str) -> GenerationReport:
    """Look at a generation; spooled data goes to `directory`. A problem is only told if it is still there afterwards.

    Raises what a store raises if it cannot be listed; an object that cannot be read is `unreadable`.
    """
    for left in range(_ROUNDS - 1, -1, -1):
        report = await _Checker(candidate, choice, directory).run()
        if not left or not report.problems:
            return report
        changed = await _listed_again(candidate)
        if changed is None:
            return report
        candidate = changed
    raise AssertionError("unreachable")


async def _listed_again(candidate: Candidate) -> Candidate | None:
    """The generation as it is listed now; None if nothing was deleted, replaced or added."""
    objects = await candidate.store.list(candidate.layout.generation_prefix(candidate.generation))
    now = {info.key: info for info in objects if candidate.layout.parse(info.key) is not None}
    infos: list[Info] = [*candidate.snapshots, *candidate.segments]
    before = {candidate.key(info): (info.size, info.created_at) for info in infos}
    if {key: (info.size, info.modified) for key, info in now.items()} == before:
        return None
    snapshots: list[SnapshotInfo] = []
    segments: list[WALSegmentInfo] = []
    for key in sorted(now):
        name, info = candidate.layout.parse(key), now[key]
        if isinstance(name, WALName):
            segments.append(WALSegmentInfo(name.generation, name.index, name.offset, info.size, info.modified))
        elif name is not None:
            snapshots.append(SnapshotInfo(name.generation, name.index, info.size, info.modified))
    segments.sort(key=lambda segment: (segment.index, segment.offset))
    snapshots.sort(key=lambda snapshot: snapshot.index)
    return dataclasses.replace(candidate, snapshots=snapshots, segments=segments, _stamps={})


@dataclass(slots=True)
class _Checker:
    """One look at one generation."""

    candidate: Candidate
    choice: Choice
    directory: str
    report: GenerationReport = field(init=False)
    stamps: dict[Info, Stamp | None] = field(default_factory=dict)
    """What is known of stamps; an object that is not in it was not looked at."""
    bad: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        infos: list[Info] = [*self.candidate.snapshots, *self.candidate.segments]
        self.report = GenerationReport(self.candidate.generation, len(infos), size=sum(info.size for info in infos))

    async def run(self) -> GenerationReport:
        snapshots, segments = self.candidate.snapshots, self.candidate.segments
        ends: list[Info] = [*snapshots, *segments[:1], *segments[-1:]]
        for end in ends:
            await self._look_at_stamp(end)
        stamped = any(stamp is not None for stamp in self.stamps.values()) or bool(self.report.problems)
        for looked_at, stamp in list(self.stamps.items()):
            check = partial(check_stamp, looked_at, stamp, self._key(looked_at), stamped=stamped)
            self._prove(looked_at, check)
        for info in snapshots:
            if self.choice.wants(self._key(info)) and self._key(info) not in self.bad:
                await self._read_snapshot(info)
        links = await self._read_segments(segments, stamped)
        self.report.checked = len(self.read | self._already_known())
        sound = [info for info in snapshots if self._key(info) not in self.bad]
        self.report.spans = spans_of(sound, links, self.stamps)
        self._check_reach(sound, links)
        return self.report

    def _already_known(self) -> set[str]:
        infos: list[Info] = [*self.candidate.snapshots, *self.candidate.segments]
        return {self._key(info) for info in infos} & set(self.choice.known)

    # -- problems

    def _key(self, info: Info) -> str:
        return self.candidate.key(info)

    def _prove(self, info: Info, check: Callable[[], None]) -> bool:
        """Whether `check` finds nothing wrong."""
        try:
            check()
        except CorruptObjectError as error:
            self._problem(info, error)
            return False
        return True

    def _problem(self, info: Info, error: LitestreamError) -> None:
        """File what is wrong with an object, once for each."""
        key = getattr(error, "key", "") or self._key(info)
        self.bad.add(self._key(info))
        if isinstance(error, CorruptObjectError) and not isinstance(error, EncryptionError):
            found, reason = self.report.problems, error.reason
        elif isinstance(error, ObjectNotFoundError):
            found, reason = self.report.problems, "is in the listing, but cannot be read: not found"
        else:
            found, reason = self.report.unreadable, str(error)
        if all(problem.key != key for problem in found):
            found.append(Problem(key, reason))

    # -- stamps

    async def _look_at_stamp(self, info: Info) -> None:
        if info in self.stamps:
            return
        try:
            self.stamps[info] = await self.candidate.stamp(info)
        except LitestreamError as error:
            self._problem(info, error)

    # -- snapshots

    async def _read_snapshot(self, info: SnapshotInfo) -> None:
        """Read one to its end: frame, stamp, hash and length; and it is a database of whole pages."""
        fetcher = Fetcher(self._plan(info, self.stamps.get(info)), self.directory, None)
        key, size, head = self._key(info), 0, b""
        try:
            async with aclosing(fetcher.snapshot()) as pieces:
                async for piece in pieces:
                    size += len(piece)
                    if len(head) < HEADER_SIZE:
                        head += bytes(piece[:HEADER_SIZE])
            page_size, _ = database_header(head, key) if head else (1, 0)
            if size % page_size:
                raise CorruptObjectError(f"{size} bytes are no whole pages of {page_size}", key=key)
            self.read.add(key)
        except LitestreamError as error:
            self._problem(info, error)
        finally:
            fetcher.close()

    def _plan(self, snapshot: SnapshotInfo, stamp: Stamp | None) -> Plan:
        c = self.candidate
        return Plan(c.replica, c.store, c.layout, RestorePlan(snapshot, ()), stamp)

    # -- segments

    async def _read_segments(self, segments: Sequence[WALSegmentInfo], stamped: bool) -> list[Link]:
        """Read what is wanted of them in order; each becomes a link of the chain, joined to the one before or not."""
        first = self.candidate.snapshots[0].index if self.candidate.snapshots else None
        links: list[Link] = []
        before: Segment | None = None
        try:
            async with aclosing(self._loaded(segments, stamped)) as loaded:
                async for info, segment in loaded:
                    joined = self._check_names(links[-1].info if links else None, info, first)
                    if joined and links:
                        joined = await self._check_joint(links[-1].info, before, info, segment)
                    if segment is not None:
                        self.read.add(self._key(info))
                        self.stamps[info] = segment.stamp
                        self._check_points(segment)
                    if before is not None:
                        before.close()
                    before = segment
                    end = info.offset + segment.length if segment is not None else None
                    links.append(Link(info, self._key(info) not in self.bad, joined, end))
        finally:
            if before is not None:
                before.close()
        return links

    async def _loaded(
        self, segments: Sequence[WALSegmentInfo], stamped: bool
    ) -> AsyncGenerator[tuple[WALSegmentInfo, Segment | None]]:
        """Each segment with its content, or None where it is not read or not sound."""
        fetcher = await self._fetcher(stamped)
        waiting: deque[tuple[WALSegmentInfo, asyncio.Task[Segment] | None]] = deque()
        left = deque(segments)
        try:
            while left or waiting:
                while left and len(waiting) < _AHEAD:
                    info = left.popleft()
                    # Without stamps only the content of the last one tells where the history ends.
                    wanted = self.choice.wants(self._key(info)) or (not stamped and not left)
                    wanted = wanted and self._key(info) not in self.bad
                    waiting.append((info, asyncio.create_task(fetcher.load(info)) if wanted and fetcher else None))
                info, task = waiting[0]
                segment = None
                try:
                    segment = await task if task is not None else None
                except LitestreamError as error:
                    self._problem(info, error)
                waiting.popleft()
                yield info, segment
        finally:
            tasks = [task for _, task in waiting if task is not None]
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Segment):
                    outcome.close()
            if fetcher is not None:
                await fetcher.settle()
                fetcher.close()

    async def _fetcher(self, stamped: bool) -> Fetcher | None:
        """What loads segments: it has to know the page size, and whether stamps must be there."""
        known = [stamp for stamp in self.stamps.values() if stamp is not None]
        snapshots = self.candidate.snapshots or [SnapshotInfo(self.candidate.generation, 0, 0, 0.0)]
        if known:
            fetcher = Fetcher(self._plan(snapshots[0], known[0]), self.directory, None)
            fetcher.page_size = known[0].page_size
            return fetcher
        for snapshot in snapshots if not stamped else ():
            fetcher = Fetcher(self._plan(snapshot, None), self.directory, None)
            try:
                await fetcher.open()
            except LitestreamError as error:
                fetcher.close()
                if self.candidate.snapshots:
                    self._problem(snapshot, error)
            else:
                return fetcher
        return None  # no snapshot tells what its pages are: nothing of this generation can be restored

    # -- neighbours

    def _check_names(self, before: WALSegmentInfo | None, info: WALSegmentInfo, first: int | None) -> bool:
        """Whether names alone say that nothing is missing between two; before the first snapshot it does not matter."""
        index = before.index if before is not None else (first if first is not None else info.index) - 1
        if first is None or info.index < first or (before is not None and before.index == info.index):
            return True
        if before is None or before.index < first:
            index = first - 1
        if info.index == index + 1 and info.offset == 0:
            return True
        missing = WALSegmentInfo(info.generation, index + 1, 0, 0, 0.0)
        text = "missing initial wal segment" if info.index == index + 1 else "missing WAL index"
        self._missing(CorruptObjectError(f"{text}: {missing.pos}", key=self._key(missing)))
        return False

    def _missing(self, error: CorruptObjectError) -> None:
        if all(problem.key != error.key for problem in self.report.problems):
            self.report.problems.append(Problem(error.key, error.reason))

    async def _check_joint(
        self, left: WALSegmentInfo, before: Segment | None, right: WALSegmentInfo, segment: Segment | None
    ) -> bool:
        """Whether one follows the other, by contents or, where one of the two is not read, by stamps."""
        if self._key(left) in self.bad or self._key(right) in self.bad:
            return False
        try:
            if before is not None and segment is not None:
                check_neighbours(before, segment, self.candidate.layout)
            elif before is not None or segment is not None:
                await self._look_at_stamp(left)
                await self._look_at_stamp(right)
                one, two = self.stamps.get(left), self.stamps.get(right)
                if one is not None and two is not None:
                    check_follows(one, two, self._key(right), self.candidate.layout)
        except CorruptObjectError as error:
            if error.key == self._key(right):
                self._problem(right, error)
            else:
                self._missing(error)
            return False
        return True

    def _check_points(self, segment: Segment) -> None:
        """The WAL that a snapshot was taken over is this one."""
        for info in self.candidate.snapshots:
            stamp = self.stamps.get(info)
            if stamp is not None and stamp.required[0] == segment.info.index:
                self._prove(info, partial(check_snapshot_point, stamp, self._key(info), segment))

    def _check_reach(self, snapshots: Sequence[SnapshotInfo], links: Sequence[Link]) -> None:
        """Each snapshot has the WAL without which it is no committed state, unless what is missing is named already."""
        for info in snapshots:
            stamp, chain = self.stamps.get(info), chain_of(info, links)
            if stamp is None or self.report.problems or self.report.unreadable:
                continue
            end = end_of(chain[-1], self.stamps) if chain else Pos(info.generation, info.index, 0)
            needed = Pos(info.generation, *stamp.required)
            if end < needed:
                key = self.candidate.layout.wal_key(end.generation, end.index, end.offset)
                text = f"missing WAL segment: the snapshot {self._key(info)} needs the WAL up to {needed}"
                self._missing(CorruptObjectError(text, key=key))
