"""Positions: text form, order, and what is refused."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.stamps import generations, indexes, offsets, positions
from litestream.core.position import Pos, WALSegmentInfo, is_generation
from litestream.errors import InvalidNameError

G = "0123456789abcdef"


@given(positions)
def test_text_round_trip(pos: Pos) -> None:
    """A position read back from its text is the same."""
    assert Pos.parse(str(pos)) == pos


def test_text_form() -> None:
    """The seed's form: hex, eight digits at least."""
    assert str(Pos(G, 1, 0x1038)) == f"{G}/00000001:00001038"
    assert str(Pos(G, 0, 0x123456789)) == f"{G}/00000000:123456789"


def test_zero() -> None:
    """The zero position is the empty text, and is equal only to itself."""
    assert str(Pos()) == ""
    assert Pos.parse("") == Pos()
    assert Pos().is_zero
    assert not Pos(G, 0, 0).is_zero
    assert Pos() != Pos(G, 0, 0)


@pytest.mark.parametrize(
    "text",
    [
        f"{G}/00000001",
        f"{G}/00000001:0",
        f"{G}/1:00000000",
        f"{G.upper()}/00000001:00000000",
        f"{G}/0000000A:00000000",
        f"{G}/000000001:00000000",
        f"{G}/00000001:000000000",
        f"{G}/00000001:00000000\n",
        f" {G}/00000001:00000000",
        f"{G[1:]}/00000001:00000000",
        f"{G}/00000001:-0000001",
        f"{G}/0000000\u0661:00000000",
        "../../../../etc:00000000",
    ],
)
def test_refused_text(text: str) -> None:
    """What is not exactly a position is refused, with the text in the error."""
    with pytest.raises(InvalidNameError, match=re.escape(repr(text))):
        Pos.parse(text)


@given(
    st.one_of(
        st.text(alphabet="0123456789abcdefA/:_. \n\u0660", max_size=40),
        st.from_regex(r"[0-9a-f]{16}/0?[0-9a-f]{8,17}:0?[0-9a-f]{8,17}\n?", fullmatch=True),
    )
)
def test_any_text(text: str) -> None:
    """Any text is either the text of exactly one position, or refused."""
    try:
        pos = Pos.parse(text)
    except InvalidNameError:
        return
    assert str(pos) == text


@given(generations, st.tuples(indexes, offsets), st.tuples(indexes, offsets))
def test_order(generation: str, a: tuple[int, int], b: tuple[int, int]) -> None:
    """Within a generation positions are ordered by index, then offset."""
    left, right = Pos(generation, *a), Pos(generation, *b)
    assert (left < right, left <= right, left > right, left >= right) == (a < b, a <= b, a > b, a >= b)
    assert (left == right) == (a == b)


@pytest.mark.parametrize("compare", [operator.lt, operator.le, operator.gt, operator.ge])
def test_no_order_across_generations(compare: Callable[[object, object], bool]) -> None:
    """Positions of different generations, and other things, cannot be ordered."""
    with pytest.raises(ValueError, match="different generations"):
        compare(Pos(G, 1, 0), Pos(G[::-1], 2, 0))
    with pytest.raises(ValueError, match="different generations"):
        compare(Pos(), Pos(G, 0, 0))
    with pytest.raises(TypeError, match="cannot compare"):
        compare(Pos(G, 1, 0), (1, 0))


@pytest.mark.parametrize("name", ["", "g" * 16, G[:15], G + "0", G.upper(), G + "\n", "\u0660" * 16, "../" + G])
def test_not_a_generation(name: str) -> None:
    """A generation is exactly 16 lower-case hex digits."""
    assert not is_generation(name)
    assert is_generation(G)


def test_segment_position() -> None:
    """A segment's position is where it begins."""
    assert WALSegmentInfo(G, 2, 64, 10, 0.0).pos == Pos(G, 2, 64)
