"""One database as the status page shows it: a few values for its line, and everything for the one that is opened."""

from __future__ import annotations

from typing import Any

from litestream.config import Config, ReplicaConfig
from litestream.core.costs import AS_OF, Prices, prices_of
from litestream.daemon.history import History
from litestream.daemon.observe import Observer
from litestream.daemon.restorecommand import restore_commands
from litestream.daemon.server import Entry
from litestream.daemon.status import (
    BEHIND,
    ERROR,
    NO_DATABASE,
    NOT_INITIALIZED,
    OK,
    STOPPED,
    UNKNOWN,
    DatabaseStatus,
    ReplicaStatus,
)
from litestream.replica import Replica
from litestream.storage.wrappers.metered import requests_made

View = dict[str, Any]

GRACE = 5.0
"""Seconds, besides the sync interval, by which a replica may be behind without being shown as such: every commit
waits for its upload."""

SNAPSHOTS = 200
"""Snapshots that are told of; of more, the newest ones."""

WAITING = "waiting"
"""There is nothing to replicate yet, or nothing is known yet."""


def database_view(entry: Entry) -> View:
    """The line of a database that is being replicated."""
    if entry.observer is None:
        return _unobserved(entry)
    status = entry.observer.look()
    configs = {config.label: config for config in entry.config.replicas} if entry.config is not None else {}
    replicas = [
        {
            **_replica_view(found),
            "delay": round(replica.sent.delay, 3) if replica.sent.objects else None,
            **_minutes(entry.observer.history(replica.name)),
            **_requests(replica, configs.get(replica.name)),
        }
        for found, replica in zip(status.replicas, entry.observer.task.replicas, strict=True)
    ]
    return _view(status, replicas)


def stopped_view(status: DatabaseStatus) -> View:
    """The line of a database whose replication was stopped."""
    return _view(status, [_replica_view(replica) for replica in status.replicas])


def detail_view(entry: Entry, config: Config) -> View | None:
    """Everything about a database; None where nobody observes it."""
    observer = entry.observer
    if observer is None:
        return None
    status = observer.look()
    configs = {replica.label: replica for replica in entry.config.replicas} if entry.config is not None else {}
    return {
        "path": status.path,
        "generation": status.pos.generation,
        "wal_size": status.wal_size,
        "spool_bytes": status.spool_bytes,
        "pinned_seconds": round(observer.task.db.stats.pinned_seconds, 1),
        "replicas": [
            _replica_detail(entry, config, observer, replica, configs.get(replica.name))
            for replica in observer.task.replicas
        ],
    }


# -- inside


def _unobserved(entry: Entry) -> View:
    """A database that follows another one: nothing is replicated from here."""
    if entry.look is not None:
        return _view(entry.look(), [])
    pos = entry.db.pos()
    return _view(DatabaseStatus(entry.db.path, NOT_INITIALIZED if pos.is_zero else OK, pos), [])


def _view(status: DatabaseStatus, replicas: list[View]) -> View:
    return {
        "path": status.path,
        "state": state_of(status),
        "status": status.status,
        "pos": str(status.pos),
        "size": status.size,
        "error": status.error,
        "replicas": replicas,
    }


def state_of(status: DatabaseStatus) -> str:
    """ok, behind, error, stopped or waiting: the worst of a database and its replicas."""
    if status.status in (NO_DATABASE, NOT_INITIALIZED):
        return WAITING
    found = {status.status, *(_replica_state(replica) for replica in status.replicas)}
    return next((state for state in (ERROR, STOPPED, BEHIND, UNKNOWN) if state in found), OK).replace(UNKNOWN, WAITING)


def _replica_state(replica: ReplicaStatus) -> str:
    if replica.status != BEHIND or replica.lag_seconds > replica.sync_interval + GRACE:
        return replica.status
    return UNKNOWN if replica.pos.is_zero else OK  # before the first upload nothing is safe


def _replica_view(replica: ReplicaStatus) -> View:
    state = _replica_state(replica)
    return {
        "name": replica.name,
        "type": replica.type,
        "url": replica.url,
        "state": WAITING if state == UNKNOWN else state,
        "pos": str(replica.pos),
        "lag": round(replica.lag_seconds, 1),
        "lag_bytes": replica.lag_bytes,
        "uploaded": round(replica.uploaded_at, 3),
        "error": replica.error,
    }


def _minutes(history: History) -> View:
    """The longest wait of each minute in milliseconds, up to `minute`; without what is empty before the first one."""
    delays = [round(delay * 1000) for delay in history.delays()]
    first = next((number for number, delay in enumerate(delays) if delay), len(delays))
    return {"minute": history.newest, "delays": delays[first:]}


def _requests(replica: Replica, config: ReplicaConfig | None) -> View:
    """How many requests the replica's store was asked for, and what they cost (USD; null where no price is known)."""
    made = requests_made(replica.client.store)
    if made is None:
        return {"requests": None, "cost": None}
    prices = _prices(config)
    cost = _cost(made.get("PUT", 0), made.get("LIST", 0), made.get("GET", 0), prices) if prices is not None else None
    return {"requests": sum(made.values()), "cost": cost}


def _prices(config: ReplicaConfig | None) -> Prices | None:
    if config is None:
        return None
    return prices_of(config.type, getattr(config.backend, "endpoint", ""))


def _cost(put: int, listed: int, get: int, prices: Prices) -> float:
    return round((put * prices.put + listed * prices.list + get * prices.get) / 1000, 6)


def _replica_detail(
    entry: Entry, config: Config, observer: Observer, replica: Replica, own: ReplicaConfig | None
) -> View:
    history, validated, prices = observer.history(replica.name), replica.validated, _prices(own)
    snapshots = replica.snapshots_seen
    known = entry.config is not None and own is not None
    return {
        "name": replica.name,
        "minute": history.newest,
        "objects": history.objects(),
        "bytes": history.bytes(),
        "delays": [round(delay, 3) for delay in history.delays()],
        "snapshots": [round(info.created_at, 1) for info in snapshots[-SNAPSHOTS:]],
        "snapshot_count": len(snapshots),
        "snapshot_bytes": sum(info.size for info in snapshots),
        "restorable_from": round(snapshots[0].created_at, 1) if snapshots and not replica.durable.is_zero else None,
        "synced": round(replica.synced_at, 3),
        "sync_interval": replica.sync_interval,
        "retention": replica.retention,
        "validation_interval": replica.validation_interval,
        "verified": None
        if validated is None
        else {"at": round(validated.at, 1), "result": validated.found.verdict.value, "reason": validated.found.reason},
        "requests": requests_made(replica.client.store),
        "prices": {"where": prices.where, "as_of": AS_OF} if prices is not None else None,
        "commands": restore_commands(config, entry.config, own)
        if known and entry.config is not None and own is not None
        else [],
    }
