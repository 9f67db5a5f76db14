"""What `-update` begins with: a copy that an earlier `-update` made, proved to be what its note says, byte for byte.

The note beside the copy has one state, or two while the copy is being replaced: it is written before the new file gets
its name and again after it, so that whenever the process dies, it has the state that the file is.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from threading import Event

from litestream import fsutil
from litestream.core.position import Pos, is_generation
from litestream.errors import FormatError, OutputExistsError
from litestream.restore.beside import beside, shown

TAIL = "-litestream-update"
_VERSION = 1
_MOST = 64 << 10
"""Bytes that a note may have."""
_FICLONE = 0x40049409
"""ioctl(2): share the blocks of another file (Btrfs, XFS and others); <linux/fs.h>."""
_PIECE = 4 << 20
_MOST_COPIED = 64 << 20
"""Bytes that the kernel copies at once: meanwhile nothing can be stopped."""
_WRITTEN = ("-wal", "-journal")
"""What SQLite leaves beside a database that was written to."""


@dataclass(frozen=True, slots=True)
class State:
    """A committed state of a replica, and the file that is in this state."""

    pos: Pos
    snapshot_index: int
    """Of the snapshot that it was once made of."""
    salts: str
    """Of the WAL there, in hex; empty where its offset is 0."""
    checksum: tuple[int, int]
    """Of the last frame before it."""
    time_ns: int
    """Of the last commit in it, as far as stamps or the store tell."""
    page_size: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Base:
    """A file, proved to be in a state."""

    path: str
    state: State
    identity: tuple[int, ...]

    def same(self) -> bool:
        """Whether it is still the same file, and nobody has written to it."""
        try:
            return _identity(os.stat(self.path)) == self.identity and not _written(self.path)
        except OSError:
            return False

    def copy_to(self, fd: int, stop: Event) -> bool:
        """Copy it to an empty file, by sharing its blocks where that can be; whether the copy is what it should be."""
        with open(self.path, "rb", buffering=0) as file:
            try:
                fcntl.ioctl(fd, _FICLONE, file.fileno())
            except OSError:
                _copy(file.fileno(), fd, stop)
        return hash_of(fd, stop) == self.state.sha256


def look(output: str, stop: Event) -> Base | str | None:
    """The copy at `output`; why it cannot be updated; None if there is no file. Blocking: it reads all of the file."""
    if not os.path.lexists(output):
        return None
    path = os.path.realpath(output)
    states = load(path)
    if not states:
        return "it was not made by -update"
    if written := _written(path):
        return f"somebody has written to it: there is {shown(written)}"
    with open(path, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return "it is no file"
        digest = hash_of(file.fileno(), stop) if status.st_size in {state.size for state in states} else ""
    state = next((state for state in states if state.sha256 == digest), None)
    return Base(path, state, _identity(status)) if state is not None else "it was changed after it was restored"


def exists(path: str, reason: str) -> OutputExistsError:
    """What to raise for a file that must not be replaced."""
    return OutputExistsError(
        f"output file already exists and cannot be updated: {shown(path)}: {reason} (-force replaces it)"
    )


def load(path: str) -> list[State]:
    """The states that the note of a copy has; none if there is no note, or it is damaged."""
    try:
        with open(beside(path, TAIL), "rb") as file:
            raw = file.read(_MOST)
        digest, _, text = raw.partition(b"\n")
        fields = json.loads(text)
        if digest.decode() != hashlib.sha256(text).hexdigest() or fields["version"] != _VERSION:
            return []
        return [_state(**entry) for entry in fields["states"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, FormatError):
        return []


def save(path: str, states: Sequence[State]) -> None:
    """Write the note of a copy, durably. Raises `OSError`."""
    entries = [{**asdict(state), "pos": str(state.pos)} for state in states]
    text = json.dumps({"version": _VERSION, "states": entries}, indent=1).encode() + b"\n"
    fsutil.write_atomic(beside(path, TAIL), hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


def hash_of(fd: int, stop: Event) -> str:
    """SHA-256 of a file's content, in hex; empty if it was stopped before its end."""
    digest, at = hashlib.sha256(), 0
    buffer = memoryview(bytearray(_PIECE))
    while count := os.preadv(fd, [buffer], at):
        if stop.is_set():
            return ""
        digest.update(buffer[:count])
        at += count
    return digest.hexdigest()


def _state(*, pos: str, checksum: list[int], **fields: object) -> State:
    first, second = checksum
    state = State(pos=Pos.parse(pos), checksum=(int(first), int(second)), **fields)  # type: ignore[arg-type]  # as saved
    if not is_generation(state.pos.generation):
        raise ValueError("no position")
    return state


def _written(path: str) -> str:
    """A file beside a database that says that somebody has written to it; empty if there is none."""
    for suffix in _WRITTEN:
        try:
            if os.lstat(path + suffix).st_size:
                return path + suffix
        except FileNotFoundError:
            continue
    return ""


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _copy(source: int, target: int, stop: Event) -> None:
    """Copy all of a file, in the kernel where that is possible."""
    at, size = 0, os.fstat(source).st_size
    try:
        while at < size and not stop.is_set():
            count = os.copy_file_range(source, target, min(_MOST_COPIED, size - at), at, at)
            if not count:
                break
            at += count
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise
    buffer = memoryview(bytearray(_PIECE))
    while not stop.is_set() and (count := os.preadv(source, [buffer], at)):
        done = 0
        while done < count:
            done += os.pwrite(target, buffer[done:count], at + done)
        at += count
