"""Paths and replica destinations as written by a user, made absolute and checked."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SQLITE = ("sqlite://", "sqlite3://")


class DestinationError(ValueError):
    """A replica's type, path and url do not name a place. `key` is the one to correct; the text shows no URL."""

    def __init__(self, key: str, text: str, value: str = "") -> None:
        super().__init__(text)
        self.key = key
        self.value = value
        """What the text repeats of the input, if anything."""


def is_url(text: str) -> bool:
    """Whether the text begins with a scheme and `://`."""
    return _URL.match(text) is not None


def absolute_path(text: str) -> str:
    """An absolute, normalised path. `~` and `~/` are the home directory; links are kept. Raises `ValueError`."""
    if not text:
        raise ValueError("the path is empty")
    if "\0" in text:
        raise ValueError("a path cannot hold a NUL byte")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError("a path cannot hold half a surrogate pair") from None
    if text.startswith("~") and text != "~" and not text.startswith("~/"):
        raise ValueError('only "~/" means a home directory: write the full path, or "./~…" for a file of that name')
    if text.startswith("~"):
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            raise ValueError("cannot expand ~: no home directory available")
        text = home + text[1:]
    return os.path.abspath(text)


def database_path(text: str) -> str:
    """The absolute path of a database; `sqlite://` and `sqlite3://` in front are dropped. Raises `ValueError`."""
    for prefix in _SQLITE:
        if text.startswith(prefix):
            text = text.removeprefix(prefix)
            break
    if is_url(text) or text.startswith("file:"):
        raise ValueError("a database is a local file: give its path, not a URL")
    return absolute_path(text)


def destination(
    kind: str | None, path: str | None, url: str | None, settings: Mapping[str, object] | None = None
) -> tuple[str, str]:
    """(type, path) of a replica; the path of a directory is absolute.

    `settings` are the replica's other keys. Raises `DestinationError`, with the official texts where there are any.
    """
    kind, path, url, settings = kind or "", path or "", url or "", settings or {}
    from_url = _url_type(url)
    found = _known_type(kind or from_url or "file", "type" if kind else "url")
    if from_url and _known_type(from_url, "url") != found:
        raise DestinationError("type", f"the url is one of type {_known_type(from_url, 'url')}: take the type away")
    if url and path:
        raise DestinationError("path", f"cannot specify url & path for {found} replica")
    if is_url(path) or path.startswith("file:"):
        raise DestinationError("path", "replica path cannot be a url, please use the 'url' field instead")
    if found != "file":
        _check_service(found, url, settings)
        return found, path
    if not url and not path:
        raise DestinationError("path", "file replica path required")
    try:
        return "file", absolute_path(_file_url(url) if url else path)
    except ValueError as error:
        raise DestinationError("url" if url else "path", str(error)) from None


_REQUIRED = {
    "s3": ("bucket",), "gs": ("bucket",), "abs": ("bucket",), "oss": ("bucket",), "nats": ("bucket",),
    "sftp": ("host", "user"), "webdav": ("webdav-url",),
}  # fmt: skip
"""What says the place of a replica without a URL, and must not be said beside one."""


def _check_service(kind: str, url: str, settings: Mapping[str, object]) -> None:
    for key in _REQUIRED.get(kind, ()):
        if url and settings.get(key) and key != "user":
            raise DestinationError(key, f"cannot specify url & {key} for {kind} replica")
        if not url and not settings.get(key):
            raise DestinationError(key, f"{key} required for {kind} replica")


def destination_type(kind: str | None, url: str | None) -> str:
    """The type that a replica's keys ask for; empty if there is no such type."""
    try:
        return _known_type(_url_type(url or "") or kind or "file", "type")
    except DestinationError:
        return ""


def _url_type(url: str) -> str:
    if not url:
        return ""
    match = _URL.match(url)
    return match[0][:-3].lower() if match else "file"


def _known_type(kind: str, key: str) -> str:
    from litestream.errors import StoreConfigError
    from litestream.storage.backends import find_backend

    try:
        found = find_backend(kind, key).type
    except StoreConfigError as error:
        raise DestinationError(key, str(error), kind) from None
    if found == "memory":
        raise DestinationError(key, 'unknown replica type in config: "memory"', kind)
    return found


def _file_url(url: str) -> str:
    """The path of a `file:` URL; anything without a scheme is a path already. Raises `ValueError`."""
    from litestream.errors import StorageError
    from litestream.storage import file_url_path, split_scheme

    try:
        return file_url_path(url) if split_scheme(url) else url
    except StorageError as error:
        raise ValueError(str(error)) from None


def shown(path: str) -> str:
    """A path for a message: one line whatever it holds."""
    return path if path.isprintable() else ascii(path)[1:-1]
