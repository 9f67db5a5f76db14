"""What is sent to S3, header by header, and what becomes of answers that no test server gives."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import pytest

from helpers.contract import chunks, keys, read
from helpers.netcontract import told
from helpers.s3fake import Asked, Fake, Said, fake, object_store
from litestream.errors import ObjectExistsError, StorageError
from litestream.storage.plain_http import request
from litestream.storage.s3 import S3Config
from litestream.storage.s3.aws import Credentials
from litestream.storage.s3.requests import sign
from litestream.storage.s3.store import S3Store
from litestream.storage.s3.xml import parse_xml

MIB = 1 << 20
KEYS = {"access_key_id": "AKIAX", "secret_access_key": "topsecret"}


@pytest.fixture
def server() -> Iterator[Fake]:
    """A server that agrees with everything."""
    with fake() as running:
        yield running


def store(server: Fake, **settings: object) -> S3Store:
    """A store on it."""
    made = S3Config.from_settings({"bucket": "bkt", "path": "p", "endpoint": server.url, **KEYS, **settings}).open()
    assert isinstance(made, S3Store)
    return made


def sent(asked: Asked, prefix: str = "x-amz-") -> dict[str, str]:
    """The headers of a request that matter here."""
    usual = ("x-amz-date", "x-amz-content-sha256")
    return {name: value for name, value in asked.headers.items() if name.startswith(prefix) and name not in usual}


async def test_one_put_is_one_request(server: Fake) -> None:
    """A put of bytes or of a short stream, create-only or not, is one PUT and nothing else."""
    opened = store(server)
    await opened.put("a", b"x", create_only=True)
    await opened.put("b", chunks(b"x", b"y"), create_only=True)
    await opened.put("c", b"x" * MIB)
    await opened.put("d", chunks(*[b"x" * MIB] * 16))
    assert [(asked.method, asked.path) for asked in server.asked] == [("PUT", f"/bkt/p/{name}") for name in "abcd"]
    assert [asked.headers.get("if-none-match") for asked in server.asked] == ["*", "*", None, None]
    assert opened.requests("PUT", size=16 * MIB) == 1


async def test_requests_of_an_upload(server: Fake) -> None:
    """A larger body is one request for each part and two more; the same number is what the budget counts."""
    opened = store(server, part_size="5MiB")
    await opened.put("a", chunks(*[b"x" * MIB] * 12))
    await opened.close()
    upload = [asked for asked in server.asked if asked.path.startswith("/bkt/p/a")]
    assert sorted(asked.method for asked in upload) == ["POST", "POST", "PUT", "PUT", "PUT"]
    assert sum(len(asked.body) for asked in upload if asked.method == "PUT") == 12 * MIB
    assert opened.requests("PUT", size=12 * MIB) == len(upload)


CUSTOMER = base64.b64encode(b"k" * 32).decode()
ENCRYPTION = [
    ({"storage_class": "STANDARD_IA"}, {"x-amz-storage-class": "STANDARD_IA"}),
    ({"sse": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
    (
        {"sse_kms_key_id": "alias/k"},
        {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "alias/k"},
    ),
    (
        {"sse_customer_key": CUSTOMER},
        {
            "x-amz-server-side-encryption-customer-algorithm": "AES256",
            "x-amz-server-side-encryption-customer-key": CUSTOMER,
            "x-amz-server-side-encryption-customer-key-md5": "mT2HRsMGJ5IX5C+0rreZ8Q==",
        },
    ),
    ({"session_token": "toptoken"}, {"x-amz-security-token": "toptoken"}),
]


@pytest.mark.parametrize(("settings", "headers"), ENCRYPTION, ids=[next(iter(case)) for case, _ in ENCRYPTION])
async def test_headers_of_puts(server: Fake, settings: dict[str, str], headers: dict[str, str]) -> None:
    """Encryption and storage class are asked for with each single put and at the beginning of each upload."""
    opened = store(server, part_size="5MiB", **settings)
    await opened.put("one", b"x", create_only=True)
    await opened.put("parts", chunks(*[b"x" * MIB] * 6))
    await opened.close()
    single = next(asked for asked in server.asked if asked.path == "/bkt/p/one")
    begin = next(asked for asked in server.asked if asked.path.startswith("/bkt/p/parts?uploads"))
    assert sent(single) == sent(begin) == headers
    assert single.headers["if-none-match"] == "*"
    assert "topsecret" not in str([asked.headers for asked in server.asked])


async def test_customer_key_with_every_read(server: Fake) -> None:
    """A customer's key goes with each get, head and part too; without it nothing could be read."""
    opened = store(server, part_size="5MiB", sse_customer_key=CUSTOMER, conditional=False)
    server.answer = lambda asked: Said(404) if asked.method == "HEAD" else object_store(asked)
    await opened.put("a", b"x", create_only=True)
    await read(opened, "a")
    await opened.put("parts", chunks(*[b"x" * MIB] * 6))
    await opened.close()
    for asked in server.asked:
        if (asked.path.startswith("/bkt/p/") and "uploadId=u1" not in asked.path) or asked.method == "PUT":
            assert asked.headers["x-amz-server-side-encryption-customer-key"] == CUSTOMER
    assert [asked.method for asked in server.asked][:3] == ["HEAD", "PUT", "GET"]


async def test_checksums(server: Fake) -> None:
    """Bodies are signed; `require-content-md5: true` adds the checksum that object lock demands."""
    await store(server).put("a", b"x")
    await store(server, require_content_md5=True).put("a", b"x")
    await store(server, sign_payload=False).put("a", b"x")
    plain, summed, unsigned = server.asked
    assert plain.headers["x-amz-content-sha256"].startswith("2d711642b726b044")
    assert "x-amz-checksum-sha256" not in plain.headers
    assert summed.headers["x-amz-checksum-sha256"] == "LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE="
    assert unsigned.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"


async def test_no_bulk_delete_where_there_is_none(server: Fake) -> None:
    """Deletes are one request for 1,000 keys, with the checksum that S3 demands; none for no keys."""
    opened = store(server)
    await opened.delete([])
    await opened.delete([f"k{i}" for i in range(1001)])
    assert [(asked.method, asked.path) for asked in server.asked] == [("POST", "/bkt?delete")] * 2
    assert all("content-md5" in asked.headers for asked in server.asked)
    assert opened.requests("DELETE", objects=1001) == 2


async def test_conditions_that_are_refused(server: Fake) -> None:
    """A service that answers 501 to the condition is asked first from then on, and the store says so."""

    def answer(asked: Asked) -> Said:
        if "if-none-match" in asked.headers:
            return Said.error(501, "NotImplemented", "A header you provided implies functionality")
        return Said(404) if asked.method == "HEAD" else object_store(asked)

    server.answer = answer
    opened = store(server)
    assert opened.conditional
    await opened.put("a", b"x", create_only=True)
    assert not opened.conditional
    await opened.put("b", b"x", create_only=True)
    assert [asked.method for asked in server.asked] == ["PUT", "HEAD", "PUT", "HEAD", "PUT"]


async def test_conflict_of_two_puts(server: Fake) -> None:
    """The answer of S3 to two conditional puts at once is no proof of other content: it is tried again."""
    server.answer = lambda asked: (
        Said.error(409, "ConditionalRequestConflict") if asked.method == "PUT" else Said.error(404, "NoSuchKey")
    )
    with pytest.raises(StorageError) as caught:
        await store(server).put("a", b"x", create_only=True)
    assert not isinstance(caught.value, ObjectExistsError)
    assert not caught.value.permanent


ANSWERS = [
    (Said.error(503, "SlowDown"), "Throttled", False, "503 SlowDown"),
    (Said.error(429, "TooManyRequests"), "Throttled", False, "429"),
    (Said.error(500, "InternalError"), "Unavailable", False, "500"),
    (Said(502, b"<html>proxy</html>"), "Unavailable", False, "502"),
    (Said.error(400, "RequestTimeout"), "RequestTimeout", False, "400"),
    (Said.error(400, "ExpiredToken"), "ExpiredToken", False, "have expired"),
    (Said.error(403, "AccessDenied"), "AccessDenied", True, "s3:PutObject on bkt/p/"),
    (Said.error(403, "RequestTimeTooSkewed"), "RequestTimeTooSkewed", False, "set the clock"),
    (Said.error(400, "InvalidStorageClass"), "InvalidStorageClass", True, "check storage-class"),
    (Said.error(404, "NoSuchBucket"), "NoSuchBucket", True, "the bucket does not exist"),
    (Said.error(501, "NotImplemented"), "NotImplemented", True, "conditional"),
    (Said.error(301, "PermanentRedirect"), "WrongRegion", True, "set region to"),
    (
        Said(400, b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-9</Region></Error>"),
        "WrongRegion",
        True,
        "set region to eu-west-9",
    ),
    (
        Said.error(507, "QuotaExceeded", "over\nthe quota of http://x/?sig=topsecret"),
        "Unavailable",
        False,
        "over the quota",
    ),
    (Said.error(418, "Teapot", "short and stout"), "Teapot", True, "418 Teapot: short and stout"),
]


@pytest.mark.parametrize(
    ("said", "code", "permanent", "text"), ANSWERS, ids=[f"{said.status}-{code}" for said, code, _, _ in ANSWERS]
)
async def test_answers(server: Fake, said: Said, code: str, permanent: bool, text: str) -> None:
    """Each error of the service becomes one line: what failed, why, what to do; and says whether to try again."""
    server.answer = lambda asked: said
    with pytest.raises(StorageError) as caught:
        await store(server).put("a", b"x")
    assert (caught.value.code, caught.value.permanent) == (code, permanent)
    assert text in str(caught.value)
    assert "cannot put a" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.key == "a"
    assert "topsecret" not in told(caught.value)


async def test_nobody_listens(unused_port: int) -> None:
    """A refused connection names the endpoint that was meant, and passes."""
    config = S3Config.from_settings({"bucket": "bkt", "endpoint": f"http://127.0.0.1:{unused_port}", **KEYS})
    for work in (config.open().put("a", b"x"), config.open().list(""), read(config.open(), "a")):
        with pytest.raises(StorageError, match=f"check endpoint http://127.0.0.1:{unused_port}") as caught:
            await work
        assert (caught.value.code, caught.value.permanent) == ("Connection", False)


@pytest.fixture
def unused_port() -> int:
    """A port that nobody listens on."""
    from helpers.servers.base import free_port

    return free_port()


async def test_region_is_looked_up_once(server: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without endpoint and region the bucket is asked for its region, once, unsigned, at the first operation."""
    server.answer = lambda asked: Said(403, headers={"x-amz-bucket-region": "eu-south-2"})
    monkeypatch.setattr("litestream.storage.s3.store.LOOKUP", server.url)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "LITESTREAM_S3_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    opened = S3Config.from_settings({"bucket": "mybkt", **KEYS}).open()
    assert isinstance(opened, S3Store)
    assert server.asked == []
    places = [await opened._place() for _ in range(3)]
    assert {(place.url, place.region) for place in places} == {
        ("https://mybkt.s3.eu-south-2.amazonaws.com", "eu-south-2")
    }
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("HEAD", "/mybkt")
    assert "authorization" not in asked.headers


@pytest.mark.parametrize(("variable", "region"), [("", "us-east-1"), ("ap-east-1", "ap-east-1")])
async def test_region_that_cannot_be_had(
    unused_port: int, monkeypatch: pytest.MonkeyPatch, variable: str, region: str
) -> None:
    """Where the region cannot be asked for, it is that of the environment, or the default."""
    monkeypatch.setattr("litestream.storage.s3.store.LOOKUP", f"http://127.0.0.1:{unused_port}")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_REGION", variable)
    opened = S3Config.from_settings({"bucket": "mybkt", **KEYS}).open()
    assert isinstance(opened, S3Store)
    assert (await opened._place()).region == region


async def test_environment_does_not_redirect(server: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that obstore reads for itself do not change where configured requests go, nor who signs them."""
    for name, value in {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_BUCKET": "other",
        "AWS_SESSION_TOKEN": "stale",
        "AWS_ACCESS_KEY_ID": "AKIAOTHER",
        "AWS_SECRET_ACCESS_KEY": "other",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
    }.items():
        monkeypatch.setenv(name, value)
    await store(server).put("a", b"x")
    (asked,) = server.asked
    assert asked.path == "/bkt/p/a"
    assert "Credential=AKIAX/" in asked.headers["authorization"]
    assert "x-amz-security-token" not in asked.headers


async def test_answer_that_is_no_listing(server: Fake) -> None:
    """A listing that breaks off, or is no listing, is an error and never an empty store."""
    for body in (
        b"<html>captive portal</html>",
        b"<!DOCTYPE html><html>console</html>",
        b"not xml",
        b"",
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
    ):
        said = Said(200, body)
        server.answer = lambda asked, said=said: said  # type: ignore[misc]  # bound for this round
        with pytest.raises(StorageError, match=r"check endpoint|listing|List") as caught:
            await asyncio.wait_for(store(server).list(""), 20)
        assert "\n" not in str(caught.value)


def page(names: list[str], token: str = "") -> Said:
    """A page of a listing, names as they are."""
    entries = "".join(
        f"<Contents><Key>{name}</Key><Size>3</Size><LastModified>2026-11-23T00:00:00.000Z</LastModified></Contents>"
        for name in names
    )
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    truncated = "true" if token else "false"
    text = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}{entries}</ListBucketResult>"
    return Said(200, text.encode())


async def test_listing_of_our_own_in_pages(server: Fake) -> None:
    """The listing beside obstore's reads all pages, and one that never ends is given up."""

    def answer(asked: Asked) -> Said:
        if "encoding-type" not in asked.path:
            return page(["p/a//b"])
        return page(["p/2", "q/x", "p/../z"]) if "continuation-token=t%2F1" in asked.path else page(["p/1"], "t/1")

    server.answer = answer
    assert await keys(store(server)) == ["1", "2"]
    server.answer = lambda asked: page(["p/a//b"] if "encoding-type" not in asked.path else ["p/1"], "same")
    with pytest.raises(StorageError):
        await asyncio.wait_for(store(server).list(""), 20)


async def test_bombs_are_refused(server: Fake) -> None:
    """XML with a document type, which could grow without end, is not read."""
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><ListBucketResult>&a;</ListBucketResult>'
    assert parse_xml(bomb) is None
    server.answer = lambda asked: page(["p/a//b"]) if "encoding-type" not in asked.path else Said(200, bomb)
    with pytest.raises(StorageError, match="no listing"):
        await store(server).list("")


async def test_redirects_are_not_followed(server: Fake) -> None:
    """A redirect takes no object and no request of our own to another host, and no signature ever."""
    with fake() as other:
        location = {"Location": f"{other.url}/elsewhere"}
        server.answer = lambda asked: Said(307, b"", location)
        opened = store(server)
        for work in (opened.clean_up(), opened.put("a", b"x"), opened.put("a", b"x", create_only=True)):
            with pytest.raises(StorageError) as caught:
                await work
            assert caught.value.code == "WrongRegion"
        assert other.asked == []
        with pytest.raises(StorageError):
            await opened.list("")  # obstore follows here, without the signature
        assert all("authorization" not in asked.headers for asked in other.asked)


async def test_requests_can_be_cancelled() -> None:
    """A request of ours to a server that never answers is left behind at once when its caller is cancelled."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await request("GET", url, timeout=2)
        with pytest.raises(OSError, match="timed out"):
            await request("GET", url, timeout=0.3)


@pytest.mark.parametrize("token", ["", "a-session-token"])
def test_signature_is_that_of_aws(token: str) -> None:
    """Our signatures are those of Amazon's own library, for odd names and with a session token."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials as Theirs

    url = "https://bkt.s3.eu-west-1.amazonaws.com/p/a%20b%2Bc/%E6%97%A5?prefix=p%2Fa%20b&uploads="
    ours = sign("GET", url, {}, Credentials("AKIAX", "topsecret", token), "eu-west-1", datetime.now(UTC))
    asked = AWSRequest("GET", url, headers={"X-Amz-Content-SHA256": ours["x-amz-content-sha256"]})
    signer = S3SigV4Auth(Theirs("AKIAX", "topsecret", token or None), "s3", "eu-west-1")
    signer.add_auth(asked)
    asked.context["timestamp"] = ours["x-amz-date"]
    del asked.headers["X-Amz-Date"], asked.headers["Authorization"]
    asked.headers["X-Amz-Date"] = ours["x-amz-date"]
    signature = signer.signature(signer.string_to_sign(asked, signer.canonical_request(asked)), asked)
    assert ours["authorization"].endswith(f"Signature={signature}"), ours["authorization"]


async def test_body_is_closed_when_the_server_refuses(server: Fake) -> None:
    """An upload that the server refuses ends the body at once: nobody reads a database for nothing."""
    server.answer = lambda asked: Said.error(403, "AccessDenied")
    closed = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * MIB
        finally:
            closed.set()

    opened = store(server, part_size="5MiB")
    with pytest.raises(StorageError) as caught:
        await asyncio.wait_for(opened.put("a", body()), 20)
    assert caught.value.code == "AccessDenied"
    assert closed.is_set()
    await opened.close()
