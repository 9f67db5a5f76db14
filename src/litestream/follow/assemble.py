"""From segments to transactions: what follows what was proved, frame by frame, up to the end of a transaction."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

from litestream.core.checksum import Checksum
from litestream.core.position import Pos
from litestream.core.stamp import Stamp
from litestream.core.wal import WAL_HEADER_SIZE, FrameHeader, WALHeader, frame_size, scan_frames
from litestream.errors import CorruptObjectError

IN_MEMORY = 8 << 20
"""Bytes of frames held in memory; more (one large transaction) goes to a file without a name."""

_PIECE = 1 << 20


class Assembler:
    """Takes the segments from the beginning of an index on; holds the frames behind `applied` until `take`.

    Args:
        applied: what the copy has already: frames up to there are checked and left out.
        salts: those of the WAL at `applied`, 16 hex digits; empty: not known.
        required: nothing is `ready` before this position.
        directory: where a transaction too large for memory is put.

    Attributes:
        at: where the last segment ended.
        salts: of the WAL there.
    """

    def __init__(self, applied: Pos, page_size: int, *, required: Pos, salts: str = "", directory: str = "") -> None:
        self.page_size = page_size
        self.at = applied
        self.salts = salts
        self.held = 0
        """Bytes of frames that are held."""
        self.db_pages = 0
        """Pages of the database after the last frame; 0: it ends no transaction."""
        self._applied = applied
        self._required = required
        self._directory = directory
        self._header: WALHeader | None = None
        self._checksum: Checksum = (0, 0)
        self._spool = self._new_spool()

    @property
    def ready(self) -> bool:
        """Whether what is held ends with a transaction and may be shown."""
        return self.held > 0 and self.db_pages > 0 and self.at >= self._required

    def feed(self, pos: Pos, data: bytes, stamp: Stamp | None) -> None:
        """Take the content of the segment at `pos`. Raises `CorruptObjectError` if it does not follow or is damaged."""
        head = self._begin(pos, data, stamp)
        assert self._header is not None  # _begin has seen to it
        run = scan_frames(data, self._header, start=self._checksum, offset=head)
        size = frame_size(self.page_size)
        if head + run.count * size != len(data):
            raise CorruptObjectError("a frame does not continue the checksum chain", key=str(pos))
        known = 0
        if self._applied.index == pos.index:
            known = min(run.count, max(0, self._applied.offset - pos.offset - head) // size)
        self._checksum = run.checksum
        self.at = Pos(pos.generation, pos.index, pos.offset + len(data))
        self.salts = self._header.salts.hex()
        if run.count > known:
            frames = memoryview(data)[head + known * size :]
            self._spool.write(frames)
            self.held += len(frames)
            self.db_pages = FrameHeader.parse(data[len(data) - size :]).commit

    def pieces(self) -> Iterator[bytearray]:
        """The frames that are held, in order, about 1 MiB at a time."""
        size = frame_size(self.page_size)
        self._spool.seek(0)
        while piece := self._spool.read(max(1, _PIECE // size) * size):
            yield bytearray(piece)

    def taken(self) -> None:
        """What was held is in the copy."""
        self._spool.close()
        self._spool = self._new_spool()
        self._applied = self.at
        self.held = self.db_pages = 0

    def close(self) -> None:
        """Let everything go."""
        self._spool.close()

    def _new_spool(self) -> tempfile.SpooledTemporaryFile[bytes]:
        return tempfile.SpooledTemporaryFile(IN_MEMORY, dir=self._directory or None)

    def _begin(self, pos: Pos, data: bytes, stamp: Stamp | None) -> int:
        """Check that the segment is the next one; the bytes before its first frame."""
        if stamp is not None and stamp.pos != pos:
            raise CorruptObjectError(f"holds the segment of {stamp.pos}", key=str(pos))
        if pos.offset:
            if self._header is None or pos != self.at:
                raise CorruptObjectError(f"a segment is missing before it, behind {self.at}", key=str(pos))
            return 0
        follows = pos.index == self.at.index + 1
        if pos.generation != self.at.generation or not (follows or (pos.index == self.at.index and not self._header)):
            raise CorruptObjectError(f"a segment is missing before it, behind {self.at}", key=str(pos))
        header = WALHeader.parse(data)
        if header.page_size != self.page_size:
            raise CorruptObjectError(f"pages of {header.page_size} bytes, not {self.page_size}", key=str(pos))
        if follows and stamp is not None and stamp.prev != self.at:
            raise CorruptObjectError(f"follows {stamp.prev}, and not {self.at}", key=str(pos))
        if not follows and self._applied.offset and self.salts not in ("", header.salts.hex()):
            raise CorruptObjectError("is of another WAL than the copy", key=str(pos))
        self._header, self._checksum = header, header.checksum
        return WAL_HEADER_SIZE
