"""URLs and paths become stores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestream.errors import StorageError, StoreConfigError
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
    ],
)
def test_refused(url: str) -> None:
    """What names no place for sure is refused in one line that says what to write."""
    with pytest.raises(StorageError) as caught:
        open_store(url)
    assert caught.value.permanent
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("s9://user:hush@bucket/path", 'unknown replica type in config: "s9" (did you mean "s3"?)'),
        ("sqlite:///hush", 'unknown replica type in config: "sqlite"'),
        ("azure://hush", 'unknown replica type in config: "azure"'),
        ("webdavz://hush", 'unknown replica type in config: "webdavz" (did you mean "webdav"?)'),
        ("https://u:hush@host/x", "such an address is the endpoint of an s3, gs or abs replica"),
        ("h+u.s-h://x", 'unknown replica type in config: "…"'),
    ],
)
def test_unknown_schemes(url: str, text: str) -> None:
    """An unknown scheme is an error of the setting `url`, with what may have been meant, and without the URL."""
    with pytest.raises(StoreConfigError) as caught:
        open_store(url)
    assert caught.value.setting == "url"
    assert text in str(caught.value)
    assert "hush" not in str(caught.value)


def test_unknown_type() -> None:
    """A type that is given by itself is an error of the setting `type`."""
    with pytest.raises(StoreConfigError, match='unknown replica type in config: "s9"') as caught:
        open_store("", settings={"type": "s9"})
    assert caught.value.setting == "type"


@pytest.mark.parametrize("url", ["/r", "file:///r", "memory://r"])
def test_unknown_settings(url: str) -> None:
    """A setting that a local store does not have is an error that names it as the file does."""
    with pytest.raises(StoreConfigError) as caught:
        open_store(url, settings={"secret_access_key": "hush"})
    assert caught.value.setting == "secret-access-key"
    assert "hush" not in str(caught.value)


def test_options(tmp_path: Path) -> None:
    """Settings go to the store."""
    store = open_store(str(tmp_path), settings={"dir_mode": 0o750, "file_mode": 0o640, "owner": (1, 2)})
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
