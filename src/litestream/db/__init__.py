"""One database under replication: attach, capture into the shadow WAL, checkpoint, snapshot."""

from litestream.db.db import DB

__all__ = ["DB"]
