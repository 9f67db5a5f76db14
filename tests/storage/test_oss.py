"""OSS: names, keys, and the store on a server of the same interface. There is no OSS server to be had."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from helpers.remotecontract import SentContract
from helpers.s3fake import fake
from helpers.servers.s3 import S3Server
from litestream.errors import StoreConfigError
from litestream.storage.oss import OSSConfig
from litestream.storage.protocol import Store

pytestmark = pytest.mark.xdist_group("seaweedfs")
KEYS = {"access_key_id": "id-kept", "secret_access_key": "secret-kept"}


class TestOnS3Server(SentContract):
    """The whole suite, on SeaweedFS; conditions are never sent."""

    @pytest.fixture
    async def store(self, seaweedfs: S3Server) -> AsyncIterator[Store]:
        """A bucket of its own."""
        config = OSSConfig.from_settings(seaweedfs.settings(seaweedfs.new_bucket()))
        store = config.open()
        assert (store.type, store.conditional) == ("oss", False)
        yield store
        await store.close()

    def test_names(self, store: Store) -> None:
        """Type and URL are one line for people."""
        assert store.type == "oss"
        assert store.url.startswith("oss://bucket-")

    async def test_long_and_odd_keys(self, store: Store) -> None:
        """Odd keys are kept; this server has a meaning of its own for a backslash."""
        for name in ("/".join(["k" * 127] * 7), "a b/%2e%2e/c", "..a/b..", "'\"*?[x]", "日本/é", ".hidden", "a.tmp"):
            await store.put(name, b"x")
            assert name in [info.key for info in await store.list("")]


@pytest.mark.parametrize(
    ("url", "bucket", "path", "endpoint", "region"),
    [
        ("oss://b.oss-cn-hangzhou.aliyuncs.com/p/q", "b", "p/q", "https://oss-cn-hangzhou.aliyuncs.com", "cn-hangzhou"),
        (
            "oss://b.oss-us-west-1-internal.aliyuncs.com/p",
            *("b", "p", "https://oss-us-west-1-internal.aliyuncs.com", "us-west-1"),
        ),
        (
            "oss://b.s3.oss-eu-central-1.aliyuncs.com",
            "b",
            "",
            "https://s3.oss-eu-central-1.aliyuncs.com",
            "eu-central-1",
        ),
    ],
)
def test_urls(url: str, bucket: str, path: str, endpoint: str, region: str) -> None:
    """A URL names bucket, region and endpoint; the canonical form names them again."""
    config = OSSConfig.from_url(url, **KEYS)
    assert (config.bucket, config.path, config.endpoint, config.region) == (bucket, path, endpoint, region)
    assert OSSConfig.from_url(config.url, **KEYS) == config
    assert "kept" not in repr(config) + config.url


def test_region_alone() -> None:
    """Bucket and region are enough; a URL may leave the region to its key."""
    config = OSSConfig.from_settings({"bucket": "b", "region": "oss-cn-hangzhou", **KEYS})
    assert config.endpoint == "https://oss-cn-hangzhou.aliyuncs.com"
    assert OSSConfig.from_url("oss://b", region="cn-hangzhou", **KEYS) == config


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"region": "cn-hangzhou"}, "bucket"),
        ({"bucket": "b"}, "region"),
        ({"bucket": "b", "region": "no region"}, "region"),
        ({"url": "oss://id-kept:secret-kept@b/p", "region": "cn-hangzhou"}, "url"),
        ({"url": "oss://b/p?x=1", "region": "cn-hangzhou"}, "url"),
        ({"bucket": "b", "region": "cn-hangzhou", "access_key_id": "id-kept"}, "secret-access-key"),
        ({"bucket": "b", "region": "cn-hangzhou", "user": "x"}, "user"),
    ],
)
def test_mistakes(settings: dict[str, str], setting: str) -> None:
    """Each mistake names its key, and no secret."""
    with pytest.raises(StoreConfigError) as caught:
        OSSConfig.from_settings(settings)
    assert caught.value.setting == setting
    assert "kept" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["OSS", "ALIBABA_CLOUD"])
def test_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    """Keys come from the variables of this cloud, never from those of AWS."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-aws")
    config = OSSConfig.from_settings({"bucket": "b", "region": "cn-hangzhou"})
    with pytest.raises(StoreConfigError, match="OSS_ACCESS_KEY_ID"):
        config.open()
    monkeypatch.setenv(f"{prefix}_ACCESS_KEY_ID", "id-kept")
    monkeypatch.setenv(f"{prefix}_ACCESS_KEY_SECRET", "secret-kept")
    s3 = OSSConfig.from_settings({"bucket": "b", "region": "cn-hangzhou"}).s3
    assert (s3.access_key_id, s3.secret_access_key) == ("id-kept", "secret-kept")


async def test_what_is_sent() -> None:
    """Requests are signed with the region, and a create-only put looks before it puts, without a condition."""
    with fake() as server:
        store = OSSConfig.from_settings(
            {"bucket": "b", "path": "p", "region": "cn-hangzhou", "endpoint": server.url, **KEYS}
        ).open()
        await store.put("x", b"content")
        await store.close()
    (put,) = [asked for asked in server.asked if asked.method == "PUT"]
    assert "/cn-hangzhou/s3/aws4_request" in put.headers["authorization"]
    assert "if-none-match" not in put.headers
    assert put.path == "/b/p/x"
