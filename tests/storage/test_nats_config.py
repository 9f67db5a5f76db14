"""The settings of a NATS replica, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.servers.nats import new_user
from litestream.errors import StoreConfigError
from litestream.storage.nats import NATSConfig


@pytest.mark.parametrize(
    ("url", "fields", "canonical"),
    [
        ("nats://h/b", {"bucket": "b"}, "nats://h:4222/b"),
        ("NATS://h:1/b/", {"bucket": "b"}, "nats://h:1/b"),
        ("nats://h:1/b/p/q", {"bucket": "b", "path": "p/q"}, "nats://h:1/b/p/q"),
        ("nats://h:1/b/p%20q", {"bucket": "b", "path": "p q"}, "nats://h:1/b/p%20q"),
        ("nats://u:hu%40sh@h/b", {"username": "u", "password": "hu@sh", "token": ""}, "nats://h:4222/b"),
        ("nats://hush@h/b", {"username": "", "password": "", "token": "hush"}, "nats://h:4222/b"),
        ("nats://a,b:1,[::1]:2/x", {"bucket": "x"}, "nats://a:4222,b:1,[::1]:2/x"),
    ],
)
def test_urls(url: str, fields: dict[str, str], canonical: str) -> None:
    """A URL says servers, login, bucket and path; the canonical one is without the login."""
    config = NATSConfig.from_url(url)
    assert {name: getattr(config, name) for name in fields} == fields
    assert config.url == canonical
    assert NATSConfig.from_url(canonical).url == canonical
    assert config.servers == [f"nats://{host}" for host in canonical.split("/")[2].split(",")]


def test_without_a_url() -> None:
    """A bucket alone is one on this machine."""
    assert NATSConfig.from_settings({"bucket": "b", "path": "/p/"}).url == "nats://127.0.0.1:4222/b/p"


def test_a_login_replaces_that_of_the_url() -> None:
    """Another way to log in that is set explicitly is the only one."""
    config = NATSConfig.from_url("nats://u:hush@h/b", token="other")
    assert (config.username, config.password, config.token) == ("", "", "other")
    config = NATSConfig.from_url("nats://hush@h/b", username="me", password="mine")
    assert (config.username, config.password, config.token) == ("me", "mine", "")


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({}, "bucket"),
        ({"url": "nats://h"}, "bucket"),
        ({"bucket": "a.b"}, "bucket"),
        ({"bucket": "a b"}, "bucket"),
        ({"url": "nats://hush@h/b/../c"}, "path"),
        ({"bucket": "b", "path": "a//b"}, "path"),
        ({"url": "nats:///b"}, "url"),
        ({"url": "tls://hush@h/b"}, "url"),
        ({"url": "nats://hush@h x/b"}, "url"),
        ({"url": "nats://hush@h:x/b"}, "url"),
        ({"url": "nats://h/b?token=hush"}, "url"),
        ({"bucket": "b", "token": 7}, "token"),
        ({"bucket": "b", "tls": "hush"}, "tls"),
        ({"bucket": "b", "timeout": "hush"}, "timeout"),
        ({"bucket": "b", "timeout": 0}, "timeout"),
        ({"bucket": "b", "reconnect_wait": -1}, "reconnect-wait"),
        ({"bucket": "b", "root_cas": [7]}, "root-cas"),
        ({"bucket": "b", "client_cert": "/c"}, "client-cert"),
        ({"bucket": "b", "client_key": "/k"}, "client-key"),
        ({"bucket": "b", "jwt": "hush"}, "jwt"),
        ({"bucket": "b", "nkey": "hush"}, "nkey"),
        ({"bucket": "b", "region": "hush"}, "region"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], setting: str) -> None:
    """A setting that is missing, wrong or unknown is named, and its value is not repeated."""
    with pytest.raises(StoreConfigError) as caught:
        NATSConfig.from_settings(settings)
    assert caught.value.setting == setting
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_seeds() -> None:
    """A seed that is none, or another's, is refused when the store is opened, and shown to nobody."""
    public, seed = new_user()
    NATSConfig(bucket="b", seed=seed).open()
    NATSConfig(bucket="b", seed=f" {seed}\n", nkey=public).open()
    for settings, setting in (
        ({"seed": seed[:-1]}, "seed"),
        ({"seed": seed, "nkey": new_user()[0]}, "nkey"),
        ({"seed": public}, "seed"),
    ):
        with pytest.raises(StoreConfigError) as caught:
            NATSConfig.from_settings({"bucket": "b", **settings}).open()
        assert caught.value.setting == setting
        assert seed[:20] not in str(caught.value)


def test_no_secret_is_shown() -> None:
    """No way to log in is in a repr or a URL."""
    settings = dict.fromkeys(("password", "token", "jwt", "seed", "nkey"), "hush")
    config = NATSConfig.from_url("nats://u:hush@h/b", **settings)
    store = NATSConfig.from_url("nats://u:hush@h/b").open()
    for text in (repr(config), str(config), config.url, store.url, repr(store)):
        assert "hush" not in text
