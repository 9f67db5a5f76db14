"""Batches of compact mode on made-up WALs: of any byte order and page size, with bounds of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.walmaker import flip, make_wal
from litestream.core.wal import frame_size
from litestream.db import compact
from litestream.db.compact import Batch, _chosen, scan
from litestream.errors import ContinuityLostError

if TYPE_CHECKING:
    from litestream.sqlite.source import Source

TRANSACTIONS = st.lists(
    st.tuples(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(1, 12)), min_size=1, max_size=12
)


class _File:
    """As much of a source as is read."""

    def __init__(self, wal: bytes) -> None:
        self.wal = wal

    def read_wal(self, offset: int, size: int) -> bytes:
        return self.wal[offset : offset + size]


def _frames(transactions: list[tuple[list[int], int]], size: int) -> list[tuple[int, int, bytes]]:
    found: list[tuple[int, int, bytes]] = []
    for numbers, pages in transactions:
        for at, number in enumerate(numbers, 1):
            body = len(found).to_bytes(4, "big") * (size // 4)
            found.append((number, pages if at == len(numbers) else 0, body))
    return found


@given(
    TRANSACTIONS,
    st.sampled_from([512, 1024]),
    st.booleans(),
    st.integers(1, 9),
    st.integers(1, 20),
    st.floats(0, 1),
)
def test_batches_make_the_state_that_all_frames_make(
    transactions: list[tuple[list[int], int]], page_size: int, big: bool, piece: int, most: int, share: float
) -> None:
    """However it is cut, each batch ends a transaction, beyond `least`, and gives the newest version of each page."""
    frames, size = _frames(transactions, page_size), frame_size(page_size)
    header, wal = make_wal(page_size, frames, big=big)
    file = cast("Source", _File(wal))
    least = 32 + int(share * len(frames)) * size
    with mock.patch.multiple(compact, SEGMENT_LIMIT=piece * size, BATCH_LIMIT=most * size):
        at, checksum, state = 32, header.checksum, dict[int, bytes]()
        while at < len(wal):
            batch = scan(file, header, Batch(at, checksum), len(wal), least)
            chosen = b"".join(_chosen(file, header, batch))
            assert batch.end >= least
            for n in range(0, len(chosen), size):
                state[int.from_bytes(chosen[n : n + 4], "big")] = chosen[n + 24 : n + size]
            seen = frames[: (batch.end - 32) // size]
            assert seen[-1][1] == batch.db_pages > 0
            assert state == {number: body for number, _, body in seen}
            assert batch.shortest == min(pages for _, pages, _ in frames[(at - 32) // size : len(seen)] if pages)
            at, checksum = batch.end, batch.checksum
    assert at == len(wal)


@given(TRANSACTIONS, st.booleans(), st.floats(0, 1, exclude_max=True))
def test_a_flipped_bit_is_lost_continuity(transactions: list[tuple[list[int], int]], big: bool, place: float) -> None:
    """Whatever bit of a frame is another one when it is read, nothing is stored."""
    header, wal = make_wal(512, _frames(transactions, 512), big=big)
    bad = flip(wal, 32 * 8 + int(place * (len(wal) - 32) * 8))
    with pytest.raises(ContinuityLostError):
        scan(cast("Source", _File(bad)), header, Batch(32, header.checksum), len(wal), 0)


def test_a_bit_that_flips_between_the_two_readings() -> None:
    """What is read for the second time is proved once more."""
    header, wal = make_wal(512, _frames([([1, 2, 3], 3), ([1, 4], 4)], 512))
    file = _File(wal)
    with mock.patch.object(compact, "SEGMENT_LIMIT", 2 * 536):
        batch = scan(cast("Source", file), header, Batch(32, header.checksum), len(wal), 0)
        file.wal = flip(wal, (32 + 3 * 536 + 100) * 8)
        with pytest.raises(ContinuityLostError):
            list(_chosen(cast("Source", file), header, batch))
