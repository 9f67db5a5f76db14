"""Validation inside the daemon: the newest state, restored beside the local state, is the running database?"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from litestream.core.position import Pos
from litestream.errors import LitestreamError, NoGenerationError, RestoreError
from litestream.replica.validation import Validation, Verdict
from litestream.restore import RestoreOptions, restore
from litestream.verify.live import Fingerprint, compare, write_fingerprint
from litestream.verify.model import Comparison, is_proof
from litestream.verify.scratch import check_room, remove_leftovers, scratch_directory
from litestream.verify.work import Work

if TYPE_CHECKING:
    from litestream.db.db import DB
    from litestream.replica import Replica
    from litestream.sqlite.pages import LivePages

_PARALLELISM = 2
"""Objects fetched at a time: nobody waits for this."""
_PATIENCE = 30.0
"""Seconds for which a replica may be behind the position at which the database was read."""
_LOOK = 0.1


class RunningValidator:
    """Validates the replicas of one running database.

    Args:
        db: the database; its own readers are used, since nobody else in this process may open it.
        turn: one for all databases of the process: one validation at a time.
        patience: seconds to wait until the replica has what was read.
    """

    def __init__(self, db: DB, turn: asyncio.Semaphore, *, patience: float = _PATIENCE) -> None:
        self._db = db
        self._turn = turn
        self._patience = patience

    async def prepare(self) -> None:
        """Remove the scratch files of a process that was killed."""
        await asyncio.to_thread(remove_leftovers, self._db.meta_path)

    async def validate(self, replica: Replica) -> Validation:
        """Read the database, wait until the replica is there, restore exactly that, compare.

        All work is done in threads of low priority. Memory is bounded (about 60 MB, and five bytes for each page of
        the database). Cancelled, it ends within a piece of a few MiB and leaves nothing.
        """
        async with self._turn:
            if self._db.pos().is_zero:
                raise NoGenerationError
            try:
                with scratch_directory(self._db.meta_path) as directory:
                    async with Work(background=True) as work:
                        found = await self._compare(replica, directory, work)
            except NoGenerationError:
                raise
            except LitestreamError as error:
                return Validation(Verdict.ERROR if is_proof(error) else Verdict.UNKNOWN, reason=str(error))
        if found.equal:
            return Validation(Verdict.OK, found.pos)
        return Validation(Verdict.ERROR, found.pos, str(found.error()))

    async def _compare(self, replica: Replica, directory: str, work: Work) -> Comparison:
        live, pos = await self._read(directory, work)
        await self._wait(replica, pos)
        check_room(directory, live.pages * live.page_size)
        copy = os.path.join(directory, "copy")
        options = RestoreOptions(position=pos, parallelism=_PARALLELISM, integrity_check="none", scratch=True)
        await restore([(replica.name, replica.client)], copy, options=options)
        return await work.run(compare, live, copy, pos, work.go_on)

    async def _read(self, directory: str, work: Work) -> tuple[Fingerprint, Pos]:
        """The database's fingerprint, and its position."""
        opened = asyncio.ensure_future(self._db.call(self._db.open_pages))
        try:
            pages, pos = await asyncio.shield(opened)
        except asyncio.CancelledError:
            # It goes on in its thread all the same: what it opens must not stay open.
            opened.add_done_callback(self._end_late)
            raise
        try:
            return await work.run(write_fingerprint, pages, directory, work.go_on), pos
        finally:
            self._db.readings.end(pages)  # waits for one piece at most

    def _end_late(self, opened: asyncio.Future[tuple[LivePages, Pos]]) -> None:
        if not opened.cancelled() and opened.exception() is None:
            self._db.readings.end(opened.result()[0])

    async def _wait(self, replica: Replica, pos: Pos) -> None:
        deadline = time.monotonic() + self._patience
        # `durable`, since a new generation's WAL can be there before its first snapshot is.
        while (at := replica.durable).generation != pos.generation or at < pos:
            if self._db.pos().generation != pos.generation:
                raise RestoreError("a new generation began meanwhile: the next validation will look at it")
            if time.monotonic() >= deadline:
                raise RestoreError(f"the replica did not get to {pos}: it is at {at or 'no known position'}")
            await asyncio.sleep(_LOOK)
