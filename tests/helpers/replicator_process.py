"""A replicator that stops where it is told: between any two steps of capture, upload or snapshot.

Started as `python -m helpers.replicator_process DATABASE REPLICA SECOND [compact]`; one JSON command a line, one JSON
answer a line. A command may carry `"stop": k`: at its k-th step (each step is passed twice, before and after) the
process answers `{"at": name}` and waits for a line, `go` or `die`. `die` ends it as kill -9 would, `{"do": "end"}` in
order.

The replicator is a fork of a process that has imported everything and opened nothing: whenever it has ended, that is
answered with `{"ended": true}`, and the next one lives at once. All of it ends when stdin does.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np  # noqa: F401 - once, not in every fork

from litestream import fsutil
from litestream.client import open_client
from litestream.core.position import Pos
from litestream.db import attach, compact, state
from litestream.db import db as database
from litestream.db.capture import Capture
from litestream.db.db import DB
from litestream.db.hashes import PageHashes
from litestream.db.shadow import SegmentBatch, ShadowWAL
from litestream.errors import LitestreamError, StorageError
from litestream.replica import Replica
from litestream.sqlite.source import Source
from litestream.storage.file import FileStore

STEPS: list[tuple[Any, str]] = [
    (Source, "begin_reader"),
    (Source, "end_reader"),
    (Source, "checkpoint_passive"),
    (Source, "lock_writers"),
    (Source, "unlock_writers"),
    (Capture, "copy"),
    (ShadowWAL, "append"),
    (ShadowWAL, "persist"),
    (ShadowWAL, "prune"),
    (ShadowWAL, "load"),
    (ShadowWAL, "publish"),
    (PageHashes, "forget"),
    (PageHashes, "learn"),
    (PageHashes, "load"),
    (state, "store"),
    (attach, "remove_generation"),
    (fsutil.AtomicFile, "publish"),
    (FileStore, "put"),
]
COMPACT_STEPS: list[tuple[Any, str]] = [
    (compact.Compact, "_remember"),
    (ShadowWAL, "_write"),
    (SegmentBatch, "publish"),
]
"""Those of compact mode besides."""


NO_MORE, ENDED, KILLED = 0, 3, 9
"""How a replicator's life ends: no more commands, in order, killed."""


class Stops:
    """Counts steps and stops at the one that was asked for."""

    def __init__(self) -> None:
        self.left = 0

    def passing(self, name: str) -> None:
        if not self.left:
            return
        self.left -= 1
        if self.left:
            return
        answer({"at": name})
        if sys.stdin.readline().strip() == "die":
            os._exit(KILLED)


def answer(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def instrument(stops: Stops) -> None:
    """Wrap every step."""
    for owner, name in STEPS + (COMPACT_STEPS if "compact" in sys.argv else []):
        setattr(owner, name, _wrapped(getattr(owner, name), name, stops))


def _wrapped(function: Callable[..., Any], name: str, stops: Stops) -> Callable[..., Any]:
    if asyncio.iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*args: object, **options: object) -> object:
            stops.passing(f"before {name}")
            result = await function(*args, **options)
            stops.passing(f"after {name}")
            return result

        return coroutine

    @functools.wraps(function)
    def plain(*args: object, **options: object) -> object:
        stops.passing(f"before {name}")
        result = function(*args, **options)
        stops.passing(f"after {name}")
        return result

    return plain


async def refuse(*_: object, **__: object) -> None:
    raise StorageError("out of order")


async def replicate() -> int:
    """One life of the replicator. Returns its exit status."""
    stops = Stops()
    instrument(stops)
    status = NO_MORE
    database.SHADOW_LIMIT = database.SHADOW_WALS = 0  # as little as can be for replicas that are behind
    db = DB(sys.argv[1], min_checkpoint_page_count=20, max_checkpoint_page_count=60, checkpoint_interval=0)
    if "compact" in sys.argv:
        db.compact, compact.BATCH_LIMIT = True, 60_000
        setattr(compact, "SEGMENT_LIMIT", 20_000)  # noqa: B010 - a name that it imports, for the type checker
    replica = Replica(db, open_client(sys.argv[2]), monitor_enabled=False, retention=0.5)
    client = open_client(sys.argv[3])
    second = Replica(db, client, name="second", monitor_enabled=False)
    for one in (replica, second):
        db.acknowledge(one.name, Pos())

    def break_second() -> None:
        """Every put of the second replica fails from now on, or no longer."""
        broken = "put" in vars(client.store)
        if broken:
            del vars(client.store)["put"]
        else:
            setattr(client.store, "put", refuse)  # noqa: B010 - a method is no variable, for the type checker

    def switch() -> None:
        db.compact = not db.compact

    commands: dict[str, Callable[[], Any]] = {
        "switch": switch,
        "sync": db.sync_now,
        "maintain": db.maintain,
        "seal": functools.partial(db.checkpoint, seal=True),
        "upload": replica.sync,
        "snapshot": replica.snapshot,
        "retain": replica.enforce_retention,
        "hash": db.hash_pages,
        "second": second.sync,
        "break": break_second,
        "repair": lambda: vars(client.store).pop("put", None),
    }
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "end":
            status = ENDED
            break
        stops.left = command.get("stop", 0)
        try:
            result = commands[command["do"]]()
            if asyncio.iscoroutine(result):
                await result
        except (LitestreamError, OSError) as error:
            answer({"error": f"{type(error).__name__}: {error}", "pos": str(db.pos())})
        else:
            at = str((second if command["do"] == "second" else replica).pos)
            answer({"ok": True, "pos": str(db.pos()), "uploaded": at})
        stops.left = 0
    await replica.close()
    await second.close()
    db.close()
    return status


def main() -> None:
    while True:
        child = os.fork()
        if child == 0:
            os._exit(asyncio.run(replicate()))
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) not in {ENDED, KILLED}:
            break
        answer({"ended": True})


if __name__ == "__main__":
    main()
