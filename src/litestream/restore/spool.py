"""What `-resume` keeps: the objects of a restore as they are stored, on the local disk, until it has succeeded.

A restore reads through it. What is there is read from there, the rest comes from the store and is kept; so a restore
that is begun again is an ordinary one, with all its checks, that fetches only what is missing. A file that ends early
is gone on with by a ranged read. An encrypted object is kept encrypted.

Nothing in the directory is trusted. An object's file is named by a hash of where it is from, its key, size and time::

      0  32  that hash
     32      records, in the order of the content:
               u32 length, 16 bytes of the SHA-256 of (that hash, u64 offset in the object, the bytes), the bytes

A record that is torn, changed or another one's ends the file where it begins, and the rest is fetched again. So
nothing has to be flushed to the disk either.
"""

from __future__ import annotations

import bisect
import copy
import errno
import fcntl
import hashlib
import os
import re
import stat
import struct
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from litestream.client import ReplicaClient
from litestream.errors import CorruptObjectError, RestoreError
from litestream.restore.beside import beside, shown
from litestream.restore.model import Plan
from litestream.restore.output import disk_errors
from litestream.storage.protocol import ObjectInfo, Store
from litestream.storage.reading import closing
from litestream.storage.wrappers.wrapper import Wrapper

TAIL = "-litestream-resume"
_LOCK = "lock"
_OURS = re.compile(r"[0-9a-f]{64}")
_HEAD = 32
_RECORD = struct.Struct(">I16s")
_MOST = 1 << 20
"""Bytes in a record: so many are read, and verified, before the first of them is used."""
_TRIES = 10
"""Times that the lock is tried while another process removes the directory."""


class Kept:
    """The file of one object. Blocking.

    Attributes:
        have: bytes of the object that are there, from its beginning on.
        reused: whether an earlier restore has left some of them.
        busy: whether a reader is appending.
    """

    def __init__(self, path: str, name: bytes, key: str, size: int) -> None:
        self.path = path
        self.key = key
        self.size = size
        self.have = 0
        self.busy = False
        self._name = name
        self._starts: list[int] = []  # offset in the object of each record
        self._scan()
        self.reused = self.have > 0

    def read(self, at: int) -> bytes:
        """The bytes from `at` to the end of their record; empty if they are damaged, and then no longer there."""
        number = bisect.bisect_right(self._starts, at) - 1
        start = self._starts[number]
        end = self._starts[number + 1] if number + 1 < len(self._starts) else self.have
        raw = b""
        with suppress(OSError), open(self.path, "rb", buffering=0, opener=_no_link) as file:
            raw = os.pread(file.fileno(), _RECORD.size + end - start, self._place(number))
        data = raw[_RECORD.size :]
        if raw[: _RECORD.size] == self._head(start, data) and start + len(data) == end:
            return data[at - start :]
        self._cut(number)
        return b""

    @contextmanager
    def appending(self) -> Iterator[int]:
        """A descriptor for `append`. Nobody else appends meanwhile."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path, flags, 0o600)
        self.busy = True
        try:
            os.ftruncate(fd, self._place(len(self._starts)) if self.have else 0)
            if not self.have:
                os.pwrite(fd, self._name, 0)
            yield fd
        finally:
            self.busy = False
            os.close(fd)

    def append(self, fd: int, data: bytes) -> None:
        """Keep the bytes that follow those that are there."""
        view = memoryview(data)
        for at in range(0, len(view), _MOST):
            piece = view[at : at + _MOST]
            record = (self._head(self.have, piece), piece)
            if os.pwritev(fd, record, self._place(len(self._starts))) != _RECORD.size + len(piece):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._starts.append(self.have)
            self.have += len(piece)

    def drop(self) -> None:
        """Forget all of it."""
        self._cut(0)
        self.reused = False

    def _place(self, number: int) -> int:
        """Where a record stands in the file."""
        start = self._starts[number] if number < len(self._starts) else self.have
        return _HEAD + start + number * _RECORD.size

    def _head(self, start: int, data: bytes | memoryview) -> bytes:
        digest = hashlib.sha256(self._name + start.to_bytes(8, "big"))
        digest.update(data)
        return _RECORD.pack(len(data), digest.digest()[:16])

    def _cut(self, number: int) -> None:
        """Let the records from this one on go."""
        if number < len(self._starts):
            self.have = self._starts[number]
            del self._starts[number:]
        with suppress(FileNotFoundError):
            if number:
                os.truncate(self.path, self._place(number))
            else:
                os.unlink(self.path)

    def _scan(self) -> None:
        """Find the records, by their lengths; what they hold is verified when it is read."""
        try:
            with open(self.path, "rb", buffering=0, opener=_no_link) as file:
                fd, length = file.fileno(), os.fstat(file.fileno()).st_size
                if os.pread(fd, _HEAD, 0) != self._name:
                    return
                while (place := self._place(len(self._starts))) + _RECORD.size < length:
                    count, _ = _RECORD.unpack(os.pread(fd, _RECORD.size, place))
                    if not 0 < count <= min(_MOST, self.size - self.have, length - place - _RECORD.size):
                        return
                    self._starts.append(self.have)
                    self.have += count
        except (OSError, struct.error):
            return  # none, or a sick one: it is fetched


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


class Spool:
    """The directory beside the output, locked by this process. Use `opened`.

    Attributes:
        fetched: bytes that came from the stores.
    """

    def __init__(self, path: str, lock: int) -> None:
        self.path = path
        self.fetched = 0
        self._lock = lock
        self._kept: dict[str, Kept] = {}
        self._doubted = False

    def clients(self, replicas: Sequence[tuple[str, ReplicaClient]]) -> list[tuple[str, ReplicaClient]]:
        """The same replicas, read through here."""
        return [(name, ReplicaClient(spooled(client.store, self), client.layout)) for name, client in replicas]

    def object(self, store: Store, info: ObjectInfo) -> Kept:
        """The file of a listed object, which need not be there yet."""
        name = _name(store, info)
        if name.hex() not in self._kept:
            path = os.path.join(self.path, name.hex())
            self._kept[name.hex()] = Kept(path, name, info.key, info.size)
        return self._kept[name.hex()]

    def plan(self, plan: Plan) -> None:
        """Let everything go that is not in the plan, and see whether there is room for the rest.

        Raises `RestoreError` if there is not.
        """
        infos = [ObjectInfo(file.key, file.size, file.created_at) for file in plan.files()]
        wanted = {_name(plan.store, info).hex() for info in infos}
        with self.errors():
            self._remove(wanted)
            missing = sum(info.size - self.object(plan.store, info).have for info in infos)
            status = os.statvfs(self.path)
        free = status.f_bavail * status.f_frsize
        if missing > free:
            raise RestoreError(
                f"no room for what -resume keeps until the end: {missing} bytes are to be fetched, {free} are free in "
                f"{shown(self.path)}; without -resume only the database itself needs room"
            )

    def doubt(self, key: str) -> bool:
        """An object was found damaged; whether it may have been so only here, so that trying again helps.

        First the object itself is let go, then all that an earlier restore has left.
        """
        suspects = [kept for kept in self._kept.values() if kept.key == key and kept.reused]
        if not suspects or self._doubted:
            suspects = [kept for kept in self._kept.values() if kept.reused]
        self._doubted = True
        with self.errors():
            for kept in suspects:
                kept.drop()
        return bool(suspects)

    def close(self, *, succeeded: bool) -> None:
        """Let the lock go; remove everything after a success, and if there is nothing."""
        try:
            with suppress(OSError):
                if succeeded or not any(_OURS.fullmatch(name) for name in os.listdir(self.path)):
                    self._remove(set())
                    os.unlink(os.path.join(self.path, _LOCK))
                    os.rmdir(self.path)
        finally:
            os.close(self._lock)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns what the operating system says into one of our errors."""
        with disk_errors("what -resume keeps", shown(self.path)):
            yield

    def _remove(self, wanted: set[str]) -> None:
        for name in os.listdir(self.path):
            if _OURS.fullmatch(name) and name not in wanted:
                os.unlink(os.path.join(self.path, name))
                self._kept.pop(name, None)


class Spooled(Wrapper):
    """A `Store` whose objects, once they were listed, are read through a spool."""

    def __init__(self, inner: Store, spool: Spool) -> None:
        super().__init__(inner)
        self._spool = spool
        self._listed: dict[str, ObjectInfo] = {}

    async def list(self, prefix: str) -> list[ObjectInfo]:
        infos = await self.inner.list(prefix)
        self._listed.update((info.key, info) for info in infos)
        return infos

    async def get(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        info = self._listed.get(key)
        kept = self._spool.object(self.inner, info) if info is not None else None
        at = start
        while kept is not None and at < kept.have:
            piece = kept.read(at)
            if not piece:
                break
            at += len(piece)
            yield piece
        if kept is not None and at == kept.size:
            return
        async with closing(self._fetch(key, at, kept)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _fetch(self, key: str, at: int, kept: Kept | None) -> AsyncGenerator[bytes, None]:
        """From the store; kept if it follows what is there, and nobody else is fetching the same."""
        async with closing(self.inner.get(key, start=at)) as stream:
            if kept is None or kept.busy or at != kept.have:
                async for chunk in stream:
                    self._spool.fetched += len(chunk)
                    yield chunk
                return
            with ExitStack() as stack:
                with self._spool.errors():
                    fd = stack.enter_context(kept.appending())
                async for chunk in stream:
                    self._spool.fetched += len(chunk)
                    if at == kept.have:  # else another reader has found damage before it
                        with self._spool.errors():
                            kept.append(fd, chunk)
                    at += len(chunk)
                    yield chunk
        if at != kept.size:
            kept.drop()
            raise CorruptObjectError("changed while it was read", key=key)


def spooled(store: Store, spool: Spool) -> Store:
    """`store`, read through a spool; what decrypts stays outside of it."""
    if isinstance(store, Wrapper) and getattr(store, "encrypted", False):
        outer = copy.copy(store)
        outer.inner = spooled(store.inner, spool)
        return outer
    return Spooled(store, spool)


@contextmanager
def opened(output: str) -> Iterator[Spool]:
    """The spool of an output, made if need be, and removed when this ends without an error.

    Raises `RestoreError` if another process uses it, or it cannot be had.
    """
    path = beside(output, TAIL)
    try:
        spool = Spool(path, _lock(path))
    except OSError as error:
        raise RestoreError(f"cannot use {shown(path)}, which -resume needs: {error.strerror or error}") from error
    succeeded = False
    try:
        yield spool
        succeeded = True
    finally:
        spool.close(succeeded=succeeded)


def left_behind(output: str) -> str:
    """Where an interrupted restore has kept something for this output, printable; empty if none has."""
    path = beside(output, TAIL)
    return shown(path) if os.path.isdir(path) else ""


def _lock(path: str) -> int:
    """The lock of the directory, which is made if need be: a descriptor that holds it."""
    name = os.path.join(path, _LOCK)
    for _ in range(_TRIES):
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise RestoreError(f"{shown(path)}, which -resume needs, is no directory of this user's: remove it")
        try:
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            continue  # its owner has just removed it
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(fd)
            there = os.stat(name)
            if (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino):
                os.chmod(path, 0o700)
                return fd
        except FileNotFoundError:
            pass  # as above
        except BlockingIOError:
            os.close(fd)
            raise RestoreError(f"another restore with -resume to this output is running: {shown(path)}") from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise RestoreError(f"another restore with -resume to this output comes and goes: {shown(path)}")


def _name(store: Store, info: ObjectInfo) -> bytes:
    """What names an object's file: a hash of all that tells it from others."""
    text = "\0".join((store.type, store.url, info.key, str(info.size), repr(float(info.modified))))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
