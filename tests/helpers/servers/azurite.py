"""Azurite, Microsoft's own server of the Blob protocol, from npm.

The wheelless one of the servers: where npm or its registry is missing, the tests that need it are skipped.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import secrets
import shutil
import signal
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache as once
from pathlib import Path
from urllib.parse import urlencode

import pytest

from helpers.servers.base import Server, cache, free_port, listening
from helpers.tls import Pair

VERSION = "3.37.0"
_API = "2021-12-02"


@once
def _program() -> list[str]:
    """The command that starts it, installed at first use; safe among parallel test processes."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("Azurite needs npm and node, which are not installed")
    folder = cache() / f"azurite-{VERSION}"
    done = folder / "installed"
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"azurite-{VERSION}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), f"azurite@{VERSION}"]
            result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
            if result.returncode:
                pytest.skip(f"npm cannot install azurite {VERSION}: {result.stderr.strip()[-300:]}")
            done.touch()
    return [node, str(folder / "node_modules" / ".bin" / "azurite-blob")]


class Azurite:
    """A running server with one account. With `tls` it speaks HTTPS and takes bearer tokens too."""

    account = "testaccount"

    def __init__(self, folder: Path, tls: Pair | None = None) -> None:
        self.port = free_port()
        self.key = base64.b64encode(secrets.token_bytes(64)).decode()
        self._folder = folder
        self._tls = tls
        self._server: Server | None = None

    @property
    def endpoint(self) -> str:
        """The account's address."""
        return self.endpoint_at(self.port, tls=self._tls is not None)

    def endpoint_at(self, port: int, *, tls: bool = False) -> str:
        """The account's address by way of another port."""
        return f"{'https' if tls else 'http'}://127.0.0.1:{port}/{self.account}"

    def start(self) -> None:
        """Start it, with the data of last time."""
        options = ["--silent", "--skipApiVersionCheck", "--disableTelemetry", "--location", str(self._folder / "data")]
        options += ["--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--blobKeepAliveTimeout", "60"]
        if self._tls is not None:
            options += ["--cert", str(self._tls.cert), "--key", str(self._tls.key), "--oauth", "basic"]
        env = {"AZURITE_ACCOUNTS": f"{self.account}:{self.key}"}
        self._server = Server([*_program(), *options], self._folder, env).wait_until(listening(self.port))

    def stop(self) -> None:
        """End it; it writes down what it has."""
        if self._server is not None:
            self._server.stop(signal.SIGTERM)

    def container(self) -> str:
        """The name of a new, empty container."""
        name = f"c-{secrets.token_hex(8)}"
        self.request("PUT", name, "restype=container")
        return name

    def blobs(self, container: str, *, uncommitted: bool = False) -> str:
        """The listing as XML, on request with blobs that have only uncommitted blocks."""
        include = "&include=uncommittedblobs" if uncommitted else ""
        return self.request("GET", container, f"restype=container&comp=list{include}")

    def request(self, method: str, path: str, query: str) -> str:
        """A request of the account's owner; the body of the answer."""
        url = f"{self.endpoint}/{path}?{query}&{self.account_sas()}"
        trust = ssl.create_default_context()
        if self._tls is not None:
            trust.load_verify_locations(self._tls.cert.parent / "ca.pem")
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10, context=trust) as answer:
            return str(answer.read().decode())

    def account_sas(self) -> str:
        """A token that may do anything for an hour."""
        expiry = _time(timedelta(hours=1))
        services, resources, permissions, protocols = "b", "sco", "rwdlac", "https,http"
        signed = [self.account, permissions, services, resources, "", expiry, "", protocols, _API, "", ""]
        fields = {"sv": _API, "ss": services, "srt": resources, "sp": permissions, "se": expiry, "spr": protocols}
        return urlencode({**fields, "sig": self._sign(signed)})

    def container_sas(self, container: str, permissions: str = "rcwdl", lasts: float = 3600) -> str:
        """A token for one container: read, create, write, delete, list."""
        expiry = _time(timedelta(seconds=lasts))
        signed = [permissions, "", expiry, f"/blob/{self.account}/{container}", "", "", "https,http", _API, "c"]
        fields = {"sv": _API, "sr": "c", "sp": permissions, "se": expiry, "spr": "https,http"}
        return urlencode({**fields, "sig": self._sign([*signed, *[""] * 7])})

    def _sign(self, fields: list[str]) -> str:
        digest = hmac.new(base64.b64decode(self.key), "\n".join(fields).encode(), hashlib.sha256).digest()
        return base64.b64encode(digest).decode()


def _time(ahead: timedelta) -> str:
    return (datetime.now(UTC) + ahead).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """The server over plain HTTP."""
    server = Azurite(tmp_path_factory.mktemp("azurite"))
    server.start()
    yield server
    server.stop()
