"""The settings of an SFTP replica, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from litestream.errors import StoreConfigError
from litestream.storage.sftp import SFTPConfig

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAKeSGSLHIMtjLdltVCJmAMT9nQVRMry+vSThdrQB7V7"
PRINT = "SHA256:cCdv5tvBhBkGwAi91ujGxJT7HPb8dNDJw/tIY2Jf/Ck"


@pytest.mark.parametrize(
    ("url", "address", "user", "path", "canonical"),
    [
        ("sftp://me@host/a/b", ("host", 22), "me", "/a/b", "sftp://me@host/a/b"),
        ("sftp://me@HOST:2222/a//b/", ("host", 2222), "me", "/a/b", "sftp://me@host:2222/a/b"),
        ("SFTP://me:hush@host", ("host", 22), "me", "", "sftp://me@host/~/"),
        ("sftp://me:hush@host/", ("host", 22), "me", "/", "sftp://me@host/"),
        ("sftp://me@host/~/a", ("host", 22), "me", "a", "sftp://me@host/~/a"),
        ("sftp://m%40e:h%40sh@host/a%20b", ("host", 22), "m@e", "/a b", "sftp://m%40e@host/a%20b"),
        ("sftp://me@[::1]:2222/a", ("::1", 2222), "me", "/a", "sftp://me@[::1]:2222/a"),
        ("sftp://me@[fe80::1]/a", ("fe80::1", 22), "me", "/a", "sftp://me@[fe80::1]/a"),
    ],
)
def test_urls(url: str, address: tuple[str, int], user: str, path: str, canonical: str) -> None:
    """A URL says host, port, user, password and an absolute path; the canonical one is without the password."""
    config = SFTPConfig.from_url(url)
    assert (config.address, config.user, config.path, config.url) == (address, user, path, canonical)
    again = SFTPConfig.from_url(config.url)
    assert (again.address, again.user, again.path) == (config.address, config.user, config.path)


@pytest.mark.parametrize(
    ("path", "normal"),
    [("a/b/", "a/b"), ("/a/../b", "/b"), (".", ""), ("", ""), ("/", "/"), ("//a", "/a"), ("../a", "../a")],
)
def test_paths(path: str, normal: str) -> None:
    """A path is taken as given: absolute, or relative to where the user arrives."""
    assert SFTPConfig.from_settings({"host": "h", "user": "u", "path": path}).path == normal


def test_settings_go_before_the_url() -> None:
    """What is set explicitly replaces what the URL says; empty settings do not."""
    config = SFTPConfig.from_url(
        "sftp://me:hush@host/a", user="you", password="", key_path="/k", concurrent_writes=False
    )
    assert (config.user, config.password, config.key_path, config.concurrent_writes) == ("you", "hush", "/k", False)


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"user": "u"}, "host"),
        ({"host": "h"}, "user"),
        ({"url": "sftp://h/a"}, "user"),
        ({"url": "sftp://u@/a"}, "url"),
        ({"url": "ftp://u@h/a"}, "url"),
        ({"url": "sftp://u@[h/a"}, "url"),
        ({"url": "sftp://u:hush@h/a?x=y"}, "url"),
        ({"url": "sftp://u:hush@h:x/a"}, "host"),
        ({"host": "h:0", "user": "u"}, "host"),
        ({"host": "h:65536", "user": "u"}, "host"),
        ({"host": "h:", "user": "u"}, "host"),
        ({"host": "u:hush@h", "user": "u"}, "host"),
        ({"host": "[::1", "user": "u"}, "host"),
        ({"host": "h", "user": "u\n"}, "user"),
        ({"host": "h", "user": "u", "path": "a\0"}, "path"),
        ({"host": "h", "user": "u", "password": 7}, "password"),
        ({"host": "h", "user": "u", "concurrent_writes": "hush"}, "concurrent-writes"),
        ({"host": "h", "user": "u", "skip_verify": True}, "skip-verify"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], setting: str) -> None:
    """A setting that is missing, wrong or unknown is named, and its value is not repeated."""
    with pytest.raises(StoreConfigError) as caught:
        SFTPConfig.from_settings(settings)
    assert caught.value.setting == setting
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", [KEY, f"{KEY} comment", f"host.example {KEY}", PRINT, f"{PRINT}=\n{KEY}\n", f"# the server\n\n{KEY}\n"]
)
def test_host_keys(text: str) -> None:
    """Host keys are lines of known_hosts with or without the host, or fingerprints, one or several."""
    SFTPConfig(host="h", user="u", host_key=text).open()


@pytest.mark.parametrize("text", ["hush", "ssh-ed25519", "ssh-ed25519 hush", "MD5:00:11", f"{KEY}\nhush", "#", " \n "])
def test_wrong_host_keys(text: str) -> None:
    """Anything else is refused when the store is opened: a pin that is not understood never means no pin."""
    if not text.strip():
        SFTPConfig(host="h", user="u", host_key=text).open()  # the same as no setting
        return
    with pytest.raises(StoreConfigError) as caught:
        SFTPConfig(host="h", user="u", host_key=text).open()
    assert caught.value.setting == "host-key"
    assert "hush" not in str(caught.value)


def test_no_secret_is_shown() -> None:
    """The password is in no repr and no URL."""
    config = SFTPConfig.from_url("sftp://me:hush@host/a")
    assert config.password == "hush"
    store = config.open()
    for text in (repr(config), str(config), config.url, store.url, repr(store)):
        assert "hush" not in text
