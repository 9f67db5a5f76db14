"""A status page without a replicator: as many databases as wanted, with an hour behind them."""

from __future__ import annotations

import json
import random
import time
from typing import Any

from litestream.web.api import Answer

View = dict[str, Any]

_NAMES = ("orders", "sessions", "audit", "search", "billing", "users", "events", "mail", "jobs", "wiki")
_GENERATION = "3f1c9a20b77e41d8"


class MadeUpSight:
    """A `litestream.web.site.Sight` of made-up databases, in the form of `litestream.daemon.views`. `change` changes
    one; the page is told at its next look."""

    def __init__(self, count: int, *, replicas: int = 1, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._replicas = replicas
        self._began = time.time() - 5 * 86400
        self.rows = [self._row(number) for number in range(count)]
        self._versions = [1] * count
        self._version = 1

    def change(self, number: int, **fields: Any) -> None:  # noqa: ANN401 - as JSON has them
        """Give a database other values; `replica` those of its first replica."""
        self.rows[number]["replicas"][0].update(fields.pop("replica", {}))
        self.rows[number].update(fields)
        self._version += 1
        self._versions[number] = self._version

    async def status(self, path: str, within: float | None) -> Answer:
        return {"ok": True, "within_seconds": within, "databases": [path]}

    async def health(self) -> Answer:
        return {"ok": True}

    async def readiness(self, within: float | None) -> Answer:
        return {"ok": True, "within_seconds": within, "reasons": []}

    async def changes(self, since: str, detail: int) -> str:
        known = int(since or 0)
        changed = [row for row, version in zip(self.rows, self._versions, strict=True) if version > known]
        head: View = {"version": str(self._version), "reset": not known, "now": time.time(), "started": self._began}
        found = self._detail(self.rows[detail - 1]) if detail else None
        return json.dumps({**head, "running": True, "removed": [], "detail": found, "databases": changed})

    # -- inside

    def _row(self, number: int) -> View:
        name = f"{_NAMES[number % len(_NAMES)]}{number // len(_NAMES) or ''}.db"
        pos = f"{_GENERATION}/{self._random.randrange(90):08x}:{self._random.randrange(1, 900) * 4120 + 32:08x}"
        replicas = [self._replica(name, pos, place, busy=number < 6) for place in range(self._replicas)]
        size = int(self._random.lognormvariate(16, 2))
        common: View = {"state": "ok", "status": "ok", "pos": pos, "size": size, "error": ""}
        return {"id": number + 1, "path": f"/var/lib/app/{name}", **common, "replicas": replicas}

    def _replica(self, name: str, pos: str, place: int, *, busy: bool) -> View:
        busy = self._random.random() < 0.6 or busy
        base = self._random.choice((60, 90, 140, 400))
        delays = [int(base * self._random.lognormvariate(0, 0.45)) for _ in range(60)]
        puts = self._random.randrange(40_000, 400_000) if busy else self._random.randrange(90)
        return {
            "name": ("s3", "disk")[place],
            "type": ("s3", "file")[place],
            "url": (f"s3://backups-eu/app/{name}", f"/mnt/backup/{name}")[place],
            "state": "ok",
            "pos": pos,
            "lag": 0.0,
            "lag_bytes": 0,
            "uploaded": time.time() - (self._random.random() * 4 if busy else self._random.random() * 90_000),
            "error": "",
            "delay": max(delays[-1], 40) / 1000,
            "minute": int(time.time() // 60) - (0 if busy else self._random.randrange(70)),
            "delays": delays if busy else delays[:2],
            "requests": (puts + 120, None)[place],
            "cost": (round(puts * 0.000005, 6), None)[place],
        }

    def _detail(self, row: View) -> View:
        name = row["path"].rpartition("/")[2]
        common = {"path": row["path"], "generation": _GENERATION, "wal_size": 4_124_152, "spool_bytes": 94_208}
        replicas = [self._replica_detail(row, name, replica) for replica in row["replicas"]]
        return {"id": row["id"], **common, "pinned_seconds": 0.0, "replicas": replicas}

    def _replica_detail(self, row: View, name: str, replica: View) -> View:
        number = random.Random(row["id"])
        objects = [number.randrange(20, 60) for _ in range(60)]
        now = time.time()
        puts = (replica["requests"] or 120) - 120
        named = f"-replica {replica['name']} " if len(row["replicas"]) > 1 else ""
        command = f"litestream restore -config /etc/litestream.yml {named}-o ./{name}.restored {row['path']}"
        url = replica["url"] if "://" in replica["url"] else f"file://{replica['url']}"
        return {
            "name": replica["name"],
            "minute": int(now // 60),
            "objects": objects,
            "bytes": [count * number.randrange(9_000, 30_000) for count in objects],
            "delays": [delay / 1000 for delay in replica["delays"]],
            "snapshots": [now - hours * 3600 - 1900 for hours in range(71, -1, -6)],
            "snapshot_count": 12,
            "snapshot_bytes": 12 * row["size"] // 3,
            "restorable_from": now - 71 * 3600 - 1900,
            "synced": now,
            "sync_interval": 1.0,
            "retention": 72 * 3600.0,
            "validation_interval": 21_600.0,
            "verified": {"at": now - 4300, "result": "ok", "reason": ""},
            "requests": None if replica["requests"] is None else {"PUT": puts, "LIST": 96, "GET": 12, "DELETE": 12},
            "prices": None if replica["cost"] is None else {"where": "AWS S3 Standard, us-east-1", "as_of": "2025"},
            "commands": [command, f"litestream restore -o ./{name}.restored {url}"],
        }
