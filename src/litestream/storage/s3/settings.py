"""Where the settings of an s3 replica come from (litestream.yml, the URL, the environment), and what they must be."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl, unquote

from litestream.errors import StoreConfigError
from litestream.storage.keys import is_key
from litestream.storage.s3 import hosts as s3_hosts

MIN_PART = 5 << 20
"""Bytes; what S3 demands of all parts but the last."""
MAX_PART = 1 << 30
"""Bytes; S3 takes 5 GiB, but a few parts are in memory at once."""
_TEXTS = (
    "bucket",
    "path",
    "region",
    "endpoint",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "storage_class",
    "sse",
    "sse_kms_key_id",
    "sse_customer_algorithm",
    "sse_customer_key",
    "sse_customer_key_path",
)
_FLAGS = ("force_path_style", "skip_verify", "sign_payload", "require_content_md5", "conditional")
_NUMBERS = ("part_size", "concurrency")
_KEYS = {*_TEXTS, *_FLAGS, *_NUMBERS}
_SECRETS = {"access_key_id", "secret_access_key", "session_token", "sse_customer_key"}
"""These do not belong in a URL, which is shown by `ps`, in logs and in the shell's history."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_AWS = "aws"
"""Stands for no endpoint where the URL's host is one of AWS: the environment has no say then."""
_TRUE, _FALSE = {"true", "1", "t", "yes", "on"}, {"false", "0", "f", "no", "off"}


def read_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The checked fields of `S3Config`. Raises `StoreConfigError`, which never repeats a value that may be secret."""
    given = {name: value for name, value in settings.items() if value is not None}
    for name in given:
        if name not in {"url", *_KEYS}:
            key = _dashed(name)
            raise StoreConfigError(key, f"{key} is no setting of an s3 replica{_close(key, map(_dashed, _KEYS))}")
    values = _from_url(given.pop("url")) if "url" in given else {}
    values |= {name: _typed(name, value) for name, value in given.items()}
    values = {name: value for name, value in values.items() if value != ""}
    _add_endpoint(values)
    values["bucket"] = s3_hosts.check_bucket(values.get("bucket", ""))
    values["path"] = _path(values.get("path", ""))
    _check_keys(values)
    _check_encryption(values)
    _check_numbers(values)
    return values


def _from_url(url: object) -> dict[str, Any]:
    """`s3://BUCKET[.HOST][:PORT]/PATH[?OPTION=VALUE&...]`."""
    if not isinstance(url, str) or not url.lower().startswith("s3://"):
        raise StoreConfigError("url", "a URL of an s3 replica is s3://BUCKET/PATH")
    rest, _, query = url[len("s3://") :].partition("?")
    if "#" in rest or "#" in query:
        raise StoreConfigError("url", "an s3 URL takes no #fragment: write %23")
    if rest.lower().startswith("arn:"):
        # The slash before the name of an access point is part of the ARN.
        arn = re.match(r"arn:[^/]*:accesspoint[/:][^/]*", rest, re.IGNORECASE)
        host, path = (arn[0], rest[len(arn[0]) :]) if arn else (rest, "")
        found = s3_hosts.Host(host)
    else:
        host, _, path = rest.partition("/")
        if "@" in host:
            message = "an s3 URL takes no credentials: set access-key-id and secret-access-key, or the environment's"
            raise StoreConfigError("url", message)
        found = s3_hosts.parse_host(unquote(host))
    values: dict[str, Any] = {"bucket": found.bucket, "region": found.region, "endpoint": found.endpoint}
    values["path"] = unquote(path)
    if not found.bucket and host:
        # A server without a bucket before it: path style, as the server itself would have it.
        values["bucket"], _, values["path"] = values["path"].lstrip("/").partition("/")
    values = {name: value for name, value in values.items() if value}
    if found.aws:
        values["endpoint"] = _AWS
    return values | _options(query)


def _options(query: str) -> dict[str, Any]:
    """The options behind the `?`, in the official camelCase or with dashes."""
    known = {name.replace("_", "").lower(): name for name in _KEYS - {"bucket", "path"}}
    found: dict[str, Any] = {}
    for option, value in parse_qsl(query, keep_blank_values=True):
        name = known.get(option.replace("-", "").lower())
        if name is None:
            shown = option if re.fullmatch(r"[A-Za-z0-9-]{1,40}", option) else "…"
            near = _close(option, map(_dashed, known.values()))
            raise StoreConfigError("url", f"{shown} is no option of an s3 URL{near}")
        if name in _SECRETS:
            key = _dashed(name)
            raise StoreConfigError("url", f"{key} does not belong in the URL: set it in the configuration file")
        if value:
            found[name] = _typed(name, value)
    return found


def _add_endpoint(values: dict[str, Any]) -> None:
    """The endpoint of the environment, where neither settings nor URL name a service; checked."""
    if "endpoint" not in values:
        for name in ("LITESTREAM_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
            if found := os.environ.get(name, "").strip():
                values["endpoint"] = found
                if os.environ.get("AWS_REGION"):
                    values.setdefault("region", os.environ["AWS_REGION"])
                break
    if values.get("endpoint") == _AWS:
        del values["endpoint"]
    elif values.get("endpoint"):
        values["endpoint"] = s3_hosts.check_endpoint(values["endpoint"])


def _typed(name: str, value: object) -> Any:  # noqa: ANN401 - the type is that of the setting
    key = _dashed(name)
    if name in _FLAGS:
        text = str(value).strip().lower()
        if text not in _TRUE | _FALSE:
            raise StoreConfigError(key, f"{key} must be true or false")
        return text in _TRUE
    if name == "part_size":
        match = _SIZE.fullmatch(str(value).strip())
        if match is None or isinstance(value, bool):
            raise StoreConfigError(key, f"{key} must be a size such as 16MiB")
        return int(float(match[1]) * _UNITS[match[2].upper()])
    if name == "concurrency":
        if isinstance(value, bool) or not str(value).strip().isdecimal():
            raise StoreConfigError(key, f"{key} must be a number")
        return int(str(value))
    if not isinstance(value, str):
        raise StoreConfigError(key, f"{key} must be a text")
    return value.strip()


def _path(text: str) -> str:
    path = text.strip("/")
    if path and not is_key(path):
        raise StoreConfigError("path", "path must have no empty, '.' or '..' parts")
    return path


def _check_keys(values: Mapping[str, Any]) -> None:
    key, secret = values.get("access_key_id"), values.get("secret_access_key")
    if bool(key) != bool(secret):
        missing = "secret-access-key" if key else "access-key-id"
        raise StoreConfigError(missing, f"{missing} is missing: the two keys belong together")
    if values.get("session_token") and not key:
        raise StoreConfigError("session-token", "session-token needs access-key-id and secret-access-key")


def _check_encryption(values: dict[str, Any]) -> None:
    """Leaves `sse` and, for a customer's key, its 32 bytes in base64 in `sse_customer_key`."""
    path = values.pop("sse_customer_key_path", "")
    if path:
        if values.get("sse_customer_key"):
            raise StoreConfigError("sse-customer-key", "sse-customer-key and sse-customer-key-path exclude each other")
        try:
            with open(os.path.expanduser(path), encoding="ascii") as file:
                values["sse_customer_key"] = file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            message = f"cannot read the file of sse-customer-key-path: {type(error).__name__}"
            raise StoreConfigError("sse-customer-key-path", message) from None
    algorithm = values.pop("sse_customer_algorithm", "")
    if algorithm and algorithm.upper() != "AES256":
        raise StoreConfigError("sse-customer-algorithm", "sse-customer-algorithm must be AES256")
    if algorithm and not values.get("sse_customer_key"):
        raise StoreConfigError("sse-customer-key", "sse-customer-algorithm needs sse-customer-key")
    if key := values.get("sse_customer_key"):
        if values.get("sse") or values.get("sse_kms_key_id"):
            raise StoreConfigError("sse", "sse-customer-key, sse and sse-kms-key-id exclude each other")
        values["sse_customer_key"] = _customer_key(key)
        endpoint = values.get("endpoint", "")
        if endpoint.startswith("http:") and not s3_hosts.is_loopback(endpoint):
            raise StoreConfigError("sse-customer-key", "sse-customer-key is sent with each request: it needs https")
    if values.get("sse_kms_key_id"):
        values.setdefault("sse", "aws:kms")
    if values.get("sse") not in {None, "AES256", "aws:kms", "aws:kms:dsse"}:
        raise StoreConfigError("sse", "sse must be AES256, aws:kms or aws:kms:dsse")
    if values.get("sse") == "AES256" and values.get("sse_kms_key_id"):
        raise StoreConfigError("sse", "sse-kms-key-id needs sse: aws:kms")


def _customer_key(text: str) -> str:
    """A customer's key in base64: it is given so, or as 32 characters."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raw = text.encode()
    if len(raw) != 32:
        raise StoreConfigError("sse-customer-key", "sse-customer-key must be 32 bytes in base64")
    return base64.b64encode(raw).decode()


def _check_numbers(values: Mapping[str, Any]) -> None:
    if not MIN_PART <= values.get("part_size", MIN_PART) <= MAX_PART:
        raise StoreConfigError("part-size", "part-size must be between 5MiB and 1GiB")
    if not 1 <= values.get("concurrency", 1) <= 64:
        raise StoreConfigError("concurrency", "concurrency must be between 1 and 64")


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _close(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(re.sub(r"(?<=[a-z])(?=[A-Z])", "-", word).lower(), list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
