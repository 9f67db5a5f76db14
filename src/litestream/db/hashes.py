"""A hash of each page of the state that was copied: what tells, after continuity was lost, which pages differ.

`pages` in the local state. An entry is 16 bytes, all zero where nothing is known of the page: it counts as one that
differs, so that forgetting an entry is always right. An entry goes (`forget`) before the frame that changes its page is
kept, and comes (`learn`) only for pages that no frame has changed since the state was read that it is made of. The file
says at which position it holds, so that an older copy of it, or one of another database, is known for what it is::

      0   8  "LSPAGES" and the version, 1
      8   4  page size
     12   8  generation
     20  32  key: entries are the first 16 bytes of SHA-256(key, page), which nobody can aim at
     52  16  the host's run in which it is written (a kill loses nothing that was written, a power cut may);
             zero once it was closed in order, everything durable
     68  16  index and offset  } it holds before the last copy that was begun, and after it: a kill leaves
     84  16  index and offset  } one or the other
    100  20  zero
    120   8  first 8 bytes of the SHA-256 of bytes 0 to 119
    128      entries, page 1 first; numbers are big-endian
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from litestream import fsutil
from litestream.core.position import Pos

ENTRY = 16
"""Bytes of an entry."""

_NAME = "pages"
_TAG = b"LSPAGES\x01"
_LAYOUT = struct.Struct(">8sI8s32s16sQQQQ20x")
_HEADER = 128
_CLOSED = bytes(16)
_ENDLESS = 1 << 32
_DURABLE_FROM = 16 << 20
"""Bytes of a database from which on its hashes are made durable when it is closed: a snapshot of less is cheap."""


@dataclass(frozen=True, slots=True)
class _Head:
    page_size: int
    generation: str
    key: bytes
    run: bytes
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)

    def pack(self) -> bytes:
        generation = bytes.fromhex(self.generation)
        raw = _LAYOUT.pack(_TAG, self.page_size, generation, self.key, self.run, *self.before, *self.after)
        return raw + hashlib.sha256(raw).digest()[:8]

    def holds_for(self, pos: Pos, page_size: int) -> bool:
        """Whether every entry is right, or zero, for the state at `pos`, where what was copied ends."""
        at = (pos.index, pos.offset)
        # Where nothing is left of what was copied: only if nothing ever was.
        places = (self.before, self.after) if at > (0, 0) else (self.after,)
        same = (self.generation, self.page_size) == (pos.generation, page_size)
        return same and at in places and self.run in (_CLOSED, host_run())

    @classmethod
    def unpack(cls, raw: bytes) -> _Head | None:
        if len(raw) < _HEADER or hashlib.sha256(raw[:-8]).digest()[:8] != raw[-8:] or raw[:8] != _TAG:
            return None
        _, page_size, generation, key, run, *at = _LAYOUT.unpack(raw[:-8])
        return cls(page_size, generation.hex(), key, run, (at[0], at[1]), (at[2], at[3]))


class PageHashes:
    """The hashes of one generation. Blocking; the caller serialises. Nothing is written before the first `learn`.

    Attributes:
        wanted: whether there may be pages of which nothing is known.
        loaded: whether it goes on with what an earlier process has stored.
    """

    def __init__(self, meta: str, generation: str, page_size: int, access: fsutil.Access) -> None:
        self.wanted = True
        self.loaded = False
        self._path = os.path.join(meta, _NAME)
        self._access = access
        self._head = _Head(page_size, generation, secrets.token_bytes(32), host_run())
        self._fd = -1
        self._size = 0  # of the file; 0: there is none
        self._zero = bytearray()  # by page number: the entry is known to be zero
        self._touched: set[int] | None = None
        self._length = _ENDLESS  # the fewest pages that the database had since `begin`

    @classmethod
    def load(cls, meta: str, pos: Pos, page_size: int, access: fsutil.Access) -> PageHashes:
        """What is stored, if it holds for the state at `pos` (then `loaded` is true); otherwise none, and the file is
        removed: nothing would be forgotten in it. Raises `OSError`."""
        hashes = cls(meta, pos.generation, page_size, access)
        try:
            with open(hashes._path, "rb") as file:
                head, size = _Head.unpack(file.read(_HEADER)), os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return hashes
        if head is not None and head.holds_for(pos, page_size):
            hashes._head, hashes._size, hashes.loaded = head, size, True
        else:
            hashes._discard()
        return hashes

    # -- what changes

    def forget(self, changes: Iterable[tuple[int, int]], before: Pos, after: Pos) -> None:
        """These pages change between two positions: called before the frames that hold them are kept.

        With each page comes the number of pages that the database has if a transaction ends there, or 0: what is
        cut off is forgotten too, since it is not there when the database grows again.

        A file that cannot be written is removed. Raises `OSError` if that cannot be done either.
        """
        zero, gone, shortest = self._zero, [], _ENDLESS
        for number, length in changes:
            if 0 < length < shortest:
                shortest = length
            if number >= len(zero):
                zero.extend(bytes(number + 1 - len(zero)))
            if self._touched is not None:
                self._touched.add(number)
            if not zero[number]:
                zero[number] = 1
                gone.append(number)
        self.wanted = self.wanted or bool(gone)
        self._length = min(self._length, shortest)
        if self._size:
            try:
                self._put_head((before.index, before.offset), (after.index, after.offset))
                self._clear(gone)
                self._shorten(shortest)
            except OSError:
                self._discard()

    def begin(self) -> None:
        """The state that is about to be read may be older than what is captured from now on."""
        self._touched, self._length = set(), _ENDLESS

    def learn(self, digests: dict[int, bytes], at: Pos) -> None:
        """Keep hashes (by page number) of a state that was begun to be read after `begin`, but those of pages touched
        since. `at`: where what was copied ends now.

        Raises `OSError`: nothing is known then.
        """
        touched = self._touched if self._touched is not None else set[int]()
        known = {
            number: digest for number, digest in digests.items() if number not in touched and number <= self._length
        }
        if not known:
            return
        try:
            if not self._size:
                self._make()
            self._put_head((at.index, at.offset), (at.index, at.offset))
            for run in _runs(sorted(known)):
                self._write(b"".join(known[number] for number in run), _at(run[0]))
        except OSError:
            self._discard()
            raise
        for number in known:
            if number < len(self._zero):
                self._zero[number] = 0

    def end(self, *, complete: bool) -> None:
        """The reading that `begin` announced has ended; `complete`: everything was read that nothing was known of."""
        if complete and not self._touched and self._length == _ENDLESS:
            self.wanted = False
        self._touched = None

    def trim(self) -> None:
        """Let the file's descriptor go until it is needed again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close(self, size: int = 0) -> None:
        """Let go, and make durable what is known of a database of `size` bytes that is closed in order.

        Raises `OSError`.
        """
        try:
            if self._size and self._head.run != _CLOSED and size >= _DURABLE_FROM:
                os.fsync(self._open())
                self._head = replace(self._head, run=_CLOSED)
                self._write(self._head.pack(), 0)
                os.fsync(self._fd)
        finally:
            self.trim()

    # -- asking

    def entries(self, first: int, count: int) -> bytes:
        """The entries of `count` pages from `first` on, zero where nothing is known.

        A file that cannot be read is removed. Raises `OSError` if that cannot be done either.
        """
        raw = b""
        try:
            if self._size:
                raw = os.pread(self._open(), count * ENTRY, _at(first))
        except OSError:
            self._discard()
        return raw + bytes(count * ENTRY - len(raw))

    def digests(self, pages: memoryview) -> list[bytes]:
        """The hashes of whole pages, in order. For any thread."""
        size, keyed = self._head.page_size, hashlib.sha256(self._head.key)
        found = []
        for at in range(0, len(pages), size):
            one = keyed.copy()
            one.update(pages[at : at + size])
            found.append(one.digest()[:ENTRY])
        return found

    # -- inside

    def _put_head(self, before: tuple[int, int], after: tuple[int, int]) -> None:
        """Say where it holds, before anything else in the file changes."""
        self._open()  # it must be the file that the present head belongs to
        was_closed = self._head.run == _CLOSED
        self._head = replace(self._head, run=host_run(), before=before, after=after)
        self._write(self._head.pack(), 0)
        if was_closed:  # a power cut must not bring that back
            os.fsync(self._fd)

    def _pages(self) -> int:
        """Pages of which the file may hold an entry."""
        return max(0, self._size - _HEADER) // ENTRY

    def _shorten(self, pages: int) -> None:
        if pages < self._pages():
            self._size = _at(pages + 1)
            os.ftruncate(self._open(), self._size)

    def _clear(self, numbers: list[int]) -> None:
        for run in _runs(sorted(numbers)):
            if _at(run[0]) < self._size:
                self._write(bytes(ENTRY) * len(run), _at(run[0]))

    def _make(self) -> None:
        """The empty file, whole: what stood there is another generation's."""
        self.trim()
        with fsutil.AtomicFile(self._path, mode=self._access.file_mode, owner=self._access.owner) as file:
            file.write(self._head.pack())
            file.publish(durable=False)
        self._size = _HEADER

    def _discard(self) -> None:
        """Nothing is known any more. Raises `OSError` if the file cannot be removed."""
        self.trim()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._size, self._zero, self.wanted, self.loaded = 0, bytearray(), True, False

    def _open(self) -> int:
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            if os.pread(self._fd, _HEADER, 0) != self._head.pack():
                raise OSError(f"{self._path} was replaced by another one")
        return self._fd

    def _write(self, data: bytes, offset: int) -> None:
        if os.pwrite(self._open(), data, offset) != len(data):
            raise OSError(f"cannot write {len(data)} bytes at {offset}")
        self._size = max(self._size, offset + len(data))


def _at(number: int) -> int:
    """Where the entry of a page is."""
    return _HEADER + (number - 1) * ENTRY


@lru_cache(maxsize=1)
def host_run() -> bytes:
    """What tells this run of the host from the one before a power cut; where that is not known, this process."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return bytes.fromhex(file.read().strip().replace(b"-", b"").decode("ascii"))
    except (OSError, ValueError):
        return secrets.token_bytes(16)


def _runs(numbers: list[int]) -> Iterator[list[int]]:
    """Neighbours together."""
    run: list[int] = []
    for number in numbers:
        if run and number != run[-1] + 1:
            yield run
            run = []
        run.append(number)
    if run:
        yield run
