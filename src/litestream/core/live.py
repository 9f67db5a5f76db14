"""The records of `GET /stream`, by which a database is followed live, as 0.4 had them.

The body of the answer is a sequence of records that does not end: a header of 40 bytes, all numbers big-endian, and so
many bytes of payload as it says::

     0  4  type: 1 snapshot, 2 WAL segment
     4  4  flags, 0
     8  8  generation: its name read as a hex number
    16  8  index
    24  8  offset
    32  8  bytes of payload

A snapshot's payload is the database file as it is, a segment's one LZ4 frame (and our stamp) of the WAL from `offset`
on.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from litestream.core.position import MAX_INDEX, Pos
from litestream.errors import CorruptObjectError

RECORD_SIZE = 40

PAGE_SIZE_HEADER = "Litestream-page-size"
"""Header of the answer: bytes of a page."""

POSITION_HEADER = "Litestream-position"
"""Header of the answer, ours: the exact position of the state that the snapshot at its beginning is."""

_RECORD = struct.Struct(">IIQQQQ")


class RecordType(IntEnum):
    """What a record carries."""

    SNAPSHOT = 1
    WAL = 2


@dataclass(frozen=True, slots=True)
class Record:
    """The header of a record."""

    kind: RecordType
    pos: Pos
    size: int
    """Bytes of payload."""

    def pack(self) -> bytes:
        """The header's 40 bytes."""
        return _RECORD.pack(self.kind, 0, int(self.pos.generation, 16), self.pos.index, self.pos.offset, self.size)

    @classmethod
    def unpack(cls, raw: bytes) -> Record:
        """The header that 40 bytes are. Raises `CorruptObjectError` if they are none."""
        kind, flags, generation, index, offset, size = _RECORD.unpack(raw)
        if kind not in tuple(RecordType) or flags:
            raise CorruptObjectError(f"not a record of a stream (type {kind}, flags {flags})")
        if index > MAX_INDEX or offset >= 1 << 62 or size >= 1 << 62:
            raise CorruptObjectError(
                f"a record's numbers are out of range: index {index}, offset {offset}, size {size}"
            )
        return cls(RecordType(kind), Pos(f"{generation:016x}", index, offset), size)
