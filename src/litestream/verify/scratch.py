"""A place for what is only looked at, which nothing outlives for long."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from litestream.errors import RestoreError

_NAME = re.compile(r"\.litestream-verify-(\d+)-[0-9a-f]{16}")
_RESERVE = 16 << 20
"""Bytes that must stay free beside what is written."""


@contextmanager
def scratch_directory(parent: str) -> Iterator[str]:
    """A directory of our own below `parent`, removed in the end with all that is in it.

    A process that is killed leaves it behind; the next one that comes here removes it (`remove_leftovers`). Raises
    `RestoreError` where none can be made.
    """
    remove_leftovers(parent)
    path = os.path.join(parent, f".litestream-verify-{os.getpid()}-{secrets.token_hex(8)}")
    try:
        os.mkdir(path, 0o700)
    except OSError as error:
        raise RestoreError(f"no place for a scratch file: {path}: {error.strerror} (TMPDIR names another)") from error
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor)
        yield path
    finally:
        os.close(descriptor)
        shutil.rmtree(path, ignore_errors=True)


def remove_leftovers(parent: str) -> None:
    """Remove the directories of processes that are gone. One that is in use is locked, in another container too."""
    try:
        with os.scandir(parent) as entries:
            found = [(entry.path, _NAME.fullmatch(entry.name)) for entry in entries]
    except OSError:
        return
    for path, match in found:
        if match is None or _is_alive(int(match[1])):
            continue
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue  # another user's, or gone meanwhile
        try:
            if _lock(descriptor):
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(descriptor)


def check_room(directory: str, size: int) -> None:
    """Raise `RestoreError` if there is no room for `size` bytes more."""
    free = os.statvfs(directory)
    if free.f_bavail * free.f_frsize < size + _RESERVE:
        parent = os.path.dirname(directory)
        raise RestoreError(f"no room for a scratch copy of {size} bytes in {parent} (TMPDIR names another place)")


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
