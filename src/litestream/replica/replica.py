"""One replica of one database: WAL segments and snapshots go up, old ones go away."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import aclosing

from litestream.client import Overview, ReplicaClient
from litestream.core.position import Pos, SnapshotInfo
from litestream.errors import (
    GenerationChangedError,
    NoGenerationError,
    NoSnapshotsError,
    PositionError,
    ReplicaError,
    StorageError,
)
from litestream.metrics import DEFAULT, Metrics
from litestream.replica.bounds import bounds_of
from litestream.replica.lease import RELEASE_TIMEOUT, Keeper
from litestream.replica.log import ReplicaLogger, prefixed
from litestream.replica.loops import Monitor, retain, take_snapshots
from litestream.replica.pacing import Pace
from litestream.replica.retention import enforce_retention, expiry_of
from litestream.replica.snapshot import SnapshotStream, read_ahead, to_the_end
from litestream.replica.source import WALSource
from litestream.replica.upload import Sent, Uploader, find_end, no_snapshot
from litestream.replica.validation import Validated, Validator, validate

_CHANGED = "generation changed during snapshot, exiting sync"


class Replica:
    """A database's replica in one store. Belongs to the event loop on which it is used.

    Args:
        db: the database; None to look at what the store holds only.
        client: the store; closed with this.
        name: for log lines, metrics and commands; the client's type by default.
        sync_interval: seconds; between two uploads of WAL lie at least so many.
        snapshot_interval: seconds between snapshots; 0: only when one is needed.
        retention: seconds for which snapshots, and what follows them, are kept; 0: for ever.
        retention_check_interval: seconds between looks at what may be deleted; never more than `retention`.
        validation_interval: seconds between validations, 0: none. Without a `validator` it has no effect, as at the
            seed.
        monitor_enabled: whether `start` starts anything.
        validator: who restores the replica and compares it with the database.
        lease: whether this process claims the replica before it writes there, and stops once another host has done so
            (`LeaseLostError`); without effect where the store has no conditional writes.

    Nothing here holds up another replica of the database, or the application.
    """

    def __init__(
        self,
        db: WALSource | None,
        client: ReplicaClient,
        *,
        name: str = "",
        sync_interval: float = 1.0,
        snapshot_interval: float = 0.0,
        retention: float = 86400.0,
        retention_check_interval: float = 3600.0,
        validation_interval: float = 0.0,
        monitor_enabled: bool = True,
        validator: Validator | None = None,
        lease: bool = False,
        logger: logging.Logger | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._db = db
        self._client = client
        self._name = name
        self.sync_interval = sync_interval
        self.snapshot_interval = snapshot_interval
        self.retention = retention
        self.retention_check_interval = retention_check_interval
        self.validation_interval = validation_interval
        self._validator = validator
        self.monitor_enabled = monitor_enabled
        self.logger = ReplicaLogger(
            logger or logging.getLogger("litestream.replica"), db.path if db is not None else None, self.name
        )
        self._sync_lock = asyncio.Lock()
        self._wal_lock = asyncio.Lock()
        self._snapshot_lock = asyncio.Lock()
        self._indexes: tuple[str, set[int]] = ("", set())  # a generation, and its snapshots on this replica
        self._seen: dict[tuple[str, int], SnapshotInfo] = {}
        self._overviewed = (0.0, 0.0)
        self._old_at = (0.0, 0.0)  # when something will be old enough to go, if nothing is stored after that time
        self.validated: Validated | None = None
        """How the last validation ended; None if there was none since the start."""
        self.synced_at = 0.0
        """When `sync` last ended well, in Unix seconds; 0 if it never did."""
        self._durable = Pos()
        self._pace = Pace()
        self._listeners: list[Callable[[], None]] = []
        self._monitor: Monitor | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._metrics = metrics = metrics or DEFAULT
        self._uploader: Uploader | None = None
        self._lease: Keeper | None = None
        if db is not None:
            if lease:
                self._lease = Keeper(db, client, self.name, self.logger, tidy=retention > 0)
            self._uploader = Uploader(db, client, self.name, self.logger, metrics, hold=self._hold, began=self._began)
            self._snapshot_total = metrics.replica_snapshot_total.labels(db=db.path, name=self.name)

    @property
    def name(self) -> str:
        """The name it was given, or the client's type."""
        return self._name or self._client.type

    @property
    def db(self) -> WALSource | None:
        return self._db

    @property
    def client(self) -> ReplicaClient:
        return self._client

    @property
    def pos(self) -> Pos:
        """What the replica has; the zero position while that is not known (at first, and after an error)."""
        return self._uploader.pos if self._uploader is not None else Pos()

    @property
    def durable(self) -> Pos:
        """Up to where the database can be restored from here, as far as is known. Unlike `pos` it outlives an error,
        and it is zero as long as there is WAL and no snapshot."""
        pos = self.pos
        if not pos.is_zero and self._indexes[0] == pos.generation and self._indexes[1]:
            self._durable = pos
        return self._durable

    @property
    def up_to_date(self) -> bool:
        """Whether the database can be restored from here as far as it has been copied. False after an error: then it
        is not known. No request."""
        return self._db is not None and self.pos == self._db.pos() == self.durable

    @property
    def stored_at(self) -> float:
        """When an object was last stored here by this process, in Unix seconds; 0 if none was."""
        return self._uploader.stored_at if self._uploader is not None else 0.0

    @property
    def sent(self) -> Sent:
        """How much WAL was stored here by this process."""
        return self._uploader.sent if self._uploader is not None else Sent()

    @property
    def snapshots_seen(self) -> list[SnapshotInfo]:
        """Snapshots that are here as far as is known without asking: those of the database's generation, and from the
        first look for old ones on (`retention_check_interval`) those of earlier generations too. The oldest first."""
        return sorted(self._seen.values(), key=lambda info: info.created_at)

    @property
    def snapshots_known(self) -> int | None:
        """How many snapshots the database's generation has here; None while that is not known."""
        generation, indexes = self._indexes
        return len(indexes) if generation else None

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called, on the event loop, after something was stored. Returns how to stop that."""
        self._listeners.append(callback)

        def unsubscribe() -> None:
            if callback in self._listeners:
                self._listeners.remove(callback)

        return unsubscribe

    @property
    def retains(self) -> bool:
        """Whether old states are ever deleted."""
        return self.retention > 0 and self.retention_check_interval > 0

    @property
    def error(self) -> Exception | None:
        """Why uploading fails at present; None while it works or is not running."""
        return self._monitor.error if self._monitor is not None else None

    def due_at(self) -> float:
        """The monotonic time from which a change may be uploaded: earlier copying gains nothing."""
        if self._monitor is None or self._uploader is None:
            return math.inf
        return max(self._pace.allowed_at(self.sync_interval), self._monitor.retry_at)

    # -- running

    async def start(self) -> None:
        """Begin to follow the database, to delete what is old, and to take snapshots. First stops what runs."""
        if not self.monitor_enabled:
            return
        await self.stop()
        db, _ = self._database()
        if self.pos.is_zero:
            db.acknowledge(self.name, Pos())
        self._monitor = Monitor(self, db)
        loops: list[Coroutine[None, None, None]] = [self._monitor.run()]
        if self.retains:
            loops.append(retain(self))
        if self.snapshot_interval > 0:
            loops.append(take_snapshots(self))
        if self.validation_interval > 0 and self._validator is not None:
            loops.append(validate(self, self._validator, self._metrics))
        self._tasks = [asyncio.create_task(loop, name=f"{db.path}({self.name})") for loop in loops]

    async def stop(self) -> None:
        """Cancel what runs and wait for its end. An object that is being written is given up, never half stored."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._monitor = None

    async def close(self, patience: float = RELEASE_TIMEOUT) -> None:
        """Stop, give the lease back, and close the client. `patience`: seconds for the lease; 0: it is not given back,
        and who comes next waits."""
        await self.stop()
        if self._lease is not None and patience > 0:
            await self._lease.release(patience)
        await self._client.close()

    # -- uploading

    async def sync(self) -> None:
        """Upload everything copied from the WAL by now, after a snapshot if the generation has none.

        Raises `NoGenerationError` while the database has no generation. After any error the position is unknown; the
        next sync works it out from the replica.
        """
        db, uploader = self._database()
        try:
            async with self._sync_lock:
                if self._lease is not None:
                    self._lease.check()
                generation = db.pos().generation
                if not generation:
                    raise NoGenerationError("no generation, waiting for data")
                await self._ensure_snapshot(generation)
                await self._send(generation)
                self.synced_at = time.time()
        except BaseException:
            self._forget(uploader)
            raise

    async def calc_pos(self, generation: str) -> Pos:
        """The end of what the replica has of a generation, asked from the store; `pos` stays as it is.

        Raises `NoSnapshotsError` if it has no snapshot.
        """
        snapshots = await self._client.snapshots(generation)
        if not snapshots:
            raise no_snapshot(generation)
        segments = await self._client.wal_segments(generation)
        pos, _ = await find_end(self._client, generation, snapshots[-1].index, segments)
        return pos

    async def _send(self, generation: str, first: Pos | None = None) -> None:
        """Upload WAL, if that is still the database's generation. `first`: beginning of the first snapshot's index."""
        _, uploader = self._database()
        async with self._wal_lock:
            try:
                if uploader.pos.generation != generation:
                    with prefixed("cannot determine replica position: "):
                        await self._locate(uploader, generation, first)
                await uploader.send()
            except BaseException:
                self._forget_pos(uploader)
                raise
        self._tell()

    async def _locate(self, uploader: Uploader, generation: str, first: Pos | None) -> None:
        indexes = await self._known_indexes(generation)
        if indexes:
            await uploader.locate(generation, max(indexes))
        elif first is not None:
            await uploader.locate_first(first)
        else:
            raise no_snapshot(generation)

    def _forget(self, uploader: Uploader) -> None:
        """Something failed: what the replica holds is asked anew."""
        self._forget_pos(uploader)
        self._indexes = ("", set())

    def _forget_pos(self, uploader: Uploader) -> None:
        self._durable = self.durable  # what is stored stays stored
        uploader.forget()

    def _tell(self) -> None:
        for callback in list(self._listeners):
            callback()

    # -- snapshots

    async def snapshots(self) -> list[SnapshotInfo]:
        """All snapshots of the replica, sorted by generation and index."""
        return [snapshot for view in (await self._client.overview()).values() for snapshot in view.snapshots]

    async def snapshot(self) -> SnapshotInfo:
        """Copy the database now. Writers are not held up, nor is the upload of WAL.

        The snapshot is published only after all WAL that belongs to it. One of the same index is replaced.
        """
        self._database()
        async with self._snapshot_lock:
            return await self._snapshot()

    async def snapshot_if_new(self) -> SnapshotInfo | None:
        """The same, unless the database's index has a snapshot: another one would save no restore any work, and
        would take the states before it away.
        """
        db, _ = self._database()
        async with self._snapshot_lock:
            pos = db.pos()
            if pos.is_zero:
                raise NoGenerationError
            if pos.index in await self._known_indexes(pos.generation):
                return None
            return await self._snapshot()

    async def _ensure_snapshot(self, generation: str) -> None:
        if await self._known_indexes(generation):
            return
        async with self._snapshot_lock:
            if await self._known_indexes(generation):  # the snapshotter was faster
                return
            try:
                info = await self._snapshot()
            except GenerationChangedError as error:
                raise GenerationChangedError(_CHANGED) from error
            if info.generation != generation:
                raise GenerationChangedError(_CHANGED)

    async def _known_indexes(self, generation: str) -> set[int]:
        """Indexes of the snapshots of the database's generation, listed once and then kept."""
        if self._indexes[0] != generation:
            infos = await self._client.snapshots(generation)
            self._see(infos, instead_of=generation)
            self._remember(generation, {info.index for info in infos})
        return self._indexes[1]

    def _see(self, infos: Iterable[SnapshotInfo], *, instead_of: str = "") -> None:
        """Note snapshots that are there, of one generation (no others are) or of all of them."""
        kept = {key: info for key, info in self._seen.items() if instead_of not in ("", key[0])}
        self._seen = {**kept, **{(info.generation, info.index): info for info in infos}}

    def _remember(self, generation: str, indexes: set[int]) -> None:
        self._indexes = (generation, indexes)
        self._snapshot_total.set(len(indexes))

    async def _snapshot(self) -> SnapshotInfo:
        """Write a snapshot; `_snapshot_lock` is held."""
        db, _ = self._database()
        if db.pos().is_zero:
            raise NoGenerationError
        await self._hold()  # it may take a while, which is no time to hold a transaction
        started = time.monotonic()
        stream = SnapshotStream(db)
        try:
            source = await db.call(stream.open)
            pos = source.pos
            await self._send(pos.generation, pos)
            info = await self._client.write_snapshot(pos.generation, pos.index, self._body(db, stream, pos))
        finally:
            await to_the_end(db.call(stream.close))
        self._remember(pos.generation, {*await self._known_indexes(pos.generation), pos.index})
        self._seen[info.generation, info.index] = info
        self._database()[1].stored_at = time.time()
        self._tell()
        fields = {"generation": pos.generation, "index": pos.index, "position": str(pos), "sz": info.size}
        fields["elapsed"] = round(time.monotonic() - started, 6)
        self.logger.info("snapshot written %s/%08x", pos.generation, pos.index, extra={"fields": fields})
        return info

    async def _body(self, db: WALSource, stream: SnapshotStream, pos: Pos) -> AsyncIterator[bytes]:
        """The object's bytes. Its stamp comes only when all WAL up to `required` is stored."""
        sent_at = time.monotonic()
        async with aclosing(read_ahead(db, stream)) as blocks:
            async for pieces in blocks:
                for piece in pieces:
                    yield piece
                if time.monotonic() - sent_at >= self.sync_interval:
                    # A long copy must not pile up the WAL behind it, the first of a generation included.
                    await self._send_meanwhile(pos)
                    sent_at = time.monotonic()
        end, stamp = await db.call(stream.finish)
        yield end
        await self._reach(Pos(pos.generation, *stamp.required), pos)
        await self._hold()
        yield stream.seal(stamp)

    async def _send_meanwhile(self, start: Pos) -> None:
        try:
            await self._send(start.generation, start)
        except StorageError as error:
            # Not lost and not unsaid: the monitor meets it too, and the snapshot is not published without that WAL.
            self.logger.debug("wal not uploaded during snapshot: %s", error)

    async def _reach(self, required: Pos, start: Pos) -> None:
        await self._send(required.generation, start)
        pos = self.pos
        if pos.generation != required.generation:
            raise GenerationChangedError("generation changed during snapshot")
        if pos < required:
            raise PositionError(f"snapshot needs WAL that is not there: replica={pos} required={required}")

    # -- what is there

    async def generation_created_at(self, generation: str) -> float | None:
        """Unix seconds of a generation's oldest snapshot; None if it has none."""
        bounds = bounds_of(await self._client.snapshots(generation))
        return bounds[0] if bounds is not None else None

    async def snapshot_index_at(self, generation: str, timestamp: float | None = None) -> int:
        """The index of the newest snapshot stored at or before `timestamp` (Unix seconds; None: of all).

        Raises `NoSnapshotsError`.
        """
        found = [
            (info.created_at, info.index)
            for info in await self._client.snapshots(generation)
            if timestamp is None or info.created_at <= timestamp
        ]
        if not found:
            raise NoSnapshotsError
        return max(found)[1]

    # -- what goes away

    async def enforce_retention(self, now: float | None = None) -> None:
        """Delete what is older than the retention, never what a kept snapshot needs; first take a snapshot if none
        is young enough. `now` is in Unix seconds.
        """
        self._old_at = (0.0, 0.0)
        async with self._snapshot_lock:
            left = await enforce_retention(
                self._client,
                self._overview,
                self._snapshot,
                self.logger,
                now=time.time() if now is None else now,
                retention=self.retention,
                current=self._db.pos().generation if self._db is not None else "",
                hold=self._hold,
            )
            self._seen = {key: info for key, info in self._seen.items() if key in left}
            if self._indexes[0]:
                self._remember(self._indexes[0], {index for name, index in left if name == self._indexes[0]})
            self._old_at = self._overviewed

    @property
    def may_have_old(self) -> bool:
        """Whether a look for what is too old could find anything: something was stored since the last one, or is that
        old by now. No request."""
        due, stored_at = self._old_at
        return self.stored_at != stored_at or time.time() >= due

    async def _overview(self) -> Overview:
        """What is there, compared with what is kept in memory.

        If a snapshot is gone, somebody else deleted from this replica: position and snapshots are asked anew, so that
        another one follows. If the last WAL is gone (asked for by name: a listing may be behind), what is left cannot
        be continued: `PositionError`, and a new generation is asked for.
        """
        generation, indexes = self._indexes
        newest = self._uploader.newest if self._uploader is not None else Pos()
        stored_at = self.stored_at
        overview = await self._client.overview()
        self._overviewed = (expiry_of(overview, time.time(), self.retention), stored_at)
        self._see(snapshot for found in overview.values() for snapshot in found.snapshots)
        if self._uploader is None or not generation or self._indexes != (generation, indexes):
            return overview
        view = overview.get(generation)
        there = {snapshot.index for snapshot in view.snapshots} if view is not None else set()
        gone = not newest.is_zero and (view is None or all(segment.pos != newest for segment in view.segments))
        if gone and await self._uploader.lost(newest):
            self.logger.warning("objects are gone from the replica, beginning anew")
            self._forget(self._uploader)
            self._durable = Pos()
            db, _ = self._database()
            db.new_generation(f"the replica {self.name} lacks WAL that was stored: {newest}")
            raise PositionError(f"replica lacks WAL that was stored: {newest}")
        if indexes - there:
            self.logger.warning("a snapshot is gone from the replica, another one follows")
            self._forget(self._uploader)
            self._durable = Pos()
        return overview

    # -- inside

    def _began(self, now: float) -> None:
        self._pace.began(now, self.sync_interval)

    async def _hold(self) -> None:
        """Return while nobody else may write to the replica. `LeaseLostError`."""
        if self._lease is not None:
            await self._lease.hold()

    def _database(self) -> tuple[WALSource, Uploader]:
        if self._db is None or self._uploader is None:
            raise ReplicaError("no database available")
        return self._db, self._uploader

    def __repr__(self) -> str:
        return f"Replica({self.name!r}, {self._client.store.url!r})"
