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

Behind it, in blocks of 32 KiB, stands which page each frame holds, and a hash table that finds the frames of a page::

    block 0:  136 bytes as above, 4062 page numbers (u32), 8192 slots (u16)
    others:   4096 page numbers, 8192 slots

A slot holds the number of a frame within its block, the first being 1; 0: it is free. A page's frames stand in the
slots from (number * 383) modulo 8192 on, in the order of the frames, up to the first free one.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from litestream.core.checksum import Checksum, wal_checksum

WAL_INDEX_SIZE = 136
"""Bytes of `-shm` that `parse_wal_index` looks at."""

BLOCK_SIZE = 32768
"""Bytes of a block of the hash tables; the first has the header in it."""

_ENTRIES = 4096
_FIRST_ENTRIES = 4062
_SLOTS = 8192
_HASH_AT = BLOCK_SIZE - 2 * _SLOTS

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


def pack_wal_index(header: WalIndexHeader) -> bytes:
    """One copy of the header, 48 bytes, its checksum filled in."""
    size = (header.page_size & 0xFE00) | header.page_size >> 16
    fields = (_VERSION, header.change, 1, header.big, size, header.max_frame, header.db_pages, *header.checksum)
    plain = _HEADER.pack(*fields, header.salts, 0, 0)
    return _HEADER.pack(*fields, header.salts, *wal_checksum(plain[:40], big=sys.byteorder == "big"))


def block_of(frame: int) -> int:
    """The block that frame (the first being 1) is entered in."""
    return (frame + _ENTRIES - _FIRST_ENTRIES - 1) // _ENTRIES


def last_frame_of(block: int) -> int:
    """The last frame that has room in a block."""
    return _FIRST_ENTRIES + block * _ENTRIES


def enter_frames(raw: bytearray, block: int, first: int, pages: Sequence[int]) -> None:
    """Enter frames from `first` on, which hold these pages, in the bytes of their block.

    What stands there for `first` and later frames is dropped: a writer that died left it.
    """
    before = last_frame_of(block - 1) if block else 0
    skipped = (BLOCK_SIZE - 2 * _SLOTS - 4 * (last_frame_of(block) - before)) // 4
    numbers = memoryview(raw)[:_HASH_AT].cast("I")[skipped:]
    slots = memoryview(raw)[_HASH_AT:].cast("H")
    at = first - before  # 1 is the first of the block
    if any(numbers[at - 1 :]) or at == 1:
        for n in range(at - 1, len(numbers)):
            numbers[n] = 0
        for n in range(_SLOTS):
            if slots[n] >= at:
                slots[n] = 0
    for number, page in enumerate(pages, at):
        numbers[number - 1] = page
        slot = page * 383 % _SLOTS
        while slots[slot]:
            slot = (slot + 1) % _SLOTS
        slots[slot] = number
