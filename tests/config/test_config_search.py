"""Which file is read, and what happens when there is none or it cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from litestream.config import find, load, loader
from litestream.errors import ConfigError

MINIMAL = "dbs: [{path: /x/app.db, replica: {path: /x/backup}}]\n"


@pytest.fixture(autouse=True)
def _no_system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "DEFAULT_PATH", str(tmp_path / "etc" / "litestream.yml"))
    (tmp_path / "work").mkdir()
    (tmp_path / "etc").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def test_order_of_the_places(tmp_path: Path) -> None:
    """An explicit path wins over LITESTREAM_CONFIG, that over ./litestream.yml, that over the system's file."""
    system = tmp_path / "etc" / "litestream.yml"
    system.write_text(MINIMAL)
    assert find(None, {}) == str(system)
    Path("litestream.yml").write_text(MINIMAL)
    assert find(None, {}) == "litestream.yml"
    assert find(None, {"LITESTREAM_CONFIG": ""}) == "litestream.yml"
    assert find(None, {"LITESTREAM_CONFIG": "/e.yml"}) == "/e.yml"
    assert find("/c.yml", {"LITESTREAM_CONFIG": "/e.yml"}) == "/c.yml"


def test_nothing_anywhere_says_what_to_do() -> None:
    """Without any file the error names both places and the ways to give one."""
    with pytest.raises(ConfigError) as caught:
        load(environ={})
    text = str(caught.value)
    assert "\n" not in text
    for part in ("./litestream.yml", loader.DEFAULT_PATH, "-config", "LITESTREAM_CONFIG", "replica URL"):
        assert part in text


@pytest.mark.parametrize("environ", [{}, {"LITESTREAM_CONFIG": "gone.yml"}])
def test_missing_explicit_file(environ: dict[str, str]) -> None:
    """A file that was named and does not exist is the official error, even when another one exists."""
    Path("litestream.yml").write_text(MINIMAL)
    with pytest.raises(ConfigError) as caught:
        load(None if environ else "gone.yml", environ=environ)
    assert str(caught.value) == f"config file not found: {Path.cwd() / 'gone.yml'}"


def test_home_directory_in_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~/` in -config is the home directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yml").write_text(MINIMAL)
    config = load("~/mine.yml", environ={})
    assert config.source == str(tmp_path / "mine.yml")
    assert [database.path for database in config.databases] == ["/x/app.db"]


def test_a_directory_is_one_clear_line() -> None:
    """A directory instead of a file is an error with the system's reason."""
    with pytest.raises(ConfigError, match=r"^cannot read config file .*: Is a directory$"):
        load(".", environ={})


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_file() -> None:
    """A file without read permission is an error with the system's reason."""
    Path("secret.yml").write_text(MINIMAL)
    Path("secret.yml").chmod(0)
    with pytest.raises(ConfigError, match="Permission denied"):
        load("secret.yml", environ={})


def test_a_pipe_is_read(tmp_path: Path) -> None:
    """`-config /dev/fd/N` (process substitution) works."""
    reader, writer = os.pipe()
    os.write(writer, MINIMAL.encode())
    os.close(writer)
    try:
        assert len(load(f"/dev/fd/{reader}", environ={}).databases) == 1
    finally:
        os.close(reader)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"dbs: []\nx: \xff\n", r"bad\.yml:2: not UTF-8"),
        ("dbs: []\n".encode("utf-16"), r"bad\.yml:1: not UTF-8"),
        (b"#" * (loader.MAX_SIZE + 1), "larger than 4 MiB"),
        (b"a: \0\n", r"bad\.yml:1: a character that YAML does not allow \(U\+0000\)"),
    ],
)
def test_files_that_are_no_text(data: bytes, why: str) -> None:
    """Other encodings, endless files and control characters are refused by name."""
    Path("bad.yml").write_bytes(data)
    with pytest.raises(ConfigError, match=why):
        load("bad.yml", environ={})


def test_byte_order_mark_is_dropped() -> None:
    """A UTF-8 byte order mark, as editors on Windows write it, is no part of the text."""
    Path("bom.yml").write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert len(load("bom.yml", environ={}).databases) == 1
