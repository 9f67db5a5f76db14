"""Bringing one replica up to the database's position: where it stands, and the segments that it lacks."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from litestream.client import ReplicaClient
from litestream.core.position import Pos, WALSegmentInfo
from litestream.core.stamp import Stamp
from litestream.errors import (
    CorruptObjectError,
    FormatError,
    GenerationChangedError,
    LocalStateError,
    NoSnapshotsError,
    ObjectExistsError,
    PositionError,
)
from litestream.metrics import Metrics
from litestream.replica.attempt import Attempt, digest_of, is_there, settle
from litestream.replica.batch import batches, check_first, check_object, end_of, pending, skipped
from litestream.replica.log import ReplicaLogger, prefixed
from litestream.replica.source import WALSource
from litestream.streams import ObjectReader, join_segments

INLINE_LIMIT = 256 * 1024
"""Bytes that are read and joined on the event loop itself: cheaper than a change of threads, and not behind others."""


@dataclass(frozen=True, slots=True)
class Sent:
    """WAL that a process has stored in one replica."""

    objects: int = 0
    size: int = 0
    """Bytes of WAL, not compressed."""
    delay: float = 0.0
    """Seconds from the oldest commit in the last object until that was stored."""


async def at_once() -> None:
    """For those who need nobody's leave."""


class Uploader:
    """One replica's position in one generation, and the WAL upload that moves it. The caller serialises.

    Attributes:
        pos: what the replica has; the zero position while that is not known.
        newest: name of the last object there; the zero position if there is none, or that is not known.
        stored_at: Unix time at which the last object was stored; 0 if this process stored none.
        sent: what this process has stored so far.
    """

    def __init__(
        self,
        db: WALSource,
        client: ReplicaClient,
        name: str,
        logger: ReplicaLogger,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        hold: Callable[[], Awaitable[None]] = at_once,
        began: Callable[[float], None] = lambda _now: None,
    ) -> None:
        """`hold` returns, or raises, before each object: whether this process may store one. `began` is told the time
        when an upload, of one or more objects, begins."""
        self.pos = Pos()
        self.newest = Pos()
        self.stored_at = 0.0
        self.sent = Sent()
        self._db = db
        self._client = client
        self._name = name
        self._logger = logger
        self._clock = clock
        self._hold = hold
        self._began = began
        self._tail: Stamp | None = None
        self._note = f"{name} {client.store.url}"  # another store under the same name has had nothing yet
        self._last: Attempt | None = None
        labels = {"db": db.path, "name": name}
        self._bytes = metrics.replica_wal_bytes.labels(**labels)
        self._index = metrics.replica_wal_index.labels(**labels)
        self._offset = metrics.replica_wal_offset.labels(**labels)

    def forget(self) -> None:
        """Something failed: what the replica has must be asked anew."""
        self.pos = self.newest = Pos()
        self._tail = None

    async def locate(self, generation: str, newest_snapshot: int) -> None:
        """Find out what the replica has of a generation with this newest snapshot."""
        try:
            segments = await self._client.wal_segments(generation)
            check_unbroken(segments, Pos(generation, newest_snapshot, 0))
            attempt = self._attempt(generation)
            if self._client.readable:
                pos, tail = await find_end(self._client, generation, newest_snapshot, segments)
            elif attempt is not None or not segments:
                pos, tail = Pos(generation, newest_snapshot, 0), None
            else:
                raise PositionError("it cannot be read without an age identity, and no local note says what it holds")
            if attempt is not None:
                pos, tail = await settle(self._client, attempt, segments, pos, tail)
            # With more to send the next segment says what must be before it; with nothing to send this has to be asked.
            there, checksum = self._db.end()
            if tail is not None and pos == there and tail.end_checksum != checksum:
                raise PositionError(f"replica has another history: it ends otherwise at {pos}")
            self.newest = self._newest(segments, attempt, pos)
        except (FormatError, PositionError) as error:
            self._db.new_generation(f"the replica cannot be continued: {error}")
            raise
        self._move(pos, tail)

    async def locate_first(self, start: Pos) -> None:
        """The same for a generation without a snapshot, whose first one is of index `start.index`.

        What a killed run uploaded before its snapshot counts if it is that index from its beginning, at least.
        """
        segments = await self._client.wal_segments(start.generation)
        there = any((segment.index, segment.offset) == (start.index, 0) for segment in segments)
        if there or self._attempt(start.generation) is not None:
            await self.locate(start.generation, start.index)
        else:
            self.newest = Pos()
            self._move(Pos(start.generation, start.index, 0), None)

    async def send(self) -> None:
        """Upload everything that the database has, in its own generation, and the replica lacks.

        Does nothing if the database is in another generation by now. Raises `PositionError`, `CorruptObjectError`
        or what the store raises; what was stored before is kept in `pos`.
        """
        at, tail = self.pos, self._tail  # `forget` may come in between
        there = self._db.pos()
        if there.generation != at.generation:
            return
        try:
            segments = pending(self._db.wal_segments(at.generation), at)
            if at > there or (at < there and not segments):
                raise skipped(at, there)
            if segments:
                self._began(self._clock())
            for batch in self._batches(segments):
                with prefixed(f"write index segments: index={batch[0].index} err="):
                    at, tail = await self._write(at, tail, batch)
                self._move(at, tail)
        except GenerationChangedError:
            pass  # what was not sent is of a generation that is over; the next sync begins the new one
        except (PositionError, CorruptObjectError, ObjectExistsError) as error:
            # Trying again cannot help: what is there and what is here are two histories. The old one stays restorable.
            if self._db.pos().generation == at.generation:
                self._db.new_generation(f"the replica {self._name} cannot be continued: {error}")
            raise

    async def lost(self, newest: Pos) -> bool:
        """Whether the object of this name is gone, by a look at the object itself."""
        return self._client.readable and self.newest == newest and not await is_there(self._client, newest)

    def _newest(self, segments: Sequence[WALSegmentInfo], attempt: Attempt | None, pos: Pos) -> Pos:
        """The name of the object that ends at `pos`."""
        if attempt is not None and attempt.end == pos:
            return attempt.start
        if attempt is not None and attempt.after == pos:
            return attempt.previous
        return segments[-1].pos if segments else Pos()

    def _attempt(self, generation: str) -> Attempt | None:
        """The last attempt, if it was made in this generation: by this process, or the one before it."""
        if self._last is None:
            self._last = Attempt.parse(self._db.note(self._note))
        return self._last if self._last is not None and self._last.start.generation == generation else None

    def _batches(self, segments: Sequence[WALSegmentInfo]) -> Iterator[list[WALSegmentInfo]]:
        """What goes up as one object each. What was sent before goes up as it was, whatever has come since."""
        last = self._last
        if last is not None and segments and segments[0].pos == last.start:
            again = [segment for segment in segments if segment.pos < last.end and segment.index == last.start.index]
            yield again
            segments = segments[len(again) :]
        yield from batches(segments)

    def _remember(self, at: Pos, start: Pos, end: Pos, body: bytes) -> None:
        """Note what is about to be sent. Raises `PositionError` if something else was sent under that name."""
        last = self._last
        if last is not None and last.start == start:
            if not last.is_of(body, end):
                raise PositionError(f"what was sent as {start} before cannot be sent again")
            return
        attempt = Attempt(at, self.newest, start, end, digest_of(body))
        try:
            self._db.write_note(self._note, attempt.pack())
        except LocalStateError:
            if not self._client.store.conditional:
                raise
            # The store refuses a second content by itself; uploading is what may make room again.
            self._logger.debug("no note of %s: the local state cannot be written", start)
        self._last = attempt

    async def _write(self, at: Pos, tail: Stamp | None, batch: Sequence[WALSegmentInfo]) -> tuple[Pos, Stamp]:
        """Store neighbouring segments of one index as one object behind `at`. Returns where the replica ends then."""
        started = self._clock()
        start = batch[0].pos
        objects, stamps = [], []
        expected = start
        for info in batch:
            with prefixed(f"wal segment: pos={info.pos} err="):
                if info.pos != expected:
                    raise PositionError(f"non-contiguous segment: expected={expected} current={info.pos}")
                body, stamp = await self._read(info)
            objects.append(body)
            stamps.append(stamp)
            expected = end_of(stamp)
        check_first(at, tail, stamps[0])
        body = objects[0] if len(objects) == 1 else await self._joined(objects)
        await self._hold()
        self._remember(at, start, expected, body)
        stored = await self._client.write_wal_segment(start, body)
        self.newest = start
        self.stored_at = time.time()
        size = expected.offset - start.offset
        delay = max(0.0, self.stored_at - stamps[0].first_commit_ns / 1e9)
        self.sent = Sent(self.sent.objects + 1, self.sent.size + size, delay)
        self._bytes.inc(size)
        elapsed = round(self._clock() - started, 6)
        fields = {"position": str(start), "sz": size, "stored": stored.size, "segments": len(batch), "elapsed": elapsed}
        self._logger.info("wal segment written: %s sz=%d", start, size, extra={"fields": fields})
        return expected, stamps[-1]

    async def _read(self, info: WALSegmentInfo) -> tuple[bytes, Stamp]:
        def read() -> tuple[bytes, Stamp]:
            body = self._db.read_wal_segment(info.pos)
            return body, check_object(body, info.pos)

        return read() if info.size <= INLINE_LIMIT else await self._db.call(read)

    async def _joined(self, objects: list[bytes]) -> bytes:
        if sum(map(len, objects)) <= INLINE_LIMIT // 4:  # it may unpack to a multiple of that
            return join_segments(objects)
        return await self._db.call(join_segments, objects)

    def _move(self, pos: Pos, tail: Stamp | None) -> None:
        self.pos, self._tail = pos, tail
        self._index.set(pos.index)
        self._offset.set(pos.offset)
        self._db.acknowledge(self._name, pos)


def check_unbroken(segments: Sequence[WALSegmentInfo], first: Pos) -> None:
    """That a newest snapshot, of which `first` is the index's beginning, is followed by each index from its beginning
    on, as far as names tell. Raises `PositionError`: somebody deleted from this replica, and what it has cannot be
    restored, whatever would be appended to it.
    """
    expected = first.index
    for segment in segments:
        if segment.index == expected and segment.offset == 0:
            expected += 1
        elif segment.index >= expected:
            raise PositionError(f"replica lacks WAL: {Pos(first.generation, expected, 0)}")


async def find_end(
    client: ReplicaClient, generation: str, newest_snapshot: int, segments: Sequence[WALSegmentInfo]
) -> tuple[Pos, Stamp | None]:
    """Where the newest of the replica's `segments` of a generation ends, and its stamp if it has one.

    Without segments that is the beginning of the newest snapshot's index.
    """
    if not segments:
        return Pos(generation, newest_snapshot, 0), None
    newest = segments[-1]
    stamp = await client.stamp_of(newest)
    if stamp is not None:
        return end_of(stamp), stamp
    reader = ObjectReader(key=str(newest.pos))
    async for chunk in client.wal_segment_reader(newest.pos):
        for _ in reader.feed(chunk):
            pass
    reader.finish()
    return Pos(generation, newest.index, newest.offset + reader.length), None


def no_snapshot(generation: str) -> NoSnapshotsError:
    """There is nothing that WAL could follow."""
    return NoSnapshotsError(f"no snapshot available: generation={generation}")
