"""Object stores, and how a URL becomes one. Each back end is imported when it is first asked for."""

from __future__ import annotations

import os
import re
from typing import Any

from litestream.errors import StorageError
from litestream.storage.protocol import ObjectInfo, Store

__all__ = ["ObjectInfo", "Store", "file_url_path", "open_store", "split_scheme"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


def open_store(url: str, **options: Any) -> Store:  # noqa: ANN401 - each back end has options of its own
    """The store that a URL or a bare path names; nothing is contacted or created yet.

    `file:///PATH` and bare paths take `dir_mode`, `file_mode` and `owner` (see `FileStore`), `memory://NAME` takes
    nothing. `StorageError` for a scheme that is not known; the text never repeats the URL, which may hold secrets.
    """
    scheme = split_scheme(url)
    if scheme in {"", "file"}:
        from litestream.storage.file import FileStore

        return FileStore(file_url_path(url) if scheme else url, **options)
    if scheme == "memory":
        from litestream.storage.memory import MemoryStore

        return MemoryStore.named(url[len("memory://") :])
    raise StorageError(f"unknown replica type {scheme!r}: file and memory are known", permanent=True)


def split_scheme(url: str) -> str:
    """The URL's scheme in lower case, empty for a bare path."""
    match = _SCHEME.match(url)
    if match is None:
        return "file" if url.startswith("file:") else ""
    return match[1].lower()


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
