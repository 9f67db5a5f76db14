"""When an upload may begin: after the one before, and after an error."""

from __future__ import annotations

import random

FIRST = 0.25
"""Seconds before the first retry: a lock, a full queue or a restarted server may be over by then."""

LONGEST = 5.0
"""Seconds between tries at a store that stays down: it is wanted back soon, and a request that fails costs little."""


SLACK = 0.25
"""Part of the interval by which an upload may come too early, if the one before came late for that: who commits once in
each interval is not made to wait a little longer each time."""


class Pace:
    """At most one upload in each interval, in the long run. Times are monotonic seconds.

    Attributes:
        due: when the next one would begin if they came at even intervals.
    """

    def __init__(self) -> None:
        self.due = float("-inf")

    def began(self, now: float, interval: float) -> None:
        """An upload has begun."""
        self.due = max(self.due, now) + interval

    def allowed_at(self, interval: float) -> float:
        """From when on the next one may begin."""
        return self.due - SLACK * interval


class Backoff:
    """Waiting times that double up to a bound, each shortened by up to a quarter at random.

    The chance keeps many replicas from asking a server that comes back all at once.
    """

    def __init__(self, longest: float = LONGEST, first: float = FIRST) -> None:
        self.first = min(first, longest)
        self.longest = longest
        self._next = self.first

    def next(self) -> float:
        """Seconds to wait now."""
        delay, self._next = self._next, min(2 * self._next, self.longest)
        return delay * random.uniform(0.75, 1.0)  # noqa: S311 spreading load, not a secret

    def reset(self) -> None:
        """It worked: the next error begins anew."""
        self._next = self.first
