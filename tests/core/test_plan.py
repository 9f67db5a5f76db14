"""The restore plan: which objects, and whether none is missing or foreign."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.stamps import GENERATION as G
from helpers.stamps import chain, segment_info, snapshot_info, snapshot_stamp
from litestream.core.layout import LAYOUTS, SEED, V03, Layout
from litestream.core.plan import (
    Info,
    RestorePlan,
    check_chain,
    choose_snapshot,
    commit_time,
    order_segments,
    plan_restore,
)
from litestream.core.position import Pos, SnapshotInfo, WALSegmentInfo
from litestream.core.stamp import Kind, Stamp
from litestream.errors import CorruptObjectError, NoSnapshotsError, RestoreError


def snap(index: int, at: float = 0.0) -> SnapshotInfo:
    """A snapshot of an index."""
    return SnapshotInfo(G, index, 1, at)


def seg(index: int, offset: int = 0, at: float = 0.0, generation: str = G) -> WALSegmentInfo:
    """A segment."""
    return WALSegmentInfo(generation, index, offset, 1, at)


def replica(
    lengths: list[list[int]], snapshots: list[tuple[int, tuple[int, int], int]]
) -> tuple[list[SnapshotInfo], list[WALSegmentInfo], dict[Info, Stamp | None]]:
    """A stamped generation: segment lengths per index, and (index, required, commit time) of each snapshot."""
    stamps: dict[Info, Stamp | None] = {segment_info(stamp): stamp for stamp in chain(lengths)}
    wal = [info for info in stamps if isinstance(info, WALSegmentInfo)]
    heads = [snapshot_stamp(index, required, moment=moment) for index, required, moment in snapshots]
    stamps.update({snapshot_info(stamp): stamp for stamp in heads})
    return [snapshot_info(stamp) for stamp in heads], wal, stamps


histories = st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=4), min_size=1, max_size=5)


# --- names


def test_choose_snapshot() -> None:
    """The snapshot with the greatest index within the limit, in whatever order they come."""
    snapshots = [snap(4), snap(9), snap(1)]
    assert choose_snapshot(snapshots) == snap(9)
    assert choose_snapshot(snapshots, max_index=8) == snap(4)
    assert choose_snapshot(snapshots, max_index=4) == snap(4)
    with pytest.raises(NoSnapshotsError, match=r"^no snapshots available at or before index 00000000$"):
        choose_snapshot(snapshots, max_index=0)
    with pytest.raises(NoSnapshotsError, match=r"^no snapshots available$"):
        choose_snapshot([])


@given(histories, st.data())
def test_order(lengths: list[list[int]], data: st.DataObject) -> None:
    """All segments from the snapshot's index to the limit, in order; others do not count."""
    _, wal, _ = replica(lengths, [])
    start = data.draw(st.integers(0, len(lengths) - 1))
    limit = data.draw(st.one_of(st.none(), st.integers(start, len(lengths) - 1)))
    foreign = [seg(99, 77, generation="f" * 16)]
    got = order_segments(snap(start), data.draw(st.permutations(wal + foreign)), max_index=limit)
    assert got == [s for s in wal if s.index >= start and (limit is None or s.index <= limit)]


@given(histories, st.sampled_from(LAYOUTS), st.data())
def test_a_missing_index_or_beginning_is_named(lengths: list[list[int]], layout: Layout, data: st.DataObject) -> None:
    """Without any one object that names alone show to be needed, the error has that object's key."""
    _, wal, _ = replica(lengths, [])
    gone = data.draw(st.sampled_from([s for s in wal if s.offset == 0]))
    left = [s for s in wal if s != gone]
    if not any(s.index >= gone.index for s in left):
        assert order_segments(snap(0), left) == left
        return
    with pytest.raises(CorruptObjectError, match=r"missing WAL index|missing initial wal segment") as caught:
        order_segments(snap(0), left, layout=layout)
    assert caught.value.key == layout.wal_key(G, gone.index, 0)


def test_missing_texts() -> None:
    """The official texts, with index and position in hex."""
    with pytest.raises(CorruptObjectError, match=f"missing WAL index: {G}/0000000b$"):
        order_segments(snap(10), [seg(10), seg(12)])
    with pytest.raises(CorruptObjectError, match=f"missing WAL index: {G}/0000000a$"):
        order_segments(snap(10), [seg(11)])
    with pytest.raises(CorruptObjectError, match=f"missing initial wal segment: {G}/0000000b:00000000$"):
        order_segments(snap(10), [seg(10), seg(11, 32)])
    with pytest.raises(CorruptObjectError, match="two segments at one position") as caught:
        order_segments(snap(10), [seg(10), seg(10, 32, 1), seg(10, 32, 2)], layout=SEED)
    assert caught.value.key == SEED.wal_key(G, 10, 32)


def test_only_a_snapshot() -> None:
    """A snapshot without WAL is a whole plan."""
    plan = plan_restore([snap(3)], [])
    assert plan == RestorePlan(snap(3), ())
    assert plan.generation == G
    assert plan.target == Pos(G, 3, 0)
    assert plan_restore([snap(3)], [seg(0), seg(2)], index=3) == plan


def test_beyond_the_last_index() -> None:
    """An index that is not there is an error, not a silent restore of less."""
    assert plan_restore([snap(0)], [seg(0), seg(1)], index=1).target == Pos(G, 1, 0)
    with pytest.raises(RestoreError, match=f"index 00000002 is beyond the last one, {G}/00000001"):
        plan_restore([snap(0)], [seg(0), seg(1)], index=2)
    with pytest.raises(RestoreError, match=f"index 00000001 is beyond the last one, {G}/00000000"):
        plan_restore([snap(0)], [], index=1)
    with pytest.raises(NoSnapshotsError, match="at or before index 00000000"):
        plan_restore([snap(1)], [seg(0), seg(1)], index=0)


# --- limits


@given(histories, st.data())
def test_up_to_a_time(lengths: list[list[int]], data: st.DataObject) -> None:
    """Every time gives the state of exactly the segments whose last commit is not after it."""
    snapshots, wal, stamps = replica(lengths, [(0, (0, 0), 1000)])
    moment = data.draw(st.integers(990, 1000 + len(wal) + 5))
    if moment < 1000:
        with pytest.raises(NoSnapshotsError, match=r"at or before 1970-01-01T00:00:00\.0000009\d*Z$"):
            plan_restore(snapshots, wal, timestamp_ns=moment, stamps=stamps)
        return
    plan = plan_restore(snapshots, wal, timestamp_ns=moment, stamps=stamps)
    assert plan.segments == tuple(wal[: moment - 1000 + 1])
    check_chain(plan, stamps)


def test_time_without_stamps() -> None:
    """Without a stamp, or without a commit in it, the object's own time counts."""
    wal = [seg(0, 0, 10.5), seg(0, 32, 11.5), seg(1, 0, 9.0)]
    assert plan_restore([snap(0, 10.0)], wal, timestamp_ns=11 * 10**9).segments == (wal[0],)
    assert plan_restore([snap(0, 10.0)], wal, timestamp_ns=12 * 10**9).segments == tuple(wal)
    stamp = dataclasses.replace(chain([[32]])[0], first_commit_ns=0, last_commit_ns=0)
    assert commit_time(wal[0], {wal[0]: stamp}) == 10_500_000_000
    assert commit_time(wal[0], {wal[0]: None}) == 10_500_000_000


def test_a_snapshot_that_needs_later_wal_is_passed_over() -> None:
    """A snapshot is a state only with the WAL up to its required position: before that an earlier one is used."""
    snapshots, wal, stamps = replica([[100, 100], [100, 100], [100]], [(0, (0, 0), 1000), (1, (1, 200), 1002)])
    assert plan_restore(snapshots, wal, timestamp_ns=1002, stamps=stamps) == RestorePlan(snapshots[0], tuple(wal[:3]))
    assert plan_restore(snapshots, wal, timestamp_ns=1003, stamps=stamps) == RestorePlan(snapshots[1], tuple(wal[2:4]))
    snapshots, wal, stamps = replica([[100], [100], [100]], [(0, (0, 0), 1000), (1, (2, 100), 1001)])
    assert plan_restore(snapshots, wal, index=1, stamps=stamps) == RestorePlan(snapshots[0], tuple(wal[:2]))
    assert plan_restore(snapshots, wal, index=2, stamps=stamps) == RestorePlan(snapshots[1], tuple(wal[1:]))


def test_lost_wal_is_no_reason_for_an_earlier_snapshot() -> None:
    """WAL that a snapshot needs and that is gone is an error, not a silent restore of an earlier state."""
    snapshots, wal, stamps = replica([[100, 100], [100, 100]], [(0, (0, 0), 1000), (1, (1, 200), 1002)])
    for moment in (None, 10**18):
        plan = plan_restore(snapshots, wal[:3], timestamp_ns=moment, stamps=stamps)
        with pytest.raises(
            CorruptObjectError, match=f"the snapshot needs the WAL up to {G}/00000001:000000c8"
        ) as caught:
            check_chain(plan, stamps)
        assert caught.value.key == V03.wal_key(G, 1, 100)


# --- stamps


@given(histories, st.data())
def test_sound_chain(lengths: list[list[int]], data: st.DataObject) -> None:
    """A whole history passes, from any snapshot, stamped or not."""
    start = data.draw(st.integers(0, len(lengths) - 1))
    snapshots, wal, stamps = replica(lengths, [(start, (start, 0), 1)])
    plan = plan_restore(snapshots, wal)
    check_chain(plan, stamps)
    check_chain(plan, dict.fromkeys(stamps))


@given(histories, st.sampled_from(LAYOUTS), st.data())
def test_a_missing_segment_is_named(lengths: list[list[int]], layout: Layout, data: st.DataObject) -> None:
    """Without any one segment but the newest, also the last of an index, the error has that segment's key."""
    snapshots, wal, stamps = replica(lengths, [(0, (0, 0), 1)])
    gone = data.draw(st.sampled_from(wal))
    left = [s for s in wal if s != gone]
    if gone == wal[-1]:
        check_chain(plan_restore(snapshots, left), stamps)
        return
    with pytest.raises(CorruptObjectError) as caught:
        check_chain(plan_restore(snapshots, left, layout=layout), stamps, layout=layout)
    assert caught.value.key == layout.wal_key(G, gone.index, gone.offset)


@given(histories, st.data())
def test_two_swapped_objects_are_named(lengths: list[list[int]], data: st.DataObject) -> None:
    """Objects under each other's names are found by what their stamps say."""
    snapshots, wal, stamps = replica(lengths, [(0, (0, 0), 1)])
    infos: list[Info] = [snapshots[0], *wal]
    one, other = data.draw(st.permutations(infos))[:2]
    stamps[one], stamps[other] = stamps[other], stamps[one]
    first = min(one, other, key=infos.index)
    name = V03.snapshot_key(G, 0) if isinstance(first, SnapshotInfo) else V03.wal_key(G, first.index, first.offset)
    with pytest.raises(CorruptObjectError, match=f"^{re.escape(name)}: another object stands under this name"):
        check_chain(plan_restore(snapshots, wal), stamps)


@given(histories, st.data())
def test_an_unstamped_object_among_stamped_ones(lengths: list[list[int]], data: st.DataObject) -> None:
    """One object that lost its stamp is found: nothing it says about its place can be believed."""
    snapshots, wal, stamps = replica(lengths, [(0, (0, 0), 1)])
    infos: list[Info] = [*snapshots, *wal]
    bare = data.draw(st.sampled_from(infos))
    stamps[bare] = None
    with pytest.raises(CorruptObjectError, match="has no stamp, but other objects of its generation do") as caught:
        check_chain(plan_restore(snapshots, wal), stamps)
    assert caught.value.key in (V03.snapshot_key(G, bare.index), V03.wal_key(G, bare.index, getattr(bare, "offset", 0)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": Kind.SNAPSHOT}, "another object stands under this name: SNAPSHOT"),
        ({"pos": Pos("f" * 16, 0, 100)}, "another object stands under this name: WAL ffffffffffffffff"),
        ({"length": 101}, "its stamp contradicts itself"),
        ({"required": (0, 300)}, "its stamp contradicts itself"),
        ({"page_size": 512}, "page size 512, the snapshot has 4096"),
        ({"prev": Pos(G, 0, 50)}, f"does not follow the object before it, which ends at {G}/00000000:00000064"),
        ({"prev": Pos("f" * 16, 9, 9)}, "does not follow the object before it"),
        ({"prev": Pos()}, "does not follow the object before it"),
        ({"prev_checksum": b"x" * 8}, "does not follow the object before it: another history"),
        ({"wal_header": b"x" * 32}, "does not follow the object before it: another history"),
    ],
)
def test_what_a_stamp_may_not_say(change: dict[str, object], reason: str) -> None:
    """Each thing that a segment's stamp says is held against its name and its neighbours."""
    snapshots, wal, stamps = replica([[100, 100, 100]], [(0, (0, 0), 1)])
    stamp = stamps[wal[1]]
    assert stamp is not None
    stamps[wal[1]] = dataclasses.replace(stamp, **change)  # type: ignore[arg-type]  # fields of Stamp
    with pytest.raises(CorruptObjectError, match=f"^{re.escape(V03.wal_key(G, 0, 100))}: {re.escape(reason)}"):
        check_chain(plan_restore(snapshots, wal), stamps)


def test_a_fork() -> None:
    """The next index of another history, which began at the same position, is found by its checksum."""
    snapshots, wal, stamps = replica([[100], [100]], [(0, (0, 0), 1)])
    stamp = stamps[wal[1]]
    assert stamp is not None
    stamps[wal[1]] = dataclasses.replace(stamp, prev_checksum=b"x" * 8)
    with pytest.raises(CorruptObjectError, match="another history"):
        check_chain(plan_restore(snapshots, wal), stamps)


def test_a_snapshot_alone() -> None:
    """A snapshot that needs WAL does not do without it; one that needs none does."""
    snapshots, _, stamps = replica([], [(2, (2, 0), 1)])
    check_chain(plan_restore(snapshots, []), stamps)
    snapshots, _, stamps = replica([], [(2, (2, 32), 1)])
    with pytest.raises(CorruptObjectError, match="missing WAL segment") as caught:
        check_chain(plan_restore(snapshots, []), stamps)
    assert caught.value.key == V03.wal_key(G, 2, 0)


def test_a_plan_without_its_beginning() -> None:
    """A plan made otherwise whose first segment is not the beginning of the snapshot's index does not pass."""
    snapshots, wal, stamps = replica([[100, 100]], [(0, (0, 0), 1)])
    with pytest.raises(CorruptObjectError, match=f"missing initial wal segment: {G}/00000000:00000000"):
        check_chain(RestorePlan(snapshots[0], (wal[1],)), stamps)
