"""One attempt at one plan: its WAL newest first, the rest from the snapshot or the copy that is updated."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import aclosing
from threading import Event
from typing import TYPE_CHECKING

from litestream.core.checksum import Checksum
from litestream.core.position import Pos
from litestream.core.wal import frame_size
from litestream.errors import CorruptObjectError, IntegrityCheckError, NotADatabaseError, RestoreError
from litestream.restore import base as base_module
from litestream.restore.base import Base, State
from litestream.restore.fetch import Fetcher
from litestream.restore.links import check_neighbours, check_snapshot_point
from litestream.restore.model import Plan, Progress, RestoreOptions, RestoreResult
from litestream.restore.output import Output
from litestream.restore.pages import HEADER_SIZE, PageWriter, database_header
from litestream.restore.update import ends_within, last_of
from litestream.sqlite.check import Check

if TYPE_CHECKING:
    from litestream.restore.segment import Segment

_log = logging.getLogger("litestream.restore")

_MAX_RATIO = 255
"""LZ4 cannot grow data by more: what all objects together unpack to is bounded before anything is."""


class Run:
    """One attempt at one plan."""

    def __init__(
        self, plan: Plan, target: Output, options: RestoreOptions, progress: Progress | None, base: Base | None = None
    ) -> None:
        """`base` is the copy at the target, whether the plan updates it or replaces it."""
        self.plan = plan
        self.target = target
        self.options = options
        self.fetcher = Fetcher(plan, target.directory, progress, background=options.scratch)
        self._base = base
        self._stop = Event()
        self._level = logging.DEBUG if options.scratch else logging.INFO
        self._joined = False
        self._last: tuple[str, Checksum] = ("", (0, 0))
        snapshot = plan.objects.snapshot
        self.snapshot_index = snapshot.index
        self.end = Pos(plan.generation, snapshot.index, 0)
        self.time_ns = int(snapshot.created_at * 1e9)
        self.page_size = self.size = 0
        if plan.base is not None:
            self.snapshot_index, self.end, self.time_ns = plan.base.snapshot_index, plan.base.pos, plan.base.time_ns
            self.page_size, self.size = plan.base.page_size, plan.base.size
        elif plan.snapshot_stamp is not None:
            self.time_ns = plan.snapshot_stamp.last_commit_ns

    async def result(self, began: float) -> RestoreResult:
        """Do it."""
        self._announce()
        try:
            with self.target.errors():
                if self.plan.files():
                    await self._make()
        finally:
            self._stop.set()
            self.fetcher.close()
            self.target.discard()
        return RestoreResult(
            db_path=self.target.path,
            replica=self.plan.replica,
            generation=self.plan.generation,
            snapshot_index=self.snapshot_index,
            index=self.end.index,
            offset=self.end.offset,
            timestamp_ns=self.time_ns,
            page_size=self.page_size,
            size=self.size,
            fetched=self.fetcher.fetched,
            segments=len(self.plan.objects.segments),
            integrity_check=self.options.integrity_check,
            duration_ms=round((time.monotonic() - began) * 1000),
            updated=self.plan.base is not None,
            files=self.plan.files(),
            warnings=self.plan.warnings,
        )

    def _announce(self) -> None:
        snapshot, base = self.plan.objects.snapshot, self.plan.base
        if base is None:
            what = f"{snapshot.generation}/{snapshot.index:08x}"
            _log.log(self._level, "restoring snapshot %s to %s", what, self.target.name)
        else:
            _log.log(self._level, "updating %s from %s", self.target.name, base.pos)

    async def _make(self) -> None:
        """The file in its new state, under its name."""
        self.target.create()
        writer = await self._write()
        assert writer.total is not None  # _write has found out
        if self.plan.base is not None and self.end == self.plan.base.pos:
            return  # nothing was committed since: the copy stays
        self.page_size, self.size = writer.page_size, writer.total * writer.page_size
        if not self.plan.objects.segments:
            _log.log(self._level, "no wal files found, snapshot only")
        await self.fetcher.run(self.target.sync)
        await self._check()
        await self._publish()

    async def _publish(self) -> None:
        """Give the file its name; around that, note its state if it is to be updated later."""
        state = None
        if self.options.update:
            state = await self._state()
            before = [] if self._base is None else [self._base.state]
            base_module.save(self.target.path, [*before, state])
        if self._base is not None and not self._base.same():
            raise base_module.exists(self.target.path, "somebody has just written to it")
        _log.log(self._level, "renaming database from temporary location")
        self.target.publish()
        if state is not None:
            base_module.save(self.target.path, [state])

    async def _state(self) -> State:
        salts, checksum = self._last
        digest = await self.fetcher.run(base_module.hash_of, self.target.fd, self._stop)
        return State(
            self.end, self.snapshot_index, salts, checksum, self.time_ns, self.page_size, self.size, sha256=digest
        )

    async def _write(self) -> PageWriter:
        writer = await self._open()
        await self._apply_wal(writer)
        stamp = self.plan.snapshot_stamp
        if stamp is not None and (self.end.index, self.end.offset) < stamp.required:
            key = self.fetcher.key(self.plan.objects.snapshot)
            needed = Pos(self.plan.generation, *stamp.required)
            raise CorruptObjectError(f"needs the WAL up to {needed}, where no transaction ends", key=key)
        if self.plan.position is not None and self.end != self.plan.position:
            raise RestoreError(f"no transaction ends at {self.plan.position}: the nearest one before at {self.end}")
        if self.plan.base is None:
            await self._apply_snapshot(writer)
        else:
            self._check_update(writer, self.plan.base)
        return writer

    async def _open(self) -> PageWriter:
        """Who writes the pages; to a copy of what is updated."""
        base, most = self.plan.base, self.plan.size * _MAX_RATIO
        if base is None or self._base is None:
            await self.fetcher.open()
            options = self.options
            reread = options.integrity_check != "none" or options.scratch or options.update
            return PageWriter(self.target.fd, self.fetcher.page_size, max_bytes=most, reread=reread)
        if not await self.fetcher.run(self._base.copy_to, self.target.fd, self._stop):
            raise base_module.exists(self.target.path, "somebody has just written to it")
        self.fetcher.page_size = base.page_size
        return PageWriter(self.target.fd, base.page_size, max_bytes=most + base.size)

    def _check_update(self, writer: PageWriter, base: State) -> None:
        """The WAL that was applied goes on where the copy ends, and together they give every page."""
        key = self.fetcher.key(self.plan.objects.segments[0])
        if base.pos.offset and not self._joined:
            raise CorruptObjectError(f"does not go up to {base.pos}, where the copy ends", key=key)
        if writer.total is None:
            raise CorruptObjectError(f"no transaction ends behind {base.pos}", key=key)
        self._check_whole(writer, base.size, key)

    async def _apply_wal(self, writer: PageWriter) -> None:
        """Apply the segments newest first. Behind the last commit there may be the beginning of a transaction."""
        plan = self.plan
        newest_first = plan.objects.segments[::-1]
        after: Segment | None = None
        async with aclosing(self.fetcher.segments(newest_first, self.options.parallelism)) as groups:
            async for group in groups:
                try:
                    await self._apply_group(writer, group, after)
                finally:
                    for segment in group:
                        segment.close()
                after = group[-1] if group else after

    async def _apply_group(self, writer: PageWriter, group: list[Segment], after: Segment | None) -> None:
        """Apply segments, newest first; `after` is the one before them."""
        wanted = []
        for segment in group:
            self._check_links(segment, after)
            after, frames = segment, segment.frames
            if writer.total is None:
                frames = segment.committed(self._most(segment))
                if frames:
                    self._begin(writer, segment, frames)
            if frames:
                wanted.append((segment, frames))
        if wanted:
            await self.fetcher.run(_apply, writer, wanted)

    def _most(self, segment: Segment) -> int | None:
        """How many frames of a segment stand before the position that is asked for; None: all may be taken."""
        position = self.plan.position
        if position is None or segment.info.index != position.index:
            return None
        return segment.frames_until(position.offset)

    def _check_links(self, segment: Segment, after: Segment | None) -> None:
        plan, until = self.plan, self.plan.until_ns
        if after is not None:
            check_neighbours(segment, after, plan.layout)
        if plan.base is not None:
            self._joined |= ends_within(segment, plan.base)
        if plan.snapshot_stamp is not None:
            check_snapshot_point(plan.snapshot_stamp, self.fetcher.key(plan.objects.snapshot), segment)
        if until is not None and segment.stamp is not None and segment.stamp.last_commit_ns > until:
            raise RestoreError(
                f"cannot restore to a timestamp: commit times go back before {segment.key} (the clock was set); "
                "use -index"
            )

    def _begin(self, writer: PageWriter, segment: Segment, frames: int) -> None:
        """The last commit is found: it tells the size of the database, and where the restored state ends."""
        writer.begin(segment.frame(frames - 1).commit, segment.key)
        uncommitted = (segment.frames - frames) * frame_size(writer.page_size)
        self.end = Pos(self.plan.generation, segment.info.index, segment.end_offset - uncommitted)
        self._last = last_of(segment, frames)
        if segment.stamp is not None:
            self.time_ns = segment.stamp.last_commit_ns
        else:
            self.time_ns = int(segment.info.created_at * 1e9)

    async def _apply_snapshot(self, writer: PageWriter) -> None:
        """Stream the snapshot over what no frame has given; the write of one piece goes on beside the next one."""
        info = self.plan.objects.snapshot
        key = self.fetcher.key(info)
        size, head = 0, b""
        writing: asyncio.Future[None] | None = None
        async with aclosing(self.fetcher.snapshot()) as pieces:
            try:
                async for piece in pieces:
                    if len(head) < HEADER_SIZE:
                        head += bytes(piece)
                        if len(head) < HEADER_SIZE:
                            continue
                        await self._check_header(writer, head, key)
                        piece, size = head, 0
                    if writing is not None:
                        await writing
                    writing = asyncio.ensure_future(self.fetcher.run(writer.fill, size, piece))
                    size += len(piece)
                if writing is not None:
                    await writing
            finally:
                if writing is not None:
                    await asyncio.gather(writing, return_exceptions=True)
                writer.close()
        if 0 < len(head) < HEADER_SIZE or writer.total is None:
            database_header(head, key)  # too short to be one: raises
        self._check_whole(writer, size, key)

    def _check_whole(self, writer: PageWriter, size: int, key: str) -> None:
        """Every page was given by a frame, or by what has `size` bytes; and the first one says what it should."""
        missing = writer.missing(size)
        if missing:
            raise CorruptObjectError(f"page {missing} is neither in the snapshot nor in the WAL after it", key=key)
        page_size, _ = database_header(os.pread(writer.fd, HEADER_SIZE, 0), key)
        if page_size != writer.page_size:
            raise CorruptObjectError(f"its WAL makes a database of page size {page_size} of it", key=key)

    async def _check_header(self, writer: PageWriter, head: bytes, key: str) -> None:
        """The snapshot is a database of the WAL's page size. Where there is no WAL, its header tells the size."""
        page_size, pages = database_header(head, key)
        if page_size != writer.page_size:
            raise CorruptObjectError(f"a database of page size {page_size}, others say {writer.page_size}", key=key)
        if writer.total is None:
            writer.begin(pages or await self._snapshot_length() // page_size, key)

    async def _snapshot_length(self) -> int:
        """Bytes of the snapshot's content; without a stamp it has to be unpacked to tell."""
        stamp = self.plan.snapshot_stamp
        if stamp is not None:
            return stamp.length
        async with aclosing(self.fetcher.snapshot()) as pieces:
            return sum([len(piece) async for piece in pieces])

    async def _check(self) -> None:
        """SQLite's own check, unless it was switched off."""
        wanted = self.options.integrity_check
        if wanted == "none":
            return
        check = Check(self.target.temp, full=wanted == "full")
        try:
            problems = await self.fetcher.run(check.run)
        except NotADatabaseError:
            problems = ["not a SQLite database"]
        except asyncio.CancelledError:
            check.stop()
            raise
        if problems:
            raise IntegrityCheckError(
                f"the restored database fails SQLite's {wanted} check: {' '.join(problems[0].split())} (the source "
                "itself may be damaged: -integrity-check none restores it as it is)"
            )


def _apply(writer: PageWriter, wanted: list[tuple[Segment, int]]) -> None:
    for segment, frames in wanted:
        writer.apply(segment, frames)
