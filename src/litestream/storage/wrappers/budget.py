"""The count of a month's requests, which outlives the process."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from litestream.fsutil import StrPath, make_dirs, write_atomic
from litestream.metrics import DEFAULT, Metrics

STEP = 100
"""Requests that are counted at once."""
WARN = 0.8
"""Part of the cap from which on there is a warning."""
_PATIENCE = 0.5
"""Seconds that another process may take with the file, during which nothing else happens here; then memory serves."""
_PATIENCE_AT_END = 5.0

_logger = logging.getLogger("litestream.storage")


class Budget:
    """How many requests were made in this month (UTC), kept in a file that several processes may share.

    Requests are written down in blocks of `STEP` before they are made, and what was not used is given back by
    `close`. A process that is killed, and a machine that loses power, leave at most one block too many in the file,
    never one request too few. A file that cannot be read or written costs the count's durability and a
    warning: replication goes on.

    Args:
        path: the file, JSON with `month` and `requests`; made (with its directory) by the first request.
        name: for the log and the metrics `litestream_request_budget_used` and `litestream_request_budget_max`.
        now: Unix seconds.
    """

    def __init__(
        self,
        path: StrPath,
        *,
        name: str = "",
        metrics: Metrics = DEFAULT,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.path = os.path.abspath(path)
        self.name = name or os.path.basename(self.path)
        self._now = now
        self._used_gauge = metrics.request_budget_used.labels(budget=self.name)
        self._max_gauge = metrics.request_budget_max.labels(budget=self.name)
        self._month = ""
        self._total = 0  # what the file says, or should
        self._left = 0  # of that: what we may still use
        self._unwritten = 0
        self._warned: set[str] = set()

    @property
    def used(self) -> int:
        """Requests of this month by all processes, as far as known; blocks of others count as used."""
        self._turn_page()
        return self._total - self._left

    @property
    def next_month(self) -> datetime:
        """When the count begins anew."""
        today = datetime.fromtimestamp(self._now(), UTC)
        return datetime(today.year + today.month // 12, today.month % 12 + 1, 1, tzinfo=UTC)

    @property
    def seconds_left(self) -> float:
        """Until then."""
        return max(1.0, self.next_month.timestamp() - self._now())

    def take(self, count: int, limit: int = 0) -> bool:
        """Count `count` requests that are about to be made. False, and nothing is counted, if there would be more
        than `limit` in this month then (0: no cap).
        """
        self._turn_page()
        # What others gave back meanwhile is in the file.
        short = count > self._left or (limit and self.used + count > limit)
        if short and not self._reserve(count, limit):
            self._say("reached", limit)
            return False
        self._left -= count
        self._tell(limit)
        return True

    def add(self, count: int, limit: int = 0) -> None:
        """Count requests that were made already, beyond the cap if need be."""
        self._turn_page()
        if count > self._left:
            self._reserve(count, limit, made=True)
        self._left -= count
        self._tell(limit)

    def close(self) -> None:
        """Give back what was reserved and not used. The budget may be used again."""
        self._turn_page()
        if self._left or self._unwritten:
            self._write(lambda total: -min(self._left, total), _PATIENCE_AT_END)
            self._left = 0

    def _turn_page(self) -> None:
        month = datetime.fromtimestamp(self._now(), UTC).strftime("%Y-%m")
        if month != self._month:
            self._month = month
            self._total = self._left = self._unwritten = 0
            self._warned.clear()

    def _reserve(self, count: int, limit: int, *, made: bool = False) -> bool:
        """Have at least `count` requests left. Blocks end at the cap: what is in one is free to be used unasked."""

        def block(total: int) -> int | None:
            need = max(0, count - self._left)
            if limit and not made and total - self._left + count > limit:
                return None
            room = limit - total if limit else STEP
            return max(need, min(STEP, room))

        granted = self._write(block)
        if granted is None:
            return False
        self._left += granted
        return True

    def _write(self, change: Callable[[int], int | None], patience: float = _PATIENCE) -> int | None:
        """Change the number in the file by what `change` says of it; None leaves it."""
        try:
            make_dirs(os.path.dirname(self.path))
            with _locked(f"{self.path}.lock", patience):
                self._turn_page()  # another process may have begun the new month while we waited
                self._total = self._read() + self._unwritten
                amount = change(self._total)
                if amount is not None:
                    content = json.dumps({"month": self._month, "requests": self._total + amount})
                    write_atomic(self.path, f"{content}\n".encode())
                    self._total += amount
                    self._unwritten = 0
                return amount
        except OSError as error:
            self._warn("unwritable", f"cannot count requests in {self.path}: {error.strerror or error}")
        amount = change(self._total)
        if amount is not None:
            self._total += amount
            self._unwritten += amount
        return amount

    def _read(self) -> int:
        """This month's number in the file; 0 if there is none."""
        try:
            with open(self.path, "rb") as file:
                found = json.loads(file.read())
            month, requests = found["month"], found["requests"]
            if not isinstance(month, str) or type(requests) is not int or requests < 0:
                raise ValueError("no count")
        except FileNotFoundError:
            return 0
        except (ValueError, TypeError, KeyError, RecursionError):
            self._warn("damaged", f"{self.path} is damaged, requests of this month are counted anew")
            return self._total - self._unwritten
        return requests if month == self._month else 0

    def _tell(self, limit: int) -> None:
        used = self._total - self._left
        self._used_gauge.set(used)
        self._max_gauge.set(limit)
        if limit and used >= WARN * limit:
            self._say("near", limit)

    def _say(self, what: str, limit: int) -> None:
        used = self._total - self._left
        till = f"{self.next_month:%Y-%m-%d} 00:00 UTC"
        then = "nothing is uploaded before" if what == "reached" else "at the cap nothing is uploaded before"
        self._warn(what, f"max-requests: {used} of {limit} requests of this month are used: {then} {till}")

    def _warn(self, what: str, text: str) -> None:
        """Once a month for each thing."""
        if what not in self._warned:
            self._warned.add(what)
            _logger.warning("%s: %s", self.name, text)


@contextmanager
def _locked(path: str, patience: float) -> Iterator[None]:
    """Keep other processes out. `OSError` if one does not let go in time."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        give_up = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise BlockingIOError(errno.EAGAIN, "another process does not let go of it") from None
                time.sleep(0.005)
            except OSError:
                break  # no locks on this file system
        yield
    finally:
        os.close(fd)
