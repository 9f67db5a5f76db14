"""What a restore is asked for, what it decides to read, and what it says afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from litestream.core.plan import RestorePlan
from litestream.core.position import Pos, WALSegmentInfo
from litestream.errors import CorruptObjectError, EncryptionError, RestoreError

if TYPE_CHECKING:
    from litestream.core.layout import Layout
    from litestream.core.stamp import Stamp
    from litestream.restore.base import State
    from litestream.storage.protocol import Store

IntegrityCheck = Literal["none", "quick", "full"]

Progress = Callable[[int, int], None]
"""Called with (bytes fetched so far, bytes to fetch); stored, so compressed, bytes."""


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """How to restore. The defaults give the latest state of everything."""

    generation: str = ""
    """Only this generation; empty: the newest that can be restored."""
    index: int | None = None
    """Up to the end of this index's WAL; not together with `timestamp_ns`."""
    timestamp_ns: int | None = None
    """The latest state whose commits were all made at or before this time, Unix nanoseconds."""
    parallelism: int = 8
    """Objects fetched at a time."""
    force: bool = False
    """Replace an existing output (and remove its -wal, -shm and -journal), once the restore has succeeded."""
    dry_run: bool = False
    """Decide what would be read, and stop."""
    integrity_check: IntegrityCheck = "quick"
    """SQLite's check on the result before it gets its name."""
    mode: int | None = None
    """Permission bits of the output. None: those of `source_path` if that exists, else 0600."""
    source_path: str = ""
    """The database that the output is a copy of: if it exists, the output gets its mode and owner."""
    position: Pos | None = None
    """Exactly this position, which is the end of a transaction; alone, not with another limit."""
    scratch: bool = False
    """The output is only looked at and then thrown away: no fsync, threads of low priority, told at debug level."""
    resume: bool = False
    """Keep what was fetched beside the output until the restore has succeeded, and use what an interrupted one kept."""
    update: bool = False
    """Bring the copy that an earlier restore with `update` made up to date, by the WAL since then if that is possible.
    A file that was made otherwise, or changed, is refused; with `force` it is replaced."""

    def __post_init__(self) -> None:
        if self.index is not None and self.timestamp_ns is not None:
            raise RestoreError("cannot restore to an index and to a timestamp at once: give one of them")
        if self.position is not None and (self.generation or self.index is not None or self.timestamp_ns is not None):
            raise RestoreError("a position is a limit by itself: no generation, index or timestamp goes with it")
        if self.parallelism < 1:
            raise RestoreError(f"parallelism must be 1 or more, not {self.parallelism}")
        if self.integrity_check not in ("none", "quick", "full"):
            raise RestoreError(f"integrity check must be none, quick or full, not {self.integrity_check!r}")

    @property
    def only_generation(self) -> str:
        """The generation that is asked for; empty: any."""
        return self.position.generation if self.position is not None else self.generation


@dataclass(frozen=True, slots=True)
class PlannedObject:
    """One object that a restore reads."""

    key: str
    pos: Pos
    """Its position; offset 0 for the snapshot."""
    size: int
    """Bytes as stored."""
    created_at: float
    """Unix seconds as the store says."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to read from where. The objects follow each other without a gap as far as names and stamps tell."""

    replica: str
    store: Store
    layout: Layout
    objects: RestorePlan
    snapshot_stamp: Stamp | None
    """The snapshot's stamp; None: the generation is one without stamps."""
    until_ns: int | None = None
    """No commit later than this may be in it."""
    position: Pos | None = None
    """It ends exactly here; None: behind the last commit."""
    earlier: tuple[WALSegmentInfo, ...] = ()
    """Segments within the limits that the snapshot makes unnecessary."""
    base: State | None = None
    """The copy that is updated, instead of the snapshot; None: the snapshot is read."""
    hint: str = ""
    """What else could be restored if an object of this plan is damaged."""
    warnings: tuple[str, ...] = ()

    @property
    def generation(self) -> str:
        return self.objects.generation

    @property
    def stamped(self) -> bool:
        return self.snapshot_stamp is not None

    @property
    def size(self) -> int:
        """Bytes to fetch."""
        wal = sum(segment.size for segment in self.objects.segments)
        return wal if self.base is not None else self.objects.snapshot.size + wal

    def files(self) -> list[PlannedObject]:
        """The objects in the order in which they build on each other."""
        snapshot = self.objects.snapshot
        key = self.layout.snapshot_key(snapshot.generation, snapshot.index)
        at = Pos(snapshot.generation, snapshot.index, 0)
        first = [] if self.base is not None else [PlannedObject(key, at, snapshot.size, snapshot.created_at)]
        return first + [
            PlannedObject(self.layout.wal_key(s.generation, s.index, s.offset), s.pos, s.size, s.created_at)
            for s in self.objects.segments
        ]


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What was restored (or, in a dry run, would be)."""

    db_path: str
    replica: str
    generation: str
    snapshot_index: int
    """Of the snapshot that was read (after an update: that the copy was once made of)."""
    index: int
    """Where the restored state ends; in a dry run, the position at which the last object begins."""
    offset: int
    timestamp_ns: int | None
    """Time of the last commit in it, as far as stamps or the store tell; None in a dry run."""
    page_size: int
    size: int
    """Bytes of the restored database."""
    fetched: int
    """Bytes fetched (in a dry run: to fetch), without those that an interrupted restore had kept."""
    segments: int
    integrity_check: IntegrityCheck
    duration_ms: int
    dry_run: bool = False
    updated: bool = False
    """Only WAL was read, or nothing at all: the rest was there already."""
    files: list[PlannedObject] = field(default_factory=list)
    """The objects that it is made of."""
    warnings: tuple[str, ...] = ()

    @property
    def pos(self) -> Pos:
        return Pos(self.generation, self.index, self.offset)


def with_hint(error: CorruptObjectError, hint: str) -> CorruptObjectError:
    """The same error, saying what could be restored instead. Where a key is missing, that is what is wanted first."""
    if not hint or isinstance(error, EncryptionError):
        return error
    return CorruptObjectError(f"{error.reason}; {hint}", key=error.key)
