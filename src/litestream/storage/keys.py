"""What a key may look like. Every store asks here first, so that no key leads outside its prefix."""

from __future__ import annotations

from litestream.errors import StorageError
from litestream.fsutil import is_temp_name

MAX_KEY = 1024
"""Bytes in UTF-8: the limit of S3, GCS and Azure."""

MAX_CREATE = 64 << 20
"""Bytes of a create-only body: many times a WAL segment, and what a store may have to hold in memory."""


def check_key(key: str) -> str:
    """`key`, if it is one. `StorageError` (permanent) otherwise."""
    reason = _fault(key)
    if reason:
        raise StorageError(f"invalid object key {key!a}: {reason}", key=key, permanent=True)
    return key


def check_prefix(prefix: str) -> str:
    """`prefix`, if it is empty or a key with a `/` behind it. `StorageError` (permanent) otherwise."""
    if prefix:
        reason = _fault(prefix[:-1]) if prefix.endswith("/") else "a prefix ends with '/'"
        if reason:
            raise StorageError(f"invalid prefix {prefix!a}: {reason}", key=prefix, permanent=True)
    return prefix


def is_key(key: str) -> bool:
    """Whether `key` is one: for names that a listing found."""
    return not _fault(key)


def _fault(key: str) -> str:
    if not key:
        return "it is empty"
    if "\0" in key or "\n" in key:
        return "NUL and newline are not allowed"
    parts = key.split("/")
    if not parts[0]:
        return "it is absolute"
    if any(part in {"", ".", ".."} for part in parts):
        return "'', '.' and '..' are no parts"
    if is_temp_name(parts[-1]):
        return "it is the name of a temporary file"
    try:
        # surrogateescape: file names that are not UTF-8 may stand in a file store's listing.
        length = len(key.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return "it is not Unicode text"
    return f"longer than {MAX_KEY} bytes" if length > MAX_KEY else ""
