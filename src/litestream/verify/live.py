"""A fingerprint of a live database at one moment, and whether a restored copy is the same.

What is kept is 16 bytes for each page, in a scratch file: the read transaction ends as soon as the database was read
once, however long the replica takes to get there and the copy to be restored.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from litestream.core.position import Pos
from litestream.sqlite.pages import LivePages
from litestream.sqlite.source import Source
from litestream.verify.model import Comparison
from litestream.verify.scratch import check_room

_DIGEST = 16
"""Bytes: two different pages never have the same one."""
_CHUNK = 1 << 20
_LOCK_BYTE = 0x40000000
"""The page that holds this byte is never part of the database (sqlite.org/fileformat2.html, "The Lock-Byte Page")."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """One committed state of a live database."""

    file: str
    """The pages' digests, one after the other."""
    page_size: int
    pages: int
    salts: bytes
    """Of the WAL that it was read with."""
    offset: int
    """Behind the last frame of that WAL that counts; 0: the WAL held none, and what came before it is the state."""


def fingerprint_of(path: str, directory: str, go_on: Callable[[], None]) -> Fingerprint:
    """Read the live database at `path`, which this process has not open. Blocking.

    Its writers are not held up; nothing in it changes. Raises what `litestream.sqlite.source.Source` raises: the
    database is absent, busy, not in WAL mode, cannot be opened for writing; `RestoreError` without room. `go_on` is
    called before each piece and may raise.
    """
    source = Source(os.path.realpath(path))
    try:
        pages = LivePages.begin(source)
        try:
            return write_fingerprint(pages, directory, go_on)
        finally:
            pages.close()
    finally:
        source.close()


def write_fingerprint(pages: LivePages, directory: str, go_on: Callable[[], None]) -> Fingerprint:
    """Read all pages once. Blocking; ends with a `DatabaseError` when `pages` is closed by somebody else."""
    check_room(directory, pages.total * _DIGEST)
    file = os.path.join(directory, "fingerprint")
    with open(file, "wb") as out:
        out.writelines(_digests(pages.chunks(), pages.page_size, go_on))
    return Fingerprint(file, pages.page_size, pages.total, pages.header.salts, pages.end)


def compare(found: Fingerprint, copy: str, pos: Pos, go_on: Callable[[], None]) -> Comparison:
    """Compare a restored copy, page by page. Blocking."""
    page_size = found.page_size
    total = -(-os.stat(copy).st_size // page_size)
    different = abs(total - found.pages)
    first = [min(total, found.pages) + 1] if different else []
    lock_page = _LOCK_BYTE // page_size + 1
    numbers: list[int] = []
    with open(found.file, "rb") as live, open(copy, "rb") as restored:
        at = 0
        for digests in _digests(_pieces(restored, page_size), page_size, go_on):
            theirs = live.read(len(digests))
            if digests != theirs:
                for n in range(0, min(len(digests), len(theirs)), _DIGEST):
                    number = at + n // _DIGEST + 1
                    if digests[n : n + _DIGEST] != theirs[n : n + _DIGEST] and number != lock_page:
                        different += 1
                        if len(numbers) < _SHOWN:
                            numbers.append(number)
            at += len(digests) // _DIGEST
    return Comparison(pos, found.pages, different, tuple((numbers + first)[:_SHOWN]))


def _pieces(file: BinaryIO, page_size: int) -> Iterator[bytes]:
    while piece := file.read(max(page_size, _CHUNK // page_size * page_size)):
        yield piece


def _digests(pieces: Iterable[bytes], page_size: int, go_on: Callable[[], None]) -> Iterator[bytes]:
    for piece in pieces:
        go_on()
        view = memoryview(piece)
        yield b"".join(
            hashlib.blake2b(view[n : n + page_size], digest_size=_DIGEST).digest()
            for n in range(0, len(view), page_size)
        )
