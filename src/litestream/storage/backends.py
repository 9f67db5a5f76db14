"""Every back end: the names it goes by, where it stands, and the extra that installs what it needs.

Nothing here imports a back end, or a library of one, before somebody asks for that one.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from litestream.errors import StoreConfigError
from litestream.storage.protocol import Store


class BackendConfig(Protocol):
    """The checked settings of one replica's store. Its fields are the keys of litestream.yml, in snake_case."""

    @property
    def url(self) -> str:
        """The place, canonical and without secrets, as `Store.url`."""
        ...

    def open(self) -> Store:
        """The store; nothing is contacted yet. Raises `StoreConfigError` when a library is missing."""
        ...


@dataclass(frozen=True, slots=True)
class Backend:
    """One type of replica."""

    type: str
    config: str
    """`MODULE.CLASS` below `litestream.storage`."""
    aliases: tuple[str, ...] = ()
    """Other names for the type in a configuration, and other schemes of its URLs."""
    library: str = ""
    """The package that it cannot do without; empty: none."""
    extra: str = ""
    """The extra of this distribution that installs the library; empty: the library is always there."""
    network: bool = True
    """Whether requests go to a service: those are timed, tried again, limited and counted."""

    def config_class(self) -> Any:  # noqa: ANN401 - each has a class of its own, with the same three methods
        module, _, name = self.config.rpartition(".")
        return getattr(importlib.import_module(f"litestream.storage.{module}"), name)


BACKENDS = {
    backend.type: backend
    for backend in (
        Backend("file", "local.FileConfig", network=False),
        Backend("memory", "local.MemoryConfig", network=False),
        Backend("s3", "s3.S3Config", library="obstore"),
        Backend("gs", "gcs.GCSConfig", ("gcs",), "obstore"),
        Backend("abs", "azure.AzureConfig", (), "obstore"),
        Backend("sftp", "sftp.SFTPConfig", (), "asyncssh", "sftp"),
        Backend("webdav", "webdav.WebDAVConfig", ("webdavs",), "h11"),
        Backend("nats", "nats.NATSConfig", (), "nats", "nats"),
        Backend("oss", "oss.OSSConfig", (), "obstore"),
    )
}
_BY_NAME = {name: backend for backend in BACKENDS.values() for name in (backend.type, *backend.aliases)}


def find_backend(name: str, setting: str = "type") -> Backend:
    """The back end of a type, or of a URL's scheme. Raises `StoreConfigError` for `setting`, with a suggestion."""
    backend = _BY_NAME.get(name.lower())
    if backend is None:
        shown = name if name.isascii() and name.isalnum() and len(name) <= 20 else "…"
        raise StoreConfigError(setting, f'unknown replica type in config: "{shown}"{_suggestion(name)}')
    return backend


def _suggestion(name: str) -> str:
    if name.lower() in {"http", "https"}:
        return " (such an address is the endpoint of an s3, gs or abs replica, or the webdav-url of a webdav one)"
    from difflib import get_close_matches  # only on the way to an error

    close = get_close_matches(name.lower(), [known for known in _BY_NAME if known != "memory"], n=1, cutoff=0.5)
    return f' (did you mean "{close[0]}"?)' if close else ""


def backend_config(type: str, settings: Mapping[str, Any]) -> BackendConfig:  # noqa: A002 - the key's name
    """The checked configuration of a store of that type; no library is imported and nothing contacted.

    `settings` are keys of litestream.yml in snake_case, with plain values; None is the same as absent. Raises
    `StoreConfigError`.
    """
    given = {name: value for name, value in settings.items() if value is not None and name != "type"}
    return cast("BackendConfig", find_backend(type).config_class().from_settings(given))


def check_library(backend: Backend) -> None:
    """Raise `StoreConfigError` with what to install, if the back end's library is not there."""
    if backend.library and importlib.util.find_spec(backend.library) is None:
        package = f"litestream[{backend.extra}]" if backend.extra else backend.library
        raise StoreConfigError("type", f'replica type {backend.type} needs an extra package: install "{package}"')
