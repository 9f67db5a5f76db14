"""Restore: choose a state, fetch its objects, put every page where it belongs, prove the result.

::

    choose   which generation of which replica, which snapshot and segments     one listing, a few stamps
    fetch    several objects at a time, newest first, each verified by itself   segment
    links    each pair of neighbours: lengths, salts, checksums, stamps
    pages    each page written once: WAL newest first, then the snapshot
    output   temporary file, fsync, SQLite's check, rename, fsync of the directory

With `resume`, `spool` stands between the stores and all of this. With `update`, `base` is what stands in the place of
the snapshot, and `update` which WAL leads from there on.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from threading import Event
from types import ModuleType
from typing import TYPE_CHECKING

from litestream.errors import CorruptObjectError, ObjectNotFoundError
from litestream.restore.choose import make_plan
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
from litestream.restore.run import Run

if TYPE_CHECKING:
    from litestream.client import ReplicaClient
    from litestream.restore.base import Base
    from litestream.restore.spool import Spool

__all__ = ["IntegrityCheck", "PlannedObject", "Progress", "RestoreOptions", "RestoreResult", "restore"]

_log = logging.getLogger("litestream.restore")

_PLANS = 4
"""Times that a plan is made: retention may delete or replace objects between the listing and the fetch."""
_PAUSE = 0.03
"""Seconds, times the number of the attempt, before the next plan."""


async def restore(
    replicas: Sequence[tuple[str, ReplicaClient]],
    output: str,
    *,
    options: RestoreOptions | None = None,
    progress: Progress | None = None,
) -> RestoreResult:
    """Restore a database to the new file `output` from one of `replicas` (names and clients).

    What succeeds is exactly a committed state, durable under its name; what fails or is cancelled leaves nothing
    behind, but with `resume` what was fetched. Memory is bounded (about 100 MB, and a byte for each page of the
    database).

    Raises `NoBackupError` if all replicas were read and have nothing that matches, `OutputExistsError`,
    `CorruptObjectError` naming the damaged, missing or foreign object, `IntegrityCheckError`, `RestoreError` for
    limits that no state fits and for a disk that cannot be written, and what the stores raise.
    """
    began = time.monotonic()
    work = _Restore(replicas, output, options or RestoreOptions(), progress)
    await work.look()
    if work.options.dry_run:
        return _planned(await work.plan(), work.target, work.options, began)
    work.target.check()
    if not work.options.resume:
        result = await work.result(began)
        work.tell_left()
        return result
    from litestream.restore.spool import opened

    with ExitStack() as stack:
        stack.callback(work.target.discard)  # of directories, if nothing was kept in them
        work.target.make_directory()
        work.spool = stack.enter_context(opened(work.target.path))
        return await work.result(began)


class _Restore:
    """A restore, and what its attempts have in common."""

    def __init__(
        self,
        replicas: Sequence[tuple[str, ReplicaClient]],
        output: str,
        options: RestoreOptions,
        progress: Progress | None,
    ) -> None:
        self.options = options
        self.target = Output(output, options)
        self.spool: Spool | None = None
        self._replicas = replicas
        self._progress = progress
        self._base: Base | None = None
        self._whole = False

    async def look(self) -> None:
        """See what is at the output if it is to be updated. Raises `OutputExistsError` if it must not be replaced."""
        if not self.options.update:
            return
        from litestream.restore import base

        stop = Event()
        try:
            with self.target.errors():
                found = await asyncio.to_thread(base.look, self.target.path, stop)
        finally:
            stop.set()
        if isinstance(found, base.Base):
            self._base = found
            self.target = Output(found.path, replace(self.options, force=True))  # it may be replaced
        elif found is not None and not self.options.force:
            raise base.exists(self.target.path, found)
        elif found is not None:
            self._tell_whole(found)

    async def result(self, began: float) -> RestoreResult:
        """Restore: several attempts if what is stored changes meanwhile, or what an earlier restore kept is damaged."""
        attempt = 0
        replicas = self._replicas if self.spool is None else self.spool.clients(self._replicas)
        while True:
            plan = None
            try:
                plan = await self.plan(replicas)
                if self.spool is not None:
                    self.spool.plan(plan)
                result = await Run(plan, self.target, self.options, self._progress, self._base).result(began)
                return result if self.spool is None else replace(result, fetched=self.spool.fetched)
            except (CorruptObjectError, ObjectNotFoundError) as error:
                if self._another_way(plan, error):
                    continue
                attempt += 1
                await self._give_up(plan, error, attempt)
            await asyncio.sleep(attempt * _PAUSE)

    async def plan(self, replicas: Sequence[tuple[str, ReplicaClient]] | None = None) -> Plan:
        """What to read: the WAL behind the copy that is there, or a snapshot and the WAL behind it."""
        plan = await make_plan(replicas or self._replicas, self.options)
        if self._base is None or self._whole:
            return plan
        from litestream.restore.update import CannotUpdateError, plan_update

        try:
            return await plan_update(plan, self._base.state, self.options)
        except (CannotUpdateError, CorruptObjectError, ObjectNotFoundError) as error:
            self._tell_whole(str(error))
            return plan

    def tell_left(self) -> None:
        """Say where an interrupted restore has left something that this one has not used."""
        if self.options.scratch:
            return
        from litestream.restore.spool import left_behind

        if left := left_behind(self.target.path):
            _log.info("an interrupted restore -resume has left what it fetched: %s can be removed", left)

    def _another_way(self, plan: Plan | None, error: CorruptObjectError | ObjectNotFoundError) -> bool:
        """Whether to go on without what an earlier restore has left: the copy to be updated, or objects."""
        if plan is not None and plan.base is not None:
            self._tell_whole(str(error))
            return True
        return self.spool is not None and isinstance(error, CorruptObjectError) and self.spool.doubt(error.key)

    async def _give_up(self, plan: Plan | None, error: CorruptObjectError | ObjectNotFoundError, attempt: int) -> None:
        """Raise the error, unless another plan may do better."""
        if isinstance(error, ObjectNotFoundError):
            if attempt == _PLANS:
                raise CorruptObjectError("is in the listing, but cannot be read: not found", key=error.key) from error
        elif attempt == _PLANS or not (await _changed(plan) if plan is not None else attempt == 1):
            raise (with_hint(error, plan.hint) if plan is not None else error) from error.__cause__

    def _tell_whole(self, reason: str) -> None:
        """All of it is restored, now and in later attempts."""
        if not self._whole:
            _log.info("cannot update %s, restoring all of it: %s", self.target.name, reason)
        self._whole = True


async def _changed(plan: Plan) -> bool:
    """Whether the store no longer holds what was planned: retention deletes objects, and may replace a snapshot."""
    objects = await plan.store.list(plan.layout.generation_prefix(plan.generation))
    there = {info.key: (info.size, info.modified) for info in objects}
    return any(there.get(planned.key) != (planned.size, planned.created_at) for planned in plan.files())


def _planned(plan: Plan, target: Output, options: RestoreOptions, began: float) -> RestoreResult:
    """What a dry run answers."""
    base, snapshot = plan.base, plan.objects.snapshot
    end = plan.objects.target if base is None or plan.objects.segments else base.pos
    return RestoreResult(
        db_path=target.path,
        replica=plan.replica,
        generation=plan.generation,
        snapshot_index=snapshot.index if base is None else base.snapshot_index,
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
        updated=base is not None,
        files=plan.files(),
        warnings=plan.warnings,
    )


class _Callable(ModuleType):
    """The public function is `litestream.restore`, and so is this package: it can be called as well."""

    __call__ = staticmethod(restore)


sys.modules[__name__].__class__ = _Callable
