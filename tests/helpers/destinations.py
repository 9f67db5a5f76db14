"""A replica on each kind of real server, as an entry of litestream.yml.

@pytest.mark.parametrize("destination", DESTINATIONS, indirect=True)
def test_x(destination: Destination) -> None: ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from helpers.cli import Yaml
from helpers.servers.azurite import Azurite
from helpers.servers.s3 import S3Server


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


_KINDS: dict[str, tuple[str, Callable[..., Destination]]] = {
    "seaweedfs": ("seaweedfs", place_in_s3),
    "azurite": ("azurite", _azurite),
}
"""Parameter to the server's fixture and what makes a place on it."""

DESTINATIONS = [pytest.param(name, marks=pytest.mark.xdist_group(fixture)) for name, (fixture, _) in _KINDS.items()]


@pytest.fixture
def destination(request: pytest.FixtureRequest) -> Destination:
    """A place on the server that the parameter names."""
    fixture, make = _KINDS[request.param]
    return make(request.getfixturevalue(fixture))
