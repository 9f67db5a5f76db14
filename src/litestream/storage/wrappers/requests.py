"""How many requests one operation is to the service: what it counts, limits and puts on the bill."""

from __future__ import annotations

from typing import Literal

from litestream.storage.protocol import Store
from litestream.storage.wrappers.wrapper import innermost

Operation = Literal["LIST", "GET", "PUT", "DELETE"]
"""As the official metrics name them."""

PAGE = 1000
"""Objects in one page of a listing, and keys in one request that deletes."""
PART = 16 << 20
"""Bytes of a part of a large upload, and of the largest body that is one request."""


def requests_of(store: Store, operation: Operation, *, objects: int = 0, size: int = 0) -> int:
    """Requests of one operation on `objects` objects or `size` bytes.

    A back end that knows better has a method `requests` with the same arguments (without the store). Otherwise one
    for a get, one for each 1,000 objects listed or deleted, one for a put up to 16 MiB, and for a larger one a
    request for each 16 MiB, one to begin and one to end. That is exact for S3 and its like as long as nothing is
    out of the ordinary: requests for credentials or a region, the second look after a create-only put that met an
    object, and objects in a listing that are none of ours are not in it.
    """
    own = getattr(innermost(store), "requests", None)
    if own is not None:
        return int(own(operation, objects=objects, size=size))
    if operation == "PUT":
        return 1 if size <= PART else -(-size // PART) + 2
    if operation == "GET":
        return 1
    return max(1, -(-objects // PAGE))
