"""Who may write to a replica when several hosts want to: names, records and the decision, without any I/O.

A lease has an epoch. Whoever creates the object of the next epoch has it (a store with conditional writes lets just
one), and everybody with a lower one is done. So that nobody publishes after the next one has begun to,

* the holder publishes only within `TERM` of a look at the store in which its epoch was the highest, and
* a new holder publishes only `WAIT` after its claim, unless the one before is known not to publish any more.

Only durations are compared, each on one host: no clock has to agree with another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

PREFIX = "lease/"

TERM = 20.0
"""Seconds for which a look at the store is believed."""
WAIT = 25.0
"""Seconds from a claim to the first upload: the term, and as much again as a request that is under way may take."""

_KEY = re.compile(r"lease/([0-9]{8,18})(\.released)?")
_NOTE = re.compile(r"([0-9]{1,18}) ([0-9a-f]{32}) ([01]) ([0-9a-f]*)")


def lease_key(epoch: int) -> str:
    """The object of an epoch."""
    return f"{PREFIX}{epoch:08d}"


def released_key(epoch: int) -> str:
    """The object that says that its holder has ended."""
    return f"{lease_key(epoch)}.released"


@dataclass(frozen=True, slots=True)
class Found:
    """What a listing says: the highest epoch (0: there is none), whether it was given back, keys below it."""

    epoch: int = 0
    released: bool = False
    older: tuple[str, ...] = ()


def read_keys(keys: Iterable[str]) -> Found:
    """The value of a listing of `PREFIX`; foreign names do not count."""
    epochs: dict[str, int] = {}
    released: set[int] = set()
    for key in keys:
        if match := _KEY.fullmatch(key):
            epochs[key] = int(match[1])
            if match[2]:
                released.add(int(match[1]))
    highest = max(epochs.values(), default=0)
    return Found(highest, highest in released, tuple(sorted(key for key, epoch in epochs.items() if epoch < highest)))


@dataclass(frozen=True, slots=True)
class Record:
    """What a lease object says of its holder. All but `token` and `waits` is for people, or for the same host.

    Attributes:
        token: 32 hex digits, random for each claim.
        boot: the boot and process namespace in which `pid` and `started` mean a process.
        started: when the process started, in ticks of that boot.
        waits: whether the holder had to wait for the one before.
    """

    epoch: int
    token: str
    host: str
    pid: int
    boot: str
    started: int
    waits: bool
    claimed_at: str

    def pack(self) -> bytes:
        """JSON; see `parse`."""
        return json.dumps(asdict(self), sort_keys=True).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Record | None:
        """The inverse; None if it is no such thing."""
        try:
            record = cls(**json.loads(data))
        except (ValueError, TypeError, RecursionError):
            return None
        numbers = (record.epoch, record.pid, record.started)
        texts = (record.token, record.host, record.boot, record.claimed_at)
        fits = all(type(number) is int for number in numbers) and all(isinstance(text, str) for text in texts)
        return record if fits and isinstance(record.waits, bool) else None


@dataclass(frozen=True, slots=True)
class Note:
    """What a host keeps of its last claim. Written before the claim, and again when it may publish (`ready`)."""

    epoch: int
    token: str
    host: str
    ready: bool = False

    def pack(self) -> str:
        """One line of ASCII; see `parse`."""
        return f"{self.epoch} {self.token} {int(self.ready)} {self.host.encode('utf-8', 'surrogateescape')[:255].hex()}"

    @classmethod
    def parse(cls, text: str) -> Note | None:
        """The inverse; None if it is no such line."""
        match = _NOTE.fullmatch(text)
        if match is None or len(match[4]) % 2:
            return None
        host = bytes.fromhex(match[4]).decode("utf-8", "surrogateescape")
        return cls(int(match[1]), match[2], host, match[3] == "1")


@dataclass(frozen=True, slots=True)
class Claim:
    """Create the object of this epoch; with `wait`, publish only `WAIT` after that."""

    epoch: int
    wait: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """Somebody took over from us, and has not given back: publish nothing."""

    epoch: int


def decide(found: Found, record: Record | None, note: Note | None, *, host: str, ended: bool) -> Claim | Lost:
    """What a process does that holds no lease.

    `record` is that of the highest epoch, None where it cannot be read; `note` is what this host, called `host`, kept
    of its own last claim; `ended`: the process of `record` was on this machine and is no more.

    Who comes anew takes over. Who had the lease, and was overtaken, does not take it back by itself: two hosts that
    are restarted in turn would otherwise go on taking it from each other.
    """
    following = max(found.epoch, note.epoch if note is not None else 0) + 1
    if found.epoch == 0 or found.released:
        return Claim(following, wait=False)
    ours = note is not None and note.epoch == found.epoch and (record is None or record.token == note.token)
    if note is not None and ours:
        # A copy of our local state on another host is not us, though it looks the same. Where the claim did not have
        # to wait, it does not matter that its process ended before it could note that it was granted.
        granted = note.ready or (record is not None and not record.waits)
        return Claim(following, wait=not (granted and (ended or note.host == host)))
    if record is not None and ended:
        return Claim(following, wait=record.waits)
    if note is not None and note.epoch < found.epoch:
        return Lost(found.epoch)
    return Claim(following, wait=True)
