"""Google Cloud Storage: both suites through a gateway on SeaweedFS, credentials, requests, and settings."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from helpers.contract import keys, keys_are_kept, read
from helpers.netcontract import NetworkContract, told
from helpers.peak import memory_of_a_stream
from helpers.remotecontract import SentContract
from helpers.servers.dialect import Gateway, Refusal
from helpers.servers.google import CONDITION, Google, ServiceAccount
from helpers.servers.s3 import S3Server
from litestream.errors import ObjectNotFoundError, StorageError, StoreConfigError
from litestream.storage.gcs import GCSConfig
from litestream.storage.protocol import Store

pytestmark = pytest.mark.xdist_group("seaweedfs")

_VARIABLES = ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "GCE_METADATA_HOST", "GOOGLE_SERVICE_ACCOUNT")


@pytest.fixture(scope="module")
def account() -> ServiceAccount:
    """Who may do everything."""
    return ServiceAccount("backup")


@pytest.fixture(scope="module")
def stranger() -> ServiceAccount:
    """Who may do nothing."""
    return ServiceAccount("stranger")


@pytest.fixture
def google(seaweedfs: S3Server, account: ServiceAccount) -> Iterator[Gateway]:
    """The gateway, of one test."""
    with Gateway(seaweedfs, Google(account)) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def nobody_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This machine has no credentials of Google's."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


class TestGCS(SentContract, NetworkContract):
    """With a service account's key."""

    credential_codes = frozenset({"AuthenticationRequired"})
    credential_hint = "credentials"
    part = 16 << 20

    @pytest.fixture(autouse=True)
    def server(self, google: Gateway, account: ServiceAccount, stranger: ServiceAccount, tmp_path: Path) -> None:
        """One bucket per test."""
        self.google = google
        self.upstream_port = google.port
        self.bucket = google.upstream.new_bucket()
        self.right, self.wrong = account.write(tmp_path / "right.json"), stranger.write(tmp_path / "wrong.json")
        self.secrets = tuple(line for who in (account, stranger) for line in who.private_key.splitlines()[1:3])

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        """A store in it."""
        store = self.open_at(self.upstream_port)
        yield store
        await store.close()

    def open_at(self, port: int, *, tls: bool = False, wrong_credentials: bool = False, missing: bool = False) -> Store:
        """The store at a port."""
        return GCSConfig(
            bucket="no-such-bucket" if missing else self.bucket,
            path="some/path",
            endpoint=f"{'https' if tls else 'http'}://127.0.0.1:{port}",
            credential_path=str(self.wrong if wrong_credentials else self.right),
        ).open()

    async def test_long_and_odd_keys(self, store: Store) -> None:
        """Names may be 1,024 bytes long, with the path before them, and hold all kinds of characters."""
        longest = "/".join(["k" * 127] * 8)[: 1024 - len("some/path/")]
        names = [longest, "a b/%2e%2e/c", "..a/b..", "'\"*?[x]#&=+;~", "日本/é", ".hidden", "a.tmp"]
        await keys_are_kept(store, names)

    async def test_requests(self, store: Store) -> None:
        """A put is one request, a create-only one says so in it, and nothing else is sent."""
        await store.put("a", b"x")
        seen = self.google.seen
        seen.clear()
        for at in range(5):
            await store.put(f"g/{at}", b"x", create_only=True)
        await store.put("a", b"y")
        assert [(request.method, request.headers.get(CONDITION)) for request in seen] == [("PUT", "0")] * 5 + [
            ("PUT", None)
        ]
        assert [request.path for request in seen][-1] == f"/{self.bucket}/some/path/a"
        seen.clear()
        await store.list("")
        assert [(request.method, "prefix=some%2Fpath%2F" in request.query) for request in seen] == [("GET", True)]

    async def test_nothing_left_of_a_broken_upload(self, store: Store) -> None:
        """An upload of parts whose body fails is aborted: neither an object nor parts stay."""

        async def body() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield b"x" * (1 << 20)
            raise BufferError

        with pytest.raises(BufferError):
            await store.put("large", body())
        assert await keys(store) == []
        assert self.google.upstream.pending(self.bucket) == []

    async def test_throttled(self, store: Store) -> None:
        """`SlowDown` is a temporary error, with its code."""
        self.google.fail.append(Refusal(429, "SlowDown"))
        with pytest.raises(StorageError) as caught:
            await store.put("a", b"x")
        assert (caught.value.code, caught.value.permanent) == ("Throttled", False)

    async def test_no_right_to_write(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An account that may only read is told which role it needs."""
        assert isinstance(self.google.dialect, Google)
        self.google.dialect.readers.add("a-token-that-reads")
        with metadata(["a-token-that-reads"]) as host:
            monkeypatch.setenv("GCE_METADATA_HOST", host)
            store = GCSConfig(bucket=self.bucket, endpoint=f"http://127.0.0.1:{self.upstream_port}").open()
            assert await store.list("") == []
            with pytest.raises(StorageError, match=r"roles/storage\.objectUser") as caught:
                await store.put("a", b"x")
        assert (caught.value.code, caught.value.permanent) == ("AccessDenied", True)
        assert "a-token-that-reads" not in told(caught.value)

    async def test_foreign_names(self, store: Store) -> None:
        """Folder markers and what lies beside the path are passed over; a name that obstore cannot read is told."""
        admin = self.google.upstream.admin
        admin.put_object(Bucket=self.bucket, Key="some/pathological", Body=b"")
        admin.put_object(Bucket=self.bucket, Key="some/path/", Body=b"")
        await store.put("a", b"x")
        assert await keys(store) == ["a"]
        listed = "".join(
            f"<Contents><Key>some/path/{key}</Key><Size>1</Size><ETag>x</ETag>"
            "<LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>"
            for key in ("a", "b//c")
        )
        answer = f"<ListBucketResult><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>"
        self.google.fail.append(Refusal(200, "", content=answer.encode()))
        with pytest.raises(StorageError, match="empty part") as caught:
            await store.list("")
        assert (caught.value.code, caught.value.permanent) == ("ForeignName", True)

    async def test_credentials_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """GOOGLE_APPLICATION_CREDENTIALS, or else the file that gcloud keeps, says who we are."""
        config = GCSConfig(bucket=self.bucket, endpoint=f"http://127.0.0.1:{self.upstream_port}")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(self.right))
        await config.open().put("a", b"x")
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
        known = Path.home() / ".config" / "gcloud" / "application_default_credentials.json"
        known.parent.mkdir(parents=True)
        self.right.rename(known)
        assert await read(config.open(), "a") == b"x"

    async def test_tokens_are_renewed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A machine's own account: tokens come from the metadata service, and a new one before one expires."""
        assert isinstance(self.google.dialect, Google)
        tokens = [f"token-{at}-of-the-machine" for at in range(20)]
        self.google.dialect.tokens = set(tokens)
        with metadata(tokens, lasts=242) as host:
            monkeypatch.setenv("GCE_METADATA_HOST", host)
            store = GCSConfig(bucket=self.bucket, endpoint=f"http://127.0.0.1:{self.upstream_port}").open()
            await store.put("a", b"x")
            self.google.dialect.tokens.discard(self.google.seen[-1].headers["authorization"].removeprefix("Bearer "))
            await asyncio.sleep(3)
            await store.put("b", b"x")
            assert await keys(store) == ["a", "b"]

    async def test_emulator(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With STORAGE_EMULATOR_HOST the emulator is asked, as nobody."""
        assert isinstance(self.google.dialect, Google)
        self.google.dialect.tokens = {"anonymous"}
        for host in (f"127.0.0.1:{self.upstream_port}", f"http://127.0.0.1:{self.upstream_port}/"):
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
            monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/not/there")
            config = GCSConfig.from_url(f"gcs://{self.bucket}/p")
            assert config.emulator
            await config.open().put(f"a{len(host)}", b"x", create_only=True)
            assert await read(config.open(), f"a{len(host)}") == b"x"

    def test_memory_of_a_large_stream(self) -> None:
        """256 MiB go up and come down again in a process that never needs 120 MiB more than at rest."""
        endpoint = f"http://127.0.0.1:{self.upstream_port}"
        config = GCSConfig(bucket=self.bucket, endpoint=endpoint, credential_path=str(self.right))
        assert 0 < max(memory_of_a_stream(config, 256)) < 120


@contextlib.contextmanager
def metadata(tokens: list[str], lasts: int = 3600, status: int = 200) -> Iterator[str]:
    """A machine's metadata service, HOST:PORT, that gives out one token after the other."""
    given = iter(tokens)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["Metadata-Flavor"] == "Google"
            token = {"access_token": next(given), "expires_in": lasts, "token_type": "Bearer"} if tokens else {}
            self.send_response(status)
            self.send_header("Metadata-Flavor", "Google")
            self.end_headers()
            self.wfile.write(json.dumps(token).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "not there"),
        ("", "no JSON"),
        (
            '{"type": "service_account", "client_email": "x", "private_key": "KEPT-SECRET", "private_key_id": "1"}',
            "JSON",
        ),
        ('{"type": "external_account", "audience": "KEPT-SECRET"}', "federation"),
        ('{"type": "authorized_user", "client_id": "KEPT-SECRET"}', "no JSON"),
    ],
    ids=["absent", "empty", "bad-key", "federation", "incomplete"],
)
async def test_useless_credentials(tmp_path: Path, content: str | None, text: str) -> None:
    """A file that is no use is said to be, with the reason and nothing of what is in it."""
    path = tmp_path / "credentials.json"
    if content is not None:
        path.write_text(content)
    store = GCSConfig(bucket="bucket", credential_path=str(path)).open()
    with pytest.raises(StorageError, match=text) as caught:
        await store.list("")
    assert caught.value.code == "NoCredentials"
    assert "credential-path" in str(caught.value)
    assert "KEPT-SECRET" not in told(caught.value)


async def test_account_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `gcloud auth application-default login` wrote is taken to Google for a token, and shown nowhere."""
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    user = {"type": "authorized_user", "client_id": "c", "client_secret": "KEPT-CLIENT", "refresh_token": "KEPT-TOKEN"}
    path = tmp_path / "credentials.json"
    path.write_text(json.dumps(user))
    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY")
        with pytest.raises(StorageError) as caught:
            await GCSConfig(bucket="bucket", credential_path=str(path)).open().list("")
    assert asked and all(line.startswith(b"CONNECT ") and b"google" in line for line in asked), asked
    assert (caught.value.code, caught.value.permanent) == ("NoCredentials", False)
    assert "KEPT" not in told(caught.value)


async def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without an account: the error says what can be done."""
    with metadata([], status=404) as host:
        monkeypatch.setenv("GCE_METADATA_HOST", host)
        with pytest.raises(StorageError, match="GOOGLE_APPLICATION_CREDENTIALS") as caught:
            await GCSConfig(bucket="bucket").open().list("")
    assert caught.value.code == "NoCredentials"


def test_urls() -> None:
    """`gs://` and `gcs://` say bucket and path; keys of the file go before them."""
    config = GCSConfig.from_url("gs://my-bucket/some/path%20x/")
    assert config == GCSConfig(bucket="my-bucket", path="some/path x")
    assert config.url == "gs://my-bucket/some/path x"
    assert GCSConfig.from_url("GCS://b.example.com").url == "gs://b.example.com"
    settings = {"url": "gs://b-1/p", "path": "/q/", "endpoint": "https://restricted.googleapis.com/"}
    assert GCSConfig.from_settings(settings) == GCSConfig(
        bucket="b-1", path="q", endpoint="https://restricted.googleapis.com"
    )
    assert GCSConfig.from_url("gs://bucket").open().url == "gs://bucket"


@pytest.mark.parametrize(
    ("setting", "settings"),
    [
        ("bucket", {}),
        ("bucket", {"bucket": "Upper"}),
        ("url", {"url": "gs:///path"}),
        ("url", {"url": "s3://bucket/path"}),
        ("url", {"url": "gs://user:KEPT@bucket/path"}),
        ("url", {"url": "gs://bucket/path?token=KEPT"}),
        ("path", {"bucket": "bucket", "path": "a/../KEPT"}),
        ("endpoint", {"bucket": "bucket", "endpoint": "https://u:KEPT@host"}),
        ("credential-path", {"bucket": "bucket", "credential_path": 5}),
        ("region", {"bucket": "bucket", "region": "KEPT"}),
    ],
)
def test_wrong_settings(setting: str, settings: dict[str, Any]) -> None:
    """A setting that is wrong is named, and its value not repeated."""
    with pytest.raises(StoreConfigError) as caught:
        GCSConfig.from_settings(settings)
    assert caught.value.setting == setting
    assert "KEPT" not in told(caught.value)


async def test_absent_in_delete(google: Gateway, account: ServiceAccount, tmp_path: Path) -> None:
    """Absent objects among many are no error and keep no other from going; a missing bucket is one."""
    bucket = google.upstream.new_bucket()
    endpoint, path = f"http://127.0.0.1:{google.port}", str(account.write(tmp_path / "key.json"))
    store = GCSConfig(bucket=bucket, endpoint=endpoint, credential_path=path).open()
    await asyncio.gather(*(store.put(f"d/{at}", b"x") for at in range(40)))
    await store.delete([f"d/{at}" for at in range(60)])
    assert await keys(store) == []
    with pytest.raises(ObjectNotFoundError):
        await read(store, "d/1")
    missing = GCSConfig(bucket="not-there", endpoint=endpoint, credential_path=path).open()
    with pytest.raises(StorageError, match="create it") as caught:
        await missing.delete(["a", "b"])
    assert caught.value.code == "NoSuchBucket"
