"""What a store really lets us do, found out with one small object of our own below the replica's prefix.

Its key is no name of any layout, so that listings and restores never see it. It is deleted in the end; where that is
denied it is the one thing that stays.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from litestream.errors import LitestreamError, ObjectExistsError, ObjectNotFoundError, StorageError
from litestream.storage.protocol import ObjectInfo, Store
from litestream.storage.reading import closing
from litestream.storage.wrappers.wrap import innermost

T = TypeVar("T")

PREFIX = ".litestream-check/"
ROUNDS = 3
"""How often each request is made; the median time is told."""
LEFTOVER = 3600.0
"""Seconds after which a probe object of another run is removed too."""
_HEAD = b"litestream check: this object may be deleted\n"
_OURS = re.compile(re.escape(PREFIX) + r"[0-9a-f]{32}")
_DENIED = {"AccessDenied", "AllAccessDisabled", "Forbidden", "BlobImmutableDueToPolicy", "NoIdentity"}
_EVERYTHING = {
    "Timeout", "Connection", "TLS", "NoSuchBucket", "WrongRegion", "NoCredentials", "InvalidAccessKeyId",
    "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed", "NoIdentity",
}  # fmt: skip
"""Codes of a write after which every other request would fail alike."""
_PASSING = {"", "Timeout", "Connection", "Throttled", "Unavailable"}
"""Codes that say nothing of what a service can do."""


class Operation(StrEnum):
    """What is tried, in this order."""

    WRITE = "write"
    READ = "read"
    RANGE = "read range"
    LIST = "list"
    ABSENT = "read absent"
    CREATE = "create only"
    OVERWRITE = "overwrite"
    DELETE = "delete"
    GONE = "gone after delete"
    UPLOADS = "list uploads"
    ENCRYPTION = "encryption"


class Status(StrEnum):
    """How it went. `MISSING`: the store answers, and does not do it."""

    WORKS = "works"
    DENIED = "denied"
    MISSING = "missing"
    FAILED = "failed"
    NOT_TRIED = "not tried"


NEEDED: dict[Operation, tuple[str, ...]] = {
    Operation.WRITE: ("replicate",),
    Operation.READ: ("replicate", "restore"),
    Operation.RANGE: ("replicate", "restore"),
    Operation.LIST: ("replicate", "restore", "retention"),
    Operation.ABSENT: ("replicate",),
    Operation.CREATE: (),
    Operation.OVERWRITE: ("retention",),
    Operation.DELETE: ("retention",),
    Operation.GONE: ("retention",),
    Operation.UPLOADS: (),
    Operation.ENCRYPTION: ("replicate", "restore"),
}
"""What cannot do its work without it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one operation; `seconds` is the median of its requests that worked."""

    operation: Operation
    status: Status
    seconds: float | None = None
    note: str = ""

    @property
    def is_vital(self) -> bool:
        """Whether replicating or restoring needs it."""
        return not {"replicate", "restore"}.isdisjoint(NEEDED[self.operation])

    @property
    def is_fault(self) -> bool:
        """Whether `note` says what went wrong. What a service simply does not have, and nobody needs, is no fault."""
        absent = self.status is Status.MISSING and self.operation in {Operation.CREATE, Operation.UPLOADS}
        return self.status in {Status.DENIED, Status.FAILED, Status.MISSING} and not absent


async def probe(store: Store, *, conditional: Store | None = None, rounds: int = ROUNDS) -> list[Finding]:
    """Try everything that a replica needs of a store; what fails is a finding and stops nothing else.

    `conditional` is the same place with create-only puts by condition, to try those where `store` does without. An
    encrypted store is tried as it is underneath, and then encryption by itself. Raises nothing but cancellation.
    """
    encrypted = store if getattr(store, "encrypted", False) else None
    trial = _Trial(getattr(store, "inner") if encrypted is not None else store, conditional, rounds)  # noqa: B009
    try:
        await trial.run()
        if encrypted is not None:
            await trial.encryption(encrypted)
    finally:
        await trial.leave()
    order = list(Operation)
    return sorted(trial.findings, key=lambda finding: order.index(finding.operation))


async def remove_leftovers(store: Store) -> int:
    """Delete the probe objects of runs that could not delete theirs; how many there were. Raises `StorageError`."""
    found = [info.key for info in await store.list(PREFIX) if _is_leftover(info)]
    if found:
        await store.delete(found)
    return len(found)


def _is_leftover(info: ObjectInfo) -> bool:
    return _OURS.fullmatch(info.key) is not None and info.modified < time.time() - LEFTOVER


class _Trial:
    """One probe object and what was found out with it."""

    def __init__(self, store: Store, conditional: Store | None, rounds: int) -> None:
        self.findings: list[Finding] = []
        self._store = store
        self._conditional = conditional or store
        self._rounds = rounds
        self._key = PREFIX + secrets.token_hex(16)
        self._body = _HEAD + secrets.token_bytes(1000)
        self._sent = False  # something may be there
        self._there = False
        self._readable = False
        self._leftovers: list[str] = []

    async def run(self) -> None:
        error = await self._try(Operation.WRITE, self._write, rounds=1)
        self._there = error is None
        if error is not None and error.code in _EVERYTHING:
            done = {Operation.WRITE, Operation.UPLOADS, Operation.ENCRYPTION}
            for operation in Operation:
                if operation not in done:
                    self._skip(operation, "every request would fail like the write")
            return
        if self._there:
            await self._try(Operation.READ, self._read)
            await self._try(Operation.RANGE, self._read_range)
            await self._try(Operation.LIST, self._list)
        else:
            await self._without_write()
        await self._try(Operation.ABSENT, self._read_absent)
        if self._there:
            await self._try(Operation.CREATE, self._create, rounds=1)
            await self._try(Operation.OVERWRITE, self._overwrite)
            await self._delete()
        else:
            for operation in (Operation.CREATE, Operation.OVERWRITE, Operation.DELETE, Operation.GONE):
                self._skip(operation, "there is no object to try it on")
        await self._uploads()

    async def leave(self) -> None:
        """Take away what may still be there, in a hurry."""
        if self._sent:
            try:
                async with asyncio.timeout(2):
                    await self._store.delete([self._key])
            except (LitestreamError, TimeoutError):
                pass  # told already, where it was tried

    # -- one finding each

    async def _try(
        self, operation: Operation, attempt: Callable[[], Awaitable[str]], *, rounds: int = 0
    ) -> StorageError | None:
        """Make a request several times. The text it returns is the note."""
        times: list[float] = []
        note = ""
        try:
            for _ in range(rounds or self._rounds):
                began = time.perf_counter()
                note = await attempt()
                times.append(time.perf_counter() - began)
        except _DiffersError as e:
            self.findings.append(Finding(operation, e.status, statistics.median(times) if times else None, str(e)))
            return None
        except StorageError as e:
            self.findings.append(Finding(operation, _status(e), None, str(e)))
            return e
        self.findings.append(Finding(operation, Status.WORKS, statistics.median(times), note))
        return None

    def _skip(self, operation: Operation, why: str) -> None:
        self.findings.append(Finding(operation, Status.NOT_TRIED, None, why))

    async def _write(self) -> str:
        self._sent = True
        info = await self._store.put(self._key, self._body)
        if info.size != len(self._body):
            raise _DiffersError(f"{info.size} bytes were stored, not {len(self._body)}")
        return ""

    async def _read(self) -> str:
        if await _whole(self._store, self._key) != self._body:
            raise _DiffersError("what is read is not what was written")
        self._readable = True
        return ""

    async def _read_range(self) -> str:
        at = len(self._body) // 2
        if await _whole(self._store, self._key, at) != self._body[at:]:
            raise _DiffersError("what is read is not what was written")
        return ""

    async def _list(self) -> str:
        found = {info.key: info for info in await self._store.list(PREFIX)}
        if self._key not in found:
            raise _DiffersError("the object that was just written is not listed", Status.MISSING)
        if found[self._key].size != len(self._body):
            raise _DiffersError(f"listed with {found[self._key].size} bytes, not {len(self._body)}")
        self._leftovers = [info.key for info in found.values() if _is_leftover(info)]
        return ""

    async def _without_write(self) -> None:
        """Credentials that only read: an object of the replica will do."""
        found: list[ObjectInfo] = []

        async def look() -> str:
            nonlocal found
            found = await self._store.list("generations/")
            return ""

        await self._try(Operation.LIST, look)
        if not found:
            self._skip(Operation.READ, "there is no object to read")
            self._skip(Operation.RANGE, "there is no object to read")
            return
        smallest = min(found, key=lambda info: info.size)
        at = smallest.size // 2

        async def read(start: int) -> str:
            if len(await _whole(self._store, smallest.key, start)) != smallest.size - start:
                raise _DiffersError(f"{smallest.key} has another length than listed")
            return f"of {smallest.key}"

        await self._try(Operation.READ, lambda: read(0))
        await self._try(Operation.RANGE, lambda: read(at))

    async def _read_absent(self) -> str:
        try:
            await _whole(self._store, PREFIX + secrets.token_hex(16))
        except ObjectNotFoundError:
            return ""
        raise _DiffersError("there seems to be an object of every name")

    async def _create(self) -> str:
        """The same content must succeed (a retry whose first answer was lost), and other content must not."""
        store = self._conditional
        await store.put(self._key, self._body, create_only=True)
        other = _HEAD + secrets.token_bytes(500)
        try:
            await store.put(self._key, other, create_only=True)
        except ObjectExistsError:
            if not store.conditional:
                raise _DiffersError(f"this service has no such condition; {_STILL_SAFE}", Status.MISSING) from None
            if store is not self._store:
                return "the service enforces it although it is not used here: conditional: true would use it"
            return "the service refuses a second content itself"
        self._body = other
        raise _DiffersError(f"the service ignores the condition; {_STILL_SAFE}", Status.MISSING)

    async def _overwrite(self) -> str:
        self._body = _HEAD + secrets.token_bytes(1000)
        await self._store.put(self._key, self._body)
        if self._readable and await _whole(self._store, self._key) != self._body:
            raise _DiffersError("the old content is still read")
        return ""

    async def _delete(self) -> None:
        began = time.perf_counter()
        try:
            await self._store.delete([self._key])
        except StorageError as e:
            note = f"{self._key} stays; a replicator that only appends needs no more. {e}"
            self.findings.append(Finding(Operation.DELETE, _status(e), None, note))
            self._skip(Operation.GONE, "nothing was deleted")
            self._sent = False  # once is enough
            return
        took = time.perf_counter() - began
        self._sent = False
        self.findings.append(Finding(Operation.DELETE, Status.WORKS, took, await self._sweep()))
        await self._try(Operation.GONE, self._gone)

    async def _sweep(self) -> str:
        """Delete what earlier runs left."""
        if not self._leftovers:
            return ""
        try:
            await self._store.delete(self._leftovers)
        except StorageError as e:
            return f"probe objects of earlier runs stay: {e}"
        return f"{len(self._leftovers)} of earlier runs too"

    async def _gone(self) -> str:
        try:
            await _whole(self._store, self._key)
        except ObjectNotFoundError:
            pass
        else:
            raise _DiffersError("it can still be read")
        if any(info.key == self._key for info in await self._store.list(PREFIX)):
            raise _DiffersError("it is still listed")
        return ""

    async def _uploads(self) -> None:
        """Whether uploads that were broken off can be found, where there is such a thing."""
        clean_up = getattr(innermost(self._store), "clean_up", None)
        if clean_up is None:
            return

        async def look() -> str:
            try:
                await clean_up(older_than=float("inf"))
            except StorageError as e:
                if e.code in _PASSING or _status(e) is not Status.FAILED:
                    raise
                raise _DiffersError("this service cannot list them", Status.MISSING) from None
            return ""

        await self._try(Operation.UPLOADS, look, rounds=1)

    async def encryption(self, store: Store) -> None:
        """Write through the encryption, see that it is encrypted, and read it back where this host can."""
        if not self._there:
            self._skip(Operation.ENCRYPTION, "age is on; there is no object to try it on")
            return

        async def round_trip() -> str:
            self._sent = True
            await store.put(self._key, self._body)
            if self._readable and self._body in await _whole(self._store, self._key):
                raise _DiffersError("what was stored is not encrypted")
            if not getattr(store, "readable", True):
                return "age is on; this host can write and not read: restore where age.identities are"
            if await _whole(store, self._key) != self._body:
                raise _DiffersError("what is decrypted is not what was encrypted")
            return "age is on; this host can write and read"

        await self._try(Operation.ENCRYPTION, round_trip)


_STILL_SAFE = "replicating is safe without: no name is ever sent with two contents"


class _DiffersError(Exception):
    """The store answered, and the answer is wrong."""

    def __init__(self, message: str, status: Status = Status.FAILED) -> None:
        super().__init__(message)
        self.status = status


def _status(error: StorageError) -> Status:
    if error.code in {"NoSuchBucket", "NoRecipient"}:
        return Status.MISSING
    denied = error.code in _DENIED or error.code.startswith(("Authorization", "Authentication"))
    return Status.DENIED if denied or isinstance(error.__cause__, PermissionError) else Status.FAILED


async def _whole(store: Store, key: str, start: int = 0) -> bytes:
    async with closing(store.get(key, start=start)) as chunks:
        return b"".join([chunk async for chunk in chunks])


def is_usable(findings: Sequence[Finding]) -> bool:
    """Whether everything works that replicating and restoring need."""
    return all(finding.status is Status.WORKS for finding in findings if finding.is_vital)
