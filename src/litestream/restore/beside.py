"""Names of what a restore keeps beside its output."""

from __future__ import annotations

import hashlib
import os

_NAME_MAX = 255
"""Bytes in a file name on every Linux file system in use."""


def beside(path: str, tail: str) -> str:
    """The hidden name beside `path` that ends with `tail`, always the same; of a long name, it has the beginning."""
    directory, name = os.path.split(path)
    raw = os.fsencode(name)
    room = _NAME_MAX - len(tail) - 1
    if len(raw) > room:
        digest = hashlib.sha256(raw).hexdigest()[:8]
        name = os.fsdecode(raw[: room - len(digest) - 1]) + "-" + digest
    return os.path.join(directory, f".{name}{tail}")


def shown(path: str) -> str:
    """A path that can be printed: bytes that are no UTF-8 appear as `\\xNN`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
