"""How long writers may be held back for a seal: the moment in which everything is backfilled, and a new WAL begins."""

from __future__ import annotations

from litestream.db.attach import Attachment

SEAL_TIMEOUT = 0.05
"""Seconds that a seal waits for the write lock. Busy writers are never made to wait for longer than they work."""

SEAL_TAIL_LIMIT = 1024 * 1024
"""Bytes that may be left to copy or to backfill once the write lock is held; with more, catch up first."""

SEAL_TAIL_MOST = 4 * 1024 * 1024
"""The same for a WAL that has grown large already."""

SEAL_ROUNDS = 8
"""Backfills before a seal, at most: each leaves what was written while it ran."""


def tail_limit(attached: Attachment) -> int:
    """Bytes that may be left. A WAL that has grown in spite of the rounds before is worth a longer moment."""
    parsed = attached.source.wal_index()
    size = parsed[0].max_frame * attached.source.page_size if parsed is not None else 0
    return min(SEAL_TAIL_MOST, max(SEAL_TAIL_LIMIT, size // 64))


def tail_is_short(attached: Attachment, limit: int) -> bool:
    """Whether no more than `limit` bytes are left to copy, and to backfill; False while that cannot be known."""
    parsed = attached.source.wal_index()
    if parsed is None or attached.capture.pending() > limit:
        return False
    return (parsed[0].max_frame - parsed[1]) * attached.source.page_size <= limit
