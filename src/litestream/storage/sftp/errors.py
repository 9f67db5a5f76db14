"""What asyncssh's exceptions say, as one line of ours."""

from __future__ import annotations

import os
import socket
from functools import cache
from typing import TYPE_CHECKING

from litestream.errors import StorageError

if TYPE_CHECKING:
    import asyncssh

MISSING = "NotFound"
_LONGEST = 200
"""Characters of what a server says that are passed on."""


@cache
def BROKEN() -> tuple[type[Exception], ...]:  # noqa: N802 - a constant that needs the library
    """Exceptions after which a connection is of no use."""
    import asyncssh

    return (
        asyncssh.DisconnectError,
        asyncssh.SFTPConnectionLost,
        asyncssh.SFTPNoConnection,
        asyncssh.SFTPBadMessage,
        ConnectionError,
    )


@cache
def ABSENT() -> tuple[type[Exception], ...]:  # noqa: N802 - as above
    """Exceptions that say that there is nothing of that name."""
    import asyncssh

    return asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory


@cache
def _table() -> tuple[tuple[type[Exception], str, bool, str], ...]:
    """(class, code, permanent, what it is and what to do; empty: what the server says)."""
    import asyncssh

    access = "check who owns the directories there, and their modes"
    return (
        (asyncssh.SFTPPermissionDenied, "AccessDenied", True, f"permission denied ({access})"),
        (asyncssh.SFTPWriteProtect, "AccessDenied", True, "the file system there is read-only"),
        (asyncssh.SFTPNoSpaceOnFilesystem, "DiskFull", False, "the disk there is full (free space)"),
        (asyncssh.SFTPQuotaExceeded, "DiskFull", False, "the quota there is used up (free space)"),
        (asyncssh.SFTPNoSuchFile, MISSING, False, "no such file or directory"),
        (asyncssh.SFTPNoSuchPath, MISSING, False, "no such directory"),
        (asyncssh.SFTPOpUnsupported, "Unsupported", True, "the server cannot do that"),
        (asyncssh.SFTPConnectionLost, "Connection", False, "the connection was cut"),
        (asyncssh.SFTPNoConnection, "Connection", False, "the connection was cut"),
        (asyncssh.SFTPBadMessage, "Connection", False, "the server does not speak SFTP as it should"),
        (asyncssh.SFTPEOFError, "Connection", False, "the file ended early"),
        (asyncssh.SFTPError, "Failure", False, ""),
        (asyncssh.KeyExchangeFailed, "Handshake", True, ""),
        (
            asyncssh.ChannelOpenError,
            "Unavailable",
            False,
            "the server opens no SFTP session (may the user?)",
        ),
        (asyncssh.ConnectionLost, "Connection", False, "the connection was cut"),
        (asyncssh.ProtocolError, "Connection", False, "this is no SSH server, or the connection is disturbed"),
        (asyncssh.DisconnectError, "Connection", False, ""),
        (TimeoutError, "Timeout", False, "no answer in time"),
        (ConnectionRefusedError, "Connection", False, "connection refused (is the server running?)"),
        (ConnectionError, "Connection", False, "the connection was cut"),
        (socket.gaierror, "Connection", False, "the host name cannot be resolved"),
    )


def storage_error(
    error: Exception, url: str, action: str, key: str = "", *, tried: str = "", hint: str = ""
) -> StorageError:
    """`error` as a `StorageError`. `tried` says what was logged in with; `hint` replaces the server's words."""
    import asyncssh

    what = f"{url}: cannot {action}{f' {shown(key)}' if key or action != 'connect' else ''}"
    if isinstance(error, asyncssh.PermissionDenied):
        text = (
            f"{what}: the server refuses the user with {tried or 'what it was given'} (check user, key-path, password)"
        )
        return StorageError(text, key=key, permanent=True, code="AccessDenied")
    for kind, code, permanent, words in _table():
        if isinstance(error, kind):
            return StorageError(f"{what}: {hint or words or said(error)}", key=key, permanent=permanent, code=code)
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else said(error)
    return StorageError(f"{what}: {hint or reason}", key=key, code="Connection")


def shown(key: str) -> str:
    """A key for a message."""
    return key.encode("utf-8", "backslashreplace").decode() or "the directory"


def said(error: Exception | asyncssh.Error) -> str:
    """The server's words, as part of one line."""
    text = " ".join("".join(char if char.isprintable() else " " for char in str(error)).split())
    return text[:_LONGEST] or type(error).__name__
