"""Which defaults of the file reach a replica: those that its type has and that neither it nor its URL says itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from litestream.config.store_keys import AGE, BY_NAME, MAX_REQUESTS, NETWORK

if TYPE_CHECKING:
    from litestream.config.models import ReplicaDefaults

_PLACE = frozenset({"bucket", "host", "webdav-url"})
"""What a URL always says."""
_LOGIN = frozenset(
    {"user", "username", "password", "webdav-username", "webdav-password", "token", "jwt", "nkey", "seed", "creds"}
    | {"account-name"}
)
"""What a URL with `USER@` says."""
_ADDRESS = frozenset({"endpoint", "region"})
"""What a URL says whose host is more than a bucket's name."""


_NEVER = frozenset({("gs", "endpoint")})
"""The official programs know no endpoint of GCS: one at the top of a file is that of another service, which must not
be sent Google's tokens."""


def applying(defaults: Mapping[str, Any], own: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The values of a replica of type `kind`: its own, and where it has none the defaults. Keys as in the file."""
    said = said_by_url(own.get("url") or "", kind)
    values = {
        name: value
        for name, value in defaults.items()
        if name not in said and _has(kind, name) and (kind, name) not in _NEVER
    }
    for name, value in own.items():
        if value == "" and name in BY_NAME and not BY_NAME[name].needs_value:
            continue  # an unset variable: as good as absent
        if name == MAX_REQUESTS and isinstance(value, Mapping) and name in values:
            value = {**values[name].given(), **value}
        values[name] = value
    return values


def _has(kind: str, name: str) -> bool:
    return name not in BY_NAME or not BY_NAME[name].types or kind in BY_NAME[name].types


def said_by_url(url: str, kind: str) -> frozenset[str]:
    """The keys whose values stand in a URL."""
    if not url or kind == "file":
        return frozenset()
    try:
        parts = urlsplit(url)
    except ValueError:  # the back end says what is wrong
        return _PLACE
    said = set(_PLACE)
    if "@" in parts.netloc:
        said |= _LOGIN
    if kind in {"s3", "oss"} and re.search(r"[.:]", parts.netloc.rpartition("@")[2]):
        said |= _ADDRESS
    names = {pair.partition("=")[0].lower().replace("-", "").replace("_", "") for pair in parts.query.split("&")}
    return frozenset(said | {name for name in BY_NAME if name.replace("-", "") in names})


def unused(defaults: ReplicaDefaults, kinds: set[str]) -> Iterator[tuple[str, str]]:
    """(key, warning) of the defaults that no replica of these types takes; none where there is no replica at all."""
    for name in defaults.given() if kinds else ():
        all_types = BY_NAME[name].types if name in BY_NAME and name != AGE else ()
        types = tuple(kind for kind in all_types if (kind, name) not in _NEVER)
        if types and kinds.isdisjoint(types):
            owners = "replicas at a service" if types == NETWORK else f"replicas of type {', '.join(types)}"
            yield name, f"has no effect: it is for {owners}, and there is none here"
