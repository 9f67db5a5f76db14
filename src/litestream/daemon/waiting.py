"""Waiting until what was committed is durable: any number of waiters, and no upload of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from litestream.core.position import Pos
from litestream.daemon.database import DatabaseTask
from litestream.errors import DatabaseBusyError
from litestream.replica import Replica

_BUSY_PAUSE = 0.05
_LOOK_AGAIN = 1.0
"""Seconds between looks at a replica that says nothing; its uploads are told at once."""


class Shared:
    """Work that many ask for at a time: whoever asks gets a run that began later, and one run serves all of them."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._lock = asyncio.Lock()
        self._begun = 0
        self._done = 0

    async def run(self) -> None:
        """Return when a run that began after this call has ended well. Raises what it raises."""
        wanted = self._begun + 1
        async with self._lock:
            if self._done >= wanted:
                return
            self._begun += 1
            number = self._begun
            await self._work()
            self._done = number


class Waiting:
    """The waiters for one database."""

    def __init__(self, task: DatabaseTask) -> None:
        self._task = task
        self._copying = Shared(self._copy)

    async def copied(self) -> Pos:
        """Copy everything committed by now; the position after it. Raises what the matter is with the database."""
        await self._copying.run()
        return self._task.db.pos()

    async def durable(self, target: Pos, *, every: bool, running: Callable[[], bool]) -> bool:
        """Return True when `target` is durable in a replica, or in all of them; False once not `running` any more.

        A target of a generation that is over counts as reached with the first state of the one that is not: what was
        committed before it began is in its first snapshot.
        """
        changed = asyncio.Event()
        stops = [replica.subscribe(changed.set) for replica in self._task.replicas]
        try:
            while running():
                changed.clear()
                reached = [self._reached(replica, target) for replica in self._task.replicas]
                if all(reached) if every else any(reached):
                    return True
                try:
                    async with asyncio.timeout(_LOOK_AGAIN):
                        await changed.wait()
                except TimeoutError:
                    pass
            return False
        finally:
            for stop in stops:
                stop()

    def _reached(self, replica: Replica, target: Pos) -> bool:
        durable = replica.durable
        if durable.generation == target.generation:
            return not durable.is_zero and durable >= target
        return not durable.is_zero and durable.generation == self._task.db.pos().generation

    async def _copy(self) -> None:
        db = self._task.db
        while True:
            try:
                await db.call(db.sync_now)
                return
            except DatabaseBusyError:
                await asyncio.sleep(_BUSY_PAUSE)  # somebody's lock: the caller's time limit ends this
