"""What a replica sees of a database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from litestream.core.position import Pos, WALSegmentInfo
from litestream.core.stamp import Stamp

T = TypeVar("T")


class SnapshotSource(Protocol):
    """The database file, read under a transaction of its own. Blocking; one thread at a time."""

    @property
    def pos(self) -> Pos:
        """The database's position when this began; its index is the snapshot's."""
        ...

    def read(self, buffer: memoryview) -> int:
        """The file's next bytes, as many as there is room for or fewer; none only at its end.

        Raises `GenerationChangedError` if its generation ended.
        """
        ...

    def finish(self) -> Stamp:
        """After the last piece: copies every committed frame and gives the stamp, hash and length not filled in.

        `required` is the position up to which the WAL belongs to the snapshot.
        """
        ...

    def close(self) -> None:
        """End the transaction. May be called twice."""
        ...


class WALSource(Protocol):
    """A database whose WAL is copied into segments, seen from one of its replicas.

    `litestream.db.DB` is one. Nothing here waits for another replica.
    """

    @property
    def path(self) -> str:
        """For people: log lines and metrics."""
        ...

    def pos(self) -> Pos:
        """How far the WAL has been copied; the zero position while there is no generation. Cheap, any thread.

        Within a generation it never goes back, and a segment is listed before this moves past it.
        """
        ...

    def end(self) -> tuple[Pos, bytes]:
        """`pos()`, and the running checksum of the WAL there as a stamp carries it. Cheap, any thread."""
        ...

    def wal_segments(self, generation: str) -> list[WALSegmentInfo]:
        """The segments that are still kept, in order, without a gap; none of a generation that is over. Cheap."""
        ...

    def read_wal_segment(self, pos: Pos) -> bytes:
        """The object that begins at `pos`, frame and stamp, ready to be stored. Blocking.

        Raises `GenerationChangedError` if its generation is over, `CorruptObjectError` if it is gone or damaged.
        """
        ...

    async def sync(self) -> None:
        """Copy every frame committed by now."""
        ...

    def open_snapshot(self) -> SnapshotSource:
        """Begin to read the database file. Blocking. `NoGenerationError` while there is no generation."""
        ...

    async def call(self, fn: Callable[..., T], *args: object) -> T:
        """Run blocking work in the database's threads. A cancelled call goes on there, its result is dropped."""
        ...

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called, in any thread, after the position moved. Returns how to stop that."""
        ...

    def acknowledge(self, name: str, pos: Pos) -> None:
        """Replica `name` has everything up to `pos`; the zero position: nothing, or it is not known yet."""
        ...

    def note(self, name: str) -> str:
        """What `write_note` kept under a name last, also by an earlier process; empty if nothing. Quick."""
        ...

    def write_note(self, name: str, text: str) -> None:
        """Keep a line of ASCII so that it outlives a kill of the process. Quick. Raises `LocalStateError`."""
        ...

    def new_generation(self, reason: str) -> None:
        """Ask for a new generation, soon: what the replica holds cannot be continued. Cheap, does not block."""
        ...
