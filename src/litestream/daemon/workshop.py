"""What a configuration is read from, and what makes the objects that it asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litestream.config import Config, DatabaseConfig
    from litestream.daemon.exchange import Change
    from litestream.daemon.notify import Notifier
    from litestream.daemon.server import Entry


@dataclass(slots=True)
class Source:
    """Where the configuration comes from, and what of it is not the server's business."""

    read: Callable[[], Config]
    """Reads the file again; blocking. Raises `ConfigError`."""
    adopt: Callable[[Config], None]
    """Applies the settings of the log."""
    restores: bool = False
    """Whether every database that comes in and is missing is restored first, not only those whose entry says so."""


@dataclass(slots=True)
class Workshop:
    """What makes the objects that a configuration asks for; nothing of them is open yet. Raises `ConfigError`."""

    check: Callable[[Config], None]
    make: Callable[[DatabaseConfig], Entry]
    change: Callable[[Entry, DatabaseConfig], Change]
    notifier: Notifier
    """Whom to tell that it takes a moment."""
