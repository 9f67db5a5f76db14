"""SQLite's write-ahead log: header, frames, and how much of one is valid and committed.

All numbers are big-endian (sqlite.org/fileformat2.html, "The Write-Ahead Log")::

    header, 32 bytes                          frame: 24 bytes and one page
      0  4  magic 0x377f0682, or 0x377f0683     0  4  page number
            where checksums take big-endian     4  4  pages in the database after the commit,
            words                                     0 where the frame ends no transaction
      4  4  format version, 3007000             8  8  the header's two salts
      8  4  page size                          16  8  checksum, running on from the frame before
     12  4  checkpoint sequence number                (the first: from the header's), over bytes
     16  8  two salts                                 0 to 7 of this and the page
     24  8  checksum of bytes 0 to 23
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from litestream.core.checksum import Buffer, Checksum, frame_start, verify_frames, wal_checksum
from litestream.errors import CorruptObjectError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WAL_HEADER_SIZE = 32
FRAME_HEADER_SIZE = 24
WAL_VERSION = 3007000

_MAGIC = 0x377F0682  # its lowest bit set: big-endian checksum words
_HEADER = struct.Struct(">IIIIIIII")
_FRAME = struct.Struct(">II8sII")
_PAIR = struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class WALHeader:
    """The 32 bytes at the start of a WAL."""

    magic: int
    version: int
    page_size: int
    sequence: int
    salt1: int
    salt2: int
    checksum: Checksum

    @property
    def big(self) -> bool:
        """Whether checksums of this WAL take big-endian words."""
        return bool(self.magic & 1)

    @property
    def salts(self) -> bytes:
        """The two salts as they stand in the file, 8 bytes."""
        return _PAIR.pack(self.salt1, self.salt2)

    @property
    def raw(self) -> bytes:
        """The header as it stands in the file, 32 bytes."""
        return _HEADER.pack(
            self.magic, self.version, self.page_size, self.sequence, self.salt1, self.salt2, *self.checksum
        )

    @classmethod
    def parse(cls, raw: Buffer) -> WALHeader:
        """The header that the first 32 bytes of `raw` are. `CorruptObjectError` says what is wrong with them."""
        if len(raw) < WAL_HEADER_SIZE:
            raise CorruptObjectError(f"WAL header cut short: {len(raw)} of {WAL_HEADER_SIZE} bytes")
        magic, version, page_size, sequence, salt1, salt2, *checksum = _HEADER.unpack_from(raw)
        if magic & ~1 != _MAGIC:
            raise CorruptObjectError(f"not a WAL: magic {magic:08x}")
        if version != WAL_VERSION:
            raise CorruptObjectError(f"unknown WAL version {version}")
        if not is_page_size(page_size):
            raise CorruptObjectError(f"WAL header with a page size of {page_size}")
        if wal_checksum(memoryview(raw)[:24], big=bool(magic & 1)) != tuple(checksum):
            raise CorruptObjectError("wrong checksum of the WAL header")
        return cls(magic, version, page_size, sequence, salt1, salt2, (checksum[0], checksum[1]))

    @classmethod
    def build(cls, page_size: int, salts: bytes, sequence: int = 0, big: bool = False) -> WALHeader:
        """A header with these values and the checksum that belongs to them; `salts` are 8 bytes."""
        magic = _MAGIC | big
        salt1, salt2 = _PAIR.unpack(salts)
        plain = _HEADER.pack(magic, WAL_VERSION, page_size, sequence, salt1, salt2, 0, 0)
        return cls(magic, WAL_VERSION, page_size, sequence, salt1, salt2, wal_checksum(plain[:24], big=big))


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The 24 bytes before a page. `commit` is the database's size in pages, 0 where no transaction ends."""

    pgno: int
    commit: int
    salts: bytes
    checksum: Checksum

    @classmethod
    def parse(cls, raw: Buffer) -> FrameHeader:
        """The frame header that the first 24 bytes of `raw` are; nothing about it is checked but the length."""
        if len(raw) < FRAME_HEADER_SIZE:
            raise CorruptObjectError(f"WAL frame header cut short: {len(raw)} of {FRAME_HEADER_SIZE} bytes")
        pgno, commit, salts, s0, s1 = _FRAME.unpack_from(raw)
        return cls(pgno, commit, salts, (s0, s1))

    def pack(self) -> bytes:
        """The header as it stands in the file, 24 bytes."""
        return _FRAME.pack(self.pgno, self.commit, self.salts, *self.checksum)


@dataclass(frozen=True, slots=True)
class FrameRun:
    """What a run of frames holds, up to the first frame that is not valid."""

    count: int
    """Valid frames."""
    committed: int
    """Leading ones of them up to and including the last that ends a transaction; 0: none does."""
    db_pages: int
    """Pages in the database after the last of these transactions; 0: there is none."""
    checksum: Checksum
    """Running checksum after `count` frames."""
    committed_checksum: Checksum
    """Running checksum after `committed` frames."""


def is_page_size(n: int) -> bool:
    """Whether SQLite knows pages of this size: a power of two from 512 to 65536."""
    return 512 <= n <= 65536 and n & (n - 1) == 0


def frame_size(page_size: int) -> int:
    """Bytes of a frame, its header included."""
    return FRAME_HEADER_SIZE + page_size


def frame_offset(n: int, page_size: int) -> int:
    """Offset in the WAL file of frame `n`, the first being 0; so also the size of a WAL of `n` frames."""
    return WAL_HEADER_SIZE + n * frame_size(page_size)


def frame_count(offset: int, page_size: int) -> int:
    """Whole frames that stand before `offset` of the WAL file."""
    return max(0, (offset - WAL_HEADER_SIZE) // frame_size(page_size))


def frame_align(offset: int, page_size: int) -> int:
    """The last frame boundary at or before `offset`; 0 inside the header."""
    return frame_offset(frame_count(offset, page_size), page_size) if offset >= WAL_HEADER_SIZE else 0


def scan_frames(buf: Buffer, header: WALHeader, *, start: Checksum, offset: int = 0) -> FrameRun:
    """Check the frames that stand at `offset` of `buf`, in a WAL of this header after the checksum `start`.

    Ends at the first frame that is cut short, has page number 0, other salts, or a checksum that does not follow:
    leftovers of an older WAL or of a transaction that was rolled back, or damage. It is the caller who knows which.
    Bytes are not a commit: what is valid here may still be unpublished in the live database's wal-index.
    """
    page_size = header.page_size
    size = frame_size(page_size)
    count = verify_frames(
        buf,
        page_size=page_size,
        offset=offset,
        count=(len(buf) - offset) // size,
        start=start,
        salts=header.salts,
        big=header.big,
    )
    committed = count
    while committed and not _frame(buf, offset + (committed - 1) * size).commit:
        committed -= 1
    last = _frame(buf, offset + (count - 1) * size) if count else None
    last_commit = _frame(buf, offset + (committed - 1) * size) if committed else None
    return FrameRun(
        count=count,
        committed=committed,
        db_pages=last_commit.commit if last_commit else 0,
        checksum=last.checksum if last else start,
        committed_checksum=last_commit.checksum if last_commit else start,
    )


def committed_prefix(wal: Buffer) -> tuple[WALHeader, FrameRun]:
    """Header and valid frames of a whole WAL file: what SQLite's own recovery would take from it.

    The committed bytes end at `frame_offset(run.committed, header.page_size)`. Raises `CorruptObjectError` where the
    header is none.
    """
    header = WALHeader.parse(wal)
    return header, scan_frames(wal, header, start=header.checksum, offset=WAL_HEADER_SIZE)


def derive_start(buf: Buffer, page_size: int, big: bool, offset: int = 0) -> Checksum:
    """The checksum that must stand before the frame at `offset` of `buf` for that frame's own to be right.

    With it a piece of a WAL verifies by itself, and shows what its predecessor must have ended with. (Nothing is
    proved of the first frame: any damage to it leads to another start.)
    """
    size = frame_size(page_size)
    frame = memoryview(buf)[offset : offset + size]
    if len(frame) < size:
        raise CorruptObjectError(f"WAL frame cut short: {len(frame)} of {size} bytes")
    return frame_start(frame, big=big)


def frames_table(buf: Buffer, page_size: int, offset: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Page numbers and commit values of all whole frames from `offset` of `buf` on, in order. Imports numpy.

    Nothing is verified here. The numbers are 64-bit, so that page number times page size does not overflow.
    """
    import numpy as np

    size = frame_size(page_size)
    count = max(0, (len(buf) - offset) // size)
    if not count:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    heads = np.frombuffer(buf, np.uint8, count * size, offset).reshape(count, size)[:, :8]
    numbers = heads.copy().view(">u4").astype(np.int64)
    return numbers[:, 0], numbers[:, 1]


def _frame(buf: Buffer, offset: int) -> FrameHeader:
    pgno, commit, salts, s0, s1 = _FRAME.unpack_from(buf, offset)
    return FrameHeader(pgno, commit, salts, (s0, s1))
