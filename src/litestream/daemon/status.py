"""How safe a database is: plain values, worked out by whoever looks, and their form as JSON.

`lag_seconds` is the age of the oldest commit that is not yet durable in a replica, 0 when everything is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from litestream.core.position import Pos
from litestream.core.timestamps import format_rfc3339, parse_rfc3339

OK = "ok"
NOT_INITIALIZED = "not initialized"
NO_DATABASE = "no database"
ERROR = "error"
UNKNOWN = "unknown"
STOPPED = "stopped"
BEHIND = "behind"

NOWHERE = Pos()

WITHIN = 60.0
"""Seconds by which a replica may be behind while its database counts as safe, where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One replica. `status` is ok, behind, error, stopped, or unknown."""

    name: str
    type: str
    url: str
    """Where it is, without secrets."""
    status: str
    pos: Pos
    """Up to where the database can be restored from it; the zero position while that is nothing, or not known."""
    lag_seconds: float = 0.0
    lag_bytes: int = 0
    """Bytes of WAL that it lacks; what is kept for it at most, while its position is not known."""
    uploaded_at: float = 0.0
    """When something was last stored there, in Unix seconds; 0 if nothing was since the start."""
    synced_at: float = 0.0
    """When it was last seen to have everything that was copied; 0 if it never was since the start."""
    sync_interval: float = 0.0
    snapshots: int | None = None
    """Snapshots of the present generation; None while that is not known."""
    error: str = ""

    def within(self, seconds: float) -> bool:
        """Whether everything that was committed `seconds` ago is durable there."""
        return self.status in (OK, BEHIND) and self.lag_seconds <= seconds

    def to_json(self) -> dict[str, Any]:
        """A value for `json.dumps`; times are RFC 3339 or null."""
        return {
            "name": self.name,
            "type": self.type,
            "url": self.url,
            "status": self.status,
            "pos": str(self.pos),
            "lag_seconds": round(self.lag_seconds, 3),
            "lag_bytes": self.lag_bytes,
            "last_upload_at": shown_time(self.uploaded_at),
            "last_sync_at": shown_time(self.synced_at),
            "snapshots": self.snapshots,
            "error": self.error,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ReplicaStatus:
        """The inverse of `to_json`, but for the sync interval. `ValueError` and its like if it is none."""
        return cls(
            str(value["name"]),
            str(value["type"]),
            str(value["url"]),
            str(value["status"]),
            Pos.parse(value["pos"]),
            float(value["lag_seconds"]),
            int(value["lag_bytes"]),
            _time(value["last_upload_at"]),
            _time(value["last_sync_at"]),
            snapshots=value["snapshots"],
            error=str(value["error"]),
        )


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """One database. `status`: ok, not initialized, no database, error, unknown (the official words), or stopped."""

    path: str
    status: str
    pos: Pos = NOWHERE
    """How far its WAL has been copied."""
    size: int = 0
    wal_size: int = 0
    spool_bytes: int = 0
    """What the local state keeps for replicas that do not have it yet, as stored."""
    error: str = ""
    replicas: tuple[ReplicaStatus, ...] = ()

    def within(self, seconds: float) -> bool:
        """Whether everything that was committed `seconds` ago is durable in every replica."""
        return self.status == OK and all(replica.within(seconds) for replica in self.replicas)

    @property
    def synced_at(self) -> float:
        """When every replica had everything that was copied; 0 if one never had since the start."""
        return min((replica.synced_at for replica in self.replicas), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """A value for `json.dumps`."""
        return {
            "path": self.path,
            "status": self.status,
            "generation": self.pos.generation,
            "pos": str(self.pos),
            "db_size": self.size,
            "wal_size": self.wal_size,
            "spool_bytes": self.spool_bytes,
            "error": self.error,
            "replicas": [replica.to_json() for replica in self.replicas],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DatabaseStatus:
        """The inverse of `to_json`, as far as that of replicas is one."""
        return cls(
            str(value["path"]),
            str(value["status"]),
            Pos.parse(value["pos"]),
            int(value["db_size"]),
            int(value["wal_size"]),
            int(value["spool_bytes"]),
            str(value["error"]),
            tuple(ReplicaStatus.from_json(replica) for replica in value["replicas"]),
        )


def report(databases: Iterable[DatabaseStatus], within: float = WITHIN) -> dict[str, Any]:
    """The document of `GET /status` and `litestream status -json`; `ok` only if every database is safe."""
    found = list(databases)
    return {
        "ok": all(database.within(within) for database in found),
        "within_seconds": within,
        "databases": [database.to_json() for database in found],
    }


def txid_of(pos: Pos) -> int:
    """A number in the place of the official transaction ID: it goes up with every commit within a generation."""
    return pos.index << 32 | pos.offset


def shown_time(seconds: float) -> str | None:
    """RFC 3339; None for 0, which stands for never."""
    return format_rfc3339(seconds, fraction=True) if seconds else None


def _time(text: str | None) -> float:
    return parse_rfc3339(text) / 1e9 if text else 0.0
