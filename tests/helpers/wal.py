"""Facts about a database's -wal and -shm, read as files. For test processes that have no database open."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path


def beside(db: Path, suffix: str) -> Path:
    """`db` with -wal, -shm or -journal behind its name."""
    return db.with_name(db.name + suffix)


@dataclass(frozen=True)
class Header:
    """The WAL header: https://sqlite.org/fileformat2.html#the_wal_file_format."""

    magic: int
    page_size: int
    salt1: int
    salt2: int


def header(db: Path) -> Header | None:
    """The header of the WAL, or None where there is none."""
    try:
        raw = beside(db, "-wal").read_bytes()[:32]
    except FileNotFoundError:
        return None
    if len(raw) < 32:
        return None
    magic, _, page_size, _, salt1, salt2, _, _ = struct.unpack(">8I", raw)
    return Header(magic, page_size, salt1, salt2)


def size(db: Path) -> int:
    """Bytes of the WAL file; 0 where there is none."""
    try:
        return beside(db, "-wal").stat().st_size
    except FileNotFoundError:
        return 0


@dataclass(frozen=True)
class Index:
    """What the wal-index says: frames committed, and how many of them are in the database file already."""

    frames: int
    backfilled: int

    @property
    def complete(self) -> bool:
        return self.frames == self.backfilled


def index(db: Path) -> Index:
    """https://sqlite.org/walformat.html#the_wal_index_file_format; native byte order."""
    with beside(db, "-shm").open("rb") as f:
        raw = f.read(136)
    return Index(*struct.unpack_from("=I", raw, 16), *struct.unpack_from("=I", raw, 96))


def checksum(data: bytes, start: tuple[int, int], order: str) -> tuple[int, int]:
    """SQLite's WAL checksum over 32-bit words of the given byte order ('<' or '>')."""
    s0, s1 = start
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for x, y in zip(words[::2], words[1::2], strict=True):
        s0 = (s0 + x + s1) & 0xFFFFFFFF
        s1 = (s1 + y + s0) & 0xFFFFFFFF
    return s0, s1


def to_big_endian(raw: bytes) -> bytes:
    """The same WAL as a big-endian machine would have written it: another magic, other checksums."""
    page_size = struct.unpack_from(">I", raw, 8)[0]
    out = bytearray(raw)
    struct.pack_into(">I", out, 0, 0x377F0683)
    running = checksum(bytes(out[:24]), (0, 0), ">")
    struct.pack_into(">2I", out, 24, *running)
    for at in range(32, len(raw) - page_size - 23, 24 + page_size):
        if raw[at + 8 : at + 16] != raw[16:24]:
            break
        running = checksum(bytes(out[at : at + 8]), running, ">")
        running = checksum(bytes(out[at + 24 : at + 24 + page_size]), running, ">")
        struct.pack_into(">2I", out, at + 16, *running)
    return bytes(out)
