"""Where a copy stands, in one small file beside it: what a follower that was killed goes on from.

Before each transaction the note says between which two positions the copy is. A follower that begins again asks for
everything from the first one on, and shows nothing before it has reached the second: whichever of the two states the
copy is in, its readers never see it go back.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict, dataclass, replace

from litestream import fsutil
from litestream.core.position import Pos, is_generation
from litestream.errors import InvalidNameError

_NAME = "follow.json"
_SIZE = 1024
_VERSION = 1
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


_NOWHERE = Pos()


@dataclass(frozen=True, slots=True)
class Place:
    """A committed state: its position, the salts of the WAL there, and what tells it from others in the copy."""

    pos: Pos = _NOWHERE
    salts: str = ""
    """Of the source's WAL, 16 hex digits; empty: not known."""
    mark: tuple[str, int, int, int] = ("", 0, 0, 0)
    """Salts, frames and checksum of the copy's own WAL; 0 frames: it was empty."""


@dataclass(frozen=True, slots=True)
class Note:
    """The copy is at `at`, or already at `next`. Both are the zero position while nothing is known."""

    at: Place = Place()
    next: Place = Place()
    device: int = 0
    inode: int = 0
    durable: bool = False
    """Written after the copy was made durable: it holds also after a power cut."""
    boot: str = ""

    @property
    def known(self) -> bool:
        return not self.at.pos.is_zero


def load(meta: str) -> Note | None:
    """The note as it was written last; None if there is none. One that is damaged knows nothing."""
    try:
        with open(os.path.join(meta, _NAME), "rb") as file:
            raw = file.read(_SIZE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return _parse(raw)
    except (ValueError, KeyError, TypeError, RecursionError, InvalidNameError):
        return Note()


def trusted(note: Note) -> Note:
    """The note, or one that knows nothing if a power cut may have taken what it says the copy has."""
    return note if note.known and (note.durable or (note.boot and note.boot == boot_id())) else Note()


class NoteFile:
    """The file, open. Writing is one write in place: it outlives a kill; with `durable`, a power cut."""

    def __init__(self, meta: str, access: fsutil.Access) -> None:
        fsutil.make_dirs(meta, mode=access.dir_mode, owner=access.owner)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(os.path.join(meta, _NAME), flags, 0o600)
        self._meta = meta
        self._boot = boot_id()

    def write(self, note: Note, *, durable: bool = False) -> None:
        """Replace what the file says."""
        os.pwrite(self._descriptor, _pack(replace(note, boot=self._boot, durable=durable)), 0)
        if durable:
            os.fsync(self._descriptor)
            fsutil.fsync_dir(self._meta)

    def close(self) -> None:
        """Close it. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def boot_id() -> str:
    """What changes when the system starts anew; empty where it cannot be told."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def _pack(note: Note) -> bytes:
    raw = {"version": _VERSION, **asdict(note), "at": _place(note.at), "next": _place(note.next)}
    text = json.dumps(raw).encode()
    return (b"%08x " % zlib.crc32(text) + text).ljust(_SIZE - 1) + b"\n"


def _place(place: Place) -> list[object]:
    return [str(place.pos), place.salts, *place.mark]


def _parse(raw: bytes) -> Note:
    text = raw[9:].strip()
    if int(raw[:8], 16) != zlib.crc32(text):
        raise ValueError("damaged")
    fields = json.loads(text)
    if fields.pop("version") != _VERSION:
        raise ValueError("of another version")
    at, then = _to_place(fields.pop("at")), _to_place(fields.pop("next"))
    return Note(at, then, **fields)


def _to_place(raw: list[object]) -> Place:
    pos, salts, wal, *numbers = raw
    frames, s0, s1 = (int(str(number)) for number in numbers)
    place = Place(Pos.parse(str(pos)), str(salts), (str(wal), frames, s0, s1))
    if place.pos.generation and not is_generation(place.pos.generation):
        raise ValueError("no position")
    return place
