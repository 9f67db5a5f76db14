"""The SSH connection of an `sftp` store: logging in, asking, and giving up a server that does not answer."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from litestream.errors import StorageError
from litestream.storage.sftp.errors import BROKEN, storage_error
from litestream.storage.sftp.hosts import HostKeys, check_pins
from litestream.storage.wrappers.progress import progress

if TYPE_CHECKING:
    import asyncssh

    from litestream.storage.sftp import SFTPConfig

T = TypeVar("T")

CONNECT = 30.0
"""Seconds for the connection and the login."""
_KEEPALIVE = 30.0
"""Seconds without a word after which the server is asked whether it is there; more than one silence ends it."""
_GRACE = 0.5
"""Seconds for which the end of a request is waited for that nobody wants any more."""
_SILENCE = 1.0
"""Seconds; who gives up after a longer silence of the server takes the connection with him: it may be dead."""


class SFTPLink:
    """A connection with one SFTP session, for any number of requests at once."""

    def __init__(self, connection: asyncssh.SSHClientConnection, sftp: asyncssh.SFTPClient) -> None:
        self.sftp = sftp
        self._connection = connection
        self._heard = time.monotonic()
        self._broken = False

    @property
    def alive(self) -> bool:
        return not self._broken and not self._connection.is_closed()

    async def ask(self, request: Coroutine[Any, Any, T]) -> T:
        """The answer to a request. Cancelled, it ends within about half a second, whatever the server does."""
        task = asyncio.create_task(request)
        began = time.monotonic()
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            if time.monotonic() - max(began, self._heard) > _SILENCE:
                self.abort()
            await asyncio.wait([task], timeout=_GRACE)
            if not task.done():
                self.abort()
                await asyncio.wait([task], timeout=_GRACE)
            task.add_done_callback(_forget)
            raise
        self._heard = time.monotonic()
        progress()
        if isinstance(task.exception(), BROKEN()):
            self.abort()
        return task.result()

    async def tidy(self, request: Coroutine[Any, Any, object]) -> bool:
        """Make a request whose failure harms nobody, within half a second; whether it was done."""
        task = asyncio.create_task(request)
        done, _ = await asyncio.wait([task], timeout=_GRACE)
        if not done:
            self.abort()
            await asyncio.wait([task], timeout=_GRACE)
        task.add_done_callback(_forget)
        return task.done() and not task.cancelled() and task.exception() is None

    def abort(self) -> None:
        """Break the connection off; what waits for an answer gets an error."""
        self._broken = True
        self._connection.abort()

    async def close(self) -> None:
        if not self._broken:
            self._connection.close()
        try:
            async with asyncio.timeout(_GRACE):
                await self._connection.wait_closed()
        except TimeoutError:
            self.abort()
            await self._connection.wait_closed()


async def connect(config: SFTPConfig) -> SFTPLink:
    """Log in and begin a session. Raises `StorageError`."""
    import asyncssh

    logger = logging.getLogger("asyncssh")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)  # it would tell of each connection
    host, port = config.address
    hosts = HostKeys(config.url, host, port, check_pins(config.host_key))
    hosts.read()
    login, tried = _login(config)
    ways = hosts.algorithms()
    for number, names in enumerate(ways, 1):
        try:
            return await _session(config, hosts, login, names)
        except asyncssh.HostKeyNotVerifiable:
            if number == len(ways) or not hosts.pins.fingerprints:
                raise hosts.refusal() from None
        except (asyncssh.KeyExchangeFailed, asyncssh.ConnectionLost, ConnectionResetError) as error:
            if number == len(ways) or not (hosts.trusted or hosts.pins.fingerprints):
                raise hosts.refusal() if hosts.offered else storage_error(error, config.url, "connect") from error
        except (asyncssh.Error, OSError) as error:
            raise storage_error(error, config.url, "connect", tried=tried) from error
    raise AssertionError("there is always a last way")


async def _session(config: SFTPConfig, hosts: HostKeys, login: dict[str, Any], algorithms: Sequence[str]) -> SFTPLink:
    import asyncssh

    class Client(asyncssh.SSHClient):
        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
            return hosts.accepts(key)

        def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
            return hosts.refuse_authority(key)

    host, port = config.address
    connection = await asyncssh.connect(
        host,
        port,
        config=None,  # the user's ssh configuration is for his own sessions
        username=config.user,
        known_hosts=hosts.known,
        client_factory=Client,
        server_host_key_algs=algorithms,
        preferred_auth=["publickey", "password", "keyboard-interactive"],
        connect_timeout=CONNECT,
        keepalive_interval=_KEEPALIVE,
        keepalive_count_max=2,
        **login,
    )
    try:
        return SFTPLink(connection, await connection.start_sftp_client())
    except BaseException:
        connection.abort()
        await connection.wait_closed()
        raise


def _login(config: SFTPConfig) -> tuple[dict[str, Any], str]:
    """What to log in with, and how to call that in an error."""
    import asyncssh

    agent = "" if config.key_path or config.password else os.environ.get("SSH_AUTH_SOCK", "")
    if config.key_path:
        try:
            asyncssh.read_private_key(config.key_path)
        except OSError as error:
            text = f"cannot read the file of key-path, {config.key_path}: {error.strerror or error}"
            raise StorageError(f"{config.url}: {text}", permanent=True, code="AccessDenied") from None
        except ValueError as error:  # asyncssh's own are such
            text = f"the file of key-path, {config.key_path}, is no private key that can be read"
            if "passphrase" in str(error).lower():
                text = "the key of key-path has a passphrase: add it to an SSH agent and take key-path away"
            raise StorageError(f"{config.url}: {text}", permanent=True, code="AccessDenied") from None
    tried = [f"the key {config.key_path}"] if config.key_path else []
    tried += ["the password"] if config.password else []
    tried += ["the keys of the SSH agent"] if agent else []
    if not tried:
        text = "there is nothing to log in with: set key-path or password, or start an SSH agent (SSH_AUTH_SOCK)"
        raise StorageError(f"{config.url}: {text}", permanent=True, code="AccessDenied")
    login = {
        "password": config.password or None,
        "client_keys": [config.key_path] if config.key_path else () if agent else None,
        "agent_path": agent or None,
    }
    return login, " and ".join(tried)


def _forget(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
