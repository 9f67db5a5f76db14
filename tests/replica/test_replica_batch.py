"""The pure decisions of the upload."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from litestream.core.position import Pos, WALSegmentInfo
from litestream.replica.batch import BATCH_SEGMENTS, BATCH_SPAN, batches, pending

GENERATION = "0123456789abcdef"

segments = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 50)), max_size=200).map(
    lambda rows: [
        WALSegmentInfo(GENERATION, index, number, size, 0.0) for number, (index, size) in enumerate(sorted(rows))
    ]
)


@given(segments, st.integers(1, 100))
def test_batches(infos: list[WALSegmentInfo], limit: int) -> None:
    """Batches are the segments in order, each of one index, within the limits or single, none needlessly small."""
    found = list(batches(infos, limit))
    assert [info for batch in found for info in batch] == infos
    for batch in found:
        assert len({info.index for info in batch}) == 1
        assert len(batch) == 1 or sum(info.size for info in batch) <= limit
        assert len(batch) <= BATCH_SEGMENTS
    for before, after in itertools.pairwise(found):
        joined = sum(info.size for info in before) + after[0].size
        assert before[0].index != after[0].index or joined > limit or len(before) == BATCH_SEGMENTS


@given(st.lists(st.integers(1, 4 << 20), min_size=1, max_size=100))
def test_batches_are_bounded_unpacked(lengths: list[int]) -> None:
    """However well segments are compressed, one object holds about 4 MiB of WAL: what fills one stays alone."""
    starts = list(itertools.accumulate(lengths, initial=0))
    infos = [WALSegmentInfo(GENERATION, 0, start, 1, 0.0) for start in starts[:-1]]
    ends = dict(itertools.pairwise(starts))
    found = list(batches(infos))
    assert [info for batch in found for info in batch] == infos
    for before, after in itertools.pairwise([*found, []]):
        length = ends[before[-1].offset] - before[0].offset
        # How long the very last segment is, nobody knows.
        assert len(before) == 1 or length <= BATCH_SPAN + (0 if after else 4 << 20)
        if after and len(before) < BATCH_SEGMENTS and after[0] is not infos[-1]:
            assert ends[after[0].offset] - before[0].offset > BATCH_SPAN


@given(segments, st.integers(0, 3), st.integers(0, 200))
def test_pending(infos: list[WALSegmentInfo], index: int, offset: int) -> None:
    """Pending is what begins at the position or behind it."""
    pos = Pos(GENERATION, index, offset)
    assert list(pending(infos, pos)) == [info for info in infos if info.pos >= pos]
