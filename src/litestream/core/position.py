"""Positions in a replica: generation, index, offset.

A *generation* is an unbroken history, named by 16 lower-case hex digits. The *index* counts WAL restarts within it.
The *offset* is the byte offset in that index's WAL file (so offset 0 stands before the 32-byte WAL header).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from litestream.errors import InvalidNameError

MAX_INDEX = 0x7FFFFFFF
"""Greatest index the official v0.3 programs accept."""

_GENERATION = re.compile(r"[0-9a-f]{16}")
_POS = re.compile(r"([0-9a-f]{16})/([0-9a-f]{8,16}):([0-9a-f]{8,16})")


def is_generation(name: str) -> bool:
    """Whether `name` is exactly 16 lower-case hex digits."""
    return _GENERATION.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Pos:
    """A position. `Pos()` is the zero position: unknown, or nothing yet.

    Ordering two positions of different generations raises `ValueError`: there is no such order.
    """

    generation: str = ""
    index: int = 0
    offset: int = 0

    @property
    def is_zero(self) -> bool:
        return not self.generation

    def __str__(self) -> str:
        """The seed's form `GEN/IIIIIIII:OOOOOOOO` (hex), the empty string for the zero position."""
        return f"{self.generation}/{self.index:08x}:{self.offset:08x}" if self.generation else ""

    @classmethod
    def parse(cls, text: str) -> Pos:
        """The inverse of `str()`. Raises `InvalidNameError`; nothing is normalised."""
        if not text:
            return cls()
        match = _POS.fullmatch(text)
        if match is None:
            raise InvalidNameError(f"invalid position: {text!r}")
        pos = cls(match[1], int(match[2], 16), int(match[3], 16))
        if str(pos) != text:
            raise InvalidNameError(f"invalid position: {text!r}")
        return pos

    def _key(self, other: object) -> tuple[tuple[int, int], tuple[int, int]]:
        if not isinstance(other, Pos):
            raise TypeError(f"cannot compare Pos with {type(other).__name__}")
        if self.generation != other.generation:
            raise ValueError(f"positions of different generations have no order: {self} and {other}")
        return (self.index, self.offset), (other.index, other.offset)

    def __lt__(self, other: object) -> bool:
        mine, theirs = self._key(other)
        return mine < theirs

    def __le__(self, other: object) -> bool:
        mine, theirs = self._key(other)
        return mine <= theirs

    def __gt__(self, other: object) -> bool:
        mine, theirs = self._key(other)
        return mine > theirs

    def __ge__(self, other: object) -> bool:
        mine, theirs = self._key(other)
        return mine >= theirs


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A stored snapshot: a copy of the database file taken while the WAL had `index`."""

    generation: str
    index: int
    size: int
    """Bytes as stored (compressed)."""
    created_at: float
    """Unix time in seconds as the store says."""


@dataclass(frozen=True, slots=True)
class WALSegmentInfo:
    """A stored piece of a WAL: the bytes from `offset` on of the WAL of that index."""

    generation: str
    index: int
    offset: int
    size: int
    """Bytes as stored (compressed)."""
    created_at: float
    """Unix time in seconds as the store says."""

    @property
    def pos(self) -> Pos:
        return Pos(self.generation, self.index, self.offset)
