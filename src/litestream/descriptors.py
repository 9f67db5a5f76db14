"""File descriptors: as many as we may have, some kept free, and one message for all who lack one."""

from __future__ import annotations

import errno
import logging
import os
import resource
import time
from collections.abc import Callable

from litestream.errors import TooManyFilesError

RESERVE = 128
"""Descriptors that databases which begin leave to those that run: uploads and checkpoints need some for moments."""

NEEDED = 10
"""Descriptors that a database keeps, about."""

REPEAT = 30.0
"""Seconds between two messages."""

_LACKING = {errno.EMFILE, errno.ENFILE}


def raise_limit() -> tuple[int, int]:
    """Raise the limit of this process as far as it may go. Returns what it was, and what it is."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before == hard:
        return before, before
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return before, before  # a system that has a bound of its own
    return before, hard


def limit() -> int:
    """How many this process may have now."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def check_room(needed: int = 0) -> None:
    """Raise `TooManyFilesError` unless something that will keep descriptors may begin; `needed` by those that have."""
    allowed = limit()
    if allowed == resource.RLIM_INFINITY:
        return
    try:
        lowest = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)  # all numbers below it are in use
    except OSError as error:
        raise too_many(error) from error
    os.close(lowest)
    if max(lowest, needed) >= allowed - min(RESERVE, allowed // 4):
        raise too_many(None)


def is_lacking(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, says that there are no descriptors left."""
    while error is not None:
        if isinstance(error, TooManyFilesError) or (isinstance(error, OSError) and error.errno in _LACKING):
            return True
        error = error.__cause__
    return False


def too_many(error: OSError | None) -> TooManyFilesError:
    """The error for a person."""
    if error is not None and error.errno == errno.ENFILE:
        return TooManyFilesError("too many open files in the system: raise fs.file-max (sysctl)")
    return TooManyFilesError(
        f"too many open files: the limit is {limit()} (a database needs about {NEEDED}): "
        "raise it (ulimit -Hn, LimitNOFILE= of systemd), or replicate fewer databases"
    )


class Room:
    """How many databases have begun: each takes `NEEDED` in the end, though it opens some only when it is at work."""

    def __init__(self) -> None:
        self._begun = 0

    def enter(self) -> None:
        """Before a database opens anything. Raises `TooManyFilesError`."""
        check_room(self._begun * NEEDED)
        self._begun += 1

    def leave(self) -> None:
        """It has closed everything, or could not begin."""
        self._begun -= 1


ROOM = Room()
"""That of this process."""


class Shortage:
    """Tells of a lack of descriptors once for all who meet it, and again every `REPEAT` seconds while it lasts."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = float("-inf")
        self._waiting: set[str] = set()

    def tell(self, who: str, error: BaseException) -> bool:
        """Whether `error` is of this kind: it has been told then, or will be with the next message."""
        if not is_lacking(error):
            return False
        self._waiting.add(who)
        if self._clock() - self._at >= REPEAT:
            cause = error if isinstance(error, TooManyFilesError) else too_many(None)
            fields = {"waiting": len(self._waiting), "db": min(self._waiting)}
            logging.getLogger("litestream.files").error("%s", cause, extra={"fields": fields})
            self._at = self._clock()
            self._waiting.clear()
        return True


SHORTAGE = Shortage()
"""That of this process."""
