"""The task of one database: from a changed file to copied frames, and from those to its replicas.

When something changes, frames are copied at once if a replica may upload at once, and otherwise when one may, or with
the next overlap, whichever is first. Readers overlap within 100 ms of any change, because a checkpoint of the
application may be waiting for ours. At rest nothing runs here, not even a timer: the watcher's sweep looks once a
second whether something happened that no event told of.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence

from litestream.daemon.hashing import Hashing
from litestream.daemon.watcher import Watcher
from litestream.db.capture import SEGMENT_LIMIT
from litestream.db.db import DB
from litestream.descriptors import ROOM, SHORTAGE
from litestream.errors import (
    DatabaseAbsentError,
    DatabaseBusyError,
    DatabaseHeldError,
    LitestreamError,
    NoGenerationError,
)
from litestream.replica import Replica
from litestream.replica.log import Repeats

OVERLAP_DELAY = 0.1
"""Seconds from a change to the overlap."""

OVERLAP_LATEST = 1.0
"""Seconds for which overlaps are put off while a writer is at work and nobody waits for one: each makes durable what is
not uploaded yet, and is followed by a checkpoint."""

SWEEP_INTERVAL = 1.0
"""Seconds between looks at a database that reports nothing."""

_LOOK_AGAIN = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
"""Seconds between looks after a change: frames are written, perhaps fsynced, and only then published as committed."""

_MUCH = SEGMENT_LIMIT // 8
"""Bytes that are not copied yet from which on a writer is taken to be busy."""

_COPY_BESIDE = 0.02
"""Seconds between looks at what is to be copied while a checkpoint runs."""

_BUSY_FOR_LONG = 5.0
"""Seconds for which overlaps may be put off before it is said: a lock of another program is mostly gone by then."""

_TAKEOVER_LOOK = 0.1
"""Seconds between looks whether the process that has the database has ended."""

_TRIM_AFTER = 10.0

_SELDOM_AFTER = 3.0
"""Seconds without a change after which a database is at rest."""

_FIRST_UPLOAD = 1.0
"""Seconds for which a database that has just attached keeps others from it, at most, while it uploads."""

_SELDOM = 30.0
"""Seconds between looks at a database at which nothing happens, where events tell of all that does."""

_FAREWELL = 30.0
"""Seconds for which a database whose file was deleted is kept, so that what was committed to it is uploaded."""


class DatabaseTask:
    """Runs one database and its replicas until cancelled."""

    def __init__(
        self,
        db: DB,
        replicas: Sequence[Replica],
        watcher: Watcher,
        *,
        logger: logging.Logger | logging.LoggerAdapter[logging.Logger] | None = None,
        sweep_interval: float = SWEEP_INTERVAL,
        starts: asyncio.Semaphore | None = None,
        takeover: bool = False,
    ) -> None:
        """`starts` bounds how many databases attach at the same time. `takeover`: while another litestream replicates
        the database, its end is waited for as part of the first try."""
        self.db = db
        self.replicas = list(replicas)
        self.error: Exception | None = None
        """Why the database is not replicating now; None while it is."""
        self._watcher = watcher
        self._logger = logger or logging.getLogger("litestream.db")
        self._sweep_interval = sweep_interval
        self._starts = starts or asyncio.Semaphore()
        self._takeover = takeover
        self._changed = asyncio.Event()
        self._starting = asyncio.Lock()
        self._started = False  # whether replicas that are added are to be started
        self._at_rest = False
        self._has_room = False
        self._swept = False  # woken by the sweep, and by no event
        self._gone_since = 0.0
        self._tried = asyncio.Event()
        self._repeats = Repeats()
        self._hashing = Hashing(db, self._logger)
        self._quiet_since = time.monotonic()
        self._seldom = False  # looked at seldom: it is quiet, and events have told of everything
        self._told_of_all = True  # no sweep has found yet what no event had told of
        self._busy_since = 0.0  # since when every overlap was put off; 0: the last one was not

    async def run(self) -> None:
        """Attach (waiting for the database if need be), replicate, and retry whatever fails. Ends when cancelled."""
        self._watcher.add(self.db.real_path, self._on_change, self._on_sweep, self._sweep_interval)
        first: asyncio.Task[None] | None = None
        try:
            await self._attach()
            first = asyncio.create_task(self._leave_room(), name=f"first upload of {self.db.path}")
            async with self._starting:
                self._started = True
                await asyncio.gather(*(replica.start() for replica in self.replicas))
            while True:
                try:
                    await self._follow()
                except LitestreamError as error:
                    await self._failed(error)
        finally:
            if first is not None:
                first.cancel()
            self._hashing.cancel()
            if self._has_room:
                self._has_room = False
                ROOM.leave()
            self._watcher.remove(self.db.real_path)

    async def exchange(
        self, replicas: Sequence[Replica], sweep_interval: float, exchanged: Callable[[], None] = lambda: None
    ) -> None:
        """Replicate to these from now on: what both lists have is not disturbed, what is left out is closed.

        The database stays open all the while, so that its generation goes on. `exchanged` is called in the moment in
        which `replicas` changes.
        """
        async with self._starting:
            before, self.replicas = self.replicas, list(replicas)
            exchanged()
            for replica in before:
                if replica not in self.replicas:
                    await self._dismiss(replica)  # to the end: it gives back the lease that the next one takes
            if self._started:
                await asyncio.gather(*(replica.start() for replica in self.replicas if replica not in before))
            if sweep_interval != self._sweep_interval:
                self._sweep_interval = sweep_interval
                self._watcher.add(self.db.real_path, self._on_change, self._on_sweep, sweep_interval)
        self._changed.set()

    async def _dismiss(self, replica: Replica) -> None:
        await replica.stop()
        self.db.acknowledge(replica.name, None)
        try:
            await replica.close()
        except LitestreamError as error:
            fields = {"db": self.db.path, "replica": replica.name, "error": str(error)}
            self._logger.warning("cannot close the replica", extra={"fields": fields})

    def replica(self, name: str) -> Replica | None:
        """The replica of that name, if there is one."""
        return next((replica for replica in self.replicas if replica.name == name), None)

    def all_durable(self) -> bool:
        """Whether every replica has all that was ever copied, also when the files are closed.

        False if this process never copied anything: the local state may be that of another one, which still needs it.
        """
        return not self.db.copied.is_zero and all(replica.durable == self.db.copied for replica in self.replicas)

    def settled(self) -> bool:
        """Whether everything that is committed is in every replica, as far as can be told without waiting for anybody.

        Raises `DatabaseError` if the files cannot be looked at. For any thread.
        """
        # The position is read after the look: what is copied in between is not yet in the replicas.
        return self.db.all_copied() and all(replica.up_to_date for replica in self.replicas)

    def held(self) -> DatabaseHeldError | None:
        """The error that names the other process that replicates the database; None if there is none."""
        return self.error if isinstance(self.error, DatabaseHeldError) else None

    async def tried(self) -> None:
        """Return once the database was attached, or could not be at the first try."""
        await self._tried.wait()

    # -- inside

    def _on_change(self) -> None:
        self.db.noticed()
        self._swept, self._told_of_all = False, True
        if self._seldom:
            self._seldom = False
            self._watcher.hasten(self.db.real_path, self._sweep_interval)
        self._changed.set()

    def _on_sweep(self) -> float:
        """Look for what no event announced: a replaced file, a missed event, a checkpoint that is due. Returns the
        seconds until the next look."""
        self._seldom = False
        if not any(replica.durable.is_zero for replica in self.replicas):  # the first snapshot comes first
            self._hashing.look(time.monotonic() - self._quiet_since)
        if not self._at_rest or self._changed.is_set():
            return self._look_again()
        try:
            wanted = self.db.needs_maintenance()
        except LitestreamError:
            wanted = True  # whoever is woken meets it too, and says so
        if wanted:
            # Nothing told of it: on this file system looks are all there is.
            self._told_of_all = self._told_of_all and (self.error is not None or not self.db.at_rest)
            self._swept = True
            self._changed.set()
        elif (quiet := time.monotonic() - self._quiet_since) > _SELDOM_AFTER:
            self._seldom = self._told_of_all and self._watcher.complete and not self.db.wants_hashing
            if quiet > _TRIM_AFTER:
                self.db.trim()
            elif self._seldom:
                return max(_TRIM_AFTER, self._sweep_interval)
        return max(_SELDOM, self._sweep_interval) if self._seldom else self._look_again()

    def _look_again(self) -> float:
        """Seconds between two looks in busy times; where events tell of everything, more would find nothing."""
        told = self._told_of_all and self._watcher.complete
        return max(SWEEP_INTERVAL, self._sweep_interval) if told else self._sweep_interval

    @property
    def rests(self) -> bool:
        """Whether nothing is under way, and a change or the next sweep will be acted upon."""
        return self._at_rest and not self._changed.is_set()

    async def _attach(self) -> None:
        delay = 0.01
        while True:
            try:
                await self._start()
            except DatabaseHeldError as error:
                self._report(error)
                if self._takeover:
                    await self._until_let_go(error)
                    continue
            except LitestreamError as error:
                self._report(error)
            except BaseException:
                self._tried.set()
                raise
            else:
                self._recovered()
                self._tried.set()
                return
            self._tried.set()
            self._changed.clear()
            if delay < self._sweep_interval:
                await self._wait(delay)
                self._watcher.refresh(self.db.real_path)
                delay *= 2
            else:
                await self._rest()

    async def _start(self) -> None:
        """Try to attach, when it is this database's turn, which `_leave_room` gives on after a success."""
        await self._starts.acquire()
        try:
            ROOM.enter()
            try:
                await self.db.call(self.db.sync_now)
            except BaseException:
                ROOM.leave()
                raise
        except BaseException:
            self._starts.release()
            raise
        self._has_room = True

    async def _leave_room(self) -> None:
        """Let others attach once the first uploads have ended: a thousand snapshots at a time are a lot of memory.

        A store that is slow, or away, holds nobody up for long.
        """
        try:
            until = time.monotonic() + _FIRST_UPLOAD
            while time.monotonic() < until:
                if not any(replica.durable.is_zero and replica.error is None for replica in self.replicas):
                    return
                await asyncio.sleep(0.02)
        finally:
            self._starts.release()

    async def _until_let_go(self, error: DatabaseHeldError) -> None:
        """Wait until the process that replicates the database has let go. A lock tells nobody that it is free."""
        fields = {"db": self.db.path, "process": error.pid}
        self._logger.info("waiting for the end of the other litestream", extra={"fields": fields})
        while True:
            await asyncio.sleep(_TAKEOVER_LOOK)
            try:
                self.db.claim()
            except DatabaseHeldError:
                continue
            except LitestreamError:
                pass  # the next attempt meets it too, and says so
            self._logger.info("taking over", extra={"fields": fields})
            return

    async def _follow(self) -> None:
        """One round: wait for a change or the sweep, copy, overlap."""
        await self._rest()
        self._changed.clear()
        if self._swept:
            await self._maintain()
            return
        begun = time.monotonic()
        overlap_at = begun + OVERLAP_DELAY
        looks, calm = 0, True
        while (now := time.monotonic()) < overlap_at:
            due = self._due(now)
            if due and self.db.compact and now - begun >= OVERLAP_DELAY:
                break  # what has waited so long is one batch with what the overlap would copy
            if due:
                before = self.db.pos()
                try:
                    await self.db.sync()
                except DatabaseBusyError:
                    break  # a writer died between two words of the wal-index: the overlap's new reader repairs it
                if self.db.lost:
                    break
                looks = 0 if self.db.pos() != before else looks + 1
            pause = _LOOK_AGAIN[min(looks, len(_LOOK_AGAIN) - 1)] if due and looks else overlap_at - now
            next_due = min((replica.due_at() for replica in self.replicas), default=overlap_at)
            if next_due > now:
                pause = min(pause, next_due - now)
            pause = min(pause, max(0.0, overlap_at - time.monotonic()))
            if due:
                await self._wait(pause)
            else:
                await asyncio.sleep(pause)  # whatever changes meanwhile, nothing is copied before
            if self._changed.is_set():
                self._changed.clear()
                looks, calm = 0, False
            if not calm and time.monotonic() >= overlap_at and self._may_put_off(begun):
                overlap_at, calm = min(overlap_at + OVERLAP_DELAY, begun + OVERLAP_LATEST), True
                await self._copy_what_fills()
        await self._maintain()
        self._quiet_since = time.monotonic()

    async def _copy_what_fills(self) -> None:
        """Copy what fills a segment, so that there is no more than that to copy once somebody waits for it."""
        if (self.db.uncopied() or 0) >= SEGMENT_LIMIT:
            with contextlib.suppress(DatabaseBusyError):  # the overlap meets it too, and sees to it
                await self.db.sync(whole=True)

    def _may_put_off(self, begun: float) -> bool:
        """Whether the overlap of a round that began at `begun` can wait, while a writer is at work: nobody does."""
        return time.monotonic() < begun + OVERLAP_LATEST and not self.db.wants_overlap()

    def _due(self, now: float) -> bool:
        return not self.replicas or self.db.followers > 0 or any(replica.due_at() <= now for replica in self.replicas)

    async def _farewell(self) -> None:
        """If the file is gone, copy and upload what was committed to it: our descriptors still reach it.

        Raises `DatabaseAbsentError` when that has to be tried again.
        """
        if self.db.pos().is_zero or os.path.exists(self.db.real_path):
            self._gone_since = 0.0
            return
        self._gone_since = self._gone_since or time.monotonic()
        try:
            async with asyncio.timeout(_FAREWELL):
                await self.db.sync()
                await self._upload()
        except (LitestreamError, OSError, TimeoutError) as error:
            if time.monotonic() - self._gone_since < _FAREWELL:
                raise DatabaseAbsentError(f"{self.db.path}: deleted before everything was uploaded: {error}") from error
            fields = {"db": self.db.path, "error": str(error)}
            self._logger.log(logging.ERROR, "deleted, and not everything was uploaded", extra={"fields": fields})

    async def _upload(self) -> None:
        """Bring every replica up to date now. Raises what the first that could not be said, when all have ended."""
        results = await asyncio.gather(*(replica.sync() for replica in self.replicas), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, NoGenerationError):
                raise result

    async def _maintain(self) -> None:
        await self._farewell()
        try:
            if (self.db.uncopied() or 0) < _MUCH:
                await self.db.call(self._maintain_what_is_there)
            else:
                await self._maintain_and_copy()
        except DatabaseBusyError as error:
            # The older reader is still held: nothing moved, nothing is lost. The next sweep tries again.
            self._logger.debug("overlap put off", extra={"fields": {"db": self.db.path, "reason": str(error)}})
            self._busy_since = self._busy_since or time.monotonic()
            if time.monotonic() - self._busy_since >= _BUSY_FOR_LONG:
                self._report(error)
            return
        self._busy_since = 0.0
        self._recovered()

    async def _maintain_and_copy(self) -> None:
        """Maintain, and copy on meanwhile: a checkpoint of much takes long, and a busy writer does not wait for it."""
        work = asyncio.ensure_future(self.db.call(self._maintain_what_is_there))
        try:
            while not (await asyncio.wait([work], timeout=_COPY_BESIDE))[0]:
                await self._copy_what_fills()
            await work
        finally:
            if not work.cancel() and not work.cancelled():
                work.exception()  # whatever ended this says more

    def _maintain_what_is_there(self) -> None:
        """Maintain, unless the file went away while this waited for a thread: the farewell comes first then."""
        if self.db.pos().is_zero or os.path.exists(self.db.real_path):
            self.db.maintain()

    async def _rest(self) -> None:
        """Wait for a change, or for the sweep to find something, without a timer."""
        self._swept, self._at_rest = False, True
        try:
            await self._changed.wait()
        finally:
            self._at_rest = False

    async def _wait(self, seconds: float) -> bool:
        """Whether something changed within `seconds`."""
        if self._changed.is_set():
            return True
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _failed(self, error: Exception) -> None:
        self._report(error)
        await asyncio.sleep(self._sweep_interval)
        self._changed.set()

    def _report(self, error: Exception) -> None:
        """Log an error once, and again every 30 s with a count while it stays."""
        self.error = error
        if SHORTAGE.tell(self.db.path, error):
            return
        repeated = self._repeats.tell(str(error))
        if repeated is None:
            return
        fields: dict[str, object] = {"db": self.db.path, "error": str(error)}
        if repeated:
            fields["repeated"] = repeated
        level, message = logging.ERROR, "sync error"
        if isinstance(error, DatabaseAbsentError) or not os.path.exists(self.db.real_path):
            level, message = logging.INFO, "waiting for database"
        elif isinstance(error, DatabaseHeldError):
            level = logging.INFO if self._takeover else logging.ERROR
        elif isinstance(error, DatabaseBusyError):
            level, message = logging.WARNING, "waiting for database"
        self._logger.log(level, message, extra={"fields": fields})

    def _recovered(self) -> None:
        if self.error is not None:
            self._logger.info("database attached", extra={"fields": {"db": self.db.path}})
        self.error = None
        self._repeats.over()
