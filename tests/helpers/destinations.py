"""A replica on each kind of real server, as an entry of litestream.yml.

@pytest.mark.parametrize("destination", DESTINATIONS, indirect=True)
def test_x(destination: Destination) -> None: ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

import pytest

from helpers.cli import Yaml
from helpers.servers.azurite import Azurite
from helpers.servers.dav import PASSWORD, USER, DAVServer
from helpers.servers.google import GooglePlace
from helpers.servers.nats import NATSServer
from helpers.servers.s3 import S3Server
from helpers.servers.sshd import SSHD


@dataclass
class Destination:
    """An empty place of its own.

    Attributes:
        entry: the replica's settings, credentials included.
        url: the same place as a URL without secrets; empty if there is none.
        env: what a program needs in its environment to use the URL.
        secrets: what must not be told anywhere.
    """

    entry: dict[str, Yaml]
    url: str = ""
    env: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()


def place_in_s3(server: S3Server) -> Destination:
    """A bucket of its own on some S3 server."""
    bucket = server.new_bucket()
    keys = {"access-key-id": server.key, "secret-access-key": server.secret}
    place = {"bucket": bucket, "path": "backups/app", "endpoint": server.endpoint, "region": "us-east-1"}
    return Destination(
        {"type": "s3", **place, "force-path-style": True, **keys},
        f"s3://{bucket}/backups/app?endpoint={server.endpoint}&region=us-east-1&forcePathStyle=true",
        {"AWS_ACCESS_KEY_ID": server.key, "AWS_SECRET_ACCESS_KEY": server.secret},
        (server.secret,),
    )


def _azurite(server: Azurite) -> Destination:
    container = server.container()
    keys = {"account-name": server.account, "account-key": server.key}
    return Destination(
        {"type": "abs", "bucket": container, "path": "backups/app", "endpoint": server.endpoint, **keys},
        secrets=(server.key,),
    )


def _sftp(server: SSHD) -> Destination:
    folder = f"{server.folder()}/backups/app"
    entry = {"type": "sftp", "host": f"127.0.0.1:{server.port}", "user": server.user, "path": folder}
    return Destination({**entry, "key-path": str(server.key), "host-key": server.host_key})


def _webdav(server: DAVServer) -> Destination:
    url = f"http://127.0.0.1:{server.port}/{quote(server.new_place().name)}"
    keys = {"webdav-username": USER, "webdav-password": PASSWORD}
    return Destination({"type": "webdav", "webdav-url": url, "path": "backups/app", **keys}, secrets=(PASSWORD,))


def _nats(server: NATSServer) -> Destination:
    bucket = asyncio.run(server.bucket())
    keys = {"username": "admin", "password": "testsecret"}
    return Destination(
        {"type": "nats", "url": f"nats://127.0.0.1:{server.port}/{bucket}/app", **keys}, secrets=("testsecret",)
    )


def _gcs(place: GooglePlace) -> Destination:
    bucket = place.gateway.upstream.new_bucket()
    key = {"credential-path": str(place.credentials)}
    return Destination({"type": "gs", "bucket": bucket, "path": "app", "endpoint": place.endpoint, **key})


def _encrypted(server: S3Server) -> Destination:
    from pyrage import x25519

    place, identity = place_in_s3(server), x25519.Identity.generate()
    age = {"identities": [str(identity)], "recipients": [str(identity.to_public())]}
    return Destination({**place.entry, "age": age}, secrets=(*place.secrets, str(identity)))


_KINDS: dict[str, tuple[str, Callable[..., Destination]]] = {
    "seaweedfs": ("seaweedfs", place_in_s3),
    "s3 encrypted": ("seaweedfs", _encrypted),
    "s3 without conditions": ("rclone_s3", place_in_s3),
    "azurite": ("azurite", _azurite),
    "sftp": ("sshd", _sftp),
    "gcs": ("google_place", _gcs),
    "nats": ("nats_server", _nats),
    "webdav": ("rclone_webdav", _webdav),
}
"""Parameter to the server's fixture and what makes a place on it."""
_GROUPS = {"google_place": "seaweedfs", "nats_server": "nats"}
"""Fixtures whose tests have a group of another name."""

DESTINATIONS = [
    pytest.param(name, marks=pytest.mark.xdist_group(_GROUPS.get(fixture, fixture)))
    for name, (fixture, _) in _KINDS.items()
]


@pytest.fixture
def destination(request: pytest.FixtureRequest) -> Destination:
    """A place on the server that the parameter names."""
    fixture, make = _KINDS[request.param]
    return make(request.getfixturevalue(fixture))
