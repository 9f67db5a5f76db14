"""A line of text for each replica that outlives a kill: what it sent last.

Each is a small file of its own, overwritten in place: that takes no room, so it works while the disk is full, and a
killed process leaves the old line or the new one. After a power cut the line may be an older one, or gone.
"""

from __future__ import annotations

import hashlib
import os

from litestream import fsutil

_SIZE = 1024
_DIGEST = 16


class Notes:
    """The notes of one database, below its local state. Blocking; opens and closes a file each time."""

    def __init__(self, meta: str) -> None:
        self._folder = os.path.join(meta, "replicas")

    def read(self, name: str) -> str:
        """What `write` kept under a name; empty if that is nothing, or damaged."""
        try:
            with open(self._path(name), "rb") as file:
                raw = file.read(_SIZE)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        text = raw[_DIGEST:].rstrip(b"\n")
        return text.decode() if raw[:_DIGEST] == _digest(text) else ""

    def write(self, name: str, text: str, access: fsutil.Access) -> None:
        """Keep a line of ASCII. Raises `OSError`."""
        line = text.encode("ascii")
        if len(line) > _SIZE - _DIGEST:
            raise ValueError(f"a note has at most {_SIZE - _DIGEST} bytes")
        raw = (_digest(line) + line).ljust(_SIZE, b"\n")
        path = self._path(name)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            fsutil.make_dirs(self._folder, mode=access.dir_mode, owner=access.owner)
            fsutil.write_atomic(path, raw, mode=access.file_mode, owner=access.owner)
            return
        try:
            if os.pwrite(fd, raw, 0) != _SIZE:
                raise OSError(f"cannot write {path} whole")
        finally:
            os.close(fd)

    def _path(self, name: str) -> str:
        # A replica's name may hold anything.
        return os.path.join(self._folder, hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32])


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()[:_DIGEST]
