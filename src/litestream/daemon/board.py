"""What the status page shows: every database as a small value, and only what has changed since somebody last asked.

It is worked out when somebody asks, at most once a second however many ask, and from the beginning only where something
happened: a database at rest is looked at every few seconds. While nobody looks nothing runs.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from litestream.daemon.control import Controller
from litestream.daemon.server import Entry, Server
from litestream.daemon.status import OK
from litestream.daemon.views import View, database_view, detail_view, stopped_view
from litestream.web.api import Answer

REFRESH = 0.9
"""Seconds between two looks at what may have changed."""

LOOK_AGAIN = 5.0
"""Seconds after which a database at which nothing seems to happen is looked at again."""

_GONE = 10_000
"""Databases that have gone of which a page that is open can still be told; more, and it gets everything anew."""


@dataclass(slots=True)
class _Row:
    """One database as it was last told. `text` is JSON; `id` stands for the path, which may not fit into a URL."""

    id: int
    text: str
    version: int
    signs: tuple[object, ...]
    looked_at: float
    settled: bool
    """Everything was as it should be: nothing changes unless something happens."""


class Board:
    """See above."""

    def __init__(self, server: Server, control: Controller, clock: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._control = control
        self._clock = clock
        self._epoch = secrets.token_hex(4)  # versions of another process mean nothing here
        self._version = 1
        self._rows: dict[str, _Row] = {}
        self._ids = itertools.count(1)
        self._gone: deque[tuple[int, int]] = deque(maxlen=_GONE)
        self._complete_since = 0
        self._refreshed_at = float("-inf")
        self._lock = asyncio.Lock()

    async def changes(self, since: str = "", detail: int = 0) -> str:
        """JSON: what has changed since the answer with that `version`, or everything, with `reset`.

        `detail` is the id of a database of which everything is told; it is null if there is no such database.
        """
        async with self._lock:
            if self._clock() - self._refreshed_at >= REFRESH:
                await self._refresh()
        known = self._known(since)
        rows = [row.text for row in self._rows.values() if row.version > known]
        head: Answer = {
            "version": f"{self._epoch}-{self._version}",
            "reset": not known,
            "now": time.time(),
            "started": self._control.started,
            "running": self._server.running,
            "removed": [number for version, number in self._gone if version > known] if known else [],
            "detail": self._detail(detail) if detail else None,
        }
        return f'{json.dumps(head)[:-1]}, "databases": [{",".join(rows)}]}}'

    # -- inside

    def _known(self, since: str) -> int:
        epoch, _, version = since.partition("-")
        number = int(version) if version.isascii() and version.isdigit() and len(version) < 16 else 0
        return number if epoch == self._epoch and self._complete_since <= number <= self._version else 0

    async def _refresh(self) -> None:
        now, seen = self._clock(), set()
        for count, entry in enumerate(self._server.entries, 1):
            seen.add(entry.db.path)
            self._look(entry, now)
            if count % 50 == 0:
                await asyncio.sleep(0)  # a thousand databases take a while, and uploads go on
        for status in self._control.stopped_statuses():
            if status.path not in seen:
                seen.add(status.path)
                self._tell(status.path, stopped_view(status), (), now)
        for path in [path for path in self._rows if path not in seen]:
            row = self._rows.pop(path)
            self._version += 1
            if len(self._gone) == _GONE:
                self._complete_since = self._gone[0][0]
            self._gone.append((self._version, row.id))
        self._refreshed_at = self._clock()

    def _look(self, entry: Entry, now: float) -> None:
        row, signs = self._rows.get(entry.db.path), _signs(entry)
        if row is not None and row.settled and row.signs == signs and now - row.looked_at < LOOK_AGAIN:
            return
        self._tell(entry.db.path, database_view(entry), signs, now)

    def _tell(self, path: str, view: View, signs: tuple[object, ...], now: float) -> None:
        row = self._rows.get(path)
        number = row.id if row is not None else next(self._ids)
        text = json.dumps({"id": number, **view})
        if row is not None and row.text == text:
            row.signs, row.looked_at = signs, now
            return
        self._version += 1
        settled = view["state"] == OK and not any(replica["lag"] for replica in view["replicas"])
        self._rows[path] = _Row(number, text, self._version, signs, now, settled)

    def _detail(self, number: int) -> View | None:
        path = next((path for path, row in self._rows.items() if row.id == number), "")
        entry = self._server.entry(path)
        found = detail_view(entry, self._control.config) if entry is not None else None
        return {"id": number, **found} if found is not None else None


def _signs(entry: Entry) -> tuple[object, ...]:
    """What is different when something happened at a database, as far as that can be had for nothing."""
    if entry.observer is None:
        return (entry.look(),) if entry.look is not None else ()
    task = entry.observer.task
    return (
        task.db.pos(),
        task.error,
        *((replica.name, replica.durable, replica.stored_at, replica.error) for replica in task.replicas),
    )
