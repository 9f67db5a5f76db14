"""Looks at a running database and its replicas, and remembers since when something is not as it should be.

A look costs two stats and a read of the wal-index. What nobody reports is seen as well: commits that are not copied
because a thread hangs, and uploads that neither fail nor end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from litestream.core.position import Pos
from litestream.daemon.database import DatabaseTask
from litestream.daemon.history import History, Recorder
from litestream.daemon.status import (
    BEHIND,
    ERROR,
    NO_DATABASE,
    NOT_INITIALIZED,
    OK,
    UNKNOWN,
    DatabaseStatus,
    ReplicaStatus,
)
from litestream.errors import DatabaseAbsentError
from litestream.replica import Replica


class _Since:
    """Since when something has been so, as far as somebody looked; 0.0 while it is not."""

    def __init__(self) -> None:
        self.at = 0.0

    def look(self, now: float, *, holds: bool) -> float:
        self.at = (self.at or now) if holds else 0.0
        return self.at


class Observer:
    """One database's status, as often as somebody asks. `places` has type and URL (no secrets) of each replica."""

    def __init__(
        self, task: DatabaseTask, places: Sequence[tuple[str, str]], clock: Callable[[], float] = time.time
    ) -> None:
        self.task = task
        self._places = list(places)
        self._clock = clock
        self._pos = Pos()
        self._uncopied = _Since()
        self._failing = _Since()
        self._calm = False
        self._elsewhere = {replica.name: _Since() for replica in task.replicas}
        self._recorders = {replica.name: Recorder(replica, clock) for replica in task.replicas}

    def exchanged(self, places: Sequence[tuple[str, str]]) -> None:
        """The task has other replicas now, in these places; of those that stayed nothing is forgotten."""
        self._places = list(places)
        self._elsewhere = {replica.name: self._elsewhere.get(replica.name, _Since()) for replica in self.task.replicas}
        before = {recorder.replica: recorder for recorder in self._recorders.values()}
        self._recorders = {
            replica.name: before.get(replica) or Recorder(replica, self._clock) for replica in self.task.replicas
        }

    def history(self, name: str) -> History:
        """The last hour of the replica of that name."""
        return self._recorders[name].history

    @property
    def was_calm(self) -> bool:
        """Whether all was well at the last look."""
        return self._calm

    def is_calm(self) -> bool:
        """Whether all was well at the last look, and is. Costs a tenth of a look."""
        db, error, pos = self.task.db, self.task.error, self._pos
        return (
            self._calm
            and error is None
            and db.pos() == pos
            and all(replica.error is None and replica.durable == pos for replica in self.task.replicas)
            and (self.task.rests or db.uncopied() == 0)  # at rest the sweep looks, and wakes the task
        )

    def look(self) -> DatabaseStatus:
        """The status now. Call it every few seconds: what only a second look can tell is known no better than that."""
        now, db, error = self._clock(), self.task.db, self.task.error
        pos, uncopied = db.pos(), db.uncopied()
        if pos != self._pos:  # it moves, so what is not copied is new
            self._pos, self._uncopied.at = pos, 0.0
        waiting = self._uncopied.look(now, holds=uncopied != 0)
        failing = self._failing.look(now, holds=error is not None and not isinstance(error, DatabaseAbsentError))
        replicas = [
            self._replica(replica, *place, pos, uncopied or 0, [waiting, failing], now)
            for replica, place in zip(self.task.replicas, self._places, strict=True)
        ]
        self._calm = not any(since.at for since in (self._uncopied, self._failing, *self._elsewhere.values()))
        shadow = db.shadow
        return DatabaseStatus(
            path=db.path,
            status=_state(error, pos),
            pos=pos,
            size=_size(db.real_path),
            wal_size=_size(db.wal_path),
            spool_bytes=shadow.size() if shadow is not None else 0,
            error=str(error) if error is not None else "",
            replicas=tuple(replicas),
        )

    def _replica(
        self, replica: Replica, kind: str, url: str, pos: Pos, uncopied: int, since: Sequence[float], now: float
    ) -> ReplicaStatus:
        durable = replica.durable
        size, oldest = 0, 0.0
        # What is kept was committed at a known time. In another generation, or where it is no longer kept, it was not.
        if durable != pos and self.task.db.shadow is not None:
            size, oldest = self.task.db.shadow.behind(durable)
        same = durable.generation == pos.generation
        elsewhere = self._elsewhere[replica.name].look(now, holds=durable != pos and not (same and oldest))
        times = [at for at in (*since, elsewhere, oldest if same else 0.0) if at]
        if times:
            self._recorders[replica.name].history.behind(now, max(0.0, now - min(times)))
        error = replica.error
        status = BEHIND if times else UNKNOWN if pos.is_zero else OK
        return ReplicaStatus(
            name=replica.name,
            type=kind,
            url=url,
            status=ERROR if error is not None else status,
            pos=durable,
            lag_seconds=max(0.0, now - min(times)) if times else 0.0,
            lag_bytes=size + uncopied,
            uploaded_at=replica.stored_at,
            synced_at=replica.synced_at,
            sync_interval=replica.sync_interval,
            snapshots=replica.snapshots_known,
            error=str(error) or type(error).__name__ if error is not None else "",
        )


def _state(error: Exception | None, pos: Pos) -> str:
    if isinstance(error, DatabaseAbsentError):
        return NO_DATABASE
    if error is not None:
        return ERROR
    return NOT_INITIALIZED if pos.is_zero else OK


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
