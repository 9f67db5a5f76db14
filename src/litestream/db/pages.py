"""Readings of the live database page by page, and where in its generation each of them stands."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from litestream.core.position import Pos
from litestream.errors import DatabaseBusyError
from litestream.sqlite.pages import LivePages

if TYPE_CHECKING:
    from litestream.db.capture import Capture, Cursor
    from litestream.sqlite.source import Source


class Readings:
    """The readings that are open. Safe to use from several threads."""

    def __init__(self) -> None:
        self._open: list[LivePages] = []
        self._lock = threading.Lock()

    def begin(self, source: Source, copy: Callable[[LivePages], Pos]) -> tuple[LivePages, Pos]:
        """Begin one; `copy` copies everything that is committed by then and gives its position."""
        pages = LivePages.begin(source)
        with self._lock:
            self._open.append(pages)
        try:
            return pages, copy(pages)
        except BaseException:
            self.end(pages)
            raise

    def end(self, pages: LivePages) -> None:
        """End one. May be called twice, and while another thread still reads."""
        pages.close()
        with self._lock:
            if pages in self._open:
                self._open.remove(pages)

    def end_all(self) -> None:
        """End what is open: what it reads is going to be closed."""
        with self._lock:
            pages_open = list(self._open)
        for pages in pages_open:
            self.end(pages)


def position(capture: Capture, copy: Callable[[], object]) -> Callable[[LivePages], Pos]:
    """What finds the position of a state that is read, by copying, with `copy`, everything that is committed by then.

    It raises `DatabaseBusyError` if the state has none.
    """

    def find(pages: LivePages) -> Pos:
        compact, before = capture.compact, capture.cursor
        compact.cut, compact.at_cut = (pages.header.salts, pages.end), None
        try:
            copy()
        finally:
            compact.cut = None
        after = capture.cursor
        if after.base is not None and after.base.compact:
            for cursor in (after, compact.at_cut, before):
                if cursor is not None and cursor.is_at(pages.header.salts, pages.end):
                    return cursor.pos
            if pages.end:
                raise DatabaseBusyError("the WAL started over while its position was looked up")
        return position_of(pages, after)

    return find


def position_of(pages: LivePages, cursor: Cursor) -> Pos:
    """The position of the state that `pages` reads; `cursor` has copied everything that was committed since.

    Raises `DatabaseBusyError` if the two do not fit, which only a WAL that was reset twice could do.
    """
    generation, index = cursor.pos.generation, cursor.pos.index
    if pages.header.salts == cursor.salts:
        if pages.end:
            return Pos(generation, index, pages.end)
        # The WAL was empty still: the state is all that came before it.
        return Pos(generation, index, 0) if cursor.ended.is_zero else cursor.ended
    if not pages.end:
        return cursor.pos
    if cursor.ended.offset == pages.end:  # all was backfilled, and a writer has started the WAL over meanwhile
        return cursor.ended
    raise DatabaseBusyError("the WAL started over while its position was looked up")
