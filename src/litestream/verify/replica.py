"""One replica, all of it: what `litestream verify` does."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from litestream.client import Overview, ReplicaClient
from litestream.core.position import Pos
from litestream.errors import (
    DatabaseAbsentError,
    DatabaseError,
    LitestreamError,
    LTXReplicaError,
    NoBackupError,
    NoSnapshotsError,
    RestoreError,
)
from litestream.restore import RestoreOptions, RestoreResult, restore
from litestream.restore.choose import Candidate, newest_first
from litestream.verify.live import Fingerprint, compare, fingerprint_of
from litestream.verify.match import Matcher, wait_for
from litestream.verify.model import Comparison, Problem, Report, Restored
from litestream.verify.objects import Choice, check_generation
from litestream.verify.scratch import check_room, scratch_directory
from litestream.verify.work import Work

_PARALLELISM = 4
_LOOKS = 2
"""States that are restored to be compared with a database whose WAL is empty: the newest one, and a newer one."""


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """How to verify."""

    directory: str
    """Where the scratch files go."""
    generation: str = ""
    """Only this generation; empty: all of them, and the newest is restored."""
    share: float = 1.0
    """Of the objects that no restore of the newest state needs, this many are read."""
    timeout: float = 30.0
    """Seconds to wait for the replica to get to the live database's position."""
    database: str = ""
    """Path of the live database; empty: there is none to compare with."""
    chance: Callable[[], float] = field(default=random.random)


async def verify(name: str, client: ReplicaClient, options: VerifyOptions) -> Report:
    """Find out whether a replica is sound. Every error that is about the replica is in the report.

    Nothing is written but scratch files below `options.directory`, removed in the end. Memory is bounded (about
    120 MB, and five bytes for each page of the database).
    """
    report = Report(name, client.store.url)
    try:
        with scratch_directory(options.directory) as directory:
            async with Work(background=False) as work:
                await _Verification(name, client, options, report, directory, work).run()
    except LitestreamError as error:
        report.note(error)
    return report


@dataclass(slots=True)
class _Verification:
    name: str
    client: ReplicaClient
    options: VerifyOptions
    report: Report
    directory: str
    work: Work
    overview: Overview = field(default_factory=Overview)
    everything: list[Candidate] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    """Those of `everything`, the generation that goes on first, which are looked at."""
    copies: int = 0

    async def run(self) -> None:
        live = await self._read_database()
        await self._survey()
        if not self.candidates:
            self._tell_empty()
            return
        if live is not None and self.candidates[0] is not self.everything[0]:
            self.report.notes.append(f"generation {self.options.generation} is over: not compared with the database")
            live = None
        pos = await self._position(live) if live is not None and live.offset else None
        known = await self._restored(live if pos or (live is not None and not live.offset) else None, pos)
        choice = Choice(known, self.options.share, self.options.chance)
        for candidate in self.candidates:
            self.report.generations.append(await check_generation(candidate, choice, self.directory))
        self._tell_unborn()

    # -- what is there

    async def _survey(self) -> list[Candidate]:
        """List the replica. What has not changed since the last time is not looked at again."""
        self.overview = await self.client.overview()
        seen = {candidate.generation: candidate for candidate in self.everything}
        found = []
        for generation, view in self.overview.items():
            if not view.snapshots:
                continue
            candidate = seen.get(generation)
            if candidate is None or (candidate.snapshots, candidate.segments) != (view.snapshots, view.segments):
                candidate = Candidate(
                    self.name, self.client.store, generation, view.layout, view.snapshots, view.segments
                )
                await candidate.look()
            found.append(candidate)
        self.everything = newest_first(found)
        self.candidates = [c for c in self.everything if self.options.generation in ("", c.generation)]
        return self.candidates

    def _tell_empty(self) -> None:
        if self.overview.has_ltx:
            self.report.note(LTXReplicaError("it is in the LTX format of the official 0.5, which is not read here"))
        elif self.overview:
            self.report.note(NoSnapshotsError("nothing can be restored: there is WAL, but no snapshot"))
        else:
            self.report.note(NoBackupError("nothing can be restored: no matching backups found"))

    def _tell_unborn(self) -> None:
        """Generations without a snapshot: the beginning of a new one, or what retention has left of an old one."""
        newest = max((s.created_at for candidate in self.candidates for s in candidate.segments), default=0.0)
        for generation, view in self.overview.items():
            if view.snapshots or self.options.generation not in ("", generation):
                continue
            if view.segments[-1].created_at > newest:
                self.report.unknown.append(f"generation {generation} is the newest and has no snapshot (yet)")
            else:
                self.report.notes.append(f"generation {generation} has WAL but no snapshot: left over")

    # -- the live database

    async def _read_database(self) -> Fingerprint | None:
        if not self.options.database:
            return None
        try:
            return await self.work.run(fingerprint_of, self.options.database, self.directory, self.work.go_on)
        except DatabaseAbsentError:
            self.report.notes.append("the database is not there: nothing to compare with")
        except (DatabaseError, RestoreError) as error:
            self.report.unknown.append(f"not compared with the database: {error}")
        return None

    async def _position(self, live: Fingerprint) -> Pos | None:
        pos, reason = await wait_for(Matcher(live), self._survey, self.options.timeout)
        if pos is None:
            self.report.unknown.append(f"not compared with the database: {reason}")
        return pos

    # -- the copy

    async def _restored(self, live: Fingerprint | None, pos: Pos | None) -> set[str]:
        """Restore, compare and check. Returns the keys of the objects that were verified by that."""
        try:
            result = await self._restore(pos, live)
        except LitestreamError as error:
            if pos is None or type(error) is not RestoreError:
                self.report.note(error)
                return set()
            # That state cannot be had: retention took the last snapshot before it, or there is no room.
            self.report.unknown.append(f"not compared with the database: {error}")
            return await self._restored(None, None)
        known = {file.key for file in result.files}
        if live is not None:
            result = await self._compare(live, result, loose=pos is None)
        problems = await self.work.integrity_check(result.db_path)
        self.report.restored = Restored(result.pos, result.size, tuple(problems))
        if problems:
            text = " ".join(problems[0].split())
            equal = self.report.comparison is not None and self.report.comparison.equal
            whose = "the database itself is damaged, and so is its copy" if equal else "the restored copy is damaged"
            self.report.failures.append(Problem("", f"SQLite's integrity check: {text} ({whose})"))
        self.report.notes += result.warnings
        return known

    async def _restore(self, pos: Pos | None, live: Fingerprint | None) -> RestoreResult:
        check_room(self.directory, await self._expected_size(live))
        self.copies += 1
        return await restore(
            [(self.name, self.client)],
            os.path.join(self.directory, f"copy-{self.copies}"),
            options=RestoreOptions(
                generation=self.options.generation if pos is None else "",
                position=pos,
                parallelism=_PARALLELISM,
                integrity_check="none",
                scratch=True,
            ),
        )

    async def _expected_size(self, live: Fingerprint | None) -> int:
        if live is not None:
            return live.pages * live.page_size
        newest = self.candidates[0]
        try:
            stamp = await newest.stamp(newest.newest)
        except LitestreamError:
            return 0
        return stamp.db_pages * stamp.page_size if stamp is not None else newest.snapshots[-1].size

    async def _compare(self, live: Fingerprint, result: RestoreResult, *, loose: bool) -> RestoreResult:
        """Compare with the database. `loose`: its WAL is empty, so that no position tells which state it must be."""
        for _ in range(_LOOKS):
            comparison = await self.work.run(compare, live, result.db_path, result.pos, self.work.go_on)
            if not loose or comparison.equal:
                self._tell_compared(comparison)
                return result
            before = self.candidates
            if [c.newest for c in await self._survey()] == [c.newest for c in before]:
                break
            newer = await self._restore(None, live)
            os.unlink(result.db_path)
            result = newer
        self.report.unknown.append(
            "not compared with the database: its WAL is empty, so that its position is not known, and it is not the "
            f"newest state of the replica ({comparison.different} pages differ)"
        )
        return result

    def _tell_compared(self, comparison: Comparison) -> None:
        self.report.comparison = comparison
        if not comparison.equal:
            self.report.note(comparison.error())
