"""Every exception that leaves this package.

::

    LitestreamError
    ├── ConfigError                   litestream.yml or a flag is wrong; the text names the path in the file
    │   └── StoreConfigError          a setting of a replica's store; `setting` is its key
    ├── DatabaseError                 the user's database
    │   ├── DatabaseAbsentError       no file, or one of 0 bytes, yet: wait for it
    │   ├── DatabaseBusyError         somebody holds a lock we need: try again
    │   │   └── DatabaseHeldError     another litestream on this host replicates it; `pid` is its process
    │   ├── NotADatabaseError         encrypted, or no SQLite file at all
    │   ├── JournalModeError          not in WAL mode and we may not or can not switch it
    │   ├── ReadOnlyDatabaseError     the file or its directory cannot be written, WAL needs that
    │   ├── LocalStateError           the directory with the shadow WAL cannot be read or written
    │   └── ContinuityLostError       what was read does not follow what was copied: new generation
    ├── ReplicaError
    │   ├── NoGenerationError         "no generation available"
    │   ├── NoSnapshotsError          "no snapshots available"
    │   ├── GenerationChangedError    the generation changed while a snapshot was written
    │   ├── LeaseLostError            another host writes to the replica by now
    │   ├── PositionError             segments do not line up with the replica's position
    │   ├── ChecksumMismatchError     "invalid replica, checksum mismatch": the restored copy is not the database
    │   └── UpstreamError             the server that is followed cannot be reached, or refuses
    ├── StorageError                  an object store said no; `key` says for which object, `permanent` whether to retry
    │   ├── ObjectNotFoundError
    │   └── ObjectExistsError         create-only put met an object with other content
    ├── FormatError                   bytes are not what their name says
    │   ├── InvalidNameError          a generation, index or offset that is none
    │   ├── CorruptObjectError        `key` names the damaged, missing or foreign object
    │   │   └── EncryptionError       not damaged: no identity decrypts it, or it is not encrypted where all should be
    │   ├── MixedLayoutError          one generation holds names of two layouts
    │   └── LTXReplicaError           a replica of 0.5 (LTX), which this version cannot read
    ├── TooManyFilesError             this process, or the system, has no file descriptors left
    └── RestoreError
        ├── NoBackupError             proved absent: "no matching backups found"
        ├── OutputExistsError         the target, or its -wal, -shm or -journal, is there already
        └── IntegrityCheckError       the restored copy fails SQLite's own check
"""

from __future__ import annotations


class LitestreamError(Exception):
    """Base of all errors of this package. `str()` is one line for a person."""


class ConfigError(LitestreamError):
    """The configuration or the command line is wrong."""


class StoreConfigError(ConfigError):
    """A setting of a replica's store is missing or wrong, or a package for it is not installed.

    Attributes:
        setting: the key of the configuration, as written there (`force-path-style`).
    """

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(message)
        self.setting = setting


class DatabaseError(LitestreamError):
    """Something about the user's database."""


class DatabaseAbsentError(DatabaseError):
    """There is no database (or an empty file) at the path yet."""


class DatabaseBusyError(DatabaseError):
    """A lock could not be had in time."""


class DatabaseHeldError(DatabaseBusyError):
    """Another litestream replicates the database already.

    Attributes:
        pid: its process; 0 where that is not known.
    """

    def __init__(self, message: str, pid: int = 0) -> None:
        super().__init__(message)
        self.pid = pid


class NotADatabaseError(DatabaseError):
    """The file is no (plain) SQLite database."""


class JournalModeError(DatabaseError):
    """The database is not in WAL mode."""


class ReadOnlyDatabaseError(DatabaseError):
    """The database cannot be opened for writing, which WAL mode needs even for readers."""


class LocalStateError(DatabaseError):
    """The local state (shadow WAL) beside the database cannot be read or written: full disk, modes."""


class ContinuityLostError(DatabaseError):
    """What stands in the WAL cannot be proved to follow what was copied; the text is the reason.

    Attributes:
        passed: whether the database may only have gone on unseen: its state then belongs behind what was copied.
    """

    def __init__(self, reason: str, *, passed: bool = False) -> None:
        super().__init__(reason)
        self.passed = passed


class ReplicaError(LitestreamError):
    """Something about one replica of one database."""


class NoGenerationError(ReplicaError):
    """The database has no generation yet."""

    def __init__(self, message: str = "no generation available") -> None:
        super().__init__(message)


class NoSnapshotsError(ReplicaError):
    """No snapshot matches."""

    def __init__(self, message: str = "no snapshots available") -> None:
        super().__init__(message)


class GenerationChangedError(ReplicaError):
    """The database began a new generation while the replica was working on the old one."""


class LeaseLostError(ReplicaError):
    """Another host took the replica over: nothing is stored or deleted there from here any more."""


class PositionError(ReplicaError):
    """Segments do not continue from the replica's position."""


class ChecksumMismatchError(ReplicaError):
    """What was restored from the replica is not what the database is at the same position."""

    def __init__(self, message: str = "invalid replica, checksum mismatch") -> None:
        super().__init__(message)


class UpstreamError(ReplicaError):
    """The server that a database follows cannot be reached, refuses, or broke off."""


class StorageError(LitestreamError):
    """An operation on an object store failed.

    Attributes:
        key: the object's key, or the prefix that was listed.
        permanent: whether trying again without a change is pointless (access denied, no such bucket).
        code: what went wrong in one word, for metrics: AccessDenied, NoSuchBucket, Timeout, Throttled, …
        retry_after: seconds for which the service wants to be left alone; 0 if it did not say.
    """

    def __init__(
        self, message: str, *, key: str = "", permanent: bool = False, code: str = "", retry_after: float = 0.0
    ) -> None:
        super().__init__(message)
        self.key = key
        self.permanent = permanent
        self.code = code
        self.retry_after = retry_after


class ObjectNotFoundError(StorageError):
    """There is no object of that key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"object not found: {key}", key=key, permanent=True, code="NotFound")


class ObjectExistsError(StorageError):
    """A create-only put found an object with other content under the key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"object exists already with other content: {key}", key=key, permanent=True, code="Exists")


class FormatError(LitestreamError):
    """Bytes or names are not what the format says."""


class InvalidNameError(FormatError):
    """A string is no generation, index, offset or position."""


class CorruptObjectError(FormatError):
    """An object of a replica is damaged, missing, or not the one its name says.

    Attributes:
        key: the object's key, empty where only bytes were at hand.
        reason: what is wrong with it.
    """

    def __init__(self, reason: str, *, key: str = "") -> None:
        super().__init__(f"{key}: {reason}" if key else reason)
        self.key = key
        self.reason = reason


class EncryptionError(CorruptObjectError):
    """An object is encrypted and no identity for it is configured, or is plain where encryption is configured."""


class MixedLayoutError(FormatError):
    """One generation holds object names of more than one layout."""


class LTXReplicaError(FormatError):
    """The replica is in the LTX format of the official 0.5, which this version cannot read."""


class TooManyFilesError(LitestreamError):
    """There are no file descriptors left, or only those that what runs already needs."""


class RestoreError(LitestreamError):
    """A restore could not be done; no output is left behind."""


class NoBackupError(RestoreError):
    """The replica was read and there is no backup in it (never raised when it could not be read)."""

    def __init__(self, message: str = "no matching backups found") -> None:
        super().__init__(message)


class OutputExistsError(RestoreError):
    """The output file, or a -wal, -shm or -journal beside it, exists."""


class IntegrityCheckError(RestoreError):
    """SQLite's own check fails on the restored copy."""
