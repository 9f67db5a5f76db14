"""The stamp: what every object that we write says about itself and its predecessor.

It stands behind the object's LZ4 frame in an LZ4 *skippable frame*, which every LZ4 reader passes over. All numbers
are big-endian but the skippable frame's own two (LZ4 frame format, "Skippable Frames")::

      0   4  skippable magic 0x184D2A5A, little-endian
      4   4  payload length (224), little-endian
      8   4  "LSP" and the version, 1
     12   1  kind: 1 snapshot, 2 WAL segment
     13   3  zero
     16   8  generation
     24   8  index
     32   8  offset (0 for a snapshot)
     40   4  page size
     44   4  size of the database in pages after this object
     48   8  length of the uncompressed content
     56  32  SHA-256 of everything before the stamp (the LZ4 frame)
     88   8  predecessor: generation (zero: there is none)
     96   8  predecessor: index where it ended
    104   8  predecessor: offset where it ended
    112   8  predecessor: running WAL checksum there (zero at offset 0 or for a snapshot's lack of one)
    120   8  running WAL checksum at the end of this object
    128  32  header of the WAL (zero where there was none)
    160   8  required index   } a snapshot is a committed state only together with the WAL up to here;
    168   8  required offset  } a segment's own end
    176   8  time of the first commit in it, Unix nanoseconds as the replicator saw it
    184   8  time of the last commit in it
    192  16  writer: random id of the replicator's run
    208  16  zero
    224   8  first 8 bytes of the SHA-256 of bytes 8 to 223

The stamp is found from the end of the object: its size is fixed at 232 bytes.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum

from litestream.core.position import Pos
from litestream.errors import CorruptObjectError

STAMP_SIZE = 232
_MAGIC = 0x184D2A5A
_TAG = b"LSP\x01"
_LAYOUT = struct.Struct(">4sB3x8sQQIIQ32s8sQQ8s8s32sQQqq16s16x")
_HEAD = struct.Struct("<II")
_SIZES = (("frame_hash", 32), ("prev_checksum", 8), ("end_checksum", 8), ("wal_header", 32), ("writer", 16))

assert _LAYOUT.size == STAMP_SIZE - 8 - 8


class Kind(IntEnum):
    SNAPSHOT = 1
    WAL = 2


@dataclass(frozen=True, slots=True)
class Stamp:
    """See the module's drawing. `pos` is the object's own position (offset 0 for a snapshot)."""

    kind: Kind
    pos: Pos
    page_size: int
    db_pages: int
    length: int
    frame_hash: bytes
    prev: Pos
    """Where the predecessor ended; the zero position if there is none.

    For a segment: its own position, or the end of the index before when its offset is 0 (zero for the first
    segment of a generation). For the first snapshot of a generation: where the generation before it ended.
    """
    prev_checksum: bytes
    end_checksum: bytes
    wal_header: bytes
    required: tuple[int, int]
    """(index, offset) up to which WAL is needed before a snapshot is a committed state; a segment's own end."""
    first_commit_ns: int
    last_commit_ns: int
    writer: bytes

    def pack(self) -> bytes:
        """The skippable frame, `STAMP_SIZE` bytes. Raises `ValueError` for a field that does not have its size."""
        for name, size in _SIZES:  # struct would cut off or fill up without a word
            if len(getattr(self, name)) != size:
                raise ValueError(f"{name} must have {size} bytes")
        payload = _LAYOUT.pack(
            _TAG,
            self.kind,
            bytes.fromhex(self.pos.generation),
            self.pos.index,
            self.pos.offset,
            self.page_size,
            self.db_pages,
            self.length,
            self.frame_hash,
            bytes.fromhex(self.prev.generation) if self.prev.generation else bytes(8),
            self.prev.index,
            self.prev.offset,
            self.prev_checksum,
            self.end_checksum,
            self.wal_header,
            *self.required,
            self.first_commit_ns,
            self.last_commit_ns,
            self.writer,
        )
        return _HEAD.pack(_MAGIC, STAMP_SIZE - 8) + payload + hashlib.sha256(payload).digest()[:8]

    @classmethod
    def unpack(cls, tail: bytes) -> Stamp | None:
        """The stamp that ends `tail` (the last `STAMP_SIZE` bytes of an object, or more).

        None where no stamp of ours begins there. Raises `CorruptObjectError` where one begins but is damaged.
        """
        raw = bytes(tail[-STAMP_SIZE:])
        if len(raw) < STAMP_SIZE or raw[:12] != _HEAD.pack(_MAGIC, STAMP_SIZE - 8) + _TAG:
            return None
        payload, digest = raw[8:-8], raw[-8:]
        if hashlib.sha256(payload).digest()[:8] != digest:
            raise CorruptObjectError("the stamp is damaged")
        f = _LAYOUT.unpack(payload)
        if f[1] not in (Kind.SNAPSHOT, Kind.WAL):
            raise CorruptObjectError(f"the stamp is of an unknown kind ({f[1]})")
        prev_generation = f[9].hex() if f[9] != bytes(8) else ""
        return cls(
            kind=Kind(f[1]),
            pos=Pos(f[2].hex(), f[3], f[4]),
            page_size=f[5],
            db_pages=f[6],
            length=f[7],
            frame_hash=f[8],
            prev=Pos(prev_generation, f[10], f[11]) if prev_generation else Pos(),
            prev_checksum=f[12],
            end_checksum=f[13],
            wal_header=f[14],
            required=(f[15], f[16]),
            first_commit_ns=f[17],
            last_commit_ns=f[18],
            writer=f[19],
        )
