"""Where the settings of an `sftp` replica come from: litestream.yml or the URL; and what they must be."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

from litestream.errors import StoreConfigError
from litestream.storage.protocol import Store

_KEYS = {"host", "user", "password", "key_path", "host_key", "concurrent_writes", "path"}
_HOST = re.compile(r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[\w.-]+)?")
_PORT = 22
_HOME = "/~/"
"""In a URL: what follows is relative to the directory in which the user arrives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTPConfig:
    """Settings of one `sftp` replica.

    Attributes:
        host: HOST, HOST:PORT or [IPv6]:PORT.
        user: the name to log in with.
        path: directory on the server, made by the first put; a relative one begins where the user arrives.
        password: for the methods password and keyboard-interactive.
        key_path: a private key without passphrase. With neither password nor key, the keys of the SSH agent are used.
        host_key: the server's public keys (as in known_hosts, one a line) or their fingerprints (`SHA256:…`); without,
            `~/.ssh/known_hosts` and `/etc/ssh/ssh_known_hosts` are asked.
        concurrent_writes: whether the pieces of a file are sent without waiting for each.
    """

    host: str
    user: str
    path: str = ""
    password: str = field(default="", repr=False)
    key_path: str = ""
    host_key: str = ""
    concurrent_writes: bool = True

    def __post_init__(self) -> None:
        """Raises `StoreConfigError`."""
        for name in ("host", "user"):
            if not getattr(self, name):
                raise StoreConfigError(name, f"{name} required for sftp replica")
        _split_host(self.host)
        if any(ord(char) < 32 for char in self.user + self.path):
            name = "user" if any(ord(char) < 32 for char in self.user) else "path"
            raise StoreConfigError(name, f"{name} must have no control characters")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """From the keys of litestream.yml, `url` among them. Raises `StoreConfigError`, which repeats no value."""
        given = {name: value for name, value in settings.items() if value is not None}
        for name, value in given.items():
            key = name.replace("_", "-")
            if name not in {"url", *_KEYS}:
                raise StoreConfigError(key, f"{key} is no setting of an sftp replica")
            if not isinstance(value, bool if name == "concurrent_writes" else str):
                kind = "true or false" if name == "concurrent_writes" else "a text"
                raise StoreConfigError(key, f"{key} must be {kind}")
        values = {"host": "", "user": "", **(_from_url(given.pop("url")) if given.get("url") else {})}
        given.pop("url", None)
        values |= {name: value for name, value in given.items() if value != ""}
        return cls(**{**values, "path": _normal(values.get("path", ""))})

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:  # noqa: ANN401 - each setting has a type of its own
        """From `sftp://USER[:PASSWORD]@HOST[:PORT]/PATH`; `settings` go before it. Raises `StoreConfigError`."""
        return cls.from_settings({**settings, "url": url})

    @property
    def address(self) -> tuple[str, int]:
        """Host name (or IP address) and port."""
        return _split_host(self.host)

    @property
    def url(self) -> str:
        """The canonical URL, without the password. `/~/` stands before a path that is relative."""
        host, port = self.address
        shown = f"[{host}]" if ":" in host else host
        shown += f":{port}" if port != _PORT else ""
        path = self.path if self.path.startswith("/") else _HOME + self.path
        return f"sftp://{quote(self.user)}@{shown}{quote(path, safe='/~')}"

    def open(self) -> Store:
        """The store; contacts nothing. Raises `StoreConfigError` for host keys that are none."""
        from litestream.storage.sftp.hosts import check_pins
        from litestream.storage.sftp.store import SFTPStore

        check_pins(self.host_key)
        return SFTPStore(self)


def _from_url(url: str) -> dict[str, Any]:
    wrong = StoreConfigError("url", "a URL of an sftp replica is sftp://USER@HOST[:PORT]/PATH")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise wrong from None
    if parts.scheme.lower() != "sftp" or not parts.hostname:
        raise wrong
    if parts.query or parts.fragment:
        raise StoreConfigError("url", "an sftp URL takes no ?option and no #fragment: write %3F and %23")
    path = unquote(parts.path)
    found = {
        "host": parts.netloc.rpartition("@")[2],
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "path": path.removeprefix(_HOME) if path.startswith(_HOME) else path,
    }
    return {name: value for name, value in found.items() if value}


def _split_host(text: str) -> tuple[str, int]:
    """(host, port) of HOST, HOST:PORT, [IPv6] or [IPv6]:PORT, or a plain IPv6 address."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else "" if bracket and not rest else "?"
    elif text.count(":") > 1:
        host, port = text, ""
    else:
        host, colon, port = text.partition(":")
        port = port or ("?" if colon else "")
    number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0 if port else _PORT
    if not _HOST.fullmatch(host) or not 0 < number < 65536:
        raise StoreConfigError("host", "host must be HOST or HOST:PORT, an IPv6 address in brackets")
    return host.lower(), number


def _normal(path: str) -> str:
    """The path without anything superfluous; empty: the directory in which the user arrives."""
    if not path:
        return ""
    path = posixpath.normpath(path)
    return "" if path == "." else "/" + path.lstrip("/") if path.startswith("/") else path
