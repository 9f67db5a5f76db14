"""Waiting for the end of the process that replicates our databases now, to go on where it ends."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections.abc import Iterator, Sequence

from litestream.config import DatabaseConfig
from litestream.config.rules import default_meta_path
from litestream.db.guard import holder, is_there

_LOOK = 0.05
"""Seconds between looks: a lock tells nobody that it is free."""
_EXIT = 0.5
"""Seconds for which a process that has let go may take to exit. Until then it may have our address and our socket."""


async def until_free(
    databases: Sequence[DatabaseConfig], stop: asyncio.Event, logger: logging.Logger, *, web: bool = False
) -> bool:
    """Return when no other process replicates one of the databases; False if `stop` came first. Asks nobody to end.

    `web`: something will be served.
    """
    if web:
        # What takes longest to load is loaded before it is needed.
        importlib.import_module("starlette.applications")
        importlib.import_module("uvicorn")
    told: set[int] = set()
    while pids := set(_holders(databases)):
        for pid in sorted(pids - told):
            logger.info("waiting for the end of the other litestream", extra={"fields": {"process": pid or "unknown"}})
        told |= pids
        if await _stopped(stop):
            return False
    if told:
        logger.info("the other litestream has let go, taking over")
    for _ in range(round(_EXIT / _LOOK)):
        if not any(pid and is_there(pid) for pid in told):
            break
        if await _stopped(stop):
            return False
    return True


def _holders(databases: Sequence[DatabaseConfig]) -> Iterator[int]:
    for database in databases:
        pid = holder(database.meta_path or default_meta_path(os.path.realpath(database.path)))
        if pid is not None:
            yield pid


async def _stopped(stop: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(_LOOK):
            await stop.wait()
    except TimeoutError:
        return False
    return True
