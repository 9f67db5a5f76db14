"""Litestream for Python: continuous replication for SQLite. See `docs/` for how it works."""

from litestream.version import VERSION as __version__

__all__ = ["__version__"]
