"""Live read replicas in the daemon: databases that follow others, and the stream by which others follow ours."""

from __future__ import annotations

import ipaddress
import os
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from litestream.config import Config, DatabaseConfig
from litestream.daemon.measures import Measures
from litestream.daemon.server import Entry, Server
from litestream.daemon.status import ERROR, NO_DATABASE, OK, DatabaseStatus
from litestream.db.db import DB
from litestream.errors import ConfigError

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from litestream.follow.follower import Follower
    from litestream.web.stream import Streams


def follower_entry(config: DatabaseConfig, lane: Executor, measures: Measures) -> Entry:
    """The entry of a database with `upstream`."""
    from litestream.follow.follower import Follower
    from litestream.follow.link import Upstream

    wanted = config.upstream
    assert wanted is not None  # the caller has looked
    token = wanted.token.get_secret_value() if wanted.token is not None else ""
    upstream = Upstream(wanted.url, wanted.path or config.path, token, wanted.ca or "")
    follower = Follower(config.path, upstream, meta_path=config.meta_path, lane=lane)
    entry = Entry(follower, (), follower.run, (), follower.tried, config, look=lambda: _status(follower))
    entry.forget = measures.watch_follower(lambda: _status(follower), follower.behind)
    return entry


def _status(follower: Follower) -> DatabaseStatus:
    """`ok` while it follows, `error` and the reason otherwise."""
    status, error = (NO_DATABASE if follower.pos().is_zero else OK), ""
    if follower.error is not None:
        status, error = ERROR, f"not following: {follower.error}"
    size, wal_size = _size(follower.path), _size(f"{follower.path}-wal")
    return DatabaseStatus(follower.path, status, follower.pos(), size, wal_size, error=error)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def streams(config: Config, addr: str, server: Server) -> Streams:
    """The stream of all databases of `server`. Raises `ConfigError` if it would be open to other hosts."""
    from litestream.web.stream import Streams

    token = config.stream_token.get_secret_value() if config.stream_token is not None else ""
    if config.stream and not token and not _is_local(addr):
        raise ConfigError(f'stream: other hosts can connect to "{addr}": set stream-token, or an addr of this host')

    def find(path: str) -> DB | None:
        entry = server.entry(path)
        return entry.db if entry is not None and isinstance(entry.db, DB) else None

    return Streams(find, token=token, open_to_all=config.stream)


def routes(streams: Streams) -> list[BaseRoute]:
    """Where the stream is."""
    from starlette.routing import Route

    return [Route("/stream", streams)]


def tls(config: Config) -> tuple[str, str] | None:
    """The files of the certificate and the key; None: no TLS."""
    return (config.tls_cert, config.tls_key) if config.tls_cert and config.tls_key else None


def _is_local(addr: str) -> bool:
    """Whether only this host can connect."""
    from litestream.web.server import parse_addr

    host, _ = parse_addr(addr)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name: it may be any address
