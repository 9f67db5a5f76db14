"""Databases that are missing when they come in are restored from their replicas, before they are replicated."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from litestream.config import DatabaseConfig
from litestream.config.paths import shown
from litestream.core.durations import format_duration
from litestream.errors import NoBackupError, OutputExistsError
from litestream.replica.log import prefixed

if TYPE_CHECKING:
    from litestream.restore import RestoreResult

TOGETHER = 4
"""Databases that are restored at a time; each fetches several objects at a time."""


async def restore_missing(databases: Iterable[DatabaseConfig], logger: logging.Logger) -> None:
    """Restore those of `databases` whose file is not there, each from the replica with the latest data.

    A database of which no replica has a backup is left to be made by its application. A restored file is complete,
    checked and durable when it gets its name; replication finds another file than it knew, if it knew one, and goes
    on in the same generation only if the file's hash proves that nothing is different. Raises what `restore` raises,
    with the database's path: nothing is left behind of that one then, and no other is begun. May be cancelled.
    """
    turn = asyncio.Semaphore(TOGETHER)
    tasks = [asyncio.create_task(_restore(database, turn, logger)) for database in databases if is_missing(database)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def restored(databases: Iterable[DatabaseConfig], stop: asyncio.Event, logger: logging.Logger) -> bool:
    """The same, unless `stop` is set first: then what has begun is given up, and the answer is False."""
    work = asyncio.create_task(restore_missing(databases, logger))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work
        return work.done()
    finally:
        for task in (work, stopped):
            task.cancel()
        await asyncio.gather(work, stopped, return_exceptions=True)


def is_missing(database: DatabaseConfig) -> bool:
    """Whether there is no such file; a link that leads nowhere is none."""
    return not os.path.lexists(os.path.realpath(database.path))


async def _restore(database: DatabaseConfig, turn: asyncio.Semaphore, logger: logging.Logger) -> None:
    fields: dict[str, object] = {"db": database.path}
    name = shown(database.path)
    async with turn:
        logger.info("attempting restore before replication", extra={"fields": fields})
        try:
            with prefixed(f"cannot restore {name}: "):
                result = await _from_replicas(database)
        except NoBackupError:
            logger.info("no backup found, starting fresh", extra={"fields": fields})
            return
        except OutputExistsError as error:
            raise OutputExistsError(
                f"cannot restore {name}: it is missing, but a -wal, -shm or -journal of it is there: move that away, "
                f"or run litestream restore -force {name}"
            ) from error
    for warning in result.warnings:
        logger.warning("%s", warning)
    fields |= {"replica": result.replica, "position": str(result.pos), "size": result.size}
    fields["elapsed"] = format_duration(result.duration_ms / 1000)
    logger.info("restore completed", extra={"fields": fields})


async def _from_replicas(database: DatabaseConfig) -> RestoreResult:
    from litestream.restore import restore

    clients = [(replica.label, replica.open()) for replica in database.replicas]
    try:
        return await restore(clients, os.path.realpath(database.path))
    finally:
        for _, client in clients:
            await client.close()
