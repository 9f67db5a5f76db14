"""What s3:// URLs, endpoints and settings mean: the official forms, and what is wrong with others."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from litestream.errors import StoreConfigError
from litestream.storage.s3 import S3Config
from litestream.storage.s3.hosts import Host, bucket_url, check_endpoint, parse_host, service_of

VARIABLES = ("LITESTREAM_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_CA_BUNDLE")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


HOSTS = [
    ("mybkt", Host("mybkt")),
    ("my.bkt.example", Host("my.bkt.example")),
    ("mybkt.s3.amazonaws.com", Host("mybkt", aws=True)),
    ("mybkt.s3.eu-west-1.amazonaws.com", Host("mybkt", "eu-west-1", aws=True)),
    ("my.bkt.s3-eu-west-1.amazonaws.com", Host("my.bkt", "eu-west-1", aws=True)),
    ("s3.eu-west-1.amazonaws.com", Host("", "eu-west-1", aws=True)),
    ("mybkt.nyc3.digitaloceanspaces.com", Host("mybkt", "nyc3", "https://nyc3.digitaloceanspaces.com")),
    ("nyc3.digitaloceanspaces.com", Host("", "nyc3", "https://nyc3.digitaloceanspaces.com")),
    ("mybkt.s3.us-west-000.backblazeb2.com", Host("mybkt", "us-west-000", "https://s3.us-west-000.backblazeb2.com")),
    ("mybkt.s3.filebase.com", Host("mybkt", "", "https://s3.filebase.com")),
    ("mybkt.s3.fr-par.scw.cloud", Host("mybkt", "fr-par", "https://s3.fr-par.scw.cloud")),
    ("mybkt.us-east-1.linodeobjects.com", Host("mybkt", "us-east-1", "https://us-east-1.linodeobjects.com")),
    ("mybkt.s3.eu-central-1.wasabisys.com", Host("mybkt", "eu-central-1", "https://s3.eu-central-1.wasabisys.com")),
    ("mybkt.abc123.r2.cloudflarestorage.com", Host("mybkt", "", "https://abc123.r2.cloudflarestorage.com")),
    ("mybkt.abc123.eu.r2.cloudflarestorage.com", Host("mybkt", "", "https://abc123.eu.r2.cloudflarestorage.com")),
    ("mybkt.fly.storage.tigris.dev", Host("mybkt", "", "https://fly.storage.tigris.dev")),
    ("mybkt.fsn1.your-objectstorage.com", Host("mybkt", "fsn1", "https://fsn1.your-objectstorage.com")),
    ("localhost", Host("", "us-east-1", "http://localhost")),
    ("localhost:9000", Host("", "us-east-1", "http://localhost:9000")),
    ("mybkt.localhost:9000", Host("mybkt", "us-east-1", "http://localhost:9000")),
    ("my.bkt.localhost", Host("my.bkt", "us-east-1", "http://localhost")),
    ("mybkt.minio:9000", Host("mybkt", "us-east-1", "http://minio:9000")),
    ("mybkt.nas.lan:9000", Host("mybkt", "us-east-1", "http://nas.lan:9000")),
    ("mybkt.10.0.0.5:9000", Host("mybkt", "us-east-1", "http://10.0.0.5:9000")),
    ("127.0.0.1:9000", Host("", "us-east-1", "http://127.0.0.1:9000")),
    ("minio:9000", Host("", "us-east-1", "http://minio:9000")),
    ("mybkt.store.example.com:9000", Host("mybkt", "us-east-1", "https://store.example.com:9000")),
    (
        "mybkt.s3.us-west-000.backblazeb2.com:8443",
        Host("mybkt", "us-west-000", "https://s3.us-west-000.backblazeb2.com:8443"),
    ),
]


@pytest.mark.parametrize(("host", "meaning"), HOSTS, ids=[host for host, _ in HOSTS])
def test_host_forms(host: str, meaning: Host) -> None:
    """The host of a URL names bucket, region and endpoint in each of the official forms, and in those of others."""
    assert parse_host(host) == meaning


PLACES = [
    # (settings, where requests go)
    ({"url": "s3://mybkt/db", "region": "eu-west-1"}, "https://mybkt.s3.eu-west-1.amazonaws.com"),
    ({"url": "s3://my.bkt/db", "region": "eu-west-1"}, "https://s3.eu-west-1.amazonaws.com/my.bkt"),
    ({"url": "s3://mybkt/db", "region": "cn-north-1"}, "https://mybkt.s3.cn-north-1.amazonaws.com.cn"),
    ({"url": "s3://mybkt/db?region=eu-west-1&forcePathStyle=true"}, "https://s3.eu-west-1.amazonaws.com/mybkt"),
    ({"url": "s3://mybkt.nyc3.digitaloceanspaces.com/db"}, "https://mybkt.nyc3.digitaloceanspaces.com"),
    ({"url": "s3://mybkt.s3.us-west-000.backblazeb2.com/db"}, "https://s3.us-west-000.backblazeb2.com/mybkt"),
    ({"url": "s3://mybkt.localhost:9000/db"}, "http://localhost:9000/mybkt"),
    ({"url": "s3://localhost:9000/mybkt/db"}, "http://localhost:9000/mybkt"),
    ({"url": "s3://mybkt/db?endpoint=minio.example.com:9000"}, "https://minio.example.com:9000/mybkt"),
    ({"url": "s3://mybkt/db?endpoint=http%3A%2F%2F127.0.0.1%3A9000"}, "http://127.0.0.1:9000/mybkt"),
    ({"url": "s3://mybkt/db?endpoint=fly.storage.tigris.dev&region=auto"}, "https://mybkt.fly.storage.tigris.dev"),
    (
        {"url": "s3://mybkt/db", "endpoint": "https://ref.supabase.co/storage/v1/s3"},
        "https://ref.supabase.co/storage/v1/s3/mybkt",
    ),
    (
        {"bucket": "mybkt", "endpoint": "https://store.example.com", "force_path_style": False},
        "https://mybkt.store.example.com",
    ),
    (
        {"bucket": "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine"},
        "https://mine-123456789012.s3-accesspoint.eu-west-1.amazonaws.com",
    ),
    (
        {"url": "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/mine/db"},
        "https://mine-123456789012.s3-accesspoint.eu-west-1.amazonaws.com",
    ),
]


@pytest.mark.parametrize(("settings", "place"), PLACES, ids=[place for _, place in PLACES])
async def test_where_requests_go(settings: dict[str, Any], place: str) -> None:
    """Settings and URL make the address of the bucket, its name in the host or in the path as the service wants it."""
    from litestream.storage.s3.store import S3Store

    keys = {"access_key_id": "k", "secret_access_key": "s"}
    config = S3Config.from_settings({**settings, **keys})
    assert config.path in ("", "db")
    assert (await S3Store(config)._place()).url == place


def test_settings_beat_the_url() -> None:
    """What is set explicitly goes before what the URL says; a path of the settings replaces that of the URL."""
    url = "s3://mybkt.s3.eu-west-1.amazonaws.com/db?partSize=8MB&storage-class=GLACIER_IR&concurrency=3"
    config = S3Config.from_url(url, storage_class="STANDARD_IA", region="eu-west-2", part_size=10 << 20)
    assert (config.bucket, config.path, config.region) == ("mybkt", "db", "eu-west-2")
    assert (config.storage_class, config.part_size, config.concurrency) == ("STANDARD_IA", 10 << 20, 3)
    assert S3Config.from_url(url).part_size == 8 << 20


def test_options_of_the_url() -> None:
    """Every option is taken in the official camelCase and with dashes."""
    camel = (
        "forcePathStyle=true&skipVerify=1&signPayload=false&requireContentMD5=false&storageClass=X&partSize=6MiB"
        "&concurrency=4&sseKmsKeyId=alias/k&endpoint=e.example.com&region=r"
    )
    dashed = (
        "force-path-style=true&skip-verify=yes&sign-payload=f&require-content-md5=no&storage-class=X&part-size=6291456"
        "&concurrency=4&sse-kms-key-id=alias/k&endpoint=https://e.example.com/&region=r"
    )
    one, two = S3Config.from_url(f"s3://b-b/p?{camel}"), S3Config.from_url(f"s3://b-b/p?{dashed}")
    assert one == two
    assert one.force_path_style
    assert one.skip_verify
    assert not one.sign_payload
    assert one.require_content_md5 is False
    assert (one.sse, one.sse_kms_key_id) == ("aws:kms", "alias/k")
    assert one.url == "s3://b-b/p?endpoint=https://e.example.com"
    assert S3Config.from_url(one.url).endpoint == one.endpoint


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"url": "s3://b-b/p?forcePathstile=true"}, "url", "did you mean force-path-style?"),
    ({"url": "s3://b-b/p?access-key-id=AKIAX"}, "url", "access-key-id does not belong in the URL"),
    ({"url": "s3://AKIAX:topsecret@b-b/p"}, "url", "takes no credentials"),
    ({"url": "s3://b-b/p#x"}, "url", "fragment"),
    ({"url": "gs://b-b/p"}, "url", "s3://BUCKET/PATH"),
    ({"url": "s3:///p"}, "bucket", "bucket required"),
    ({}, "bucket", "bucket required"),
    ({"bucket": "a b"}, "bucket", "no name of a bucket"),
    ({"bucket": "b-b", "regoin": "x"}, "regoin", "did you mean region?"),
    ({"bucket": "b-b", "path": "a/../b"}, "path", "parts"),
    ({"bucket": "b-b", "endpoint": "ftp://x"}, "endpoint", "no URL such as"),
    ({"bucket": "b-b", "endpoint": "https://u:topsecret@x"}, "endpoint", "holds credentials"),
    ({"bucket": "b-b", "endpoint": "https://x?a=b"}, "endpoint", "no URL such as"),
    ({"bucket": "b-b", "endpoint": "http://"}, "endpoint", "no URL such as"),
    ({"bucket": "b-b", "access_key_id": "AKIAX"}, "secret-access-key", "belong together"),
    ({"bucket": "b-b", "secret_access_key": "topsecret"}, "access-key-id", "belong together"),
    ({"bucket": "b-b", "session_token": "topsecret"}, "session-token", "needs access-key-id"),
    ({"bucket": "b-b", "part_size": "1MiB"}, "part-size", "between 5MiB and 1GiB"),
    ({"bucket": "b-b", "part_size": "lots"}, "part-size", "size such as 16MiB"),
    ({"bucket": "b-b", "concurrency": 0}, "concurrency", "between 1 and 64"),
    ({"bucket": "b-b", "concurrency": "many"}, "concurrency", "a number"),
    ({"bucket": "b-b", "force_path_style": "perhaps"}, "force-path-style", "true or false"),
    ({"bucket": "b-b", "region": 7}, "region", "a text"),
    ({"bucket": "b-b", "sse": "rot13"}, "sse", "AES256"),
    ({"bucket": "b-b", "sse": "AES256", "sse_kms_key_id": "k"}, "sse", "aws:kms"),
    ({"bucket": "b-b", "sse_customer_key": "topsecret"}, "sse-customer-key", "32 bytes"),
    ({"bucket": "b-b", "sse_customer_algorithm": "AES256"}, "sse-customer-key", "needs sse-customer-key"),
    ({"bucket": "b-b", "sse_customer_algorithm": "DES"}, "sse-customer-algorithm", "must be AES256"),
    ({"bucket": "b-b", "sse_customer_key": "k" * 32, "sse": "AES256"}, "sse", "exclude each other"),
    ({"bucket": "b-b", "sse_customer_key_path": "/nonexistent"}, "sse-customer-key-path", "cannot read"),
    (
        {"bucket": "b-b", "sse_customer_key": "k" * 32, "endpoint": "http://10.0.0.1:9000"},
        "sse-customer-key",
        "needs https",
    ),
]


@pytest.mark.parametrize(
    ("settings", "setting", "text"), WRONG, ids=[f"{setting}: {text}" for _, setting, text in WRONG]
)
def test_wrong_settings(settings: dict[str, Any], setting: str, text: str) -> None:
    """What is wrong is named by its key, in one line, and secrets are not repeated."""
    with pytest.raises(StoreConfigError, match=text) as caught:
        S3Config.from_settings(settings)
    assert caught.value.setting == setting
    assert "\n" not in str(caught.value)
    assert "topsecret" not in str(caught.value)


def test_customer_key(tmp_path: Path) -> None:
    """A customer's key is 32 bytes: in base64, as characters, or in a file; all mean the same key."""
    raw = bytes(range(65, 97))
    encoded = base64.b64encode(raw).decode()
    (tmp_path / "key").write_text(encoded + "\n")
    configs = [
        S3Config.from_settings({"bucket": "b-b", "sse_customer_key": encoded, "sse_customer_algorithm": "AES256"}),
        S3Config.from_settings({"bucket": "b-b", "sse_customer_key": raw.decode()}),
        S3Config.from_settings({"bucket": "b-b", "sse_customer_key_path": str(tmp_path / "key")}),
    ]
    assert {config.sse_customer_key for config in configs} == {encoded}
    assert encoded not in repr(configs)


def test_secrets_are_not_shown() -> None:
    """Keys stand in no repr and no URL."""
    config = S3Config.from_settings(
        {"bucket": "b-b", "access_key_id": "AKIAX", "secret_access_key": "topsecret", "session_token": "toptoken"}
    )
    for text in (repr(config), config.url, repr(config.open()), config.open().url):
        for secret in ("AKIAX", "topsecret", "toptoken"):
            assert secret not in text


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("LITESTREAM_S3_ENDPOINT", "https://one.example"),
        ("AWS_ENDPOINT_URL_S3", "https://two.example"),
        ("AWS_ENDPOINT_URL", "https://three.example"),
    ],
)
def test_endpoint_of_the_environment(monkeypatch: pytest.MonkeyPatch, variable: str, expected: str) -> None:
    """An endpoint of the environment is for buckets whose URL and settings name no service, with its region."""
    monkeypatch.setenv("AWS_REGION", "auto")
    monkeypatch.setenv(variable, expected)
    found = S3Config.from_url("s3://mybkt/p")
    assert (found.endpoint, found.region) == (expected, "auto")
    assert S3Config.from_url("s3://mybkt/p", endpoint="https://mine.example").endpoint == "https://mine.example"
    assert S3Config.from_url("s3://mybkt.s3.filebase.com/p").endpoint == "https://s3.filebase.com"
    assert S3Config.from_url("s3://mybkt.s3.eu-west-1.amazonaws.com/p").endpoint == ""


def test_plain_http_is_never_assumed() -> None:
    """An endpoint without a scheme is https, but for this machine itself."""
    assert check_endpoint("store.example.com") == "https://store.example.com"
    assert check_endpoint("10.0.0.5:9000") == "https://10.0.0.5:9000"
    assert check_endpoint("localhost:9000") == "http://localhost:9000"
    assert check_endpoint("127.0.0.1:9000/") == "http://127.0.0.1:9000"
    assert check_endpoint("http://10.0.0.5:9000") == "http://10.0.0.5:9000"


@pytest.mark.parametrize(
    ("endpoint", "region", "conditional", "concurrency", "bulk"),
    [
        ("", "", True, 0, True),
        ("https://abc.r2.cloudflarestorage.com", "auto", True, 2, True),
        ("https://abc.eu.r2.cloudflarestorage.com", "auto", True, 2, True),
        ("https://s3.us-west-000.backblazeb2.com", "us-west-000", False, 0, True),
        ("https://storage.googleapis.com", "auto", False, 0, False),
        ("https://t3.storage.dev", "auto", True, 0, True),
        ("https://s3.eu-west-3.amazonaws.com", "eu-west-3", True, 0, True),
        ("https://bucket.vpce-1a2b.s3.eu-west-3.vpce.amazonaws.com", "us-east-1", True, 0, True),
        ("https://minio.example.com", "us-east-1", True, 0, True),
    ],
)
def test_services(endpoint: str, region: str, conditional: bool, concurrency: int, bulk: bool) -> None:
    """The service behind an endpoint sets the region to sign for, and what it can do."""
    service, named = service_of(endpoint)
    assert (named or service.region) == region
    assert (service.conditional, service.concurrency, service.bulk_delete) == (conditional, concurrency, bulk)


def test_access_points_have_no_endpoint() -> None:
    """An access point together with an endpoint is a mistake."""
    with pytest.raises(StoreConfigError, match="remove endpoint"):
        bucket_url("arn:aws:s3:eu-west-1:123456789012:accesspoint/mine", "https://x.example", "eu-west-1", False)
