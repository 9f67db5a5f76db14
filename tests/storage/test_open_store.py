"""URLs and paths become stores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestream.errors import StorageError
from litestream.storage import file_url_path, open_store
from litestream.storage.file import FileStore
from litestream.storage.memory import MemoryStore


def root_of(url: str) -> str:
    """The directory of the file store that a URL names."""
    store = open_store(url)
    assert isinstance(store, FileStore)
    return store.root


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/var/backup", "/var/backup"),
        ("/var/back%20up", "/var/back%20up"),
        ("/a?b#c%", "/a?b#c%"),
        ("/a//b/./c/../d/", "/a/b/d"),
        ("file:///var/backup", "/var/backup"),
        ("FILE:///var/backup/", "/var/backup"),
        ("file:/var/backup", "/var/backup"),
        ("file://localhost/var/backup", "/var/backup"),
        ("file:///with space", "/with space"),
        ("file:///with%20space/%25/%3F%23", "/with space/%/?#"),
        ("file:///%C3%A4", "/ä"),
        ("file:///ä", "/ä"),
        ("file:///%FF", "/\udcff"),
        ("file:///\udcff", "/\udcff"),
        ("file:///a%2Fb", "/a/b"),
    ],
)
def test_paths(url: str, path: str) -> None:
    """Bare paths are taken letter for letter, file URLs are decoded byte by byte."""
    assert root_of(url) == path


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare relative path is one below the current directory."""
    monkeypatch.chdir(tmp_path)
    assert root_of("r/s") == str(tmp_path / "r" / "s")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:",
        "file://",
        "file://relative/path",
        "file://host",
        "file:relative",
        "file:///a?b=c",
        "file:///a#b",
        "file:///100%",
        "file:///%zz",
        "file:///%00",
        "/a\0b",
        "s9://user:secret@bucket/path",
        "sqlite:///a",
    ],
)
def test_refused(url: str) -> None:
    """What names no place for sure is refused in one line that says what to write, and repeats no secret."""
    with pytest.raises(StorageError) as caught:
        open_store(url)
    assert caught.value.permanent
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_unknown_scheme_is_named() -> None:
    """An unknown scheme is named in the error."""
    with pytest.raises(StorageError, match="unknown replica type 's9'"):
        open_store("s9://bucket")


def test_options(tmp_path: Path) -> None:
    """Options go to the store."""
    store = open_store(str(tmp_path), dir_mode=0o750, file_mode=0o640, owner=(1, 2))
    assert isinstance(store, FileStore)
    assert (store._dir_mode, store._file_mode, store._owner) == (0o750, 0o640, (1, 2))


def test_memory() -> None:
    """A memory store has its name."""
    store = open_store("memory://x")
    assert isinstance(store, MemoryStore)
    assert store.url == "memory://x"


@given(st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw))
def test_every_path_has_a_url(raw: bytes) -> None:
    """Any path, UTF-8 or not, can be written as a file URL."""
    path = b"/" + raw
    url = "file://" + "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02X}" for byte in path[1:])
    assert os.fsencode(file_url_path(url.replace("file://", "file:///", 1))) == path
