"""Litestream for Python: continuous replication for SQLite. See `docs/` for how it works.

The names below are imported when they are first used: `import litestream` itself costs next to nothing.
"""

from __future__ import annotations

from litestream.version import VERSION

TYPE_CHECKING = False  # type checkers know the name; importing typing for it would take longer than all of the rest

if TYPE_CHECKING:
    from litestream import errors
    from litestream.client import ReplicaClient, open_client
    from litestream.core.position import Pos, SnapshotInfo, WALSegmentInfo
    from litestream.db.db import DB
    from litestream.embed import start
    from litestream.replica import Replica, latest_replica
    from litestream.restore import restore

__version__ = VERSION

__all__ = [
    "DB",
    "Replica",
    "latest_replica",
    "ReplicaClient",
    "open_client",
    "Pos",
    "SnapshotInfo",
    "WALSegmentInfo",
    "restore",
    "start",
    "errors",
    "__version__",
]

_HOMES = {
    "DB": "litestream.db.db",
    "Replica": "litestream.replica",
    "latest_replica": "litestream.replica",
    "ReplicaClient": "litestream.client",
    "open_client": "litestream.client",
    "Pos": "litestream.core.position",
    "SnapshotInfo": "litestream.core.position",
    "WALSegmentInfo": "litestream.core.position",
    "start": "litestream.embed",
}


if not TYPE_CHECKING:  # a type checker would take this for a promise that every name exists

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name in ("errors", "restore"):  # the package `restore` can be called as its function is
            return import_module(f"litestream.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module 'litestream' has no attribute {name!r}")
        value: object = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
