"""Keeping the lease of a replica: claimed with the first upload, looked after with later ones, never by itself.

Requests: a listing, perhaps a get, and a put before the first upload of a process; then one listing before an upload
that comes later than `TERM` after the last one; a put at the end. While nothing is uploaded there is none.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from litestream.client import ReplicaClient
from litestream.core.lease import (
    PREFIX,
    TERM,
    WAIT,
    Claim,
    Found,
    Lost,
    Note,
    Record,
    decide,
    lease_key,
    read_keys,
    released_key,
)
from litestream.core.timestamps import format_rfc3339
from litestream.errors import (
    CorruptObjectError,
    LeaseLostError,
    LitestreamError,
    LocalStateError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
)
from litestream.replica.holder import boot, has_ended, host_name, started, uptime
from litestream.replica.log import ReplicaLogger
from litestream.replica.source import WALSource

RELEASE_TIMEOUT = 3.0
"""Seconds: who comes next has to wait otherwise, but an end of ours must not."""


class Keeper:
    """One replica's lease in this process. Belongs to one event loop.

    Args:
        tidy: whether objects of older epochs are deleted; not where nothing ever is.
        clock: seconds that go on while the machine sleeps.
    """

    def __init__(
        self,
        db: WALSource,
        client: ReplicaClient,
        name: str,
        logger: ReplicaLogger,
        *,
        tidy: bool = True,
        host: str = "",
        clock: Callable[[], float] = uptime,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        ended: Callable[[Record], bool] = has_ended,
    ) -> None:
        self._db = db
        self._client = client
        self._logger = logger
        self._tidy = tidy
        self._host = host or host_name()
        self._clock, self._sleep, self._has_ended = clock, sleep, ended
        self._name = f"lease {name} {client.store.url}"
        self._lock = asyncio.Lock()
        self._note: Note | None = None  # of our epoch, once it is claimed
        self._pending: tuple[Record, bool] | None = None  # sent, and perhaps stored
        self._until = float("-inf")
        self._ready_at = float("-inf")
        self._lost = ""

    @property
    def epoch(self) -> int:
        """Our epoch; 0 before the first claim."""
        return self._note.epoch if self._note is not None else 0

    @property
    def lost(self) -> bool:
        """Whether somebody else took over."""
        return bool(self._lost)

    def check(self) -> None:
        """Raise `LeaseLostError` if the lease is lost. No request.

        `litestream reset`, which deletes our note, lets this process begin anew.
        """
        if self._lost and self._read_note() is None:
            self._lost, self._note, self._pending = "", None, None
        if self._lost:
            raise LeaseLostError(self._lost)

    async def hold(self) -> None:
        """Return when this process may publish or delete, for the next moment: call it before each object.

        Raises `LeaseLostError`, and what the store raises. May take `WAIT` seconds after another host was at work.
        """
        if not self._client.store.conditional:
            return  # the service turned out to have no conditional writes
        async with self._lock:
            self.check()
            while not (self._note is not None and self._note.ready and self._clock() < self._until):
                await self._look()

    async def release(self, patience: float = RELEASE_TIMEOUT) -> None:
        """Say that this process publishes no more, so that the next one need not wait. Never fails, or takes long."""
        if self._lost or self._note is None or not self._note.ready:
            return
        note, self._note = self._note, None
        self._until = float("-inf")
        try:
            async with asyncio.timeout(min(patience, RELEASE_TIMEOUT)):
                await self._client.store.put(released_key(note.epoch), b"released\n", create_only=True)
        except (LitestreamError, TimeoutError) as error:
            self._logger.debug("lease not released: %s", error)

    # -- inside

    async def _look(self) -> None:
        """One listing, and what follows from it."""
        began = self._clock()
        found = read_keys([info.key for info in await self._client.store.list(PREFIX)])
        if self._note is None or found.epoch < self._note.epoch:
            await self._claim(found, began)
        elif found.epoch > self._note.epoch:
            await self._lose(found.epoch)
        elif self._note.ready:
            self._until = began + TERM
        elif (left := self._ready_at - self._clock()) > 0:
            await self._sleep(left)  # and look again: somebody may have come after us
        else:
            self._keep(replace(self._note, ready=True))
            self._until = began + TERM

    async def _claim(self, found: Found, began: float) -> None:
        """Create the next epoch's object, after a listing that `began` then."""
        if self._pending is not None and self._pending[0].epoch < found.epoch:
            self._pending = None  # it may have been ours for a while, and deleted since
        if self._pending is None:
            record = await self._read(found.epoch)
            ended = record is not None and self._has_ended(record)
            decision = decide(found, record, self._note or self._read_note(), host=self._host, ended=ended)
            if isinstance(decision, Lost):
                await self._lose(decision.epoch)
            else:
                self._pending = self._prepare(decision, record)
        assert self._pending is not None  # or the lease was lost
        record, wait = self._pending
        try:
            await self._client.store.put(lease_key(record.epoch), record.pack(), create_only=True)
        except ObjectExistsError:
            self._pending = None
            text = f"{self._client.store.url}: another host takes the lease at this moment"
            raise StorageError(text, key=lease_key(record.epoch), code="LeaseTaken") from None
        self._pending = None
        self._note = Note(record.epoch, record.token, self._host, ready=not wait)
        # The term begins before the listing was sent, the wait after the put was answered.
        self._until, self._ready_at = began + TERM, self._clock() + WAIT
        if not wait:
            self._keep(self._note)
        self._logger.debug("lease taken: epoch %d", record.epoch)
        await self._clean_up(found, record.epoch)

    def _prepare(self, claim: Claim, before: Record | None) -> tuple[Record, bool]:
        """What is to be created; a note of it is kept first."""
        token, pid = secrets.token_hex(16), os.getpid()
        now = format_rfc3339(time.time())
        record = Record(claim.epoch, token, self._host, pid, boot(), started(pid), claim.wait, now)
        self._keep(Note(claim.epoch, token, self._host))
        if claim.wait:
            self._logger.warning(
                "taking the replica over from %s: uploads begin in %gs, when nobody else uploads any more",
                _who(before),
                WAIT,
            )
        return record, claim.wait

    async def _read(self, epoch: int) -> Record | None:
        """The record of an epoch; None if there is none, or it cannot be read here."""
        if not epoch or not self._client.readable:
            return None
        try:
            return Record.parse(b"".join([chunk async for chunk in self._client.store.get(lease_key(epoch))]))
        except (ObjectNotFoundError, CorruptObjectError):
            return None

    async def _lose(self, epoch: int) -> None:
        """Never returns."""
        try:
            who = _who(await self._read(epoch))
        except StorageError:
            who = _who(None)
        self._until = float("-inf")
        self._lost = (
            f"lease lost to {who}, epoch {epoch}: this replica is stopped: two hosts must not write to one replica: "
            f"stop litestream there and start this one again, or take it back with: litestream reset {self._db.path}"
        )
        raise LeaseLostError(self._lost)

    async def _clean_up(self, found: Found, ours: int) -> None:
        """Delete what is older. Where that is not allowed there is one more small object per start."""
        keys = [*found.older]
        if 0 < found.epoch < ours:
            keys += [lease_key(found.epoch), *([released_key(found.epoch)] if found.released else [])]
        if not self._tidy or not keys:
            return
        try:
            await self._client.store.delete(keys)
        except StorageError as error:
            self._logger.debug("older leases not deleted: %s", error)

    def _read_note(self) -> Note | None:
        return Note.parse(self._db.note(self._name))

    def _keep(self, note: Note) -> None:
        if note.ready:
            self._note = note
        try:
            self._db.write_note(self._name, note.pack())
        except LocalStateError as error:
            # The lease is the object. Without a note the next start waits; uploading may be what makes room.
            self._logger.debug("no note of the lease: %s", error)


def _who(record: Record | None) -> str:
    return f"host {record.host} (process {record.pid})" if record is not None else "another host"
