"""`upstream:` of a database: the other replicator that it follows."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from litestream.config.model import Check, Model
from litestream.config.values import File, Secret, Text

NO_REPLICAS = "a database that follows another has no replicas here: replicate it where it is written"


def _url(value: object) -> object:
    if not isinstance(value, str) or not value:
        raise ValueError("is empty: give it a value")
    try:
        parts = urlsplit(value)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or "@" in value or parts.query or parts.fragment:
        raise ValueError("must be http://HOST:PORT or https://HOST:PORT (a token has a key of its own)")
    return value.rstrip("/")


class UpstreamConfig(Model):
    """Where the database is written."""

    url: Annotated[str, Check(_url)]
    path: Text = None
    """The database's path there; None: the same as here."""
    token: Secret = None
    ca: File = None
    """Absolute path of the authorities that vouch for the server; None: the system's."""
