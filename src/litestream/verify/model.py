"""What a verification says."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from litestream.core.position import Pos
from litestream.errors import (
    ChecksumMismatchError,
    CorruptObjectError,
    EncryptionError,
    FormatError,
    IntegrityCheckError,
    LTXReplicaError,
    NoBackupError,
    NoSnapshotsError,
)


class Status(Enum):
    """How it ended."""

    OK = "ok"
    FAILED = "failed"
    """Proved: an object is damaged or missing, or the restored copy is not the database."""
    UNKNOWN = "could not tell"
    """Nothing speaks against the replica, but something that had to be looked at could not be."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one object."""

    key: str
    """The damaged, missing or foreign object; empty where it is not one object."""
    reason: str

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}" if self.key else self.reason


@dataclass(frozen=True, slots=True)
class Span:
    """States that can be restored: every commit from `first` to `last`."""

    first: Pos
    last: Pos
    first_ns: int
    """Time of the commit, Unix nanoseconds: by the stamp, or the store's time of the object where there is none."""
    last_ns: int


@dataclass(slots=True)
class GenerationReport:
    """One generation of a replica."""

    generation: str
    objects: int
    checked: int = 0
    size: int = 0
    """Bytes as stored, of all its objects."""
    spans: list[Span] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unreadable: list[Problem] = field(default_factory=list)
    """What could not be read at all, so that nothing is known of it."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The state that was restored to a scratch file."""

    pos: Pos
    size: int
    integrity: tuple[str, ...]
    """What SQLite's integrity check found; nothing for a sound database."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The restored copy and the live database, page by page, both at `pos`."""

    pos: Pos
    pages: int
    """Pages of the database."""
    different: int
    first: tuple[int, ...]
    """Numbers of the first pages that differ."""

    @property
    def equal(self) -> bool:
        return self.different == 0

    def error(self) -> ChecksumMismatchError:
        """That they differ, as an error."""
        numbers = ", ".join(map(str, self.first))
        more = ", …" if self.different > len(self.first) else ""
        return ChecksumMismatchError(
            f"invalid replica, checksum mismatch: {self.different} of {self.pages} pages differ from the database at "
            f"{self.pos} (page {numbers}{more})"
        )


@dataclass(slots=True)
class Report:
    """What was found out about one replica.

    Attributes:
        failures: what is proved to be wrong.
        unknown: why something could not be told.
        notes: what is worth knowing and no fault.
    """

    replica: str
    url: str
    generations: list[GenerationReport] = field(default_factory=list)
    restored: Restored | None = None
    comparison: Comparison | None = None
    failures: list[Problem] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def status(self) -> Status:
        if self.failures or any(generation.problems for generation in self.generations):
            return Status.FAILED
        if self.unknown or any(generation.unreadable for generation in self.generations):
            return Status.UNKNOWN
        return Status.OK

    def problems(self) -> list[Problem]:
        """Everything that is proved to be wrong, each once."""
        found = [problem for generation in self.generations for problem in generation.problems]
        known = {problem.key for problem in found if problem.key}
        return [*found, *(problem for problem in self.failures if problem.key not in known)]

    def doubts(self) -> list[str]:
        """Everything that could not be told."""
        return [*self.unknown, *(str(p) for generation in self.generations for p in generation.unreadable)]

    def note(self, error: Exception) -> None:
        """File an error where it belongs."""
        if not is_proof(error):
            self.unknown.append(str(error))
        elif isinstance(error, CorruptObjectError):
            self.failures.append(Problem(error.key, error.reason))
        else:
            self.failures.append(Problem("", str(error)))


def is_proof(error: Exception) -> bool:
    """Whether an error proves that a replica is bad. A store that does not answer, for one, proves nothing."""
    if isinstance(error, EncryptionError | LTXReplicaError):
        return False
    proofs = (FormatError, ChecksumMismatchError, IntegrityCheckError, NoBackupError, NoSnapshotsError)
    return isinstance(error, proofs)
