"""Names of objects: the three layouts, strictly."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.stamps import generations, indexes, offsets
from litestream.core.layout import (
    LAYOUTS,
    MAX_OFFSET,
    SEED,
    V03,
    V04,
    Layout,
    SnapshotName,
    WALName,
    detect,
    generation_of,
    is_ltx_key,
)
from litestream.core.position import MAX_INDEX, Pos
from litestream.errors import InvalidNameError, MixedLayoutError

G = "da8affeae4d1717d"
B = f"generations/{G}/"

layouts = st.sampled_from(LAYOUTS)


@pytest.mark.parametrize(
    ("layout", "snapshot", "segment"),
    [
        (V03, "snapshots/00000002.snapshot.lz4", "wal/00000002_000060b0.wal.lz4"),
        (SEED, "snapshots/00000002.snapshot.lz4", "wal/00000002/000060b0.wal.lz4"),
        (V04, "snapshots/0000000000000002.snapshot.lz4", "wal/0000000000000002/00000000000060b0.wal.lz4"),
    ],
    ids=str,
)
def test_names(layout: Layout, snapshot: str, segment: str) -> None:
    """Each layout writes the names that the programs of its time write."""
    assert layout.snapshot_key(G, 2) == B + snapshot
    assert layout.wal_key(G, 2, 0x60B0) == B + segment
    assert layout.generation_prefix(G) == B
    assert layout.snapshots_prefix(G) == B + "snapshots/"
    assert layout.wal_prefix(G) == B + "wal/"


@given(layouts, generations, indexes, offsets)
def test_round_trip(layout: Layout, generation: str, index: int, offset: int) -> None:
    """What a layout writes it reads back the same."""
    assert layout.parse(layout.snapshot_key(generation, index)) == SnapshotName(generation, index)
    name = layout.parse(layout.wal_key(generation, index, offset))
    assert name == WALName(generation, index, offset)
    assert isinstance(name, WALName)
    assert name.pos == Pos(generation, index, offset)


@given(layouts, generations, indexes, offsets)
def test_only_one_layout_reads_a_segment(layout: Layout, generation: str, index: int, offset: int) -> None:
    """A segment's name is of exactly one layout, so a layout can be detected."""
    key = layout.wal_key(generation, index, offset)
    assert [other for other in LAYOUTS if other.parse(key) is not None] == [layout]


def test_wide_offsets() -> None:
    """An offset of 4 GiB or more takes the digits that it needs, and no leading zero."""
    key = f"{B}wal/00000000_123456789.wal.lz4"
    assert V03.wal_key(G, 0, 0x123456789) == key
    assert V03.parse(key) == WALName(G, 0, 0x123456789)
    assert V03.parse(f"{B}wal/00000000_012345678.wal.lz4") is None
    assert V03.parse(f"{B}wal/00000000_{MAX_OFFSET:x}.wal.lz4") == WALName(G, 0, MAX_OFFSET)
    assert V03.parse(f"{B}wal/00000000_{MAX_OFFSET + 1:x}.wal.lz4") is None
    assert V04.parse(f"{B}wal/{0:016x}/{MAX_OFFSET + 1:x}.wal.lz4") is None


def test_greatest_index() -> None:
    """No program accepts a greater index than 0x7fffffff, and no name of one is read."""
    assert V03.parse(V03.snapshot_key(G, MAX_INDEX)) == SnapshotName(G, MAX_INDEX)
    assert V03.parse(f"{B}snapshots/80000000.snapshot.lz4") is None
    assert V03.parse(f"{B}wal/80000000_00000000.wal.lz4") is None
    assert V04.parse(f"{B}snapshots/{MAX_INDEX + 1:016x}.snapshot.lz4") is None


@given(st.data(), layouts, generations, indexes, offsets)
def test_damaged_names_are_foreign(
    data: st.DataObject, layout: Layout, generation: str, index: int, offset: int
) -> None:
    """A name with one character changed, added or removed is another name of the same kind, or a foreign one."""
    key = data.draw(
        st.sampled_from([layout.snapshot_key(generation, index), layout.wal_key(generation, index, offset)])
    )
    at = data.draw(st.integers(0, len(key)))
    char = data.draw(st.sampled_from(["", "0", "a", "A", "g", "/", "_", ".", "\n", "\0", " ", "\u0663", "-", "+"]))
    damaged = key[:at] + char + key[at + data.draw(st.integers(0, 1)) :]
    name = layout.parse(damaged)
    if isinstance(name, SnapshotName):
        assert layout.snapshot_key(name.generation, name.index) == damaged
    elif name is not None:
        assert layout.wal_key(name.generation, name.index, name.offset) == damaged


@given(layouts, st.text(max_size=80))
@example(V03, f"generations/{G}/../../etc/passwd")
@example(V03, f"/generations/{G}/snapshots/00000000.snapshot.lz4")
@example(V03, f"generations/{G}/snapshots/00000000.snapshot.lz4\n")
@example(V03, f"generations/{G}/snapshots/00000000.snapshot.lz4.tmp")
@example(V03, f"generations/{G}/wal/00000000_00000000.wal")
@example(V03, f"generations/{G.upper()}/snapshots/00000000.snapshot.lz4")
@example(SEED, f"generations/{G}/wal/../00000000.wal.lz4")
@example(V03, f"x/generations/{G}/snapshots/00000000.snapshot.lz4")
def test_foreign_names(layout: Layout, key: str) -> None:
    """Foreign names are nothing, whatever they look like."""
    assert layout.parse(key) is None


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_refused_arguments(layout: Layout) -> None:
    """No name is made of what is no generation, index or offset."""
    for generation in ("", "..", G.upper(), G + "/"):
        for make in (layout.generation_prefix, layout.snapshots_prefix, layout.wal_prefix):
            with pytest.raises(InvalidNameError, match=re.escape(repr(generation))):
                make(generation)
    for index in (-1, MAX_INDEX + 1):
        with pytest.raises(InvalidNameError, match=f"invalid index: {index}"):
            layout.snapshot_key(G, index)
        with pytest.raises(InvalidNameError, match=f"invalid index: {index}"):
            layout.wal_key(G, index, 0)
    for offset in (-1, MAX_OFFSET + 1):
        with pytest.raises(InvalidNameError, match=f"invalid offset: {offset}"):
            layout.wal_key(G, 0, offset)


@given(layouts, st.permutations(range(6)))
def test_detect(layout: Layout, order: list[int]) -> None:
    """The layout is told from the names in any order, foreign names beside them."""
    keys = [
        layout.snapshot_key(G, 0),
        layout.wal_key(G, 0, 0),
        layout.wal_key(G, 0, 0x1038),
        layout.snapshot_key(G, 1),
        B + "README",
        B + "wal/00000000.wal.lz4.tmp",
    ]
    assert detect(keys[i] for i in order) is layout


def test_detect_without_evidence() -> None:
    """Nothing, foreign names, and snapshots that two layouts name alike count as v0.3."""
    assert detect([]) is V03
    assert detect([B + "x"]) is V03
    assert detect([SEED.snapshot_key(G, 0), SEED.snapshot_key(G, 1)]) is V03
    assert detect([V04.snapshot_key(G, 0)]) is V04


@given(layouts, layouts, st.booleans(), st.booleans())
def test_mixed(one: Layout, other: Layout, snapshot: bool, swap: bool) -> None:
    """Names of two layouts in one generation are an error that names both."""
    keys = [one.snapshot_key(G, 0) if snapshot else one.wal_key(G, 0, 0), other.wal_key(G, 1, 0)]
    if swap:
        keys.reverse()
    if other.parse(keys[swap]) is not None:
        assert detect(keys) is other
        return
    with pytest.raises(MixedLayoutError) as caught:
        detect(keys)
    assert all(key in str(caught.value) for key in keys)


def test_ltx() -> None:
    """Files of the official 0.5 are recognised in both places where it puts them."""
    file = "0000000000000001-000000000000001a.ltx"
    for key in (f"ltx/0/{file}", f"ltx/9/{file}", f"0000/{file}", f"0009/{file}"):
        assert is_ltx_key(key)
        assert all(layout.parse(key) is None for layout in LAYOUTS)
    for key in (file, f"ltx/{file}", f"ltx/x/{file}", f"ltx/0/{file}.tmp", f"x/ltx/0/{file}", f"0000/{file[1:]}", ""):
        assert not is_ltx_key(key)
    assert not is_ltx_key(V03.snapshot_key(G, 0))


def test_generation_of() -> None:
    """Every key below a generation belongs to it, whatever its name."""
    assert generation_of(B + "snapshots/00000000.snapshot.lz4") == G
    assert generation_of(B + "any\nthing") == G
    for key in (
        "",
        G,
        "generations/",
        f"generations/{G}",
        B,
        f"generations/{G}0/x",
        f"x/{B}y",
        f"generations/{G.upper()}/x",
    ):
        assert generation_of(key) is None
