"""The names of objects in a replica. A layout is a value: three of them are read, V03 is what we write.

======  ==============================  ==================================  ==========================
name    snapshot                        WAL segment                         written by
======  ==============================  ==================================  ==========================
v0.3    ``%08x.snapshot.lz4``           ``wal/%08x_%08x.wal.lz4``           0.3.x, and read by 0.5; ours
seed    ``%08x.snapshot.lz4``           ``wal/%08x/%08x.wal.lz4``           between 0.3 and 0.4
v0.4    ``%016x.snapshot.lz4``          ``wal/%016x/%016x.wal.lz4``         0.4 betas
======  ==============================  ==================================  ==========================

all below ``generations/GEN/``, snapshots in ``snapshots/``; the numbers are index and offset. An offset of 4 GiB or
more does not fit into 8 digits and takes as many as it needs (what 0.3's format string does too).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from litestream.core.position import MAX_INDEX, Pos, is_generation
from litestream.errors import InvalidNameError, MixedLayoutError

GENERATIONS_PREFIX = "generations/"

MAX_OFFSET = 0x7FFFFFFFFFFFFFFF
"""Offsets are signed 64-bit numbers in every program that reads them."""

_GENERATION_KEY = re.compile(r"generations/([0-9a-f]{16})/.+", re.DOTALL)
# 0.5: a folder per level 0 to 9, "ltx/9/" on files, SFTP and most clouds, "0009/" on S3 and OSS.
_LTX_KEY = re.compile(r"(?:ltx/[0-9]|000[0-9])/[0-9a-f]{16}-[0-9a-f]{16}\.ltx")


@dataclass(frozen=True, slots=True)
class SnapshotName:
    """What a snapshot's key says."""

    generation: str
    index: int


@dataclass(frozen=True, slots=True)
class WALName:
    """What a WAL segment's key says."""

    generation: str
    index: int
    offset: int

    @property
    def pos(self) -> Pos:
        return Pos(self.generation, self.index, self.offset)


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to name objects.

    Attributes:
        name: for people.
        digits: hex digits of an index, and the fewest of an offset.
        separator: what stands between index and offset of a segment.
    """

    name: str
    digits: int
    separator: str
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        number = f"[0-9a-f]{{{self.digits}}}"
        # A longer offset has no leading zero, so that every position has exactly one name.
        offset = number if self.digits == 16 else f"{number}|[1-9a-f][0-9a-f]{{{self.digits},15}}"
        pattern = (
            rf"generations/([0-9a-f]{{16}})/"
            rf"(?:snapshots/({number})\.snapshot\.lz4|wal/({number}){self.separator}({offset})\.wal\.lz4)"
        )
        object.__setattr__(self, "_pattern", re.compile(pattern))

    def __str__(self) -> str:
        return self.name

    def generation_prefix(self, generation: str) -> str:
        """Prefix of all keys of a generation. This and the others: `InvalidNameError` for what is no such name."""
        if not is_generation(generation):
            raise InvalidNameError(f"invalid generation: {generation!r}")
        return f"{GENERATIONS_PREFIX}{generation}/"

    def snapshots_prefix(self, generation: str) -> str:
        """Prefix of a generation's snapshots."""
        return self.generation_prefix(generation) + "snapshots/"

    def wal_prefix(self, generation: str) -> str:
        """Prefix of a generation's WAL segments."""
        return self.generation_prefix(generation) + "wal/"

    def snapshot_key(self, generation: str, index: int) -> str:
        """Key of a snapshot."""
        return f"{self.snapshots_prefix(generation)}{self._index(index)}.snapshot.lz4"

    def wal_key(self, generation: str, index: int, offset: int) -> str:
        """Key of a WAL segment."""
        if not 0 <= offset <= MAX_OFFSET:
            raise InvalidNameError(f"invalid offset: {offset}")
        prefix = self.wal_prefix(generation)
        return f"{prefix}{self._index(index)}{self.separator}{offset:0{self.digits}x}.wal.lz4"

    def parse(self, key: str) -> SnapshotName | WALName | None:
        """What `key` names in this layout; None for a name of another one, or a foreign one."""
        match = self._pattern.fullmatch(key)
        if match is None:
            return None
        generation, snapshot, index, offset = match.groups()
        number = int(snapshot or index, 16)
        if number > MAX_INDEX:
            return None
        if snapshot:
            return SnapshotName(generation, number)
        position = int(offset, 16)
        return WALName(generation, number, position) if position <= MAX_OFFSET else None

    def _index(self, index: int) -> str:
        if not 0 <= index <= MAX_INDEX:
            raise InvalidNameError(f"invalid index: {index}")
        return f"{index:0{self.digits}x}"


V03 = Layout("v0.3", 8, "_")
SEED = Layout("seed", 8, "/")
V04 = Layout("v0.4", 16, "/")

LAYOUTS = (V03, SEED, V04)
"""All that can be read, the one to write first."""


def detect(keys: Iterable[str]) -> Layout:
    """The layout of one generation, from all its keys; foreign names do not count.

    V03 where nothing tells: no keys, or only snapshots, which v0.3 and seed name alike. Raises `MixedLayoutError`
    if there are names of two layouts.
    """
    possible = set(LAYOUTS)
    known = ""
    for key in keys:
        fitting = {layout for layout in possible if layout.parse(key) is not None}
        if fitting:
            possible, known = fitting, key
        elif any(layout.parse(key) is not None for layout in LAYOUTS):
            raise MixedLayoutError(f"names of two layouts in one generation: {known} and {key}")
    return next(layout for layout in LAYOUTS if layout in possible)


def is_ltx_key(key: str) -> bool:
    """Whether `key` (relative to the replica) is a file of the official 0.5's LTX format."""
    return _LTX_KEY.fullmatch(key) is not None


def generation_of(key: str) -> str | None:
    """The generation that a key is in, whether or not the rest of it is a name of ours; None: in none."""
    match = _GENERATION_KEY.fullmatch(key)
    return match[1] if match else None
