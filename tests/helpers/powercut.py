"""What a power cut may leave of a directory tree: from an strace of a program to the states of the disk.

The model is the one that POSIX promises: bytes of a file are safe once the file was fsynced, names in a directory
once the directory was. Anything later may be there or not, each on its own: an unsynced rename, creation, deletion
or directory, and unsynced bytes whole, torn, zeroed or not at all.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "openat,close,lseek,write,pwrite64,writev,pwritev,ftruncate,rename,renameat,renameat2,link,linkat,unlink,unlinkat,"
    "mkdir,mkdirat,rmdir,fsync,fdatasync"
)
_LINE = re.compile(r"^(\d+) +([\d.]+) (.*)$")
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>(.*)$")
_CALL = re.compile(r"^(\w+)\((.*)\) += (-?\d+)")
_TOKEN = re.compile(r'(?P<fd>\d+|AT_FDCWD)<(?P<path>[^>]*)>|"(?P<text>(?:\\x[0-9a-f]{2})*)"')


def available() -> bool:
    """Whether programs can be traced here."""
    return (
        shutil.which("strace") is not None
        and subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0
    )


def wrapper(trace: Path) -> list[str]:
    """The command to put before a program's."""
    return ["strace", "-f", "-ttt", "-y", "-xx", "-s", "100000000", "-o", str(trace), "-e", f"trace={CALLS}"]


@dataclass(slots=True)
class File:
    """Its bytes as programs see them, and as they are safe."""

    data: bytearray = field(default_factory=bytearray)
    safe: bytes = b""
    synced: bool = True


@dataclass(slots=True)
class Directory:
    """Its names as programs see them, as they are safe, and the changes in between, each of them atomic."""

    names: dict[str, File | Directory] = field(default_factory=dict)
    safe: dict[str, File | Directory] = field(default_factory=dict)
    pending: list[dict[str, File | Directory | None]] = field(default_factory=list)

    def change(self, changes: dict[str, File | Directory | None]) -> None:
        _apply(self.names, changes)
        self.pending.append(changes)


@dataclass(slots=True)
class Call:
    """A system call that succeeded. `begun`: for fsync, the number of the call before which it began."""

    number: int
    time: float
    name: str
    arguments: str
    fds: list[tuple[int, str]]
    texts: list[bytes]
    result: int
    begun: int


def calls(trace: Path) -> Iterator[Call]:
    """The calls of a trace, in the order in which they ended."""
    unfinished: dict[str, tuple[str, int]] = {}
    number = 0
    for line in trace.read_text().splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        pid, time, text = found.groups()
        begun = number
        if text.endswith("<unfinished ...>"):
            unfinished[pid] = text.removesuffix("<unfinished ...>"), number
            continue
        if resumed := _RESUMED.match(text):
            start, begun = unfinished.pop(pid)
            text = start + resumed[1]
        call = _CALL.match(text)
        if call is None or call[3].startswith("-"):
            continue
        fds, texts = [], []
        for token in _TOKEN.finditer(call[2]):
            if token["text"] is not None:
                texts.append(_bytes(token["text"]))
            else:
                fds.append((-1 if token["fd"] == "AT_FDCWD" else int(token["fd"]), _bytes(token["path"]).decode()))
        yield Call(number, float(time), call[1], call[2], fds, texts, int(call[3]), begun)
        number += 1


class Disk:
    """The tree below `root`, brought forward call by call."""

    def __init__(self, root: Path, ignored: Callable[[str], bool]) -> None:
        self.root = root
        self.top = Directory()
        self._ignored = ignored
        self._offsets: dict[int, int] = {}
        self._changed: dict[int, int] = {}  # id of a file or of a pending change -> number of the call

    def run(self, call: Call) -> bool:
        """Take a call into account. Whether it did anything to the tree."""
        handler = getattr(self, f"_{call.name}", None)
        return bool(handler is not None and handler(call))

    # -- states

    def after_a_cut(self, rnd: random.Random, keep: float, torn: float) -> dict[str, bytes | None]:
        """What may be found: path below the root -> bytes, None for a directory.

        Of what was not synced, each thing is there with the probability `keep`; bytes are torn with that of `torn`.
        """
        found: dict[str, bytes | None] = {}

        def visit(directory: Directory, path: str) -> None:
            names = dict(directory.safe)
            for changes in directory.pending:
                if rnd.random() < keep:
                    _apply(names, changes)
            for name, entry in sorted(names.items()):
                if isinstance(entry, Directory):
                    found[path + name] = None
                    visit(entry, f"{path}{name}/")
                else:
                    found[path + name] = _content(entry, rnd, keep, torn)

        visit(self.top, "")
        return found

    # -- calls

    def _entry(self, path: str) -> File | Directory | None:
        if path == str(self.root):
            return self.top
        if not path.startswith(f"{self.root}/") or self._ignored(path):
            return None
        entry: File | Directory | None = self.top
        for name in path[len(str(self.root)) + 1 :].split("/"):
            entry = entry.names.get(name) if isinstance(entry, Directory) else None
        return entry

    def _place(self, path: str) -> tuple[Directory, str] | None:
        folder, _, name = path.rpartition("/")
        parent = self._entry(folder)
        return (parent, name) if isinstance(parent, Directory) and not self._ignored(path) else None

    def _set(self, path: str, entry: File | Directory | None, call: Call) -> bool:
        place = self._place(path)
        if place is None:
            return False
        self._change(place[0], {place[1]: entry}, call)
        return True

    def _change(self, directory: Directory, changes: dict[str, File | Directory | None], call: Call) -> None:
        directory.change(changes)
        self._changed[id(changes)] = call.number

    def _openat(self, call: Call) -> bool:
        self._offsets[call.result] = 0
        path = _paths(call)[0]
        entry = self._entry(path)
        if entry is None and "O_CREAT" in call.arguments:
            return self._set(path, File(), call)
        if isinstance(entry, File) and "O_TRUNC" in call.arguments and entry.data:
            return self._write_at(entry, 0, b"", call, cut=True)
        return False

    def _mkdir(self, call: Call) -> bool:
        return self._set(_paths(call)[0], Directory(), call)

    def _unlink(self, call: Call) -> bool:
        return self._set(_paths(call)[0], None, call)

    def _rename(self, call: Call) -> bool:
        source, target = _paths(call)
        entry, before, after = self._entry(source), self._place(source), self._place(target)
        if entry is None or before is None or after is None:
            return False
        assert before[0] is after[0], "renames stay in their directory"
        self._change(before[0], {before[1]: None, after[1]: entry}, call)
        return True

    def _link(self, call: Call) -> bool:
        source, target = _paths(call)
        entry = self._entry(source)
        return entry is not None and self._set(target, entry, call)

    def _write(self, call: Call) -> bool:
        fd, path = call.fds[0]
        offset = self._offsets.get(fd, 0)
        self._offsets[fd] = offset + call.result
        entry = self._entry(path)
        return isinstance(entry, File) and self._write_at(entry, offset, b"".join(call.texts)[: call.result], call)

    def _pwrite64(self, call: Call) -> bool:
        entry = self._entry(call.fds[0][1])
        offset = int(call.arguments.rsplit(",", 1)[1])
        return isinstance(entry, File) and self._write_at(entry, offset, b"".join(call.texts)[: call.result], call)

    def _lseek(self, call: Call) -> bool:
        self._offsets[call.fds[0][0]] = call.result
        return False

    def _ftruncate(self, call: Call) -> bool:
        entry = self._entry(call.fds[0][1])
        if not isinstance(entry, File):
            return False
        return self._write_at(entry, int(call.arguments.rsplit(",", 1)[1]), b"", call, cut=True)

    def _write_at(self, file: File, offset: int, data: bytes, call: Call, *, cut: bool = False) -> bool:
        file.data.extend(bytes(max(0, offset - len(file.data))))
        file.data[offset : len(file.data) if cut else offset + len(data)] = data
        file.synced = False
        self._changed[id(file)] = call.number
        return True

    def _fsync(self, call: Call) -> bool:
        """Only what was done before it began is safe."""
        entry = self._entry(call.fds[0][1])
        if isinstance(entry, File) and self._changed.get(id(entry), 0) <= call.begun:
            entry.safe, entry.synced = bytes(entry.data), True
        elif isinstance(entry, Directory):
            while entry.pending and self._changed[id(entry.pending[0])] <= call.begun:
                _apply(entry.safe, entry.pending.pop(0))
        return entry is not None

    _mkdirat, _unlinkat, _rmdir = _mkdir, _unlink, _unlink
    _renameat = _renameat2 = _rename
    _linkat, _fdatasync, _writev, _pwritev = _link, _fsync, _write, _pwrite64


def _apply(names: dict[str, File | Directory], changes: dict[str, File | Directory | None]) -> None:
    for name, entry in changes.items():
        if entry is None:
            names.pop(name, None)
        else:
            names[name] = entry


def _content(file: File, rnd: random.Random, keep: float, torn: float) -> bytes:
    if file.synced:
        return file.safe
    data = bytes(file.data)
    if rnd.random() < torn:
        return rnd.choice((data[: len(data) // 2], bytes(len(data)), data[: len(data) // 2] + bytes(len(data) // 2)))
    return data if rnd.random() < keep else file.safe


def _paths(call: Call) -> list[str]:
    """The paths of a call, absolute; each may be relative to the descriptor before it."""
    folders: Sequence[str] = [path for _, path in call.fds] or [""]
    texts = [text.decode() for text in call.texts]
    return [
        text if text.startswith("/") else f"{folders[min(at, len(folders) - 1)]}/{text}"
        for at, text in enumerate(texts)
    ]


def _bytes(text: str) -> bytes:
    """What strace -xx wrote as \\xNN for every byte."""
    return bytes.fromhex(text.replace("\\x", ""))
