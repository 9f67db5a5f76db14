"""A process that notes when each file becomes visible below a replica: by inotify, so without polling.

It is a process of its own so that its clock is not the application's, and never waits for the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.helper import Helper
from benchmarks.measure import now

_MOVED_TO, _CLOSE_WRITE, _CREATE, _IS_DIR = 0x80, 0x8, 0x100, 0x40000000
_HEAD = struct.Struct("iIII")


@dataclass(frozen=True, slots=True)
class Seen:
    """A file that became visible: when (`now`), where, how large, and its content if that is kept."""

    time: int
    path: str
    size: int
    data: bytes | None


@dataclass
class _Tree:
    """The watches of a directory tree, and what they saw."""

    keep: bool
    libc: ctypes.CDLL = field(default_factory=lambda: ctypes.CDLL(None, use_errno=True))
    folders: dict[int, str] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    seen: list[Seen] = field(default_factory=list)
    descriptor: int = -1

    def __post_init__(self) -> None:
        self.descriptor = self.libc.inotify_init1(os.O_NONBLOCK)

    def add(self, folder: str, when: int | None = None) -> None:
        """Watch a folder and those below it; files that were there before the watch are seen now."""
        watch = self.libc.inotify_add_watch(self.descriptor, os.fsencode(folder), _CREATE | _MOVED_TO | _CLOSE_WRITE)
        if watch >= 0:
            self.folders[watch] = folder
        try:
            entries = list(os.scandir(folder))
        except OSError:
            return  # it is gone again
        for entry in entries:
            if entry.is_dir():
                self.add(entry.path, when)
            elif when is not None and entry.path not in self.known:
                self.note(when, entry.path)

    def note(self, when: int, path: str) -> None:
        name = os.path.basename(path)
        if ".tmp" in name or name.startswith("."):
            return
        try:
            data = Path(path).read_bytes() if self.keep else None
            size = os.path.getsize(path)
        except OSError:
            return
        self.known.add(path)
        self.seen.append(Seen(when, path, size, data))

    def read(self) -> None:
        """Take what the kernel has to tell."""
        when = now()
        try:
            buffer = os.read(self.descriptor, 1 << 20)
        except BlockingIOError:
            return
        at = 0
        while at < len(buffer):
            watch, mask, _, length = _HEAD.unpack_from(buffer, at)
            name = buffer[at + _HEAD.size : at + _HEAD.size + length].rstrip(b"\0").decode()
            at += _HEAD.size + length
            if watch not in self.folders:
                continue
            path = os.path.join(self.folders[watch], name)
            if mask & _IS_DIR:
                self.add(path, when)
            elif mask & (_MOVED_TO | _CLOSE_WRITE):
                self.note(when, path)


def _serve(pipe: Connection, root: str, keep: bool) -> None:
    os.setpgrp()  # Ctrl-C goes to the command, which ends this one
    tree = _Tree(keep)
    tree.add(root)
    pipe.send("ready")
    while True:
        ready, _, _ = select.select([tree.descriptor, pipe.fileno()], [], [])
        if tree.descriptor in ready:
            tree.read()
        if pipe.fileno() in ready:
            asked = pipe.recv()
            if asked == "count":
                pipe.send(len(tree.seen))
            elif asked == "peek":
                pipe.send([Seen(each.time, each.path, each.size, None) for each in tree.seen])
            else:
                pipe.send(tree.seen)
                return


class Watcher(Helper):
    """The process, from here. With `keep` each file's content is read as it appears."""

    def __init__(self, root: Path, *, keep: bool = False) -> None:
        root.mkdir(parents=True, exist_ok=True)
        super().__init__(_serve, str(root), keep)

    def count(self) -> int:
        """How many files became visible so far."""
        self.pipe.send("count")
        counted: int = self.pipe.recv()
        return counted

    def peek(self) -> list[Seen]:
        """All so far, without their content."""
        self.pipe.send("peek")
        seen: list[Seen] = self.pipe.recv()
        return seen

    def stop(self) -> list[Seen]:
        """All, and the end of the process."""
        self.pipe.send("stop")
        seen: list[Seen] = self.pipe.recv()
        self.ended()
        return seen
