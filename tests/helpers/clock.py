"""A clock for tests that have no time to wait."""

from __future__ import annotations


class Clock:
    """Time that only passes when somebody says so, or sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
