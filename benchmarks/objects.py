"""What is inside a stored object: the pages of a WAL segment (0.3, ours) or of an LTX file (0.5), and marks in them."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import lz4.block
import lz4.frame

from benchmarks.measure import SECOND
from benchmarks.watch import Seen

_LZ4, _LTX = b"\x04\x22\x4d\x18", b"LTX1"
_LTX_HEADER = 100
_MARK = re.compile(rb"<<id:(\d{8})>>")


def mark(number: int) -> str:
    """What a transaction writes so that it is found in what is stored."""
    return f"<<id:{number:08d}>>"


def content(data: bytes) -> bytes:
    """The bytes of pages in an object; of unknown formats the object itself."""
    if data.startswith(_LTX):
        return _ltx_pages(data)
    if data.startswith(_LZ4):
        # The frame only: what comes after it (a stamp) is no content.
        return bytes(lz4.frame.LZ4FrameDecompressor().decompress(data))
    return data


def _ltx_pages(data: bytes) -> bytes:
    (page_size,) = struct.unpack_from(">I", data, 8)
    at, pages = _LTX_HEADER, []
    while at + 6 <= len(data):
        number, flags = struct.unpack_from(">IH", data, at)
        at += 6
        if number == 0:
            break
        if not flags & 1:
            raise ValueError("an LTX page in the form of earlier versions")
        (length,) = struct.unpack_from(">I", data, at)
        at += 4
        pages.append(lz4.block.decompress(data[at : at + length], uncompressed_size=page_size))
        at += length
    return b"".join(pages)


def marks(data: bytes) -> set[int]:
    """The numbers of the transactions in an object."""
    return {int(number) for number in _MARK.findall(content(data))}


def delays(seen: Iterable[Seen], commits: Mapping[int, int]) -> list[float]:
    """Milliseconds from each commit to the first visible object that has it, of those that are in one."""
    first: dict[int, int] = {}
    for each in seen:
        if each.data is not None and (each.data.startswith((_LZ4, _LTX))):
            for number in marks(each.data):
                first.setdefault(number, each.time)
    return [(first[number] - when) * 1000 / SECOND for number, when in commits.items() if number in first]


def stored(root: Path) -> tuple[int, int]:
    """Files and bytes in a replica."""
    sizes = [path.stat().st_size for path in root.rglob("*") if path.is_file() and ".tmp" not in path.name]
    return len(sizes), sum(sizes)
