"""Errors that stores of all kinds have in common."""

from __future__ import annotations

from litestream.errors import StorageError
from litestream.storage.keys import MAX_CREATE


def too_large_to_create(url: str, key: str) -> StorageError:
    """A create-only put is compared with what is there, so it has to fit into memory."""
    message = f"{url}: {key} is larger than {MAX_CREATE} bytes, too large for a create-only put"
    return StorageError(message, key=key, permanent=True)


def no_byte(url: str, key: str, start: int) -> StorageError:
    """The object ends before `start`."""
    message = f"{url}: {key} has no byte {start}: it is not the object that was expected"
    return StorageError(message, key=key, permanent=True, code="InvalidRange")


def before_the_beginning(url: str, key: str, start: int) -> StorageError:
    """`start` is negative."""
    return StorageError(f"{url}: cannot read {key} from {start}", key=key, permanent=True)


def comes_and_goes(url: str, key: str) -> StorageError:
    """An object was there, and then it was not."""
    return StorageError(f"{url}: {key} comes and goes: is there a second writer?", key=key, code="Conflict")
