"""When to checkpoint, so that the WAL does not grow for ever."""

from __future__ import annotations

from enum import Enum, auto


class Action(Enum):
    NONE = auto()
    PASSIVE = auto()
    """Overlap, PASSIVE checkpoint, overlap: holds nobody up, and the next writer starts a new WAL if all came in."""
    SEAL = auto()
    """The same with the write lock held for a moment: for when writers are too busy for PASSIVE to come to an end."""


def choose_checkpoint(
    *,
    wal_frames: int,
    backfilled: int,
    min_pages: int,
    max_pages: int,
    interval: float,
    since_checkpoint: float,
) -> Action:
    """What is due for a WAL of `wal_frames` committed frames of which `backfilled` are in the database file.

    `min_pages` and `max_pages` count frames of the WAL, `max_pages` 0 is off. `interval` and `since_checkpoint` are
    seconds, `interval` 0 is off. Nothing is due while everything is backfilled: all that is missing then is a
    writer, who starts the new WAL.
    """
    if backfilled >= wal_frames:
        return Action.NONE
    if 0 < max_pages <= wal_frames:
        return Action.SEAL
    if wal_frames >= min_pages or 0 < interval <= since_checkpoint:
        return Action.PASSIVE
    return Action.NONE
