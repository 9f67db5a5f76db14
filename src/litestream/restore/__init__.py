"""Restore: choose a state, fetch its objects, put every page where it belongs, prove the result.

::

    choose   which generation of which replica, which snapshot and segments     one listing, a few stamps
    fetch    several objects at a time, newest first, each verified by itself   segment
    links    each pair of neighbours: lengths, salts, checksums, stamps
    pages    each page written once: WAL newest first, then the snapshot
    output   temporary file, fsync, SQLite's check, rename, fsync of the directory
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from types import ModuleType
from typing import TYPE_CHECKING

from litestream.core.position import Pos
from litestream.core.wal import frame_size
from litestream.errors import (
    CorruptObjectError,
    IntegrityCheckError,
    NotADatabaseError,
    ObjectNotFoundError,
    RestoreError,
)
from litestream.restore.choose import make_plan
from litestream.restore.fetch import Fetcher
from litestream.restore.links import check_neighbours, check_snapshot_point
from litestream.restore.model import (
    IntegrityCheck,
    Plan,
    PlannedObject,
    Progress,
    RestoreOptions,
    RestoreResult,
    with_hint,
)
from litestream.restore.output import Output
from litestream.restore.pages import HEADER_SIZE, PageWriter, database_header
from litestream.sqlite.check import Check

if TYPE_CHECKING:
    from litestream.client import ReplicaClient
    from litestream.restore.segment import Segment

__all__ = ["IntegrityCheck", "PlannedObject", "Progress", "RestoreOptions", "RestoreResult", "restore"]

_log = logging.getLogger("litestream.restore")

_PLANS = 4
"""Times that a plan is made: retention may delete or replace objects between the listing and the fetch."""
_PAUSE = 0.03
"""Seconds, times the number of the attempt, before the next plan."""
_MAX_RATIO = 255
"""LZ4 cannot grow data by more: what all objects together unpack to is bounded before anything is."""


async def restore(
    replicas: Sequence[tuple[str, ReplicaClient]],
    output: str,
    *,
    options: RestoreOptions | None = None,
    progress: Progress | None = None,
) -> RestoreResult:
    """Restore a database to the new file `output` from one of `replicas` (names and clients).

    What succeeds is exactly a committed state, durable under its name; what fails or is cancelled leaves nothing
    behind. Memory is bounded (about 100 MB, and a byte for each page of the database).

    Raises `NoBackupError` if all replicas were read and have nothing that matches, `OutputExistsError`,
    `CorruptObjectError` naming the damaged, missing or foreign object, `IntegrityCheckError`, `RestoreError` for
    limits that no state fits and for a disk that cannot be written, and what the stores raise.
    """
    options = options or RestoreOptions()
    began = time.monotonic()
    target = Output(output, options)
    if not options.dry_run:
        target.check()
    for attempt in range(1, _PLANS + 1):
        plan = None
        try:
            plan = await make_plan(replicas, options)
            if options.dry_run:
                return _planned(plan, target, options, began)
            return await _Run(plan, target, options, progress).result(began)
        except ObjectNotFoundError as error:
            if attempt == _PLANS:
                raise CorruptObjectError("is in the listing, but cannot be read: not found", key=error.key) from error
        except CorruptObjectError as error:
            if attempt == _PLANS or not (await _changed(plan) if plan is not None else attempt == 1):
                raise (with_hint(error, plan.hint) if plan is not None else error) from error.__cause__
        await asyncio.sleep(attempt * _PAUSE)
    raise AssertionError("unreachable")


async def _changed(plan: Plan) -> bool:
    """Whether the store no longer holds what was planned: retention deletes objects, and may replace a snapshot."""
    objects = await plan.store.list(plan.layout.generation_prefix(plan.generation))
    there = {info.key: (info.size, info.modified) for info in objects}
    return any(there.get(planned.key) != (planned.size, planned.created_at) for planned in plan.files())


class _Run:
    """One attempt at one plan."""

    def __init__(self, plan: Plan, target: Output, options: RestoreOptions, progress: Progress | None) -> None:
        self.plan = plan
        self.target = target
        self.options = options
        self.fetcher = Fetcher(plan, target.directory, progress, background=options.scratch)
        self._level = logging.DEBUG if options.scratch else logging.INFO
        snapshot = plan.objects.snapshot
        self.end = Pos(plan.generation, snapshot.index, 0)
        self.time_ns = int(snapshot.created_at * 1e9)
        if plan.snapshot_stamp is not None:
            self.time_ns = plan.snapshot_stamp.last_commit_ns

    async def result(self, began: float) -> RestoreResult:
        """Do it."""
        snapshot = self.plan.objects.snapshot
        _log.log(self._level, "restoring snapshot %s/%08x to %s", snapshot.generation, snapshot.index, self.target.name)
        try:
            with self.target.errors():
                self.target.create()
                writer = await self._write()
                if not self.plan.objects.segments:
                    _log.log(self._level, "no wal files found, snapshot only")
                await self.fetcher.run(self.target.sync)
                await self._check()
                _log.log(self._level, "renaming database from temporary location")
                self.target.publish()
        finally:
            self.fetcher.close()
            self.target.discard()
        assert writer.total is not None  # _write has found out
        return RestoreResult(
            db_path=self.target.path,
            replica=self.plan.replica,
            generation=self.plan.generation,
            snapshot_index=snapshot.index,
            index=self.end.index,
            offset=self.end.offset,
            timestamp_ns=self.time_ns,
            page_size=writer.page_size,
            size=writer.total * writer.page_size,
            fetched=self.fetcher.fetched,
            segments=len(self.plan.objects.segments),
            integrity_check=self.options.integrity_check,
            duration_ms=round((time.monotonic() - began) * 1000),
            files=self.plan.files(),
            warnings=self.plan.warnings,
        )

    async def _write(self) -> PageWriter:
        await self.fetcher.open()
        writer = PageWriter(self.target.fd, self.fetcher.page_size, max_bytes=self.plan.size * _MAX_RATIO)
        await self._apply_wal(writer)
        stamp = self.plan.snapshot_stamp
        if stamp is not None and (self.end.index, self.end.offset) < stamp.required:
            key = self.fetcher.key(self.plan.objects.snapshot)
            needed = Pos(self.plan.generation, *stamp.required)
            raise CorruptObjectError(f"needs the WAL up to {needed}, where no transaction ends", key=key)
        if self.plan.position is not None and self.end != self.plan.position:
            raise RestoreError(f"no transaction ends at {self.plan.position}: the nearest one before at {self.end}")
        await self._apply_snapshot(writer)
        return writer

    async def _apply_wal(self, writer: PageWriter) -> None:
        """Apply the segments newest first. Behind the last commit there may be the beginning of a transaction."""
        plan = self.plan
        newest_first = plan.objects.segments[::-1]
        after: Segment | None = None
        async with aclosing(self.fetcher.segments(newest_first, self.options.parallelism)) as segments:
            async for segment in segments:
                try:
                    self._check_links(segment, after)
                    frames = segment.frames
                    if writer.total is None:
                        frames = segment.committed(self._most(segment))
                        if frames:
                            self._begin(writer, segment, frames)
                    if frames:
                        await self.fetcher.run(writer.apply, segment, frames)
                finally:
                    segment.close()
                after = segment

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
                        head += piece
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
        if 0 < len(head) < HEADER_SIZE or writer.total is None:
            database_header(head, key)  # too short to be one: raises
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


def _planned(plan: Plan, target: Output, options: RestoreOptions, began: float) -> RestoreResult:
    """What a dry run answers."""
    end = plan.objects.target
    return RestoreResult(
        db_path=target.path,
        replica=plan.replica,
        generation=plan.generation,
        snapshot_index=plan.objects.snapshot.index,
        index=end.index,
        offset=end.offset,
        timestamp_ns=None,
        page_size=0,
        size=0,
        fetched=plan.size,
        segments=len(plan.objects.segments),
        integrity_check=options.integrity_check,
        duration_ms=round((time.monotonic() - began) * 1000),
        dry_run=True,
        files=plan.files(),
        warnings=plan.warnings,
    )


class _Callable(ModuleType):
    """The public function is `litestream.restore`, and so is this package: it can be called as well."""

    __call__ = staticmethod(restore)


sys.modules[__name__].__class__ = _Callable
