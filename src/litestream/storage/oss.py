"""Alibaba Cloud's Object Storage Service (`oss`), through its S3-compatible interface: the settings of a replica.

The same code as for S3, which is tested on several real servers; there is no OSS server to test another one on. The
service ignores `If-None-Match` on puts, so that a create-only put looks first (docs/stores/oss.md).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote

from litestream.errors import StoreConfigError
from litestream.storage.protocol import Store
from litestream.storage.s3 import S3Config

_HOST = re.compile(
    r"(?P<bucket>[^.]+)\.(?P<endpoint>(?:s3\.)?oss-(?P<region>[a-z0-9-]+?)(?:-internal)?\.aliyuncs\.com)"
)
_REGION = re.compile(r"[a-z0-9-]+")
_KEYS = (
    ("OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET"),
    ("ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET"),
)
_TOKENS = ("OSS_SESSION_TOKEN", "ALIBABA_CLOUD_SECURITY_TOKEN")
_OWN_KEYS = ("LITESTREAM_ACCESS_KEY_ID", "LITESTREAM_SECRET_ACCESS_KEY")


@dataclass(frozen=True, slots=True, kw_only=True)
class OSSConfig:
    """Settings of one `oss` replica.

    Attributes:
        path: what all keys begin with, without slashes around it.
        region: as `cn-hangzhou`, without `oss-`.
        endpoint: a URL; empty: the region's public one.
        s3: the same place as the S3 interface sees it, credentials included.
    """

    bucket: str
    path: str = ""
    region: str = ""
    endpoint: str = ""
    s3: S3Config = field(repr=False)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """From the keys of litestream.yml, `url` among them; what is missing of the credentials from the environment.

        Raises `StoreConfigError`.
        """
        values = {name: value for name, value in settings.items() if value not in {None, ""}}
        if "url" in values:
            values = _from_url(values.pop("url")) | values
        region = str(values.get("region", "")).removeprefix("oss-")
        if not values.get("bucket"):
            raise StoreConfigError("bucket", "bucket required for oss replica")
        if not region and not values.get("endpoint"):
            raise StoreConfigError("region", "an oss replica needs region (such as cn-hangzhou), or endpoint")
        if region and not _REGION.fullmatch(region):
            raise StoreConfigError("region", "region must be one such as cn-hangzhou")
        values["region"] = region or "cn-hangzhou"
        values.setdefault("endpoint", f"https://oss-{region}.aliyuncs.com")
        s3 = S3Config.from_settings({**_credentials(values), **values, "conditional": False})
        return cls(bucket=s3.bucket, path=s3.path, region=region, endpoint=s3.endpoint, s3=s3)

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:  # noqa: ANN401 - each setting has a type of its own
        """From `oss://BUCKET[.oss-REGION.aliyuncs.com]/PATH`; `settings` go before what the URL says."""
        return cls.from_settings({**settings, "url": url})

    @property
    def url(self) -> str:
        """The canonical URL, without secrets."""
        host = self.endpoint.partition("://")[2]
        place = f"{self.bucket}.{host}" if host.endswith(".aliyuncs.com") else self.bucket
        shown = f"oss://{place}" + (f"/{self.path}" if self.path else "")
        return shown if place != self.bucket else f"{shown}?endpoint={self.endpoint}"

    def open(self) -> Store:
        """The store; contacts nothing. Raises `StoreConfigError` where there are no credentials."""
        if not self.s3.access_key_id:
            # Nothing else of S3's chain belongs to this cloud.
            keys = "access-key-id and secret-access-key, or OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET"
            raise StoreConfigError("access-key-id", f"an oss replica needs {keys} in the environment")
        from litestream.storage.s3.store import S3Store

        return S3Store(self.s3, kind="oss", url=self.url)


def _from_url(url: object) -> dict[str, Any]:
    if not isinstance(url, str) or not url.lower().startswith("oss://") or "#" in url or "?" in url:
        raise StoreConfigError("url", "a URL of an oss replica is oss://BUCKET.oss-REGION.aliyuncs.com/PATH")
    host, _, path = url[len("oss://") :].partition("/")
    if "@" in host:
        raise StoreConfigError("url", "an oss URL takes no credentials: set access-key-id and secret-access-key")
    values = {"bucket": host, "path": unquote(path)}
    if match := _HOST.fullmatch(host.lower()):
        values |= {"bucket": match["bucket"], "region": match["region"], "endpoint": f"https://{match['endpoint']}"}
    return values


def _credentials(values: Mapping[str, Any]) -> dict[str, str]:
    """The keys that the settings do not have. Never those of AWS: they are for another cloud."""
    if values.get("access_key_id") or values.get("secret_access_key"):
        return {}
    for names in (_OWN_KEYS, *_KEYS):
        key, secret = (os.environ.get(name, "") for name in names)
        if key and secret:
            found = {"access_key_id": key, "secret_access_key": secret}
            token = next((os.environ[name] for name in _TOKENS if os.environ.get(name)), "")
            return {**found, "session_token": token} if token and names != _OWN_KEYS else found
    return {}
