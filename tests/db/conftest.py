"""What every test of a database needs: an application, a path, and databases that are closed in the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.app import App
from litestream.db.db import DB


@pytest.fixture
def app() -> Iterator[App]:
    """An application process that ends in order."""
    with App() as one:
        yield one


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is, once somebody has made it."""
    return tmp_path / "app.db"


@pytest.fixture
def dbs() -> Iterator[list[DB]]:
    """What is put in here is closed."""
    opened: list[DB] = []
    yield opened
    for db in opened:
        db.close()
