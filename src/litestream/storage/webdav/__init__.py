"""Where the settings of a `webdav` replica come from: litestream.yml or the URL; and what they must be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import SplitResult, unquote, urlsplit

from litestream.errors import StoreConfigError
from litestream.storage.http1 import Origin
from litestream.storage.keys import is_key
from litestream.storage.protocol import Store

_KEYS = ("webdav_url", "webdav_username", "webdav_password", "path")
_SCHEMES = {"webdav": "http", "webdavs": "https"}
_HOST = re.compile(r"[\w.-]+|[0-9A-Fa-f:.]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebDAVConfig:
    """Settings of one `webdav` replica.

    Attributes:
        webdav_url: address of a directory that exists, http:// or https://, without user and password.
        path: directories below it, without slashes around; made by the first put.
        webdav_username, webdav_password: for Basic authentication; without a name none is sent.
    """

    webdav_url: str
    path: str = ""
    webdav_username: str = ""
    webdav_password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Raises `StoreConfigError`."""
        _split(self.webdav_url, "webdav-url", set(_SCHEMES.values()))
        if self.path and not is_key(self.path):
            raise StoreConfigError("path", "path must have no empty, '.' or '..' parts")
        if ":" in self.webdav_username:
            raise StoreConfigError("webdav-username", "webdav-username must have no colon")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """From the keys of litestream.yml, `url` among them. Raises `StoreConfigError`, which repeats no value."""
        given = {name: value for name, value in settings.items() if value is not None}
        for name, value in given.items():
            key = name.replace("_", "-")
            if name not in {"url", *_KEYS}:
                raise StoreConfigError(key, f"{key} is no setting of a webdav replica")
            if not isinstance(value, str) or any(char in value for char in "\0\r\n"):
                raise StoreConfigError(key, f"{key} must be a text of one line")
        given = {name: value for name, value in given.items() if value}
        values = _from_address(given.pop("url")) if "url" in given else {}
        if "webdav_url" in given:
            values |= _credentials(_split(given["webdav_url"], "webdav-url", set(_SCHEMES.values())))
            given["webdav_url"] = _without_user(given["webdav_url"])
        values |= given
        if "webdav_url" not in values:
            raise StoreConfigError("webdav-url", "webdav-url required for webdav replica")
        values["path"] = values.get("path", "").strip("/")
        return cls(**values)

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:  # noqa: ANN401 - all are strings; checked below
        """From `webdav[s]://[USER[:PASSWORD]@]HOST[:PORT]/PATH`; `settings` go before it. Raises `StoreConfigError`."""
        return cls.from_settings({**settings, "url": url})

    @property
    def url(self) -> str:
        """The canonical URL, without secrets."""
        address = self.webdav_url.rstrip("/")
        address = "webdav" + address[len("http") :]
        return f"{address}/{self.path}" if self.path else address

    @property
    def origin(self) -> Origin:
        """Where requests go."""
        parts = urlsplit(self.webdav_url)
        return Origin(parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))

    @property
    def base(self) -> tuple[str, ...]:
        """The parts of the path on the server that must exist."""
        return tuple(unquote(part) for part in urlsplit(self.webdav_url).path.split("/") if part)

    def open(self) -> Store:
        """The store; contacts nothing."""
        from litestream.storage.webdav.store import WebDAVStore

        return WebDAVStore(self)


def _from_address(url: str) -> dict[str, str]:
    """The settings that `webdav[s]://…` stands for: the server's root, and the path below it."""
    parts = _split(url, "url", set(_SCHEMES))
    host = parts.netloc.rpartition("@")[2]
    path = unquote(parts.path)
    return {"webdav_url": f"{_SCHEMES[parts.scheme]}://{host}", "path": path, **_credentials(parts)}


def _credentials(parts: SplitResult) -> dict[str, str]:
    found = {"webdav_username": unquote(parts.username or ""), "webdav_password": unquote(parts.password or "")}
    return {name: value for name, value in found.items() if value}


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _split(url: str, setting: str, schemes: set[str]) -> SplitResult:
    shown = " or ".join(f"{scheme}://HOST[:PORT]/PATH" for scheme in sorted(schemes))
    wrong = StoreConfigError(setting, f"{setting} of a webdav replica must be {shown}")
    try:
        parts = urlsplit(url)
        parts = parts._replace(scheme=parts.scheme.lower())
        _ = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in schemes or not _HOST.fullmatch(parts.hostname or ""):
        raise wrong
    if parts.query or parts.fragment:
        raise StoreConfigError(setting, f"{setting} of a webdav replica takes no ?query and no #fragment")
    if any(unquote(part) in {".", ".."} or "/" in unquote(part) for part in parts.path.split("/")):
        raise StoreConfigError(setting, f"{setting} must have no '.', '..' or encoded slash in its path")
    return parts
