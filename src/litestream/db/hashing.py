"""Keeping the hashes of pages up to date, in the background and beside the copying."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

from litestream.db.attach import Attachment
from litestream.db.hashes import ENTRY
from litestream.sqlite.connection import printable
from litestream.sqlite.pages import PIECE, LivePages

_UNKNOWN = bytes(ENTRY)


def hash_unknown(
    attached: Attachment,
    pages: LivePages,
    lock: AbstractContextManager[object],
    stopped: Callable[[], bool],
) -> None:
    """Read, of the state `pages`, the pages of which no hash is known, and keep theirs.

    `PageHashes.begin` was called before `pages` began. `lock` guards the hashes and is held briefly; `stopped` is asked
    under it. Raises `OSError`, and `DatabaseError` if the reading is ended.
    """
    hashes, complete = attached.capture.hashes, False
    per_piece = max(1, PIECE // pages.page_size)
    try:
        for first in range(1, pages.total + 1, per_piece):
            count = min(per_piece, pages.total - first + 1)
            with lock:
                if stopped():
                    return
                entries = hashes.entries(first, count)
            unknown = [n for n in range(count) if entries[n * ENTRY : (n + 1) * ENTRY] == _UNKNOWN]
            if not unknown:
                continue
            low, high = unknown[0], unknown[-1] + 1
            found = hashes.digests(memoryview(pages.read(first + low, high - low)))
            with lock:
                if stopped():
                    return
                hashes.learn({first + n: found[n - low] for n in unknown}, attached.capture.cursor.pos)
        complete = True
    finally:
        with lock:
            hashes.end(complete=complete)


def close_hashes(
    attached: Attachment, logger: logging.Logger | logging.LoggerAdapter[logging.Logger], *, in_order: bool
) -> None:
    """Let the hashes go; `in_order`: they are to outlive a power cut."""
    try:
        attached.capture.hashes.close(attached.source.database_size() if in_order else 0)
    except OSError as error:
        # Nothing is lost: without them the next start takes a snapshot where it might have caught up.
        fields = {"db": printable(attached.source.path), "error": str(error)}
        logger.debug("the hashes of pages were not kept", extra={"fields": fields})
