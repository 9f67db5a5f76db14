"""What the host of an s3:// URL and an endpoint say: bucket, region, endpoint, and the ways of the service behind it.

Pure. The host forms are those of the official programs, and those of services that came later.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from litestream.errors import StoreConfigError


@dataclass(frozen=True, slots=True)
class Service:
    """How a service differs from AWS.

    Attributes:
        path_style: the bucket stands in the path, not in the host name.
        region: what requests are signed for where none is configured; empty for AWS, where it is looked up.
        conditional: whether `If-None-Match` on a put is known to be honoured, or at least not known to be ignored.
        bulk_delete: whether many objects can be deleted in one request.
        concurrency: parts of an upload at once, 0 for the default.
    """

    path_style: bool = True
    region: str = "us-east-1"
    conditional: bool = True
    bulk_delete: bool = True
    concurrency: int = 0


@dataclass(frozen=True, slots=True)
class Host:
    """What a URL's host names: `bucket` is empty where it names none, `aws` says that it is a host of AWS."""

    bucket: str = ""
    region: str = ""
    endpoint: str = ""
    aws: bool = False


AWS = Service(path_style=False, region="")
_OTHER = Service()

_SERVICES: tuple[tuple[str, Service], ...] = (
    # (the host of the endpoint; a group `region` says the region, the service)
    (r"(?P<region>[^.]+)\.digitaloceanspaces\.com", Service(path_style=False)),
    (r"s3\.(?P<region>[^.]+)\.backblazeb2\.com", Service(conditional=False)),
    (r"s3\.filebase\.(?:com|io)", Service(conditional=False)),
    (r"s3\.(?P<region>[^.]+)\.scw\.cloud", _OTHER),
    (r"(?P<region>[^.]+)\.linodeobjects\.com", _OTHER),
    (
        r"(?!(?:eu|fedramp)\.)[^.]+(?:\.(?:eu|fedramp))?\.r2\.cloudflarestorage\.com",
        Service(region="auto", concurrency=2),
    ),
    (r"s3\.(?P<region>[^.]+)\.wasabisys\.com", _OTHER),
    (r"s3\.wasabisys\.com", _OTHER),
    # Tigris takes path-style requests for old buckets only.
    (r"(?:fly\.storage\.tigris\.dev|t3\.storage(?:api)?\.dev)", Service(path_style=False, region="auto")),
    (r"(?P<region>[^.]+)\.your-objectstorage\.com", _OTHER),
    (
        r"(?:s3\.)?oss-(?P<region>[a-z0-9-]+?)(?:-internal)?\.aliyuncs\.com",
        Service(path_style=False, conditional=False),
    ),
    (r"[^.]+(?:\.storage)?\.supabase\.co", _OTHER),
    (r"storage(?:\.[^.]+\.rep)?\.googleapis\.com", Service(region="auto", conditional=False, bulk_delete=False)),
)
_IN_URLS = _SERVICES[:-2]
"""Whose hosts stand in s3:// URLs, the bucket before them. Supabase has a path, and Google a scheme of its own."""

_AWS = re.compile(
    r"(?:(?P<bucket>.+)\.)?s3(?:[.-](?P<region>(?!dualstack|fips|accelerate)[a-z0-9-]+))?\.amazonaws\.com(?:\.cn)?"
)
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".lan", ".home.arpa")
_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):s3:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):accesspoint[/:](?P<name>[a-z0-9-]+)",
    re.IGNORECASE,
)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")  # AWS wants three letters at least, others do not


def parse_host(host: str) -> Host:
    """Take the host (with port) of an s3:// URL apart. A host that is none of the known forms is a bucket on AWS."""
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdigit():
        name, port = host, ""
    lower = name.lower()
    if match := _AWS.fullmatch(lower):
        return Host(name[: len(match["bucket"] or "")], match["region"] or "", aws=True)
    for pattern, _ in _IN_URLS:
        if match := re.fullmatch(rf"(?:(?P<bucket>.+)\.)?(?P<host>{pattern})", lower):
            region = match.groupdict().get("region") or ""
            at = f"{match['host']}:{port}" if port else match["host"]
            return Host(name[: len(match["bucket"] or "")], region, f"https://{at}")
    if lower == "localhost" or lower.endswith(".localhost"):
        return Host(name[: -len(".localhost")], "us-east-1", _with_port("http://localhost", port))
    if port:
        return _host_and_port(name, port)
    return Host(name)


def _host_and_port(name: str, port: str) -> Host:
    """`bucket.host:port`, or `host:port` where the host is an address or has one label."""
    if _is_address(name) or "." not in name:
        bucket, server = "", name
    else:
        bucket, server = name.split(".", 1)
    # Short and private names are servers nearby, which the official program takes to speak plain HTTP.
    scheme = "http" if _is_near(server) else "https"
    return Host(bucket, "us-east-1", f"{scheme}://{server}:{port}")


def _with_port(base: str, port: str) -> str:
    return f"{base}:{port}" if port else base


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _is_near(name: str) -> bool:
    if _is_address(name):
        return ipaddress.ip_address(name.strip("[]")).is_private
    return "." not in name or name.lower().endswith(_LOCAL_SUFFIXES)


def is_loopback(endpoint: str) -> bool:
    """Whether an endpoint is this machine."""
    name = urlsplit(endpoint).hostname or ""
    if _is_address(name):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost" or name.endswith(".localhost")


def check_endpoint(endpoint: str) -> str:
    """The endpoint as a URL without a slash at its end. `https://` is put before one that has no scheme."""
    text = endpoint.strip()
    if "://" not in text:
        text = f"https://{text}"
        if is_loopback(text):
            text = "http" + text[len("https") :]
    text = text.rstrip("/")
    try:
        parts = urlsplit(text)
        good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.scheme not in {"http", "https"} or parts.query or parts.fragment:
        raise StoreConfigError("endpoint", "endpoint is no URL such as https://s3.example.com or http://localhost:9000")
    if parts.username is not None or parts.password is not None:
        raise StoreConfigError("endpoint", "endpoint holds credentials: use access-key-id and secret-access-key")
    return text


def service_of(endpoint: str) -> tuple[Service, str]:
    """The service behind an endpoint (empty: AWS), and the region that the endpoint names."""
    if not endpoint:
        return AWS, ""
    name = (urlsplit(endpoint).hostname or "").lower()
    if match := re.fullmatch(r"(?:.+\.)?s3[.-](?:(?:fips|dualstack)\.)?([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?", name):
        return replace(AWS, region=match[1]), match[1]
    if name.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return replace(AWS, region="us-east-1"), ""
    for pattern, service in _SERVICES:
        if match := re.fullmatch(pattern, name):
            return service, match.groupdict().get("region") or ""
    return _OTHER, ""


def check_bucket(bucket: str) -> str:
    """`bucket`, if it is a bucket's name or the ARN of an access point."""
    if not bucket:
        raise StoreConfigError("bucket", "bucket required for s3 replica")
    if not _BUCKET.fullmatch(bucket) and not _ARN.fullmatch(bucket):
        raise StoreConfigError("bucket", f"{bucket!a} is no name of a bucket")
    return bucket


def arn_region(bucket: str) -> str:
    """The region that the ARN of an access point names; empty for a bucket's name."""
    match = _ARN.fullmatch(bucket)
    return match["region"] if match else ""


def bucket_url(bucket: str, endpoint: str, region: str, path_style: bool) -> str:
    """The URL below which the bucket's objects are, without a slash at its end."""
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    if match := _ARN.fullmatch(bucket):
        if endpoint:
            raise StoreConfigError("endpoint", "an access point of AWS has no endpoint of its own: remove endpoint")
        return f"https://{match['name']}-{match['account']}.s3-accesspoint.{region}.{suffix}"
    base = endpoint or f"https://s3.{region}.{suffix}"
    parts = urlsplit(base)
    # A bucket with a dot in its name fits no wildcard certificate.
    if path_style or (parts.scheme == "https" and "." in bucket) or _is_address(parts.hostname or ""):
        return f"{base}/{bucket}"
    return f"{parts.scheme}://{bucket}.{parts.netloc}{parts.path}"
