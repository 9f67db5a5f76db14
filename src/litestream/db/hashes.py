"""A hash of each page of the state that was copied: what tells, after continuity was lost, which pages differ.

`pages` in the local state. An entry is 16 bytes, all zero where nothing is known of the page: it counts as one that
differs, so that forgetting an entry is always right. An entry goes (`forget`) before the frame that changes its page is
kept, and comes (`learn`) only for pages that no frame has changed since the state was read that it is made of. So what
is known holds for every position from `read_at` on, as long as no forgetting was lost::

      0   8  "LSPAGES" and the version, 1
      8   4  page size
     12   8  generation
     20  32  key: entries are the first 16 bytes of SHA-256(key, page), which nobody can aim at
     52  16  the host's run in which it is written (a kill loses nothing that was written, a power cut may);
             zero once it was closed in order, everything durable
     68   8  index  } the newest state that an entry was made of
     76   8  offset }
     84   1  1: frames were captured in this generation
     85  35  zero
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
_LAYOUT = struct.Struct(">8sI8s32s16sQQB35x")
_HEADER = 128
_UNKNOWN = bytes(ENTRY)
_CLOSED = bytes(16)
_DURABLE_FROM = 16 << 20
"""Bytes of a database from which on its hashes are made durable when it is closed: a snapshot of less is cheap."""


@dataclass(frozen=True, slots=True)
class _Head:
    page_size: int
    generation: str
    key: bytes
    run: bytes
    read_at: tuple[int, int] = (0, 0)
    captured: bool = False

    def pack(self) -> bytes:
        raw = _LAYOUT.pack(
            _TAG, self.page_size, bytes.fromhex(self.generation), self.key, self.run, *self.read_at, self.captured
        )
        return raw + hashlib.sha256(raw).digest()[:8]

    def holds_for(self, pos: Pos, page_size: int) -> bool:
        """Whether every entry is right, or zero, for the state at `pos`, where what was copied last ends."""
        if (self.generation, self.page_size) != (pos.generation, page_size) or self.run not in (_CLOSED, host_run()):
            return False
        # Without any WAL of the generation nothing tells a state that never had one from one whose WAL was deleted.
        return self.read_at <= (pos.index, pos.offset) and not (self.captured and pos == Pos(pos.generation))

    @classmethod
    def unpack(cls, raw: bytes) -> _Head | None:
        if len(raw) < _HEADER or hashlib.sha256(raw[:-8]).digest()[:8] != raw[-8:] or raw[:8] != _TAG:
            return None
        _, page_size, generation, key, run, index, offset, captured = _LAYOUT.unpack(raw[:-8])
        return cls(page_size, generation.hex(), key, run, (index, offset), bool(captured))


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
        self._written = False  # whether the file is this one, and says that it is being written to
        self._size = _HEADER
        self._zero = bytearray()  # by page number: the entry is known to be zero
        self._touched: set[int] | None = None
        self._captured = False

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
            hashes._head, hashes._captured, hashes._size, hashes.loaded = head, head.captured, size, True
        else:
            hashes._discard()
        return hashes

    # -- what changes

    def forget(self, numbers: Iterable[int]) -> None:
        """These pages change: called before the frames that hold them are kept.

        A file that cannot be written is removed. Raises `OSError` if that cannot be done either.
        """
        zero, gone = self._zero, []
        for number in numbers:
            if number >= len(zero):
                zero.extend(bytes(number + 1 - len(zero)))
            if self._touched is not None:
                self._touched.add(number)
            if not zero[number]:
                zero[number] = 1
                gone.append(number)
        self._captured = True
        if gone:
            self.wanted = True
            try:
                self._clear(gone)
            except OSError:
                self._discard()

    def begin(self) -> None:
        """The state that is about to be read may be older than what is captured from now on."""
        self._touched = set()

    def learn(self, digests: dict[int, bytes], read_at: Pos) -> None:
        """Keep hashes (by page number) of the state at `read_at`, but those of pages touched since `begin`.

        Raises `OSError`: nothing is known then.
        """
        touched = self._touched if self._touched is not None else set[int]()
        known = {number: digest for number, digest in digests.items() if number not in touched}
        if not known:
            return
        at = (read_at.index, read_at.offset)
        try:
            self._begin_writing(max(at, self._head.read_at))
            with self._opened() as fd:
                for run in _runs(sorted(known)):
                    _write(fd, b"".join(known[number] for number in run), self._at(run[0]))
                    self._size = max(self._size, self._at(run[-1] + 1))
        except OSError:
            self._discard()
            raise
        for number in known:
            if number < len(self._zero):
                self._zero[number] = 0

    def end(self, *, complete: bool) -> None:
        """The reading that `begin` announced has ended; `complete`: everything was read that nothing was known of."""
        if complete and not self._touched:
            self.wanted = False
        self._touched = None

    def close(self, size: int) -> None:
        """Make durable what is known, for a database of `size` bytes that is closed in order. Raises `OSError`."""
        if not self._written or size < _DURABLE_FROM:
            return
        with self._opened() as fd:
            os.fsync(fd)
            self._head = replace(self._head, run=_CLOSED, captured=self._captured)
            _write(fd, self._head.pack(), 0)
            os.fsync(fd)
        self._written = False

    # -- asking

    def entries(self, first: int, count: int) -> bytes:
        """The entries of `count` pages from `first` on, zero where nothing is known."""
        if self._size <= _HEADER:
            return bytes(count * ENTRY)
        with self._opened() as fd:
            raw = os.pread(fd, count * ENTRY, self._at(first))
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

    def _at(self, number: int) -> int:
        return _HEADER + (number - 1) * ENTRY

    def _discard(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._size, self._written, self._zero, self.wanted = _HEADER, False, bytearray(), True

    def _clear(self, numbers: list[int]) -> None:
        if self._size <= _HEADER:
            return
        self._begin_writing(self._head.read_at)
        with self._opened() as fd:
            for run in _runs(sorted(numbers)):
                if self._at(run[0]) < self._size:
                    _write(fd, _UNKNOWN * len(run), self._at(run[0]))
                    self._size = max(self._size, self._at(run[-1] + 1))

    def _begin_writing(self, read_at: tuple[int, int]) -> None:
        """See that the file is ours, and says of itself what holds once it was written to."""
        if self._written and (read_at, self._captured) == (self._head.read_at, self._head.captured):
            return
        if self._size <= _HEADER:
            self._make()
        # A file that was closed in order must be seen to be open before anything in it goes, also after a power cut.
        durable, self._written = self._head.run == _CLOSED, True
        self._head = replace(self._head, run=host_run(), read_at=read_at, captured=self._captured)
        self._put_head(durable=durable)

    def _make(self) -> None:
        """The empty file, whole: what stood there is another generation's."""
        with fsutil.AtomicFile(self._path, mode=self._access.file_mode, owner=self._access.owner) as file:
            file.write(self._head.pack())
            file.publish(durable=False)

    def _put_head(self, *, durable: bool) -> None:
        with self._opened() as fd:
            _write(fd, self._head.pack(), 0)
            if durable:
                os.fsync(fd)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            yield fd
        finally:
            os.close(fd)


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


def _write(fd: int, data: bytes, offset: int) -> None:
    if os.pwrite(fd, data, offset) != len(data):
        raise OSError(f"cannot write {len(data)} bytes at {offset}")
