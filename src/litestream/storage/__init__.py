"""Object stores, and how a URL becomes one. Each back end is imported when it is first asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from litestream.storage.backends import backend_config, check_library, find_backend
from litestream.storage.local import file_url_path
from litestream.storage.protocol import ObjectInfo, Store

if TYPE_CHECKING:
    from litestream.metrics import Metrics
    from litestream.storage.wrappers.wrap import Budget, Limits

__all__ = [
    "ObjectInfo",
    "Store",
    "backend_config",
    "file_url_path",
    "open_store",
    "shows_secret",
    "split_scheme",
    "store_type",
]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_store(
    url: str,
    *,
    settings: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    metrics: Metrics | None = None,
    budget: Budget | None = None,
    age: Mapping[str, Sequence[str]] | None = None,
) -> Store:
    """The store that a URL, a bare path, or settings alone (with an empty URL) name; nothing is contacted or created.

    Args:
        url: `s3://BUCKET/PATH` and so on, `file:///PATH`, `memory://NAME`, or the path of a directory.
        settings: keys of litestream.yml in snake_case (`access_key_id`), with plain values; `type` counts where the
            URL is empty. A directory takes `dir_mode`, `file_mode` and `owner` too (see `FileStore`).
        limits: time and number of requests of a store that is a service.
        metrics: where its operations are counted; the process's own metrics by default.
        budget: the count of its requests in this month.
        age: `recipients` and `identities`: encrypt what is written, decrypt what is read.

    Raises `StoreConfigError` for an unknown type, a setting that is wrong, or a package that is not installed, and
    `StorageError` for a path that is none. No text repeats the URL, which may hold secrets.
    """
    settings = dict(settings or {})
    scheme = split_scheme(url)
    kind = settings.pop("type", None) if not url else scheme or "file"
    if url:
        settings["url" if scheme else "path"] = url
    backend = find_backend(kind or "file", "url" if scheme else "type")
    config = backend_config(backend.type, settings)
    check_library(backend)
    store = config.open()
    if backend.network:
        store = _wrapped(store, limits, metrics, budget)
    if age is None:
        return store
    from litestream.storage.age.encrypted import EncryptedStore

    return EncryptedStore(store, recipients=age.get("recipients", ()), identities=age.get("identities", ()))


def _wrapped(store: Store, limits: Limits | None, metrics: Metrics | None, budget: Budget | None) -> Store:
    from litestream.metrics import DEFAULT
    from litestream.storage.wrappers.wrap import Limits, wrap

    return wrap(store, limits=limits or Limits(), metrics=metrics or DEFAULT, budget=budget)


VISIBLE = "everybody on this machine sees the secret in it (ps): put it into a configuration file or the environment"
"""What to say of a URL on a command line that `shows_secret`."""
_SECRET_OPTIONS = frozenset(
    {"password", "secret", "secretaccesskey", "sig", "token", "sastoken", "accountkey", "seed", "jwt"}
)


def shows_secret(url: str) -> bool:
    """Whether a URL holds a password or the like, which whoever sees the URL knows then."""
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    login, at, _ = place.partition("/")[0].rpartition("@")
    # NATS takes a token in the place of the user.
    named = at and (":" in login or scheme.lower() == "nats")
    options = {pair.partition("=")[0].lower().replace("-", "").replace("_", "") for pair in query.split("&")}
    return bool(named) or not options.isdisjoint(_SECRET_OPTIONS)


def store_type(url: str) -> str:
    """The type of store that a URL or a bare path names. Raises `StoreConfigError`."""
    return find_backend(split_scheme(url) or "file", "url").type


def split_scheme(url: str) -> str:
    """The URL's scheme in lower case, empty for a bare path."""
    match = _SCHEME.match(url)
    if match is None:
        return "file" if url.startswith("file:") else ""
    return match[1].lower()
