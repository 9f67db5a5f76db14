"""Settings of the stores that need no service: a directory, and this process's memory."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from litestream.errors import StorageError, StoreConfigError
from litestream.storage.protocol import Store

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileConfig:
    """A directory; modes and owner of what is made in it (see `FileStore`)."""

    path: str
    dir_mode: int = 0o700
    file_mode: int = 0o600
    owner: tuple[int, int] | None = None

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """From `path` or `url`. `StoreConfigError` for an unknown setting, `StorageError` for a URL that is none."""
        values = _known(cls, settings)
        url = values.pop("url", None)
        if url is not None:
            values["path"] = file_url_path(url)
        return cls(**{"path": "", **values})

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:  # noqa: ANN401 - each setting has a type of its own
        """From a `file:` URL."""
        return cls.from_settings({**settings, "url": url})

    def open(self) -> Store:
        """Raises `StorageError` for a path that is none."""
        from litestream.storage.file import FileStore

        return FileStore(self.path, dir_mode=self.dir_mode, file_mode=self.file_mode, owner=self.owner)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig:
    """The store of that name in this process."""

    path: str = ""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """From `path` (the name) or `memory://NAME` as `url`. `StoreConfigError` for anything else."""
        values = _known(cls, settings)
        url = values.pop("url", None)
        return cls(path=url.partition("://")[2] if url is not None else values.pop("path", ""))

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:  # noqa: ANN401 - as above
        """From `memory://NAME`."""
        return cls.from_settings({**settings, "url": url})

    def open(self) -> Store:
        """The store, the same one for every caller."""
        from litestream.storage.memory import MemoryStore

        return MemoryStore.named(self.path)


def _known(cls: type[FileConfig | MemoryConfig], settings: Mapping[str, Any]) -> dict[str, Any]:
    for name in settings:
        if name not in {"url", *cls.__dataclass_fields__}:
            key = name.replace("_", "-")
            raise StoreConfigError(key, f"{key} is no setting of this type of replica")
    return dict(settings)


def file_url_path(url: str) -> str:
    """The absolute path that a `file:` URL names.

    `%XX` stands for a byte, UTF-8 or not. A host other than localhost (most often a relative path with a slash too
    few), a query and a fragment are errors: they would silently name another place.
    """
    rest = url.partition(":")[2]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        rest = slash + path
        if host not in {"", "localhost"}:
            raise StorageError("a file URL has three slashes: file:///absolute/path", permanent=True)
    if not rest.startswith("/"):
        raise StorageError("a file URL needs an absolute path: file:///absolute/path", permanent=True)
    if "?" in rest or "#" in rest:
        raise StorageError("a file URL takes no ?query or #fragment: write %3F and %23, or a bare path", permanent=True)
    raw = os.fsencode(rest)
    if raw.count(b"%") != len(_ESCAPE.findall(raw)):
        raise StorageError("bad % escape in a file URL: write % as %25, or give a bare path", permanent=True)
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), raw))
