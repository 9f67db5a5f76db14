"""Local files that survive a power cut: atomic writes, directory fsync, modes and owners.

The order is always the same: bytes into a temporary file beside the target, fsync, the final name, fsync of the
directory. Everything here blocks, and raises plain `OSError`: whoever knows which object it was translates.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from litestream.direct import Appender

StrPath = str | os.PathLike[str]
Owner = tuple[int, int]
"""User id and group id."""

_TEMP_NAME = re.compile(r"\..*\.(\d+)-[0-9a-f]{16}\.tmp", re.DOTALL)
_NAME_MAX = 255
"""Bytes in a file name on every Linux file system in use; the temporary name is longer than the final one."""
_STALE_AFTER = 60.0
"""Seconds after which an unlocked temporary file is a leftover even if a process of its number lives."""
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_NO_DIRECTORY_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1  # <linux/fcntl.h>, <linux/fs.h>
_check_and_rename = threading.Lock()
_writing: set[str] = set()
"""Temporary names in use in this process."""


class FileBytes(bytes):
    """Bytes that also are the content of a file which never changes: whoever is to store them there may link it.

    Attributes:
        path: of that file.
        inode: device and inode of it.
    """

    path: str = ""
    inode: tuple[int, int] = (0, 0)

    @classmethod
    def read(cls, path: str) -> Self:
        """The whole file. Raises `OSError`."""
        with open(path, "rb", buffering=0) as file:
            body, status = cls(file.readall()), os.fstat(file.fileno())
        body.path, body.inode = path, (status.st_dev, status.st_ino)
        return body


@dataclass(frozen=True, slots=True)
class Access:
    """Modes and owner for what is derived from a file, never wider than that file's."""

    file_mode: int = 0o600
    dir_mode: int = 0o700
    owner: Owner | None = None


def access_of(path: StrPath) -> Access:
    """The modes and owner that copies of `path` (a database) may have. Only asks for its status, never opens it."""
    status = os.stat(path)
    file_mode = stat.S_IMODE(status.st_mode) & 0o666
    # Whoever may read the file may enter the directory.
    return Access(file_mode, file_mode | (file_mode & 0o444) >> 2 | 0o700, (status.st_uid, status.st_gid))


def is_temp_name(name: str) -> bool:
    """Whether `name` is that of a temporary file of this module."""
    return name.endswith(".tmp") and _TEMP_NAME.fullmatch(name) is not None


class AtomicFile:
    """A file that gets its final name only when it is whole and durable.

    Use as a context manager, or call `discard()` in the end: what was not published leaves nothing behind. The
    temporary file is locked (flock) while it is written, so that `remove_stale_temps` spares it.

    Args:
        past_cache: what is written goes past the page cache, where the file system can do that: for large files. It
            may be in memory until `publish`.
    """

    def __init__(
        self, path: StrPath, *, mode: int = 0o600, owner: Owner | None = None, past_cache: bool = False
    ) -> None:
        self.path = os.fspath(path)
        self.temp = _temp_path(self.path)
        self._published = False
        self._replaced = False
        self._appender: Appender | None = None
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self.fd = -1
        _writing.add(os.path.basename(self.temp))
        try:
            self.fd = os.open(self.temp, flags, 0o600 & mode)
            _lock(self.fd)
            _grant(self.fd, mode, owner)
            if past_cache:
                from litestream.direct import Appender

                self._appender = Appender(self.fd)
        except BaseException:
            self.discard()
            raise

    @classmethod
    def linked(cls, path: StrPath, data: FileBytes, *, mode: int = 0o600, owner: Owner | None = None) -> Self | None:
        """A file whose bytes are `data`, by a second name of the file where these stand: nothing is copied.

        None where that cannot be: another file system, other modes or another owner than asked for.
        """
        self = cls.__new__(cls)
        self.path, self.temp = os.fspath(path), _temp_path(os.fspath(path))
        self._published = self._replaced = False
        self._appender = None
        self.fd = -1
        try:
            os.link(data.path, self.temp, follow_symlinks=False)
        except OSError:
            return None
        _writing.add(os.path.basename(self.temp))
        try:
            self.fd = os.open(self.temp, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            status = os.fstat(self.fd)
            granted = stat.S_IMODE(status.st_mode) == mode and owner in (None, (status.st_uid, status.st_gid))
            if granted and ((status.st_dev, status.st_ino), status.st_size) == (data.inode, len(data)):
                _lock(self.fd)
                return self
        except OSError:
            pass  # it will do to write the bytes
        if self.fd < 0:
            with contextlib.suppress(OSError):
                os.unlink(self.temp)
        self.discard()
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`."""
        if self._appender is not None:
            self._appender.append(data)
            return
        done = os.write(self.fd, data)
        while done < len(data):
            done += os.write(self.fd, memoryview(data)[done:])

    def publish(self, *, create_only: bool = False, durable: bool = True) -> os.stat_result:
        """Make the bytes durable, give the file its name, make the name durable; the file's status.

        Without `durable` neither is flushed: whole after a crash of the process, perhaps torn after one of the host.
        With `create_only`, `FileExistsError` when the name is taken (the temporary file is still there then, to
        compare). After any other failure a name that was new is taken back: a name that is there but perhaps not
        durable must not look like success to a second try.
        """
        if self._appender is not None:
            self._appender.finish()
        if not durable:
            self._stop_writing()
            self._name(create_only=create_only)
            return os.fstat(self.fd)
        os.fsync(self.fd)
        self._stop_writing()
        # Opened before the name exists: who deletes the object at once may take the directory with it.
        directory = os.open(os.path.dirname(self.path) or ".", _DIRECTORY)
        try:
            self._name(create_only=create_only)
            try:
                _fsync_names(directory)
            except BaseException:
                self.retract()
                raise
        finally:
            os.close(directory)
        return os.fstat(self.fd)

    def _stop_writing(self) -> None:
        """Keep the file by a descriptor that only reads: who watches the directory must see one whole file moved in,
        not a writer that ends behind it.
        """
        reader = os.open(self.temp, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        os.close(self.fd)
        self.fd = reader
        _lock(reader)

    def _name(self, *, create_only: bool) -> None:
        if create_only:
            _name_new(self.temp, self.path)
        else:
            self._replaced = os.path.lexists(self.path)
            os.rename(self.temp, self.path)
        self._published = True

    def retract(self) -> None:
        """Take a published name back, as far as possible: nothing stood under it before, and it is still ours."""
        if not self._published or self._replaced:
            return
        self._published = False
        try:
            ours, there = os.fstat(self.fd), os.lstat(self.path)
            if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino):
                os.unlink(self.path)
        except OSError:
            pass  # gone already, or a sick disk: what stays is whole

    def discard(self) -> None:
        """Close the file; remove it unless it was published. May be called twice."""
        _writing.discard(os.path.basename(self.temp))
        if self._appender is not None:
            self._appender.close()
        if self.fd < 0:
            return
        try:
            if not self._published:
                os.unlink(self.temp)
        except OSError:
            pass  # moved away already, or a sick disk: a leftover is removed by the next writer in the directory
        finally:
            fd, self.fd = self.fd, -1
            os.close(fd)


def write_atomic(
    path: StrPath,
    data: bytes | Iterable[bytes],
    *,
    mode: int = 0o600,
    owner: Owner | None = None,
    create_only: bool = False,
) -> os.stat_result:
    """Write a file, whole and durable or not at all; the status of the new file.

    The directory must exist. `FileExistsError` with `create_only` when the name is taken; otherwise the file there
    is replaced. An owner that we may not give costs the group and others their access.
    """
    with AtomicFile(path, mode=mode, owner=owner) as file:
        for chunk in (data,) if isinstance(data, bytes) else data:
            file.write(chunk)
        return file.publish(create_only=create_only)


def fsync_file(path: StrPath) -> None:
    """Make the bytes of a file durable that was written before, perhaps by another process."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_dir(path: StrPath) -> None:
    """Make the names in a directory durable. File systems that cannot fsync a directory need none."""
    fd = os.open(path, _DIRECTORY)
    try:
        _fsync_names(fd)
    finally:
        os.close(fd)


def _fsync_names(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as e:
        if e.errno not in _NO_DIRECTORY_FSYNC:
            raise


def make_dirs(path: StrPath, mode: int = 0o700, owner: Owner | None = None) -> None:
    """Make a directory and the missing ones above it, each durable in its parent. It may exist."""
    missing = []
    head = os.fspath(path).rstrip("/") or "/"
    while head and not os.path.isdir(head):
        missing.append(head)
        head = os.path.dirname(head)
    for directory in reversed(missing):
        try:
            os.mkdir(directory, 0o700 & mode)
        except FileExistsError:
            if not os.path.isdir(directory):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), directory) from None
        else:
            _grant_dir(directory, mode, owner)
        fsync_dir(os.path.dirname(directory) or ".")


def remove_stale_temps(directory: StrPath) -> None:
    """Remove the temporary files that dead writers left in a directory.

    A leftover is one that nobody has locked, whose process is gone, or had our number, or lives but has not written
    for a minute (another process of the number, most likely). What cannot be removed is left: it harms nobody.
    """
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if is_temp_name(entry.name)]
    for name in names:
        try:
            _remove_if_stale(os.path.join(directory, name), name)
        except OSError:
            continue  # gone meanwhile, or another user's


def _remove_if_stale(path: str, name: str) -> None:
    status = os.lstat(path)
    match = _TEMP_NAME.fullmatch(name)
    if match is None or not stat.S_ISREG(status.st_mode) or name in _writing:
        return
    pid = int(match[1])
    if pid != os.getpid() and _alive(pid) and time.time() - status.st_mtime < _STALE_AFTER:
        return
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # A living writer, in another container too, holds the lock.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(fd)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _temp_path(path: str) -> str:
    directory, name = os.path.split(path)
    tail = f".{os.getpid()}-{secrets.token_hex(8)}.tmp"
    raw = os.fsencode(name)
    if len(raw) <= _NAME_MAX:  # one that is too long by itself shall fail, not be cut
        name = os.fsdecode(raw[: _NAME_MAX - len(tail) - 1])
    return os.path.join(directory, f".{name}{tail}")


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pass  # no locks on this file system: the minute in remove_stale_temps has to do


def _grant(fd: int, mode: int, owner: Owner | None) -> None:
    """Give a new file (made with 0600 or less) its owner and mode; less than asked where that is not allowed."""
    if owner is not None:
        status = os.fstat(fd)
        try:
            if (status.st_uid, status.st_gid) != owner:
                os.fchown(fd, *owner)
        except OSError:
            # Its group bits would then speak of another group than the source's.
            mode &= 0o700
    if mode != 0o600:
        try:
            os.fchmod(fd, mode)
        except PermissionError:
            pass  # a file system without modes: it keeps the narrower one


def _grant_dir(directory: str, mode: int, owner: Owner | None) -> None:
    if mode == 0o700 and owner is None:
        return
    fd = os.open(directory, _DIRECTORY | os.O_NOFOLLOW)
    try:
        _grant(fd, mode, owner)
    finally:
        os.close(fd)


def _name_new(temp: str, path: str) -> None:
    """Rename without replacing: `FileExistsError` if `path` exists."""
    if rename_new(temp, path):
        return
    try:
        os.link(temp, path)
    except OSError as e:
        if e.errno not in _NO_HARD_LINKS:
            raise
    else:
        try:
            os.unlink(temp)
        except OSError:
            pass  # the object has its name; a second one is a leftover, removed later
        return
    # vfat, some network file systems: two processes may race here, two tasks of this one may not.
    with _check_and_rename:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        os.rename(temp, path)


def rename_new(temp: str, path: str) -> bool:
    """renameat2(2) with RENAME_NOREPLACE; False where the system or the file system has it not.

    One step, and whoever watches the directory sees a file moved in, as with any other atomic write.
    """
    renameat2 = getattr(_libc(), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(temp), _AT_FDCWD, os.fsencode(path), _RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code), temp, None, path)


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
