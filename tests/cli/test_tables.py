"""Tables and JSON on stdout."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestream.cli.tables import table, write_json


def test_columns_are_padded_by_two_spaces_but_the_last() -> None:
    """The official form: as wide as the widest cell plus two, nothing behind the last column."""
    assert table(["path", "replicas"], [["/a/long.db", "file,s3"], ["/b", "x"]]) == (
        "path        replicas\n/a/long.db  file,s3\n/b          x\n"
    )


def test_no_rows_are_a_header_alone() -> None:
    """An empty listing still says what it would list."""
    assert table(["name", "lag"], []) == "name  lag\n"


@given(st.lists(st.tuples(st.text(), st.text(min_size=1)), max_size=5))
def test_no_cell_can_add_a_line(rows: list[tuple[str, str]]) -> None:
    """A path with a line break in it stays in its row."""
    assert len(table(["path", "x"], rows).splitlines()) == len(rows) + 1


def test_json_carries_undecodable_paths_as_readable_text(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON never contains lone surrogates, which most readers refuse."""
    write_json([{"path": os.fsdecode(b"/a\xff")}, ("é", 1, None)])
    assert json.loads(capsys.readouterr().out) == [{"path": "/a\\xff"}, ["é", 1, None]]
