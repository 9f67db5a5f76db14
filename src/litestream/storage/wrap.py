"""Everything between a replica and its back end, in its order."""

from __future__ import annotations

from dataclasses import dataclass

from litestream.metrics import DEFAULT, Metrics
from litestream.storage.protocol import Store
from litestream.storage.retrying import Retrying
from litestream.storage.timed import SLOWEST, Timed
from litestream.storage.wrapper import innermost

__all__ = ["Limits", "innermost", "wrap"]

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
    """

    timeout: float = 15.0
    attempts: int = 4
    concurrency: int = 16
    requests_per_second: float = 0
    requests_per_month: int = 0
    slowest: float = SLOWEST


def wrap(store: Store, limits: Limits = Limits(), *, metrics: Metrics = DEFAULT) -> Store:
    """`store` with time limits and retries. Local ones (file, memory) are returned as they are, unless `limits` say
    otherwise than the default: nothing there is to be waited for, and each microsecond counts.
    """
    if store.type in _LOCAL and limits == Limits():
        return store
    timed = Timed(store, limits.timeout, slowest=limits.slowest)
    return Retrying(timed, limits.attempts, total=limits.timeout * limits.attempts)
