"""What an object store is: five operations on keys below one prefix.

Keys are relative, with `/` between parts, and never begin with one. What a generation, a snapshot or a segment is, is
not a store's business: see `litestream.client`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One stored object: `size` in bytes, `modified` in Unix seconds as the store says."""

    key: str
    size: int
    modified: float


class Store(Protocol):
    """An object store. Every method may be cancelled; a cancelled or failed `put` leaves no object behind.

    Nothing is retried here (a wrapper does that). Errors are `StorageError` and its kinds, nothing else; the text
    names the object. Keys that would lead outside the prefix (`..`, absolute, NUL) are refused.
    """

    @property
    def type(self) -> str:
        """The back end's name in tables, logs and metrics: file, memory, s3, …"""
        ...

    @property
    def url(self) -> str:
        """Where it is, for people, without secrets."""
        ...

    @property
    def conditional(self) -> bool:
        """Whether a create-only put holds against other writers: the service decides, in one step.

        Where it does not, `put` looks first, and of two writers at the same moment the later one wins.
        """
        ...

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """All objects whose key begins with `prefix` (ends with `/`, or is empty), sorted by key.

        A prefix below which there is nothing gives an empty list; a store or bucket that is not there, or a
        listing that broke off, is an error: "nothing there" and "could not tell" are never confused.
        Temporary files of unfinished puts are not listed.
        """
        ...

    def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
        """The object's bytes from offset `start` on, in chunks. `ObjectNotFoundError` if there is none.

        A body that ends early raises; it is never taken for the whole.
        """
        ...

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        """Store an object, whole or not at all, durable when this returns; an object of the same key is replaced.

        With `create_only` an object of that key with the same content is success (a retry whose first answer was
        lost) and one with other content raises `ObjectExistsError`. Such a body may be collected in memory first and
        has at most `keys.MAX_CREATE` bytes; for all others memory is bounded whatever the size.
        An exception from the body propagates as it is.
        """
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects. Keys without an object are no error."""
        ...

    async def close(self) -> None:
        """Let connections go. May be called twice."""
        ...
