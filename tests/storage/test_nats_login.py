"""How a NATS replica logs in, whom it trusts, and what it needs permission for."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from helpers.contract import chunks, keys, read
from helpers.netcontract import told
from helpers.servers.nats import NATSServer, Operator, credentials, new_user
from helpers.tls import Certificates, Pair, make_certificates
from litestream.errors import StorageError
from litestream.storage.nats import NATSConfig
from litestream.storage.protocol import Store

pytestmark = pytest.mark.xdist_group("nats")

Start = Callable[..., NATSServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers of this test's own."""
    started: list[NATSServer] = []

    def start(extra: str, **admin: Any) -> NATSServer:  # noqa: ANN401 - any way to log in
        started.append(NATSServer(tmp_path / f"nats{len(started)}", extra, admin))
        return started[-1].start()

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificates:
    """Certificates of this test; nothing in the environment says which authorities to trust."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    return make_certificates(tmp_path / "certificates")


@asynccontextmanager
async def opened(server: NATSServer, bucket: str, **settings: Any) -> AsyncIterator[Store]:  # noqa: ANN401 - as above
    """A store, closed afterwards."""
    store = NATSConfig.from_settings({"url": f"nats://127.0.0.1:{server.port}/{bucket}", **settings}).open()
    try:
        yield store
    finally:
        await store.close()


async def works(server: NATSServer, bucket: str, **settings: Any) -> None:  # noqa: ANN401 - as above
    """All five operations."""
    async with opened(server, bucket, **settings) as store:
        await store.put("a", b"x", create_only=True)
        await store.put("b", chunks(b"y" * 300_000))
        assert await read(store, "b") == b"y" * 300_000
        assert await keys(store) == ["a", "b"]
        await store.delete(["a", "b"])


async def refused(server: NATSServer, *hidden: str, **settings: Any) -> StorageError:  # noqa: ANN401 - as above
    """The permanent error, in time, without secrets."""
    async with opened(server, "b", **settings) as store, asyncio.timeout(10):
        with pytest.raises(StorageError) as caught:
            await store.list("")
    assert caught.value.permanent
    for secret in hidden:
        assert secret not in told(caught.value)
    return caught.value


async def test_token(start: Start) -> None:
    """With a token, in a setting or in the URL."""
    server = start("authorization { token: hush-hush }", token="hush-hush")
    bucket = await server.bucket()
    await works(server, bucket, token="hush-hush")
    await works(server, bucket, url=f"nats://hush-hush@127.0.0.1:{server.port}/{bucket}")
    for settings in ({"token": "wrong-one"}, {}, {"username": "me", "password": "hush-hush"}):
        error = await refused(server, "hush-hush", "wrong-one", **settings)
        assert error.code == "AccessDenied"
    assert "token" in str(await refused(server, token="wrong-one"))


async def test_nkey(start: Start) -> None:
    """With a seed, whose public key may be given too."""
    public, seed = new_user()
    server = start(f"authorization {{ users: [ {{ nkey: {public} }} ] }}", nkeys_seed_str=seed)
    bucket = await server.bucket()
    await works(server, bucket, seed=seed)
    await works(server, bucket, seed=seed, nkey=public)
    other = new_user()[1]
    error = await refused(server, seed, other, seed=other)
    assert (error.code, "nkey" in str(error)) == ("AccessDenied", True)


async def test_jwt_and_creds(start: Start, tmp_path: Path) -> None:
    """With a JWT and its seed, and with the file that holds both, which is read anew for each connection."""
    operator = Operator()
    jwt, seed = operator.user()
    file = tmp_path / "user.creds"
    file.write_text(credentials(jwt, seed))
    server = start(operator.config, user_credentials=str(file))
    bucket = await server.bucket()
    await works(server, bucket, jwt=jwt, seed=seed)
    await works(server, bucket, creds=str(file))
    other = Operator().user()
    error = await refused(server, *other, jwt=other[0], seed=other[1])
    assert error.code == "AccessDenied"
    error = await refused(server, jwt, seed, jwt=jwt, seed=other[1])
    assert error.code == "AccessDenied"
    expired = operator.user(expires=-10)
    assert (await refused(server, *expired, jwt=expired[0], seed=expired[1])).code == "AccessDenied"
    file.write_text("something else")
    assert str(file) in str(await refused(server, creds=str(file)))
    file.unlink()
    assert "No such file" in str(await refused(server, creds=str(file)))


def tls(pair: Pair, *more: str) -> str:
    """What makes a server speak TLS."""
    return f'tls {{ cert_file: "{pair.cert}", key_file: "{pair.key}" {" ".join(more)} }}'


async def bucket_by_tls(server: NATSServer, certificates: Certificates) -> str:
    """A bucket of a server that speaks TLS only."""
    import ssl

    server.admin["tls"] = ssl.create_default_context(cafile=str(certificates.ca))
    return await server.bucket()


async def test_trusted_authority(start: Start, certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """An authority of root-cas is trusted, and one of SSL_CERT_FILE, also when only the server wants TLS."""
    server = start(tls(certificates.good))
    bucket = await bucket_by_tls(server, certificates)
    await works(server, bucket, root_cas=[str(certificates.ca)])
    await works(server, bucket, root_cas=[str(certificates.self_signed.cert), str(certificates.ca)], tls=True)
    assert (await refused(server, root_cas=[str(certificates.self_signed.cert)])).code == "TLS"
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    await works(server, bucket, tls=True)
    await works(server, bucket)
    assert (await refused(server, root_cas=[str(certificates.self_signed.cert)])).code == "TLS"


@pytest.mark.parametrize("name", ["self_signed", "unknown_authority", "wrong_host", "expired"])
async def test_refused_certificate(start: Start, certificates: Certificates, name: str) -> None:
    """Any other certificate is refused, for good and with its reason."""
    pair = certificates.good if name == "unknown_authority" else getattr(certificates, name)
    server = start(tls(pair))
    settings: dict[str, Any] = {} if name == "unknown_authority" else {"root_cas": [str(certificates.ca)]}
    error = await refused(server, "hush-hush", token="hush-hush", **settings)
    assert error.code == "TLS"
    assert "certificate" in str(error)


async def test_client_certificate(start: Start, certificates: Certificates, tmp_path: Path) -> None:
    """A server may want our certificate too; without it the connection is refused."""
    cert, key = client_certificate(tmp_path)
    server = start(tls(certificates.good, f', ca_file: "{cert}", verify: true'))
    server.admin["tls"] = context = certificates_context(certificates)
    context.load_cert_chain(cert, key)
    bucket = await server.bucket()
    trust = {"root_cas": [str(certificates.ca)]}
    await works(server, bucket, **trust, client_cert=str(cert), client_key=str(key))
    async with opened(server, bucket, **trust) as store, asyncio.timeout(10):
        with pytest.raises(StorageError) as caught:
            await store.list("")
        assert caught.value.code == "TLS"
        assert "client-cert" in str(caught.value)
    for wrong in ({"client_cert": str(key), "client_key": str(key)}, {"client_cert": "/none", "client_key": "/none"}):
        error = await refused(server, **trust, **wrong)
        assert (error.code, "client-cert" in str(error)) == ("TLS", True)
    error = await refused(server, root_cas=["/none"])
    assert (error.code, "root-cas" in str(error)) == ("TLS", True)


def client_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of a client, which nobody but itself signed, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(hours=1), now + timedelta(hours=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "client.pem", folder / "client.key"
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


def certificates_context(certificates: Certificates) -> Any:  # noqa: ANN401 - an SSLContext that mypy need not know
    """Who trusts the test's authority."""
    import ssl

    return ssl.create_default_context(cafile=str(certificates.ca))


@pytest.mark.parametrize("setting", ["tls", "root_cas", "client_cert"])
async def test_never_in_plain(certificates: Certificates, setting: str) -> None:
    """Where TLS is asked for, a server that offers none gets not a byte, least of all the password."""
    got = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "x", "version": "2.12.0", "max_payload": 1 << 20, "headers": True, "auth_required": True}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        got.extend(await reader.read())
        writer.close()

    by_name: dict[str, dict[str, Any]] = {
        "tls": {"tls": True},
        "root_cas": {"root_cas": [str(certificates.ca)]},
        "client_cert": {"client_cert": str(certificates.good.cert), "client_key": str(certificates.good.key)},
    }
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        store = NATSConfig.from_url(f"nats://me:hush-hush@127.0.0.1:{port}/b", **by_name[setting]).open()
        with pytest.raises(StorageError) as caught:
            await store.put("a", b"x")
        assert (caught.value.code, caught.value.permanent) == ("TLS", True)
        assert "hush-hush" not in told(caught.value)
        await store.close()
        await asyncio.sleep(0.1)
    assert not got


PAGE = Path(__file__).resolve().parents[2] / "docs" / "stores" / "nats.md"
DELETE = '"$JS.API.STREAM.MSG.DELETE.OBJ_b-x", '


def documented() -> str:
    """What the page says that a writer needs, for the bucket `b-x`."""
    found = re.search(r"permissions \{(.*?)\n\}", PAGE.read_text(), re.DOTALL)
    assert found
    return found[1].replace("app-backups", "b-x")


async def test_least_privilege(start: Start) -> None:
    """The documented permissions are enough, and what they leave out is refused at once, by name."""
    writer = documented()
    keeper = writer.replace("publish: [", f"publish: [{DELETE}")
    reader = "\n".join(line for line in writer.splitlines() if "$O" not in line and "PURGE" not in line)
    users = [("admin", ""), ("writer", writer), ("reader", reader), ("keeper", keeper), ("nobody", 'publish: ["x"]')]
    lines = [
        f"{{ user: {name}, password: p {f', permissions {{ {rights} }}' if rights else ''} }}" for name, rights in users
    ]
    server = start(f"authorization {{ users: [ {', '.join(lines)} ] }}", user="admin", password="p")
    async with server.client() as jetstream:
        await jetstream.create_object_store("b-x")
    data = bytes(range(256)) * 4000
    began = time.monotonic()
    async with opened(server, "b-x", username="writer", password="p") as store:
        await store.put("a", b"x", create_only=True)
        await store.put("a", b"x", create_only=True)
        await store.put("large", chunks(data))
        assert await read(store, "large", 500_000) == data[500_000:]
        with pytest.raises(StorageError, match=r"MSG\.DELETE") as caught:
            await store.delete(["a"])
        assert (caught.value.permanent, caught.value.code, caught.value.key) == (True, "AccessDenied", "a")
        assert await keys(store) == ["a", "large"]
    async with opened(server, "b-x", username="reader", password="p") as store:
        assert await read(store, "large") == data
        for work in (store.put("b", b"x"), store.put("b", chunks(b"x" * 2_000_000)), store.delete(["a"])):
            with pytest.raises(StorageError, match="permission") as caught:
                await work
            assert (caught.value.permanent, caught.value.code) == (True, "AccessDenied")
        assert await keys(store) == ["a", "large"]
    async with opened(server, "b-x", username="keeper", password="p") as store:
        await store.delete(["a", "large"])
        assert await keys(store) == []
    async with opened(server, "b-x", username="nobody", password="p") as store:
        with pytest.raises(StorageError, match="permission"):
            await store.list("")
    assert time.monotonic() - began < 8
    assert await server.messages("b-x") == 0


async def test_no_jetstream(start: Start) -> None:
    """A server, or an account, without JetStream says so."""
    server = start("accounts { A: { users: [ { user: me, password: p } ] } }")
    async with opened(server, "b", username="me", password="p") as store:
        with pytest.raises(StorageError, match="JetStream") as caught:
            await store.list("")
        assert caught.value.code == "Unavailable"
