"""Made-up WALs for the tests of the core, put together with the plain reference checksum only."""

from __future__ import annotations

import random
from collections.abc import Iterable

from litestream.core.checksum import Checksum, wal_checksum
from litestream.core.wal import FrameHeader, WALHeader

PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
SALTS = bytes.fromhex("0123456789abcdef")

Frame = tuple[int, int, bytes]
"""Page number, commit value, page."""


def pages(rng: random.Random, page_size: int, commits: Iterable[int]) -> list[Frame]:
    """One frame with random content for each commit value."""
    return [(rng.randrange(1, 1 << 32), commit, rng.randbytes(page_size)) for commit in commits]


def make_frames(header: WALHeader, frames: Iterable[Frame], start: Checksum | None = None) -> bytes:
    """The frames' bytes, chained from `start`, by default from the header."""
    checksum = header.checksum if start is None else start
    out = bytearray()
    for pgno, commit, page in frames:
        first = FrameHeader(pgno, commit, header.salts, (0, 0)).pack()[:8]
        checksum = wal_checksum(page, wal_checksum(first, checksum, big=header.big), big=header.big)
        out += FrameHeader(pgno, commit, header.salts, checksum).pack() + page
    return bytes(out)


def make_wal(
    page_size: int, frames: Iterable[Frame], *, big: bool = False, salts: bytes = SALTS
) -> tuple[WALHeader, bytes]:
    """A whole WAL file and its header."""
    header = WALHeader.build(page_size, salts, sequence=7, big=big)
    return header, header.raw + make_frames(header, frames)


def flip(data: bytes, bit: int) -> bytes:
    """`data` with this one bit turned over."""
    out = bytearray(data)
    out[bit >> 3] ^= 1 << (bit & 7)
    return bytes(out)
