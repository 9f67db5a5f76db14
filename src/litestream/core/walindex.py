"""The header of the wal-index (`-shm`): which frames of the WAL are committed.

Bytes in the WAL are not a commit: a writer that dies may leave valid frames which the next one overwrites. What is
committed is what this header says. Its numbers are in the byte order of the machine (sqlite.org/walformat.html)::

     0  48  header:  0 version 3007000             20 pages in the database
                     4 unused                      24 checksum of that last frame, two numbers
                     8 change counter              32 the WAL's salts, bytes as in the WAL
                    12 u8 initialised              40 checksum of bytes 0 to 39
                    13 u8 WAL checksums are big-endian
                    14 u16 page size, 1 for 65536
                    16 last committed frame
    48  48  the same once more: a reader takes the header only while both are equal
    96   4  frames already copied to the database file (backfilled)
   100  36  read marks, lock bytes, backfill attempted
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass

from litestream.core.checksum import Checksum, wal_checksum

WAL_INDEX_SIZE = 136
"""Bytes of `-shm` that `parse_wal_index` looks at."""

_COPY = 48
_VERSION = 3007000
_HEADER = struct.Struct("=I4xIBBHIIII8sII")
_BACKFILLED = struct.Struct("=I")

assert _HEADER.size == _COPY


@dataclass(frozen=True, slots=True)
class WalIndexHeader:
    """One consistent reading of the wal-index header."""

    change: int
    """Counts transactions; wraps around."""
    page_size: int
    """Bytes; 0 where the WAL never held a frame since the wal-index was built."""
    max_frame: int
    """The last committed frame, the first being 1; 0: the WAL holds none, whatever its bytes say."""
    db_pages: int
    """Pages in the database."""
    checksum: Checksum
    """Running checksum at `max_frame`; without meaning where that is 0."""
    salts: bytes
    """The salts that the frames carry, 8 bytes as in the WAL header. A reset changes them here first."""
    big: bool
    """Whether the WAL's checksums take big-endian words."""


def parse_wal_index(raw: bytes) -> tuple[WalIndexHeader, int] | None:
    """The header and the number of backfilled frames, from the first 136 bytes of `-shm`.

    None where nothing can be told: the two copies differ (somebody is writing: read again), the wal-index is not
    initialised, of another version, wrong in its checksum, or cut short.
    """
    if len(raw) < WAL_INDEX_SIZE or raw[:_COPY] != raw[_COPY : 2 * _COPY]:
        return None
    version, change, initialised, big, size, max_frame, db_pages, f0, f1, salts, c0, c1 = _HEADER.unpack_from(raw)
    if version != _VERSION or not initialised:
        return None
    # Its own checksum always takes native words, whatever the WAL's magic says.
    if wal_checksum(raw[:40], big=sys.byteorder == "big") != (c0, c1):
        return None
    # 65536 does not fit into 16 bits: SQLite folds its bit 16 down to bit 0.
    page_size = (size & 0xFE00) | (size & 1) << 16
    (backfilled,) = _BACKFILLED.unpack_from(raw, 2 * _COPY)
    return WalIndexHeader(change, page_size, max_frame, db_pages, (f0, f1), salts, bool(big)), backfilled
