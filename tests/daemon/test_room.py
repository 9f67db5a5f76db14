"""Room for databases that begin: those that run keep what they need, and who lacks a descriptor is told so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from litestream import descriptors
from litestream.descriptors import NEEDED, RESERVE, Room
from litestream.errors import ReadOnlyDatabaseError, TooManyFilesError
from litestream.sqlite import connection
from litestream.sqlite.connection import connect, translated


def test_databases_that_have_begun_keep_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has opened little yet counts with all that it will open, until it ends."""
    fit = 40
    monkeypatch.setattr(descriptors, "limit", lambda: RESERVE + fit * NEEDED)
    room = Room()
    for _ in range(fit):
        room.enter()
    with pytest.raises(TooManyFilesError):
        room.enter()
    room.leave()
    room.enter()
    with pytest.raises(TooManyFilesError):
        room.enter()


def test_a_file_that_cannot_be_opened_when_hardly_any_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite says the same whatever the reason: while descriptors are about to run out, that is the reason."""
    path = str(tmp_path / "none" / "app.db")
    with pytest.raises(ReadOnlyDatabaseError), translated(path):
        connect(path, 1)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    monkeypatch.setattr(connection, "limit", lambda: lowest + 5)
    with pytest.raises(TooManyFilesError), translated(path):
        connect(path, 1)
