"""The checksum of SQLite's WAL, and the check of a run of frames with it.

The checksum is a pair of 32-bit numbers that runs on from frame to frame. One step takes eight bytes, two words a, b
in the byte order that the WAL's magic names (SQLite's wal.c, `walChecksumBytes`)::

    s0 += a + s1;  s1 += b + s0        (modulo 2**32)

It is linear, and its weights are the Fibonacci numbers F (F(0) = 0, F(1) = 1): a word with r words behind it adds
word * F(r) to s0 and word * F(r + 1) to s1. Before n words, the start's s0 weighs F(n - 1) and F(n), its s1 weighs
F(n) and F(n + 1). So what a frame's page contributes is a dot product that does not depend on the frame before it,
and numpy can take many frames at once: that is `verify_frames`.
"""

from __future__ import annotations

import struct
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Buffer = bytes | bytearray | memoryview
"""Bytes, or a contiguous view of bytes."""

Checksum = tuple[int, int]
"""The running pair (s0, s1), each below 2**32."""

_MASK = 0xFFFFFFFF
_BIG = struct.Struct(">II")
_LITTLE = struct.Struct("<II")
_PGNO = struct.Struct(">I")
_STORED = struct.Struct(">II")
_FRAME_HEADER = 24

_PLAIN_FRAMES = 4
"""Up to here the plain loop (80 us a page of 4 KiB) costs no more than numpy's fixed cost is worth."""
_PLAIN_BYTES = 256 << 10
"""While numpy is not loaded (150 to 350 ms, 25 MB), the plain loop takes up to this much (5 ms)."""
_CHUNK = 2 << 20
"""Bytes handed to numpy at once: they and the temporary arrays stay in the processor's cache."""


def wal_checksum(data: Buffer, start: Checksum = (0, 0), *, big: bool) -> Checksum:
    """Run the checksum on from `start` over `data`, whose length is a multiple of 8 bytes.

    `big` says that the words are big-endian (WAL magic 0x377f0683). This plain form is the reference for every other.
    """
    s0, s1 = start
    for a, b in (_BIG if big else _LITTLE).iter_unpack(data):
        s0 = (s0 + a + s1) & _MASK
        s1 = (s1 + b + s0) & _MASK
    return s0, s1


def wal_checksum_back(data: Buffer, end: Checksum, *, big: bool) -> Checksum:
    """The start from which `data` leads to `end`: the inverse of `wal_checksum` (each step can be undone)."""
    s0, s1 = end
    for a, b in reversed(list((_BIG if big else _LITTLE).iter_unpack(data))):
        s1 = (s1 - b - s0) & _MASK
        s0 = (s0 - a - s1) & _MASK
    return s0, s1


def frame_start(frame: Buffer, *, big: bool) -> Checksum:
    """The checksum from which a frame leads to the one that stands in it. `frame` is one whole frame."""
    view = memoryview(frame)
    if "numpy" in sys.modules:
        return _frame_start_numpy(view, big)
    s0, s1 = _STORED.unpack_from(view, 16)
    return wal_checksum_back(view[:8], wal_checksum_back(view[_FRAME_HEADER:], (s0, s1), big=big), big=big)


def _frame_start_numpy(frame: memoryview, big: bool) -> Checksum:
    """The same in a hundredth of the time: what the frame's own words weigh is taken off, and the carry undone."""
    import numpy as np

    head_weights, page_weights, carry = _weights(len(frame) - _FRAME_HEADER)
    words = np.asarray(np.frombuffer(frame, ">u4" if big else "<u4"), np.uint32)
    head, page = words[:2], words[_FRAME_HEADER // 4 :]
    d0, d1 = (
        stored - int(np.einsum("j,j->", head, head_weights[i])) - int(np.einsum("j,j->", page, page_weights[i]))
        for i, stored in enumerate(_STORED.unpack_from(frame, 16))
    )
    # F(n - 1) * F(n + 1) - F(n)**2 is 1 for an even n, and so is the number of words.
    c0, c1, c2 = (int(c) for c in carry[:3])
    return (c2 * d0 - c1 * d1) & _MASK, (c0 * d1 - c1 * d0) & _MASK


def verify_frames(
    buf: Buffer, *, page_size: int, offset: int = 0, count: int, start: Checksum, salts: bytes, big: bool
) -> int:
    """How many leading frames are valid, of the at most `count` whole ones that stand at `offset` of `buf`.

    Valid is what SQLite's recovery takes for valid: the page number is not 0, the salts (8 bytes as in the WAL
    header) are these, and the checksum follows from the frame before it, for the first one from `start`.
    A single damaged bit anywhere in a frame is always found, at that frame.
    """
    count = min(count, (len(buf) - offset) // (_FRAME_HEADER + page_size))
    if count <= 0:
        return 0
    # Which form runs is a matter of speed only: both give the same answer.
    loaded = "numpy" in sys.modules
    if count <= _PLAIN_FRAMES or (not loaded and count * page_size <= _PLAIN_BYTES):
        return verify_frames_plain(buf, page_size, offset, count, start, salts, big)
    return verify_frames_numpy(buf, page_size, offset, count, start, salts, big)


def verify_frames_plain(
    buf: Buffer, page_size: int, offset: int, count: int, start: Checksum, salts: bytes, big: bool
) -> int:
    """`verify_frames` frame by frame: the reference. `buf` holds `count` frames at `offset`."""
    view = memoryview(buf)
    size = _FRAME_HEADER + page_size
    checksum = start
    for n in range(count):
        frame = view[offset + n * size : offset + (n + 1) * size]
        (pgno,) = _PGNO.unpack_from(frame)
        if pgno == 0 or frame[8:16] != salts:
            return n
        checksum = wal_checksum(frame[:8], checksum, big=big)
        checksum = wal_checksum(frame[_FRAME_HEADER:], checksum, big=big)
        if checksum != _STORED.unpack_from(frame, 16):
            return n
    return count


def verify_frames_numpy(
    buf: Buffer, page_size: int, offset: int, count: int, start: Checksum, salts: bytes, big: bool
) -> int:
    """`verify_frames` in bulk: 3 to 9 GB/s, where the plain form makes 50 MB/s. Imports numpy."""
    import numpy as np

    size = _FRAME_HEADER + page_size
    step = max(1, _CHUNK // size)
    before = np.array([start], np.uint32)
    for done in range(0, count, step):
        rows = min(step, count - done)
        raw = np.frombuffer(buf, np.uint8, rows * size, offset + done * size).reshape(rows, size)
        valid, before = _valid_rows(raw, before, salts, big)
        if not valid.all():
            return done + int(valid.argmin())
    return count


def _valid_rows(
    raw: NDArray[np.uint8], before: NDArray[np.uint32], salts: bytes, big: bool
) -> tuple[NDArray[np.bool_], NDArray[np.uint32]]:
    """For each frame (row): is it valid if the one before it is? And the last frame's stored checksum.

    `before` is the checksum before the first row, shape (1, 2).
    """
    import numpy as np

    head_weights, page_weights, carry = _weights(raw.shape[1] - _FRAME_HEADER)
    # Words in native order: a view where they are so already, a swapped copy otherwise.
    words = np.asarray(raw.view(">u4" if big else "<u4"), np.uint32)
    head, page = words[:, :2], words[:, _FRAME_HEADER // 4 :]
    s0, s1 = (np.einsum("ij,j->i", head, head_weights[i]) + np.einsum("ij,j->i", page, page_weights[i]) for i in (0, 1))

    stored = raw[:, 16:24].copy().view(">u4").astype(np.uint32)
    prev = np.concatenate((before, stored[:-1]))
    s0 += prev[:, 0] * carry[0] + prev[:, 1] * carry[1]
    s1 += prev[:, 0] * carry[1] + prev[:, 1] * carry[2]

    valid = (s0 == stored[:, 0]) & (s1 == stored[:, 1])
    valid &= (raw[:, 8:16] == np.frombuffer(salts, np.uint8)).all(axis=1)
    valid &= words[:, 0] != 0
    return valid, stored[-1:]


@lru_cache(maxsize=8)  # one entry for each page size
def _weights(page_size: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]:
    """What the words of a frame weigh in s0 (row 0) and s1 (row 1): page number and commit, then the page.

    And the weights of the checksum before the frame: F(n - 1), F(n), F(n + 1) for its n words.
    """
    import numpy as np

    n = 2 + page_size // 4
    numbers = [0, 1]
    while len(numbers) < n + 2:
        numbers.append((numbers[-1] + numbers[-2]) & _MASK)
    fib = np.array(numbers, np.uint32)
    weights = np.stack((fib[n - 1 :: -1], fib[n:0:-1]))
    # Copies: rows without gaps let einsum take its fast loop.
    return weights[:, :2].copy(), weights[:, 2:].copy(), fib[n - 1 :]


def chain_frames(buf: bytearray, *, page_size: int, start: Checksum, salts: bytes, big: bool) -> Checksum:
    """Give the whole frames that fill `buf` these salts and the checksums that follow `start`; the last one's.

    Page numbers and commit values stay as they are. The inverse of `verify_frames`.
    """
    size = _FRAME_HEADER + page_size
    count = len(buf) // size
    view = memoryview(buf)
    for n in range(count):
        view[n * size + 8 : n * size + 16] = salts
    loaded = "numpy" in sys.modules
    if count <= _PLAIN_FRAMES or (not loaded and count * page_size <= _PLAIN_BYTES):
        return _chain_plain(view, size, count, start, big)
    return _chain_numpy(view, size, count, start, big)


def _chain_plain(view: memoryview, size: int, count: int, start: Checksum, big: bool) -> Checksum:
    checksum = start
    for at in range(0, count * size, size):
        checksum = wal_checksum(view[at : at + 8], checksum, big=big)
        checksum = wal_checksum(view[at + _FRAME_HEADER : at + size], checksum, big=big)
        _STORED.pack_into(view, at + 16, *checksum)
    return checksum


def _chain_numpy(view: memoryview, size: int, count: int, start: Checksum, big: bool) -> Checksum:
    """What the pages weigh in bulk, and only the chain itself frame by frame."""
    import numpy as np

    head_weights, page_weights, carry = _weights(size - _FRAME_HEADER)
    c0, c1, c2 = (int(c) for c in carry[:3])
    s0, s1 = start
    step = max(1, _CHUNK // size)
    for done in range(0, count, step):
        rows = min(step, count - done)
        raw = np.frombuffer(view, np.uint8, rows * size, done * size).reshape(rows, size)
        words = np.asarray(raw.view(">u4" if big else "<u4"), np.uint32)
        head, page = words[:, :2], words[:, _FRAME_HEADER // 4 :]
        d0, d1 = (
            (np.einsum("ij,j->i", head, head_weights[i]) + np.einsum("ij,j->i", page, page_weights[i])).tolist()
            for i in (0, 1)
        )
        for n in range(rows):
            s0, s1 = (d0[n] + s0 * c0 + s1 * c1) & _MASK, (d1[n] + s0 * c1 + s1 * c2) & _MASK
            _STORED.pack_into(view, (done + n) * size + 16, s0, s1)
    return s0, s1
