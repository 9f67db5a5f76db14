"""What retention deletes, against a model of what is restorable."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestream.core.position import SnapshotInfo, WALSegmentInfo
from litestream.core.retention import RetentionPlan, plan

A, B, C = "a" * 16, "b" * 16, "c" * 16
NOW = 100_000.0
DAY = 86_400.0


def snap(generation: str, index: int, age: float) -> SnapshotInfo:
    """A snapshot of that age in seconds."""
    return SnapshotInfo(generation, index, 1, NOW - age)


def seg(generation: str, index: int, offset: int = 0, age: float = 0.0) -> WALSegmentInfo:
    """A segment of that age in seconds."""
    return WALSegmentInfo(generation, index, offset, 1, NOW - age)


Objects = tuple[list[SnapshotInfo], list[WALSegmentInfo]]


@st.composite
def replicas(draw: st.DrawFn) -> Objects:
    """What may be found in a replica: generations with and without snapshots, ages in any order."""
    ages = st.floats(-10, 100)
    snapshots: list[SnapshotInfo] = []
    segments: list[WALSegmentInfo] = []
    for generation in draw(st.sets(st.sampled_from([A, B, C]))):
        snapshots += [snap(generation, i, draw(ages)) for i in draw(st.sets(st.integers(0, 6), max_size=4))]
        segments += [
            seg(generation, i, 32 * n, draw(ages))
            for i in draw(st.sets(st.integers(0, 7), max_size=5))
            for n in range(draw(st.integers(1, 3)))
        ]
    return draw(st.permutations(snapshots)), draw(st.permutations(segments))


def apply(objects: Objects, decided: RetentionPlan) -> Objects:
    """What is left."""
    snapshots, segments = objects
    return (
        [s for s in snapshots if s.generation not in decided.delete_generations and s not in decided.delete_snapshots],
        [s for s in segments if s.generation not in decided.delete_generations and s not in decided.delete_segments],
    )


def states(snapshot: SnapshotInfo, segments: Iterable[WALSegmentInfo]) -> frozenset[WALSegmentInfo]:
    """All that a restore which begins with `snapshot` may use."""
    return frozenset(s for s in segments if s.generation == snapshot.generation and s.index >= snapshot.index)


@given(replicas(), st.floats(0, 100), st.sampled_from(["", A, B]))
def test_model(objects: Objects, retention: float, current: str) -> None:
    """Every snapshot inside the window keeps all its WAL; what no kept snapshot needs is gone; nothing in between."""
    snapshots, segments = objects
    decided = plan(snapshots, segments, NOW, retention, current=current)
    inside = [s for s in snapshots if s.created_at >= NOW - retention]
    if not inside:
        assert decided == RetentionPlan(need_snapshot=True)
        assert decided.is_empty
        return
    assert not decided.need_snapshot
    kept_snapshots, kept_segments = apply(objects, decided)

    for snapshot in inside:
        assert snapshot in kept_snapshots
    for snapshot in kept_snapshots:
        assert states(snapshot, kept_segments) == states(snapshot, segments)

    for generation in (A, B, C):
        young = [s.index for s in inside if s.generation == generation]
        having = [s.index for s in snapshots if s.generation == generation]
        wal = [s for s in segments if s.generation == generation]
        left = [s.index for s in kept_snapshots if s.generation == generation]
        left_wal = [s.index for s in kept_segments if s.generation == generation]
        if young or (having and generation == current):
            first = min(young) if young else max(having)
            assert sorted(left) == sorted(i for i in having if i >= first)
            assert sorted(left_wal) == sorted(s.index for s in wal if s.index >= first)
        elif having:
            assert not left
            assert not left_wal
            assert generation in decided.delete_generations
        elif wal:
            on_the_way = generation == current or any(s.created_at >= NOW - retention for s in wal)
            assert len(left_wal) == (len(wal) if on_the_way else 0)
        else:
            assert generation not in decided.delete_generations


@given(replicas(), st.floats(0, 100), st.sampled_from([A, B]))
def test_twice(objects: Objects, retention: float, current: str) -> None:
    """What is left after a plan needs no further one."""
    decided = plan(*objects, NOW, retention, current=current)
    again = plan(*apply(objects, decided), NOW, retention, current=current)
    assert again.is_empty
    assert again.need_snapshot == decided.need_snapshot


@given(replicas(), st.floats(0, 100), st.data())
def test_a_crash_half_way(objects: Objects, retention: float, data: st.DataObject) -> None:
    """Deleted in the order given and interrupted anywhere, no snapshot is left without its WAL."""
    snapshots, segments = objects
    decided = plan(snapshots, segments, NOW, retention)
    steps: list[SnapshotInfo | WALSegmentInfo] = []
    for generation in decided.delete_generations:
        steps += (s for s in snapshots if s.generation == generation)
        steps += (s for s in segments if s.generation == generation)
    steps += (*decided.delete_snapshots, *decided.delete_segments)
    done = set(steps[: data.draw(st.integers(0, len(steps)))])
    for snapshot in snapshots:
        if snapshot not in done:
            assert not states(snapshot, segments) & done


@given(replicas(), st.floats(-1e6, 1e6), st.floats(0, 100))
def test_clocks(objects: Objects, jump: float, retention: float) -> None:
    """Whatever the clock does, something restorable is left; a snapshot just taken is, and all of its WAL."""
    snapshots, segments = objects
    left, _ = apply(objects, plan(snapshots, segments, NOW + jump, retention))
    assert bool(left) == bool(snapshots)

    fresh = snap(A, 7, 1e9)
    now = (([*(s for s in snapshots if (s.generation, s.index) != (A, 7)), fresh]), segments)
    decided = plan(*now, NOW + jump, retention, current=A, fresh=[(A, 7)])
    assert not decided.need_snapshot
    left, left_wal = apply(now, decided)
    assert fresh in left
    assert states(fresh, left_wal) == states(fresh, segments)


def test_nothing_there() -> None:
    """An empty replica needs a snapshot and nothing deleted."""
    assert plan([], [], NOW, DAY) == RetentionPlan(need_snapshot=True)


def test_no_snapshot_in_the_window() -> None:
    """With all snapshots too old one is needed first, and until it is there nothing is deleted."""
    objects = [snap(A, 0, 3 * DAY), snap(B, 4, 2 * DAY)], [seg(A, 0), seg(B, 4), seg(B, 5)]
    assert plan(*objects, NOW, DAY) == RetentionPlan(need_snapshot=True)
    fresh = snap(B, 5, 0)
    assert plan([*objects[0], fresh], objects[1], NOW, DAY, fresh=[(B, 5)]) == RetentionPlan(
        delete_generations=(A,), delete_snapshots=(objects[0][1],), delete_segments=(objects[1][1],)
    )


def test_older_than_the_window_in_several_generations() -> None:
    """The earliest young snapshot of each generation decides for that generation alone."""
    snapshots = [snap(A, 0, 90), snap(A, 2, 50), snap(A, 4, 10), snap(B, 1, 70), snap(C, 3, 60), snap(C, 5, 20)]
    segments = [seg(A, i, o) for i in range(5) for o in (0, 32)] + [seg(B, 1), seg(C, 3), seg(C, 4), seg(C, 5)]
    decided = plan(reversed(snapshots), reversed(segments), NOW, 60)
    assert decided.delete_generations == (B,)
    assert decided.delete_snapshots == (snapshots[0],)
    assert decided.delete_segments == (seg(A, 0, 0), seg(A, 0, 32), seg(A, 1, 0), seg(A, 1, 32))


@pytest.mark.parametrize(("age", "kept"), [(60.0, True), (60.001, False)])
def test_the_edge(age: float, kept: bool) -> None:
    """A snapshot exactly as old as the retention is inside the window."""
    assert plan([snap(A, 0, age)], [], NOW, 60).need_snapshot is not kept


def test_a_generation_that_waits_for_its_first_snapshot() -> None:
    """WAL is uploaded before the first snapshot: such a generation is left alone until all of its WAL is old."""
    snapshots = [snap(A, 0, 10)]
    assert plan(snapshots, [seg(B, 0, 0, 90), seg(B, 0, 32, 10)], NOW, 60).is_empty
    assert plan(snapshots, [seg(B, 0, 0, 90), seg(B, 0, 32, 80)], NOW, 60).delete_generations == (B,)
    assert plan(snapshots, [seg(B, 0, 0, 90), seg(B, 0, 32, 80)], NOW, 60, current=B).is_empty


def test_the_generation_in_use_stays() -> None:
    """A young snapshot elsewhere (a clock was wrong) never costs the generation in use its newest snapshot."""
    snapshots = [snap(A, 0, 10), snap(B, 0, 90), snap(B, 3, 80)]
    segments = [seg(B, i) for i in range(5)]
    assert plan(snapshots, segments, NOW, 60, current=B) == RetentionPlan(
        delete_snapshots=(snapshots[1],), delete_segments=tuple(segments[:3])
    )
