"""One attached database: its connections, and the only file descriptors this process has on its files.

POSIX drops every lock that a process holds on a file when *any* of its descriptors on it is closed. So the descriptors
on the database file and on `-shm` live as long as the attachment, and are closed after its last connection.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
import sys
import threading
import time
from dataclasses import dataclass

import apsw

from litestream.core.wal import WAL_HEADER_SIZE
from litestream.core.walindex import WalIndexHeader, parse_wal_index
from litestream.descriptors import is_lacking, too_many
from litestream.errors import (
    DatabaseAbsentError,
    DatabaseBusyError,
    DatabaseError,
    JournalModeError,
    NotADatabaseError,
    ReadOnlyDatabaseError,
)
from litestream.sqlite.connection import connect, printable, translated

_MAGIC = b"SQLite format 3\0"
_WAL_INDEX_SIZE = 136  # both copies of the header, the backfill count and the read marks
_SPARE_CONNECTIONS = 1
_READ_TIMEOUT = 0.05  # a reader meets a lock only during recovery: try again later rather than wait
_LOCK_PAUSE = 0.0002
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock of 64-bit Linux
_KNOWN_FLOCK = sys.platform.startswith("linux") and sys.maxsize > 1 << 32
_CHECKPOINT_LOCK = 121
_opened: set[tuple[int, int]] = set()
"""Device and inode of each database file that this process has open: a second opener's close would drop its locks."""
_claiming = threading.Lock()


@dataclass(slots=True)
class Reader:
    """A connection inside a read transaction. `at_rest`: it read a WAL that was wholly backfilled (mark 0)."""

    connection: apsw.Connection
    at_rest: bool
    frames: int
    """Frames that were committed when it began: so far it lets a checkpoint get, at least."""


class Source:
    """An open database. Blocking; the caller serialises.

    Raises `DatabaseAbsentError` (absent or 0 bytes), `NotADatabaseError`, `ReadOnlyDatabaseError` on opening.
    """

    def __init__(self, path: str, busy_timeout: float = 1.0) -> None:
        self.path = path
        self._name = printable(path)
        self._busy_timeout = busy_timeout
        self._spare: list[apsw.Connection] = []
        self._in_use = 0
        self._pool = threading.Lock()  # a PASSIVE checkpoint runs beside copying, on a connection of its own
        self._shm = -1
        self._wal = -1
        self._identity = _claim(path, self._name)
        self._database = -1
        try:
            self._database = _open_database(path, self._name)
            header = os.pread(self._database, 100, 0)
            if len(header) < 100:
                raise DatabaseAbsentError(f"database is empty: {self._name}")
            if header[:16] != _MAGIC:
                raise NotADatabaseError(
                    f"not a SQLite database, or an encrypted one (its header is missing): {self._name}"
                )
            size = struct.unpack_from(">H", header, 16)[0]
            self.page_size = 65536 if size == 1 else size
        except BaseException:
            self._close_files()
            raise

    # -- mode

    @property
    def is_wal(self) -> bool:
        """Whether the file's header says WAL mode (bytes 18 and 19 are 2)."""
        return os.pread(self._database, 2, 18) == b"\x02\x02"

    def switch_to_wal(self) -> None:
        """Turn WAL mode on. Raises `DatabaseBusyError` while somebody uses the database."""
        connection = self._take()
        try:
            with translated(self.path):
                connection.set_busy_timeout(int(self._busy_timeout * 1000))
                mode = connection.execute("PRAGMA journal_mode = wal").fetchall()[0][0]
                connection.set_busy_timeout(int(_READ_TIMEOUT * 1000))
        finally:
            self._give(connection)
        if mode != "wal":
            raise JournalModeError(f"cannot switch to WAL mode (it stays {mode}): {self._name}")

    # -- readers and locks

    def begin_reader(self) -> Reader:
        """Begin a read transaction; its mark is taken here. Raises `DatabaseBusyError`: nothing has changed then.

        Raises `JournalModeError` (and ends it) if the database is not in WAL mode: a reader would block commits.
        """
        connection = self._take()
        before = self.wal_index()
        try:
            with translated(self.path):
                connection.execute("BEGIN")
                # user_version is read from page 1 and works even with a schema that does not parse.
                connection.execute("PRAGMA user_version").fetchall()
            if not self.is_wal:
                raise JournalModeError(f"not in WAL mode: {self._name}")
            self._open_shm()
            # Mark 0 only if all was backfilled already when the mark was taken, not if it came to be so afterwards.
            index = self.wal_index()
            at_rest = index is not None and index == before and index[0].max_frame == index[1]
            same = index is not None and before is not None and index[0].salts == before[0].salts
            return Reader(connection, at_rest, before[0].max_frame if before is not None and same else 0)
        except FileNotFoundError as error:
            self._end(connection)
            raise DatabaseBusyError(f"the wal-index file is gone: {self._name}") from error
        except BaseException:
            self._end(connection)
            raise

    def end_reader(self, reader: Reader) -> None:
        """End a read transaction. Its connection is kept for the next one."""
        self._end(reader.connection)

    def is_checkpointed(self) -> bool:
        """Whether another process holds the checkpoint lock, and may be waiting for our reader; true if that cannot be
        told. Changes nothing: F_GETLK only asks (walformat.html, "WAL Locks": byte 121 of `-shm`).
        """
        if self._shm < 0 or not _KNOWN_FLOCK:
            return True
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _CHECKPOINT_LOCK, 1, 0)
        try:
            (kind, *_) = _FLOCK.unpack(fcntl.fcntl(self._shm, fcntl.F_GETLK, asked))
        except OSError:
            return True
        return bool(kind != fcntl.F_UNLCK)

    def hold_checkpoints(self) -> None:
        """Keep other processes from checkpointing until `let_checkpoints`, or the end of a checkpoint of ours.

        What a busy application finds when our reader moves on, it would backfill itself, within a commit. One that
        holds the lock already goes on. A shared lock is enough, and all that a descriptor for reading can have; SQLite
        in this process is not kept out by it. The caller keeps checkpoints of ours from running into this.
        """
        self._lock_checkpoints(fcntl.F_RDLCK)

    def let_checkpoints(self) -> None:
        """End `hold_checkpoints`; nothing if it has ended."""
        self._lock_checkpoints(fcntl.F_UNLCK)

    def _lock_checkpoints(self, kind: int) -> None:
        if self._shm >= 0 and _KNOWN_FLOCK:
            with contextlib.suppress(OSError):  # it only saves the application work
                fcntl.fcntl(self._shm, fcntl.F_SETLK, _FLOCK.pack(kind, os.SEEK_SET, _CHECKPOINT_LOCK, 1, 0))

    def lock_writers(self, timeout: float) -> apsw.Connection | None:
        """Take the write lock, waiting `timeout` seconds at most; None if it cannot be had."""
        connection = self._take()
        deadline = time.monotonic() + timeout
        try:
            # SQLite's own waiting asks less and less often, and hardly ever meets the gap between two commits.
            connection.set_busy_timeout(0)
            while not self._begin_immediate(connection):
                if time.monotonic() >= deadline:
                    connection.set_busy_timeout(int(_READ_TIMEOUT * 1000))
                    self._end(connection)
                    return None
                time.sleep(_LOCK_PAUSE)
            connection.set_busy_timeout(int(_READ_TIMEOUT * 1000))
            return connection
        except BaseException:
            self._drop(connection)
            raise

    def _begin_immediate(self, connection: apsw.Connection) -> bool:
        try:
            with translated(self.path):
                connection.execute("BEGIN IMMEDIATE")
        except DatabaseBusyError:
            return False
        return True

    def unlock_writers(self, connection: apsw.Connection) -> None:
        """Let the write lock go. Nothing was written, so not a byte of the WAL changes."""
        self._end(connection)

    def checkpoint_passive(self) -> tuple[bool, int, int]:
        """A PASSIVE checkpoint on a connection of its own: (complete, frames in the WAL, frames backfilled).

        Complete only with busy = 0 and log = checkpointed: somebody else's running checkpoint answers
        (1, -1, -1), where the two are equal as well.
        """
        connection = self._take()
        try:
            with translated(self.path):
                row = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()[0]
        except DatabaseBusyError:
            return False, -1, -1
        finally:
            self._give(connection)
        busy, frames, backfilled = (int(str(number)) for number in row)
        return busy == 0 and frames == backfilled, frames, backfilled

    # -- what stands in the files

    def wal_index_raw(self) -> bytes:
        """The first 136 bytes of `-shm` as they are now; empty before the first reader began."""
        return os.pread(self._shm, _WAL_INDEX_SIZE, 0) if self._shm >= 0 else b""

    def wal_index(self) -> tuple[WalIndexHeader, int] | None:
        """The wal-index header and the number of frames backfilled; None while it is being written."""
        for _ in range(100):
            parsed = parse_wal_index(self.wal_index_raw())
            if parsed is not None:
                return parsed
        return None

    def wal_header(self) -> bytes:
        """The 32 bytes that begin the WAL, or fewer where there are not so many."""
        return self.read_wal(0, WAL_HEADER_SIZE)

    def wal_size(self) -> int | None:
        """Bytes in the WAL file, None if there is none. Says nothing about what is committed."""
        return os.fstat(self._wal).st_size if self._open_wal() else None

    def read_wal(self, offset: int, size: int) -> bytes:
        """Bytes of the WAL file; fewer than `size` where it ends."""
        return os.pread(self._wal, size, offset) if self._open_wal() else b""

    def database_size(self) -> int:
        """Bytes in the database file."""
        return os.fstat(self._database).st_size

    def read_database(self, offset: int, size: int) -> bytes:
        """Bytes of the database file, through the one descriptor on it."""
        return os.pread(self._database, size, offset)

    def read_database_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` with bytes of the database file; fewer than it holds where the file ends."""
        done = 0
        while done < len(buffer) and (count := os.preadv(self._database, [buffer[done:]], offset + done)):
            done += count
        return done

    def identity(self) -> tuple[int, int]:
        """Device and inode of the database file."""
        info = os.fstat(self._database)
        return info.st_dev, info.st_ino

    def replaced(self) -> str:
        """Which of the files on disk is no longer the one opened here, as a reason; empty if none is."""
        for descriptor, suffix, what in (
            (self._database, "", "database file"),
            (self._wal, "-wal", "wal file"),
            (self._shm, "-shm", "wal-index file"),
        ):
            if descriptor < 0:
                continue
            mine = os.fstat(descriptor)
            try:
                theirs = os.stat(self.path + suffix)
            except (FileNotFoundError, NotADirectoryError):
                return f"{what} deleted"
            except OSError as error:
                raise DatabaseError(f"cannot look at the {what}: {self._name}: {error.strerror}") from error
            if (mine.st_dev, mine.st_ino) != (theirs.st_dev, theirs.st_ino):
                return f"{what} replaced"
        return ""

    # -- closing

    def trim(self) -> None:
        """Close connections that were only needed while something moved."""
        with self._pool:
            while self._spare:
                self._spare.pop().close()

    def close(self) -> None:
        """Close everything. Readers and locks must have been ended; the descriptors go last."""
        self.trim()
        if self._in_use:
            raise DatabaseError(f"{self._name}: closed with {self._in_use} connections in use")
        self._close_files()

    def _close_files(self) -> None:
        for descriptor in (self._wal, self._shm, self._database):
            if descriptor >= 0:
                os.close(descriptor)
        self._wal = self._shm = self._database = -1
        _opened.discard(self._identity)

    # -- inside

    def _take(self) -> apsw.Connection:
        with self._pool:
            connection = self._spare.pop() if self._spare else connect(self.path, _READ_TIMEOUT)
            self._in_use += 1
            return connection

    def _give(self, connection: apsw.Connection) -> None:
        with self._pool:
            self._in_use -= 1
            if len(self._spare) < _SPARE_CONNECTIONS:
                self._spare.append(connection)
            else:
                connection.close()

    def _end(self, connection: apsw.Connection) -> None:
        """End its transaction, which always succeeds: where ROLLBACK does not, closing does."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except apsw.Error:
            self._drop(connection)
        else:
            self._give(connection)

    def _drop(self, connection: apsw.Connection) -> None:
        with self._pool:
            self._in_use -= 1
            connection.close(True)

    def _open_shm(self) -> None:
        if self._shm < 0:
            self._shm = os.open(self.path + "-shm", os.O_RDONLY | os.O_CLOEXEC)

    def _open_wal(self) -> bool:
        if self._wal < 0:
            try:
                self._wal = os.open(self.path + "-wal", os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
        return True


def is_open(path: str) -> bool:
    """Whether this process has the file open as a database."""
    info = os.stat(path)
    return (info.st_dev, info.st_ino) in _opened


def is_database(path: str) -> bool | None:
    """Whether the file at `path` is regular and begins as a SQLite database; None if this process has it open already,
    or it is being replaced just now.

    One that is open is not looked into: closing another descriptor on it would drop its locks. Raises `OSError`.
    """
    info = os.stat(path)
    identity = info.st_dev, info.st_ino
    if not stat.S_ISREG(info.st_mode) or info.st_size < len(_MAGIC):
        return False
    with _claiming:
        if identity in _opened:
            return None
        _opened.add(identity)  # nobody begins with it before this descriptor is closed
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        found = os.fstat(descriptor)
        if (found.st_dev, found.st_ino) != identity:
            # Replaced since the look, and perhaps by a file that is open here: that one must not be closed.
            if (found.st_dev, found.st_ino) not in _opened:
                os.close(descriptor)
            return None
        try:
            return os.pread(descriptor, len(_MAGIC), 0) == _MAGIC
        finally:
            os.close(descriptor)
    finally:
        _opened.discard(identity)


def _claim(path: str, name: str) -> tuple[int, int]:
    """Note the file as open in this process. Raises `DatabaseBusyError` if it is, `DatabaseAbsentError` without one."""
    try:
        info = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatabaseAbsentError(f"database does not exist: {name}") from error
    except OSError as error:
        raise ReadOnlyDatabaseError(f"cannot open database: {name}: {error.strerror}") from error
    identity = info.st_dev, info.st_ino
    with _claiming:
        if identity in _opened:
            raise DatabaseBusyError(
                f"another litestream replicates this database already (process {os.getpid()}): stop that one first"
            )
        _opened.add(identity)
    return identity


def _open_database(path: str, name: str) -> int:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise NotADatabaseError(f"is a directory or a device, not a database: {name}")
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatabaseAbsentError(f"database does not exist: {name}") from error
    except OSError as error:
        if is_lacking(error):
            raise too_many(error) from error
        raise ReadOnlyDatabaseError(f"cannot open database: {name}: {error.strerror}") from error
