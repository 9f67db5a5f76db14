"""One WAL segment, unpacked and verified by itself.

A segment that does not begin its WAL can be verified before its predecessor is there: each frame follows from the
one before it, and the first one tells which checksum the predecessor must have ended with (`derive_start`). So
segments are verified in any order and in parallel; `litestream.restore.links` then compares the ends.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from litestream.core.checksum import Checksum, verify_frames
from litestream.core.position import WALSegmentInfo
from litestream.core.stamp import Stamp
from litestream.core.wal import (
    FRAME_HEADER_SIZE,
    WAL_HEADER_SIZE,
    FrameHeader,
    WALHeader,
    derive_start,
    frame_count,
    frame_size,
)
from litestream.errors import CorruptObjectError

IN_MEMORY = 6 << 20
"""Bytes of a segment's content held in memory; our own segments have 4 MiB, official ones may be the whole WAL."""
PIECE = 4 << 20
"""Bytes of frames handed out at once."""


class Segment:
    """The content of one segment: fed in pieces, then read from its end.

    Args:
        key: the object's key, for errors.
        page_size: what it must be.
        header: the header of its WAL. None: it begins the WAL (offset 0) and brings it.
        directory: where content too big for memory is put, in a file without a name.

    Attributes:
        start: checksum that the predecessor in the same WAL must have ended with (the header's for the first one).
        end: checksum of its last frame (`start` if it has none).
        frames: how many there are.
        length: bytes of content.
        stamp: set by whoever read it.
    """

    def __init__(
        self, info: WALSegmentInfo, key: str, *, page_size: int, header: WALHeader | None, directory: str
    ) -> None:
        self.info = info
        self.key = key
        self.page_size = page_size
        self.header = header
        self.start: Checksum = (0, 0)
        self.end: Checksum = (0, 0)
        self.frames = 0
        self.length = 0
        self.stamp: Stamp | None = None
        self._head = WAL_HEADER_SIZE if info.offset == 0 else 0
        self._frame = frame_size(page_size)
        self._directory = directory
        self._buffer: bytes | bytearray = b""
        self._spool: BinaryIO | None = None
        self._spooled = 0
        if info.offset and (info.offset - WAL_HEADER_SIZE) % self._frame:
            raise self.corrupt(f"its offset is no frame boundary for pages of {page_size} bytes")

    # -- filling

    def feed(self, data: bytes) -> None:
        """Take more content and verify its whole frames. Raises `CorruptObjectError` at the first that is wrong."""
        if not self._buffer:
            self._buffer = data  # most often all there is: not copied
        elif isinstance(self._buffer, bytearray):
            self._buffer += data
        else:
            self._buffer = bytearray(self._buffer) + data
        self.length += len(data)
        if self._head and self.length >= WAL_HEADER_SIZE and not self._verified():
            self._take_header()
        self._verify()
        if len(self._buffer) > IN_MEMORY:
            self._spill()

    def finish(self) -> None:
        """All content was fed. Raises `CorruptObjectError` if it does not end with a whole frame."""
        if self.length < self._head or self.length == 0:
            raise self.corrupt(f"only {self.length} bytes of WAL")
        if self._verified() != self.length:
            raise self.corrupt("ends inside a WAL frame")
        if self._spool is not None:
            self._spill()

    def corrupt(self, reason: str) -> CorruptObjectError:
        return CorruptObjectError(reason, key=self.key)

    # -- reading

    @property
    def end_offset(self) -> int:
        """Offset in the WAL behind the last byte."""
        return self.info.offset + self.length

    def read(self, first: int, count: int) -> memoryview:
        """The bytes of `count` frames from frame `first` on."""
        at, size = self._head + first * self._frame, count * self._frame
        if self._spool is None:
            return memoryview(self._buffer)[at : at + size]
        data = os.pread(self._spool.fileno(), size, at)
        if len(data) != size:
            raise self.corrupt("could not be read back from its temporary file")
        return memoryview(data)

    def frame(self, number: int) -> FrameHeader:
        """The header of a frame, 0 being the first of this segment."""
        at = self._head + number * self._frame
        if self._spool is None:
            return FrameHeader.parse(memoryview(self._buffer)[at : at + FRAME_HEADER_SIZE])
        return FrameHeader.parse(os.pread(self._spool.fileno(), FRAME_HEADER_SIZE, at))

    def frames_until(self, offset: int) -> int:
        """How many of its frames end at or before an offset of the WAL."""
        return min(self.frames, max(0, offset - self.info.offset - self._head) // self._frame)

    def committed(self, most: int | None = None) -> int:
        """How many leading frames (of the first `most`) there are up to the last that ends a transaction."""
        count = self.frames if most is None else most
        while count and not self.frame(count - 1).commit:
            count -= 1
        return count

    def close(self) -> None:
        """Let the content go; everything else stays readable. May be called twice."""
        self._buffer = b""
        if self._spool is not None:
            self._spool.close()

    # -- inside

    def _verified(self) -> int:
        """Bytes of content that are verified."""
        if self._head and self.header is None:
            return 0
        return self._head + self.frames * self._frame

    def _take_header(self) -> None:
        try:
            self.header = WALHeader.parse(self._buffer)
        except CorruptObjectError as error:
            raise self.corrupt(error.reason) from error
        if self.header.page_size != self.page_size:
            raise self.corrupt(f"page size {self.header.page_size}, the snapshot has {self.page_size}")
        self.start = self.end = self.header.checksum

    def _verify(self) -> None:
        at = self._verified() - self._spooled
        count = (len(self._buffer) - at) // self._frame
        if self.header is None or count <= 0:
            return
        if not self.frames and not self._head:
            self.start = self.end = derive_start(self._buffer, self.page_size, self.header.big, at)
        valid = verify_frames(
            self._buffer,
            page_size=self.page_size,
            offset=at,
            count=count,
            start=self.end,
            salts=self.header.salts,
            big=self.header.big,
        )
        if valid < count:
            number = frame_count(self.info.offset, self.page_size) + self.frames + valid + 1
            raise self.corrupt(f"WAL frame {number} does not follow the one before it (salt or checksum)")
        self.frames += count
        last = at + (count - 1) * self._frame
        self.end = FrameHeader.parse(memoryview(self._buffer)[last : last + FRAME_HEADER_SIZE]).checksum

    def _spill(self) -> None:
        """Move what is verified into the spool file."""
        if self._spool is None:
            import tempfile  # 20 ms, and only large objects need it

            self._spool = tempfile.TemporaryFile(dir=self._directory, prefix=".litestream-")  # noqa: SIM115
        size = self._verified() - self._spooled
        self._spool.write(memoryview(self._buffer)[:size])
        self._spool.flush()
        self._buffer = self._buffer[size:]
        self._spooled += size
