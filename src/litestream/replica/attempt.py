"""What was sent last: so that whatever arrives late is what was sent again.

A store may carry out a request long after the process that made it was killed, and many stores cannot refuse it. So no
name is ever sent with two contents: before an object goes up, the database keeps a note of where it begins and ends and
of its hash, and while it is not known to be there, just these bytes are sent again, by this process or the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from litestream.client import ReplicaClient
from litestream.core.position import Pos, WALSegmentInfo
from litestream.core.stamp import STAMP_SIZE, Stamp
from litestream.errors import InvalidNameError, ObjectNotFoundError, PositionError
from litestream.replica.batch import end_of
from litestream.streams import read_stamp


@dataclass(frozen=True, slots=True)
class Attempt:
    """One object on its way.

    Attributes:
        after: where the replica ended before it.
        previous: name of the object before it; the zero position if it is the first one after a snapshot.
        start, end: what it holds.
        digest: of the object, see `digest_of`.
    """

    after: Pos
    previous: Pos
    start: Pos
    end: Pos
    digest: str

    def pack(self) -> str:
        """One line of text; see `parse`."""
        return ",".join(map(str, (self.after, self.previous, self.start, self.end, self.digest)))

    @classmethod
    def parse(cls, text: str) -> Attempt | None:
        """The inverse; None if it is no such line."""
        *names, digest = text.split(",")
        if len(names) != 4 or len(digest) != 64:
            return None
        try:
            after, previous, start, end = map(Pos.parse, names)
        except InvalidNameError:
            return None
        return cls(after, previous, start, end, digest)

    def is_of(self, body: bytes, end: Pos) -> bool:
        """Whether these are the bytes that were sent."""
        return end == self.end and digest_of(body) == self.digest


def digest_of(body: bytes) -> str:
    """An object's hash, as it is noted: that of its stamp, which holds the hash of all that stands before it."""
    return hashlib.sha256(body[-STAMP_SIZE:]).hexdigest()


async def settle(
    client: ReplicaClient, attempt: Attempt, segments: Sequence[WALSegmentInfo], pos: Pos, tail: Stamp | None
) -> tuple[Pos, Stamp | None]:
    """Where the replica ends, given the last attempt and what a listing made of it (`segments`, `pos`, `tail`).

    A listing may be behind: the attempt's object, and the one before it, are asked for by name. Raises `PositionError`
    if something is gone that was stored: what is left cannot be continued.
    """
    if attempt.start < pos:
        return pos, tail  # listed, or a later snapshot makes it meaningless
    if not client.readable:
        return _settle_unread(attempt, segments)
    found = await _stamp_at(client, attempt.start)
    if found is not None:
        return end_of(found), found
    if pos in (attempt.after, attempt.start):
        return pos, tail
    before = await _stamp_at(client, attempt.previous) if not attempt.previous.is_zero else None
    if before is not None and end_of(before) == attempt.after:
        return attempt.after, before
    raise _lacks(attempt)


def _settle_unread(attempt: Attempt, segments: Sequence[WALSegmentInfo]) -> tuple[Pos, None]:
    """The same where nothing can be read (encrypted, without an identity): by names alone."""
    newest = segments[-1].pos if segments else Pos()
    if newest == attempt.start:
        return attempt.end, None
    if newest == attempt.previous:
        return attempt.after, None
    raise _lacks(attempt)


def _lacks(attempt: Attempt) -> PositionError:
    name = attempt.start if attempt.previous.is_zero else attempt.previous
    return PositionError(f"replica lacks WAL that was stored: {name}")


async def _stamp_at(client: ReplicaClient, pos: Pos) -> Stamp | None:
    """The stamp of the object of that name; None if there is no such object (or none of ours)."""
    try:
        body = await client.read_wal_segment(pos)
    except ObjectNotFoundError:
        return None
    stamp = read_stamp(body[-STAMP_SIZE:], str(pos))
    if stamp is not None and stamp.pos != pos:
        raise PositionError(f"replica holds another object under the name of {pos}")
    return stamp


async def is_there(client: ReplicaClient, pos: Pos) -> bool:
    """Whether there is an object of that name."""
    try:
        await client.read_wal_segment(pos)
    except ObjectNotFoundError:
        return False
    return True
