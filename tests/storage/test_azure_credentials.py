"""Settings of `abs` replicas, and the identities that Azure gives machines: on Azurite, which takes bearer tokens."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from helpers.contract import keys, read
from helpers.netcontract import told
from helpers.servers.azurite import Azurite
from helpers.tcpproxy import TCPProxy
from helpers.tls import Certificates, make_certificates
from litestream.errors import StorageError, StoreConfigError
from litestream.storage.azure import AzureConfig
from litestream.storage.protocol import Store
from litestream.storage.wrappers.wrap import Limits, wrap

pytestmark = pytest.mark.xdist_group("azurite-oauth")

KEY = base64.b64encode(b"k" * 64).decode()
OTHER = base64.b64encode(b"o" * 64).decode()
TOKEN = "sv=2021-12-02&sr=c&sp=rcwdl&se=2030-01-01T00%3A00%3A00Z&sig=c2lnbmF0dXJl"
PAUSE = 0.2
"""Seconds after which obstore may ask for another token."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own settings, and no `az`."""
    for name in os.environ:
        if name.startswith(("AZURE_", "LITESTREAM_", "IDENTITY_", "MSI_", "SSL_CERT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path))


def settings(**given: str) -> AzureConfig:
    """The least that is needed, and what is given."""
    return AzureConfig.from_settings({"bucket": "box", "account_name": "acct", **given})


def test_url() -> None:
    """A URL names account, container and path; settings beside it go first; the canonical URL has no secrets."""
    config = AzureConfig.from_url("abs://acct@box/some/pa%20th/")
    assert (config.account_name, config.bucket, config.path) == ("acct", "box", "some/pa th")
    assert config.url == "abs://acct@box/some/pa th"
    config = AzureConfig.from_url("abs://acct@box/path", account_name="other", path="else", account_key=KEY)
    assert config.url == "abs://other@box/else"
    assert AzureConfig.from_url("abs://acct@box").url == "abs://acct@box"
    config = AzureConfig.from_url("abs://acct@box/p?endpoint=http://127.0.0.1:10000/acct")
    assert config.endpoint == "http://127.0.0.1:10000/acct"


def test_secrets_are_not_shown() -> None:
    """Neither the settings' repr nor the store's has the key or the token."""
    config = settings(account_key=KEY, sas_token=TOKEN)
    for text in (repr(config), config.url, repr(config.open()), config.open().url):
        assert KEY not in text
        assert "sig" not in text


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({"bucket": None}, "bucket"),
        ({"bucket": "Upper"}, "bucket"),
        ({"bucket": "a"}, "bucket"),
        ({"bucket": "a--b"}, "bucket"),
        ({"bucket": "../x"}, "bucket"),
        ({"account_name": None}, "account-name"),
        ({"account_name": "evil.example/"}, "account-name"),
        ({"account_key": "SECRET no base64"}, "account-key"),
        ({"account_key": KEY[:-1]}, "account-key"),
        ({"sas_token": "SECRET"}, "sas-token"),
        ({"sas_token": "sig=SECRET x"}, "sas-token"),
        ({"endpoint": "ftp://host"}, "endpoint"),
        ({"endpoint": "https://user:SECRET@host"}, "endpoint"),
        ({"endpoint": "https://host/acct?sig=SECRET"}, "endpoint"),
        ({"path": "a/../b"}, "path"),
        ({"path": "a/b."}, "path"),
        ({"path": "a\\b"}, "path"),
        ({"path": 3}, "path"),
        ({"region": "x"}, "region"),
        ({"skip_verify": True}, "skip-verify"),
        ({"url": "s3://box"}, "url"),
        ({"url": "abs://"}, "url"),
        ({"url": "abs://acct:SECRET@box"}, "url"),
        ({"url": f"abs://acct@box/p?{TOKEN}"}, "url"),
        ({"url": "abs://acct@box:99999999/p"}, "url"),
        ({"url": "abs://acct@box/p?region=x"}, "url"),
    ],
)
def test_wrong_setting(given: dict[str, Any], setting: str) -> None:
    """A wrong setting is named; its value, which may be a secret, is not repeated."""
    with pytest.raises(StoreConfigError) as caught:
        AzureConfig.from_settings({"bucket": "box", "account_name": "acct", **given})
    assert caught.value.setting == setting
    assert "SECRET" not in told(caught.value)
    assert "c2lnbmF0dXJl" not in told(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "given", "expected"),
    [
        ({"LITESTREAM_AZURE_ACCOUNT_KEY": KEY}, {}, (KEY, "")),
        ({"LITESTREAM_AZURE_SAS_TOKEN": f"?{TOKEN}"}, {}, ("", TOKEN)),
        ({"LITESTREAM_AZURE_SAS_TOKEN": TOKEN}, {"account_key": KEY}, (KEY, "")),
        ({"LITESTREAM_AZURE_ACCOUNT_KEY": KEY, "AZURE_STORAGE_SAS_TOKEN": TOKEN}, {}, (KEY, "")),
        ({"AZURE_STORAGE_KEY": KEY}, {}, (KEY, "")),
        ({"AZURE_STORAGE_ACCOUNT_KEY": KEY}, {"account_key": OTHER}, (OTHER, "")),
        ({"AZURE_STORAGE_SAS_TOKEN": TOKEN}, {}, ("", TOKEN)),
        ({"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=acct;AccountKey={KEY}"}, {}, (KEY, "")),
        ({"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=acct;AccountKey={KEY}"}, {"sas_token": TOKEN}, ("", TOKEN)),
        ({"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=another;AccountKey={KEY}"}, {}, ("", "")),
        ({}, {}, ("", "")),
    ],
)
def test_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], given: dict[str, str], expected: tuple[str, str]
) -> None:
    """Settings go before LITESTREAM_ variables, those before AZURE_ ones; a key for another account is not used."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = settings(**given)
    assert (config.account_key, config.sas_token) == expected


def test_account_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The account's name and address may come from variables, or from a connection string."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "fromenv")
    assert AzureConfig.from_url("abs://box/p").account_name == "fromenv"
    assert AzureConfig.from_url("abs://acct@box/p").account_name == "acct"
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT")
    text = f"DefaultEndpointsProtocol=https;AccountName=conn;AccountKey={KEY};EndpointSuffix=core.chinacloudapi.cn"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    config = AzureConfig.from_url("abs://box/p")
    assert (config.account_name, config.account_key) == ("conn", KEY)
    assert config.endpoint == "https://conn.blob.core.chinacloudapi.cn"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"BlobEndpoint=http://h:1/x;SharedAccessSignature={TOKEN}")
    config = AzureConfig.from_url("abs://acct@box/p")
    assert (config.endpoint, config.sas_token) == ("http://h:1/x", TOKEN)


class Identity:
    """Hands out tokens as Azure's services do (IMDS, App Service, Entra), each another, good for `lasts` seconds.

    Azurite checks all of a token but its signature.
    """

    def __init__(self) -> None:
        self.lasts = 3600
        self.status = 200
        self.requests: list[tuple[str, dict[str, str], dict[str, list[str]]]] = []
        identity = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                identity.answer(self)

            do_POST = do_GET  # noqa: N815 - the name is http.server's

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """A token, or the error of Entra."""
        body = handler.rfile.read(int(handler.headers["content-length"] or 0)).decode()
        self.requests.append((handler.path, dict(handler.headers), parse_qs(body)))
        expiry = int(time.time()) + self.lasts
        if self.status == 200:
            answer = {"access_token": self.token(expiry), "expires_on": str(expiry), "expires_in": str(self.lasts)}
            answer |= {"token_type": "Bearer", "resource": "https://storage.azure.com"}
            if body:
                answer["expires_in"] = self.lasts  # type: ignore[assignment]  # Entra's is a number, IMDS's a text
        else:
            answer = {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."}
        data = json.dumps(answer).encode()
        handler.send_response(self.status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def token(self, expiry: int) -> str:
        """A JSON web token whose contents Azurite accepts."""
        claims = {
            "aud": "https://storage.azure.com",
            "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
            "iat": expiry - 86400,
            "nbf": expiry - 86400,
            "exp": expiry,
            "number": len(self.requests),
        }
        parts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims)]
        return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "signature"])

    def close(self) -> None:
        """Stop."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def identity() -> Iterator[Identity]:
    """The service."""
    identity = Identity()
    yield identity
    identity.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of Azurite and of the token service."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """Azurite over HTTPS, without which it takes no bearer tokens."""
    server = Azurite(tmp_path_factory.mktemp("azurite-oauth"), tls=certificates.good)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def store(server: Azurite, certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A new container, without key or token."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    config = AzureConfig(account_name=server.account, bucket=server.container(), endpoint=server.endpoint)
    return wrap(config.open(), Limits(timeout=5, attempts=1))


async def use(store: Store) -> None:
    """Everything that needs a token."""
    await store.put("a", b"x", create_only=True)
    assert await read(store, "a") == b"x"
    assert await keys(store) == ["a"]
    await store.delete(["a", "absent"])
    assert await keys(store) == []


async def test_managed_identity(store: Store, identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine's or an app's identity is used, as its variables say; one token serves until it expires."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{identity.server.server_port}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header-of-the-app")
    monkeypatch.setenv("AZURE_CLIENT_ID", "which-of-them")
    await use(store)
    assert 1 <= len(identity.requests) <= 2  # one for single requests, one for uploads in parts
    path, headers, _ = identity.requests[0]
    assert path.startswith("/msi/token?")
    assert "client_id=which-of-them" in path
    assert {name.lower(): value for name, value in headers.items()}["x-identity-header"] == "header-of-the-app"


async def test_token_is_refreshed(store: Store, identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that is about to expire is replaced without a restart, also after the service was away."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{identity.server.server_port}/msi/token")
    identity.lasts = 2
    await store.put("a", b"x")
    await asyncio.sleep(PAUSE)
    await store.put("b", b"x")
    assert len(identity.requests) == 2
    identity.status = 503
    await asyncio.sleep(PAUSE)
    with pytest.raises(StorageError) as caught:
        await store.put("c", b"x")
    assert not caught.value.permanent
    assert caught.value.code
    identity.status, identity.lasts = 200, 3600
    await store.delete(["a", "b"])
    await use(store)
    asked = len(identity.requests)
    await store.put("d", b"x")
    assert len(identity.requests) == asked


async def test_workload_identity(
    store: Store, identity: Identity, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In Kubernetes the projected file is traded for a token, and read anew each time, since it is rotated."""
    file = tmp_path / "federated"
    file.write_text("first-assertion")
    with TCPProxy(identity.server.server_port, tls=certificates.good.context()) as proxy:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"https://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("AZURE_TENANT_ID", "tenant")
        monkeypatch.setenv("AZURE_CLIENT_ID", "client")
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(file))
        identity.lasts = 2
        await store.put("a", b"x")
        await asyncio.sleep(PAUSE)
        file.write_text("second-assertion")
        await store.put("b", b"x")
    assert [form["client_assertion"] for _, _, form in identity.requests] == [["first-assertion"], ["second-assertion"]]
    assert all(path.startswith("/tenant/") for path, _, _ in identity.requests)


async def test_client_secret(
    store: Store, identity: Identity, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service principal's secret is traded for a token; a wrong one is a permanent error that does not repeat it."""
    with TCPProxy(identity.server.server_port, tls=certificates.good.context()) as proxy:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"https://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("AZURE_TENANT_ID", "tenant")
        monkeypatch.setenv("AZURE_CLIENT_ID", "client")
        monkeypatch.setenv("AZURE_CLIENT_SECRET", "the-principals-secret")
        identity.status = 401
        with pytest.raises(StorageError, match=r"AADSTS7000215.*account-key") as caught:
            await store.put("a", b"x")
        assert caught.value.permanent
        assert caught.value.code == "NoIdentity"
        assert "the-principals-secret" not in told(caught.value)
        identity.status = 200
        await use(store)
    assert identity.requests[-1][2]["client_secret"] == ["the-principals-secret"]


async def test_command_line(store: Store, identity: Identity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nothing but `az` knows who we are, it is asked."""
    monkeypatch.setattr("litestream.storage.azure._METADATA", ("127.0.0.1", 1))
    expiry = int(time.time()) + 3600
    answer = {"accessToken": identity.token(expiry), "expires_on": expiry, "tokenType": "Bearer"}
    answer |= {"expiresOn": "2099-01-01 00:00:00.000000", "subscription": "s", "tenant": "t"}
    program = tmp_path / "az"
    program.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    program.chmod(0o755)
    assert shutil.which("az") == str(program)
    await use(store)


async def test_no_identity_at_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any credentials the error says which to set; it may pass, since a machine's service may start late."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:1/none")
    with pytest.raises(StorageError, match="set account-key or sas-token") as caught:
        await store.list("")
    assert not caught.value.permanent
    assert caught.value.code == "Connection"


async def test_silent_identity(store: Store, identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token service that never answers holds nothing up for longer than the limit."""
    with TCPProxy(identity.server.server_port) as proxy:
        proxy.hang()
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{proxy.port}/msi/token")
        began = time.monotonic()
        with pytest.raises(StorageError) as caught:
            await store.put("a", b"x")
        assert not caught.value.permanent
        assert time.monotonic() - began < 10
