"""The control socket: a Unix socket that serves the control API to root and to our own user, whatever its mode."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct

from litestream.errors import ConfigError
from litestream.web.api import Control, application
from litestream.web.protocol import answer, bounded
from litestream.web.running import Running, run

CONNECTIONS = 1024
"""Connections at a time: more are told to come back."""

_STRANGERS = 1.0
"""Seconds for which one that is refused may keep a connection."""

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_REFUSED = b'{"error": "permission denied", "details": "only root and the user of the replicator may control it"}\n'


class ControlSocket:
    """A socket that is being served until `close`."""

    def __init__(self, control: Control, path: str, permissions: int = 0o600) -> None:
        self._control = control
        self.path = path
        self._permissions = permissions
        self._running: Running | None = None
        self._socket: socket.socket | None = None
        self._inode = (0, 0)

    async def start(self) -> None:
        """Begin to serve. Raises `ConfigError`: the directory or the path does not do, or another process serves it."""
        self._socket = _listen(self.path, self._permissions)
        info = os.lstat(self.path)
        self._inode = (info.st_dev, info.st_ino)
        self._running = run(
            application(self._control),
            [self._socket],
            "control socket",
            http=_checking_protocol(),
        )

    async def close(self) -> None:
        """Stop serving, and remove the socket if it is still ours. May be called twice."""
        if self._running is not None:
            await self._running.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            with contextlib.suppress(OSError):
                info = os.lstat(self.path)
                if (info.st_dev, info.st_ino) == self._inode:
                    os.unlink(self.path)


def may_control(uid: int) -> bool:
    """Whether a process of this user may control us."""
    return uid in (0, os.geteuid())


def _checking_protocol() -> type[asyncio.Protocol]:
    """The protocol, with a look at who connects."""

    class Protocol(bounded(CONNECTIONS)):  # type: ignore[misc]  # a class made at run time, since uvicorn is
        refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.refused = not may_control(_peer(transport))
            if self.refused:
                self.loop.call_later(_STRANGERS, transport.abort)

        def data_received(self, data: bytes) -> None:
            if not self.refused:
                super().data_received(data)
            elif not self.transport.is_closing():
                self.transport.write(answer(403, "Forbidden", "application/json", _REFUSED))
                self.transport.close()

    return Protocol


def _peer(transport: asyncio.BaseTransport) -> int:
    """The user id at the other end; -1 where the system does not tell, which is nobody's."""
    sock = transport.get_extra_info("socket")
    if not hasattr(socket, "SO_PEERCRED"):
        return os.geteuid()  # the socket's mode and its directory have to do
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])


def _listen(path: str, permissions: int) -> socket.socket:
    """A listening socket at `path`, never for a moment with more rights than it shall have. Raises `ConfigError`."""
    _check_directory(os.path.dirname(path) or ".")
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(sock.fileno(), 0o600)  # Linux: what bind makes has this mode
        sock.bind(path)
        os.chmod(path, permissions)
        sock.listen(128)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError(f"socket.path: cannot listen on {path}: {error.strerror or error}") from error
    return sock


def _check_directory(directory: str) -> None:
    """Raise `ConfigError` for a directory in which others could replace the socket by one of theirs."""
    try:
        info = os.stat(directory)
    except OSError as error:
        raise ConfigError(f"socket.path: the directory {directory}: {error.strerror}: create it") from error
    if not stat.S_ISDIR(info.st_mode):
        raise ConfigError(f"socket.path: {directory} is not a directory")
    if info.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"socket.path: the directory {directory} belongs to another user: take one of your own")
    if info.st_mode & 0o022 and not info.st_mode & stat.S_ISVTX:
        raise ConfigError(
            f"socket.path: others may write to the directory {directory}, and so replace the socket: chmod go-w it"
        )


def _remove_stale(path: str) -> None:
    """Remove what a killed process left. Raises `ConfigError` if somebody listens there, or it is no socket of ours."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"socket.path: {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(info.st_mode):
        raise ConfigError(f"socket.path: {path} exists and is no socket: choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            pass  # nobody listens any more
        except OSError as error:
            raise ConfigError(f"socket.path: {path}: {error.strerror or error}") from error
        else:
            raise ConfigError(
                f"socket.path: another process listens on {path}: stop it, or give this one a path of its own"
            )
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
