"""Where the settings of a `nats` replica come from: litestream.yml or the URL; and what they must be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

from litestream.errors import StoreConfigError
from litestream.storage.keys import is_key
from litestream.storage.protocol import Store

_TEXTS = (
    "bucket path username password token jwt seed creds nkey client_cert client_key".split()  # noqa: SIM905 - readable
)
_NUMBERS = ("max_reconnects", "reconnect_wait", "timeout")
_SERVER = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
_BUCKET = re.compile(r"[A-Za-z0-9_-]+")
_PORT = 4222
_LOCAL = "nats://127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class NATSConfig:
    """Settings of one `nats` replica.

    Attributes:
        bucket: an object store bucket, which must exist.
        url: address of the server, or of several of one cluster with commas between; canonical and without secrets.
        path: what the names of its objects begin with, without slashes around.
        username, password: one way to log in; the others are `token`, `nkey` with `seed`, `jwt` with `seed`, and
            `creds`, a file that holds both of the last.
        tls: whether the connection must be encrypted; `root_cas` or `client_cert` ask for it too.
        root_cas: files with the certificates of the only authorities to trust.
        client_cert, client_key: files with our own certificate and its key.
        max_reconnects: failed tries in a row to connect after which the error counts as permanent; -1: never.
        reconnect_wait: seconds between two tries, after one that failed.
        timeout: seconds for a connection, and for one answer of the server.
    """

    bucket: str
    url: str = _LOCAL
    path: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    jwt: str = field(default="", repr=False)
    seed: str = field(default="", repr=False)
    creds: str = ""
    nkey: str = field(default="", repr=False)
    tls: bool = False
    root_cas: tuple[str, ...] = ()
    client_cert: str = ""
    client_key: str = ""
    max_reconnects: int = -1
    reconnect_wait: float = 2.0
    timeout: float = 10.0

    def __post_init__(self) -> None:
        """Raises `StoreConfigError`."""
        if not self.bucket:
            raise StoreConfigError("bucket", "bucket required for nats replica")
        if not _BUCKET.fullmatch(self.bucket):
            raise StoreConfigError("bucket", "a bucket's name has letters, digits, '-' and '_' only")
        if self.path and not is_key(self.path):
            raise StoreConfigError("path", "path must have no empty, '.' or '..' parts")
        path = f"/{quote(self.path)}" if self.path else ""
        canonical = f"nats://{','.join(_servers(self.url))}/{self.bucket}{path}"
        object.__setattr__(self, "url", canonical)
        for one, other in (("client_cert", "client_key"), ("client_key", "client_cert")):
            if getattr(self, one) and not getattr(self, other):
                name, needed = one.replace("_", "-"), other.replace("_", "-")
                raise StoreConfigError(name, f"{name} needs {needed}")
        if (self.jwt or self.nkey) and not self.seed:
            name = "jwt" if self.jwt else "nkey"
            raise StoreConfigError(name, f"{name} needs seed")
        if self.reconnect_wait < 0 or self.timeout <= 0:
            name = "reconnect-wait" if self.reconnect_wait < 0 else "timeout"
            raise StoreConfigError(name, f"{name} must be greater than 0")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """From the keys of litestream.yml, `url` among them. Raises `StoreConfigError`, which repeats no value."""
        given = {name: value for name, value in settings.items() if value is not None and value != ""}
        for name, value in given.items():
            key = name.replace("_", "-")
            if name not in {"url", "tls", "root_cas", *_TEXTS, *_NUMBERS}:
                raise StoreConfigError(key, f"{key} is no setting of a nats replica")
            if name in {"url", *_TEXTS} and (not isinstance(value, str) or any(char in value for char in "\0\r")):
                raise StoreConfigError(key, f"{key} must be a text")
            if name == "tls" and not isinstance(value, bool):
                raise StoreConfigError(key, "tls must be true or false")
            if name in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise StoreConfigError(key, f"{key} must be a number")
        values = {"bucket": "", **(_from_url(given.pop("url")) if "url" in given else {})}
        if "root_cas" in given:
            given["root_cas"] = _files(given["root_cas"])
        # A way to log in that is given in full replaces what the URL says.
        if given.keys() & {"username", "token", "creds", "jwt", "nkey"}:
            values = {name: value for name, value in values.items() if name not in {"username", "password", "token"}}
        values |= given
        return cls(**{**values, "path": values.get("path", "").strip("/")})

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:  # noqa: ANN401 - each setting has a type of its own
        """From `nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT][,HOST…]/BUCKET[/PATH]`; `settings` go before it."""
        return cls.from_settings({**settings, "url": url})

    @property
    def servers(self) -> list[str]:
        """`nats://HOST:PORT` of each server."""
        return [f"nats://{server}" for server in _servers(self.url)]

    @property
    def encrypted(self) -> bool:
        """Whether nothing may be sent without TLS."""
        return self.tls or bool(self.root_cas or self.client_cert)

    def open(self) -> Store:
        """The store; contacts nothing. Raises `StoreConfigError`."""
        from litestream.storage.nats.login import check_seed
        from litestream.storage.nats.store import NATSStore

        check_seed(self)
        return NATSStore(self)


def _servers(url: str) -> list[str]:
    """HOST:PORT of each server in a URL without a login."""
    hosts = url.removeprefix("nats://").partition("/")[0].split(",")
    if not all(_SERVER.fullmatch(host) for host in hosts):
        raise _wrong_url()
    return [host if re.search(r":\d+$", host) else f"{host}:{_PORT}" for host in hosts]


def _from_url(url: str) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _wrong_url() from None
    login, _, hosts = parts.netloc.rpartition("@")
    if parts.scheme.lower() != "nats" or not hosts:
        raise _wrong_url()
    if parts.query or parts.fragment:
        raise StoreConfigError("url", "a nats URL takes no ?option and no #fragment: set the keys instead")
    user, colon, password = login.partition(":")
    bucket, _, path = unquote(parts.path).strip("/").partition("/")
    found = {
        "url": f"nats://{hosts}",
        "bucket": bucket,
        "path": path,
        "username" if colon else "token": unquote(user),
        "password": unquote(password),
    }
    return {name: value for name, value in found.items() if value}


def _wrong_url() -> StoreConfigError:
    return StoreConfigError("url", "a URL of a nats replica is nats://HOST[:PORT]/BUCKET[/PATH]")


def _files(value: object) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise StoreConfigError("root-cas", "root-cas must be a list of files")
    return tuple(names)
