"""A WAL that a foreign reader pins: nothing helps but waiting, so wait politely and say so."""

from __future__ import annotations


class PinnedWAL:
    """How long checkpoints have not come to an end, and when to try the next one. Times are monotonic seconds."""

    _FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
    _FIRST_WARNING = 30.0

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.not_before = 0.0
        self._since: float | None = None
        self._pause = self._FIRST_PAUSE
        self._warn_after = self._FIRST_WARNING

    def note(self, complete: bool, now: float, *, pinned: bool = True) -> float:
        """Record how a checkpoint ended. Not 0: it is time to warn, and for how long the WAL has been pinned.

        One that came as far as our own reader lets it is not pinned: only writers were too busy. Next time may do.
        """
        if complete or not pinned:
            self._reset()
            self.not_before = 0.0 if complete else now + self._FIRST_PAUSE
            return 0.0
        self._since = self._since if self._since is not None else now
        self.not_before = now + self._pause
        self._pause = min(2 * self._pause, self._LONGEST_PAUSE)
        if now - self._since < self._warn_after:
            return 0.0
        self._warn_after = 2 * (now - self._since)
        return now - self._since

    def seconds(self, now: float) -> float:
        """For how long checkpoints have not come to an end; 0 if the last one did."""
        return now - self._since if self._since is not None else 0.0
