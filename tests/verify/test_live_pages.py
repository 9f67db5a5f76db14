"""Reading one committed state of a live database, and its position, however commits and checkpoints fall in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers import ledger
from helpers.app import App
from litestream.core.position import Pos
from litestream.db.pages import position_of
from litestream.errors import DatabaseBusyError, DatabaseError
from litestream.sqlite.pages import LivePages
from litestream.sqlite.source import Reader, Source

GEN = "0123456789abcdef"
OLD, NEW = b"oldsalts", b"newsalts"


@pytest.fixture
def source(tmp_path: Path, app: App) -> Iterator[Source]:
    """A ledger with three transactions, opened here and written elsewhere."""
    app.create(tmp_path / "app.db")
    app.ledger(3)
    opened = Source(str(tmp_path / "app.db"))
    yield opened
    opened.close()


def _ledger(pages: LivePages, out: Path) -> int:
    """The transaction after which a state stands, which must be a committed one."""
    out.write_bytes(b"".join(pages.chunks()))
    pages.close()
    return ledger.check(out)


def test_a_commit_between_the_two_looks(
    source: Source, app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit right after the transaction began is not taken for part of it: it begins anew."""
    LivePages.begin(source).close()  # from now on the wal-index is open
    begun = 0
    begin_reader = source.begin_reader

    def slow() -> Reader:
        nonlocal begun
        begun += 1
        reader = begin_reader()
        if begun < 3:
            app.ledger(1)
        return reader

    monkeypatch.setattr(source, "begin_reader", slow)
    pages = LivePages.begin(source)

    assert begun == 3
    app.ledger(2)
    assert _ledger(pages, tmp_path / "out.db") == 5


@pytest.mark.parametrize("before", ["", "PASSIVE", "RESTART", "TRUNCATE"])
@pytest.mark.parametrize("after", ["", "PASSIVE", "RESTART"])
def test_checkpoints_around_it(before: str, after: str, source: Source, app: App, tmp_path: Path) -> None:
    """Whatever was checkpointed before, and is checkpointed and committed meanwhile, the state stays the same."""
    if before:
        app.checkpoint(before)
    pages = LivePages.begin(source)
    for _ in range(3):
        app.ledger(5)
        if after:
            app.checkpoint(after)

    assert _ledger(pages, tmp_path / "out.db") == 3


def test_closed_while_it_is_read(source: Source, app: App) -> None:
    """What is read after the transaction ended is an error, and its connection is given back."""
    app.fill(1000)
    pages = LivePages.begin(source)
    chunks = pages.chunks()
    next(chunks)
    pages.close()
    pages.close()
    with pytest.raises(DatabaseError, match="reading ended"):
        next(chunks)


def _pages(salts: bytes, end: int) -> Any:  # noqa: ANN401 - as much of LivePages as is looked at
    return SimpleNamespace(header=SimpleNamespace(salts=salts), end=end)


def _cursor(salts: bytes, pos: Pos, ended: Pos = Pos()) -> Any:  # noqa: ANN401, B008 - the same; a value
    return SimpleNamespace(salts=salts, pos=pos, ended=ended)


@pytest.mark.parametrize(
    ("pages", "cursor", "expected"),
    [
        (_pages(OLD, 800), _cursor(OLD, Pos(GEN, 4, 800)), Pos(GEN, 4, 800)),
        (_pages(OLD, 800), _cursor(OLD, Pos(GEN, 4, 900)), Pos(GEN, 4, 800)),  # more was committed meanwhile
        (_pages(NEW, 0), _cursor(OLD, Pos(GEN, 4, 800)), Pos(GEN, 4, 800)),  # the WAL is empty
        (_pages(NEW, 0), _cursor(NEW, Pos(GEN, 5, 70), Pos(GEN, 4, 800)), Pos(GEN, 4, 800)),  # it was, then not
        (_pages(NEW, 0), _cursor(NEW, Pos(GEN, 0, 70)), Pos(GEN, 0, 0)),  # the first frames ever came meanwhile
        (_pages(OLD, 800), _cursor(NEW, Pos(GEN, 5, 70), Pos(GEN, 4, 800)), Pos(GEN, 4, 800)),  # it started over
        (_pages(OLD, 0), _cursor(b"", Pos(GEN, 0, 0)), Pos(GEN, 0, 0)),  # there never was a WAL
    ],
)
def test_position(pages: Any, cursor: Any, expected: Pos) -> None:  # noqa: ANN401 - as above
    """Where a reader stands follows from its wal-index and from what was copied since."""
    assert position_of(pages, cursor) == expected


def test_position_that_does_not_fit() -> None:
    """A WAL that started over more than once is no guess but an error."""
    with pytest.raises(DatabaseBusyError):
        position_of(_pages(OLD, 800), _cursor(NEW, Pos(GEN, 6, 70), Pos(GEN, 5, 500)))
