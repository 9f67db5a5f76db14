"""How many requests replicating makes in a month, and what they cost. An estimate, from intervals alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from litestream.core.lease import TERM

MONTH = 30 * 86400.0
"""Seconds."""
MINUTE = 60.0
_PAGE = 1000
"""Objects in a page of a listing, and in one request that deletes."""
_LOOKS = 3
"""Listings beside that of the generations: for files of other formats."""
_STARTS = 4
"""Listings, and about as many gets, after one start of the replicator."""
_SHORTEST = 0.01
"""Seconds; no upload takes less, whatever the interval."""
_NEVER = math.inf


@dataclass(frozen=True, slots=True)
class Prices:
    """USD for 1,000 requests, and for a GB that is stored for a month. Deletes are free everywhere.

    Attributes:
        base: USD a month that the account pays whatever it stores.
        included: GB that are in that.
    """

    where: str
    put: float
    list: float
    get: float
    storage: float
    base: float = 0.0
    included: float = 0.0

    def stored(self, gigabytes: float) -> float:
        """USD a month for what an account stores."""
        return self.base + max(0.0, gigabytes - self.included) * self.storage


CLASSES = {"PUT": "A", "LIST": "A", "GET": "B", "DELETE": "free"}
"""How services of the kind of S3 bill an operation. Some have other names for their classes."""
AS_OF = "2026"
"""List prices without taxes, free allowances and traffic; look at the provider's own page before deciding by them."""
PRICES = {
    "s3": Prices("AWS S3 Standard, us-east-1", 0.005, 0.005, 0.0004, 0.023),
    "r2": Prices("Cloudflare R2", 0.0045, 0.0045, 0.00036, 0.015),
    "b2": Prices("Backblaze B2", 0.0, 0.004, 0.0004, 0.006),
    "gs": Prices("Google Cloud Storage Standard, us-central1", 0.005, 0.005, 0.0004, 0.020),
    "abs": Prices("Azure Blob Storage Hot, by Microsoft's sample prices", 0.0055, 0.0055, 0.00044, 0.0208),
    "tigris": Prices("Tigris Standard", 0.005, 0.005, 0.0005, 0.020),
    "do": Prices("DigitalOcean Spaces, $5 with 250 GB", 0.0, 0.0, 0.0, 0.020, 5.0, 250.0),
    "hetzner": Prices("Hetzner Object Storage, $5.99 with 1 TB", 0.0, 0.0, 0.0, 0.00599, 5.99, 1000.0),
    "wasabi": Prices("Wasabi, at least 1 TB", 0.0, 0.0, 0.0, 0.00799, 7.99, 1000.0),
}
_HOSTS = {
    ".r2.cloudflarestorage.com": "r2",
    ".backblazeb2.com": "b2",
    ".amazonaws.com": "s3",
    ".tigris.dev": "tigris",
    "t3.storage.dev": "tigris",
    ".digitaloceanspaces.com": "do",
    ".your-objectstorage.com": "hetzner",
    ".wasabisys.com": "wasabi",
}
"""Ends of host names of services that speak S3."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """A replica's settings in seconds; 0 switches the last three off, as in the configuration."""

    sync: float
    snapshot: float
    retention: float
    retention_check: float

    @property
    def checks(self) -> float:
        """Seconds between two looks at what may be deleted."""
        if self.retention <= 0 or self.retention_check <= 0:
            return _NEVER
        return min(self.retention, self.retention_check)

    @property
    def snapshots(self) -> float:
        """Seconds between two snapshots: retention takes one where there is none that is young."""
        by_retention = self.retention if self.checks < _NEVER else _NEVER
        return min(self.snapshot if self.snapshot > 0 else _NEVER, by_retention)

    @property
    def snapshots_kept(self) -> int:
        """Snapshots in the replica at the end of a month."""
        kept_for = min(MONTH, self.retention) if self.checks < _NEVER else MONTH
        return 1 + math.floor(kept_for / self.snapshots)


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests of a month."""

    put: int
    list: int
    get: int
    delete: int

    @property
    def total(self) -> int:
        return self.put + self.list + self.get + self.delete

    def cost(self, prices: Prices) -> float:
        """USD, without storage."""
        return (self.put * prices.put + self.list * prices.list + self.get * prices.get) / 1000


def usage(intervals: Intervals, change: float, *, snapshot_requests: int = 1, lease: bool = False) -> Usage:
    """Requests of a month in which the database changes every `change` seconds.

    `snapshot_requests` is how many a snapshot is: more than one for a large database. With `lease` the replica is
    claimed once, looked after with uploads and deletions, and given back.
    """
    every = max(change, intervals.sync, _SHORTEST)
    segments = math.ceil(MONTH / every)
    snapshots = max(1, math.floor(MONTH / intervals.snapshots))
    looks = deletes = checks = 0
    if intervals.checks < _NEVER:
        checks = math.floor(MONTH / intervals.checks)
        held = min(segments, math.ceil((intervals.retention + intervals.checks) / every)) + intervals.snapshots_kept
        looks = checks * (_LOOKS + math.ceil(held / _PAGE))
        deletes = min(checks, snapshots) + math.ceil((segments + snapshots) / _PAGE)
    found = Usage(segments + snapshots * snapshot_requests, looks + _STARTS, _STARTS, deletes)
    if not lease:
        return found
    # A look is good for a term, so there is one with each thing that is done, or one a term if more is done.
    terms = min(segments + snapshots + checks, math.ceil(MONTH / TERM))
    return Usage(found.put + 2, found.list + 1 + terms, found.get + 1, found.delete + 1)


def prices_of(kind: str, endpoint: str = "") -> Prices | None:
    """Prices of a type of store at an endpoint (empty: the provider's own); None where none are known."""
    if kind != "s3" or not endpoint:
        return PRICES.get(kind)
    host = endpoint.partition("://")[2].partition("/")[0].partition(":")[0]
    return next((PRICES[name] for suffix, name in _HOSTS.items() if host.endswith(suffix)), None)
