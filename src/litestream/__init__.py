"""Litestream for Python: continuous replication for SQLite. See `docs/` for how it works."""

from litestream.version import VERSION

__version__ = VERSION

__all__ = ["__version__"]
