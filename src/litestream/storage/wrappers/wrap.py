"""Everything between a replica and its back end, in its order."""

from __future__ import annotations

import math
from dataclasses import dataclass

from litestream.errors import StoreConfigError
from litestream.metrics import DEFAULT, Metrics
from litestream.storage.protocol import Store
from litestream.storage.wrappers.budget import Budget
from litestream.storage.wrappers.limited import Limited
from litestream.storage.wrappers.metered import Metered
from litestream.storage.wrappers.retrying import Retrying
from litestream.storage.wrappers.timed import SLOWEST, Timed
from litestream.storage.wrappers.wrapper import innermost

__all__ = ["Budget", "Limits", "innermost", "wrap"]

_LEAST = {
    "timeout": 0.001,
    "attempts": 1,
    "concurrency": 1,
    "requests_per_second": 0,
    "requests_per_month": 0,
    "slowest": 1,
}
_LOCAL = frozenset({"file", "memory"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a store may cost in time and requests.

    Attributes:
        timeout: seconds without an answer or progress; see `Timed`.
        attempts: per operation, the first included.
        concurrency: operations at once; see `Limited`.
        requests_per_second: 0: no cap.
        requests_per_month: 0: no cap. Needs a `Budget`.
        slowest: bytes per second below which a transfer counts as stalled.

    Raises `StoreConfigError` for a number that makes no sense.
    """

    timeout: float = 15.0
    attempts: int = 4
    concurrency: int = 16
    requests_per_second: float = 0
    requests_per_month: int = 0
    slowest: float = SLOWEST

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not least <= value < math.inf:
                setting = name.replace("_", "-")
                raise StoreConfigError(setting, f"{setting} must be at least {least:g}, not {value}")


def wrap(store: Store, limits: Limits = Limits(), *, metrics: Metrics = DEFAULT, budget: Budget | None = None) -> Store:
    """`store` with retries, limits, metrics and time limits, from the outside inwards.

    Each attempt takes a place and a token and is counted, because each is a request, and none is held while the next
    attempt is waited for. Durations are those of the service without our own queue. Time spent in the queue is no
    silence of the server.

    Local stores (file, memory) are returned as they are, unless `limits` say otherwise than the default or there is a
    `budget`: nothing there is to be waited for, and each microsecond counts. With a budget requests are counted, and
    capped by `requests_per_month`; without one they are not.
    """
    if store.type in _LOCAL and limits == Limits() and budget is None:
        return store
    store = Metered(Timed(store, limits.timeout, slowest=limits.slowest), metrics)
    store = Limited(
        store,
        limits.concurrency,
        per_second=limits.requests_per_second,
        per_month=limits.requests_per_month,
        budget=budget,
    )
    return Retrying(store, limits.attempts, total=max(60.0, limits.timeout * limits.attempts))
