"""Validation in the background: now and then a replica is restored and compared with the database."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from litestream.core.position import Pos
from litestream.errors import NoGenerationError
from litestream.replica.log import ErrorLog

if TYPE_CHECKING:
    from litestream.metrics import Metrics
    from litestream.replica.replica import Replica


_NOWHERE = Pos()


class Verdict(Enum):
    """How a validation ended; the values are those of the metric's label."""

    OK = "ok"
    ERROR = "error"
    """Proved: the replica is damaged, or does not restore the database."""
    UNKNOWN = "unknown"
    """Nothing was proved: the store does not answer, there is no room, …"""


@dataclass(frozen=True, slots=True)
class Validation:
    """What one validation found out."""

    verdict: Verdict
    pos: Pos = _NOWHERE
    """Where restored copy and database were compared; the zero position if it did not come to that."""
    reason: str = ""
    """What is wrong, or why nothing could be told."""


@dataclass(frozen=True, slots=True)
class Validated:
    """A validation that has ended, at a Unix time."""

    at: float
    found: Validation


class Validator(Protocol):
    """Whoever can restore a replica and compare the copy with the running database."""

    async def prepare(self) -> None:
        """Remove what an earlier process left behind."""
        ...

    async def validate(self, replica: Replica) -> Validation:
        """Do it once. Raises `NoGenerationError` while there is nothing to look at. May be cancelled."""
        ...


async def validate(replica: Replica, validator: Validator, metrics: Metrics) -> None:
    """Validate every `validation_interval` seconds, the first time after one; until cancelled."""
    db = replica.db
    assert db is not None  # a replica without a database has no loops
    errors = ErrorLog(replica.logger, "validator")
    labels = {"db": db.path, "name": replica.name}
    await validator.prepare()
    while True:
        await asyncio.sleep(replica.validation_interval)
        started = time.monotonic()
        try:
            found = await validator.validate(replica)
        except NoGenerationError:
            continue
        except Exception as error:
            errors.failed(error)
            continue
        errors.succeeded()
        replica.validated = Validated(time.time(), found)
        _log(replica, found, time.monotonic() - started)
        if found.verdict is not Verdict.UNKNOWN:
            metrics.replica_validation_total.labels(**labels, status=found.verdict.value).inc()
            metrics.replica_verified_timestamp_seconds.labels(**labels).set(time.time())
            metrics.replica_verified_ok.labels(**labels).set(found.verdict is Verdict.OK)


def _log(replica: Replica, found: Validation, elapsed: float) -> None:
    """The official line: `validator status=ok db=… replica=… position=…`."""
    level, status = {
        Verdict.OK: (logging.INFO, "ok"),
        Verdict.ERROR: (logging.ERROR, "mismatch"),
        Verdict.UNKNOWN: (logging.WARNING, "unknown"),
    }[found.verdict]
    fields: dict[str, object] = {"status": status}
    if not found.pos.is_zero:
        fields["position"] = str(found.pos)
    if found.reason:
        fields["error"] = found.reason
    fields["elapsed"] = round(elapsed, 3)
    replica.logger.log(level, "validator", extra={"fields": fields})
