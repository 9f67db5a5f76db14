"""Where the settings of an `abs` replica come from: litestream.yml, the URL, the environment; and what they must be."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from litestream.errors import StoreConfigError
from litestream.storage.keys import is_key

_KEYS = ("bucket", "account_name", "path", "endpoint", "account_key", "sas_token")
_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}|\$root|\$web|\$logs")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_ENDPOINT = re.compile(r"https?://[\w.-]+(?::\d+)?(?:/[\w.-]+)?/?", re.ASCII)

_VARIABLES = {
    "account_name": ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"),
    "endpoint": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_SECRETS = (
    # In this order, and of one line only: a token and a key belong to different intentions.
    (("LITESTREAM_AZURE_SAS_TOKEN",), ("LITESTREAM_AZURE_ACCOUNT_KEY",)),
    (
        ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"),
        ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY"),
    ),
)
_CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"


def read_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """The checked fields of `AzureConfig`. Raises `StoreConfigError`, which never repeats a value."""
    given = {name: value for name, value in settings.items() if value is not None}
    for name, value in given.items():
        key = name.replace("_", "-")
        if name not in {"url", *_KEYS}:
            raise StoreConfigError(key, f"{key} is no setting of an abs replica")
        if not isinstance(value, str):
            raise StoreConfigError(key, f"{key} must be a text")
    values = {**_from_url(given["url"]), **given} if "url" in given else given
    values.pop("url", None)
    values = _from_environment({name: value.strip() for name, value in values.items() if value.strip()})
    return _checked(values)


def _from_url(url: str) -> dict[str, str]:
    """`abs://[ACCOUNT@]CONTAINER/PATH[?endpoint=ADDRESS]`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise StoreConfigError("url", "the URL is none: abs://ACCOUNT@CONTAINER/PATH") from None
    if parts.scheme.lower() != "abs" or not parts.hostname:
        raise StoreConfigError("url", "a URL of an abs replica is abs://ACCOUNT@CONTAINER/PATH")
    if parts.password is not None or port is not None:
        raise StoreConfigError("url", "an abs URL takes no password and no port: set account-key and endpoint instead")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "sig" in query:
        raise StoreConfigError("url", "a signature does not belong in the URL: set sas-token instead")
    if set(query) - {"endpoint"} or parts.fragment:
        raise StoreConfigError("url", "an abs URL takes no option but ?endpoint=ADDRESS, and no #fragment")
    found = {
        "bucket": unquote(parts.hostname),
        "path": unquote(parts.path),
        "account_name": parts.username or "",
        **query,
    }
    return {name: value for name, value in found.items() if value}


def _from_environment(values: dict[str, str]) -> dict[str, str]:
    """What is not given yet: the variables of Litestream, then those of Azure, then the connection string."""
    found = dict(values)
    for name, variables in _VARIABLES.items():
        found.setdefault(name, _variable(*variables))
    for tokens, keys in _SECRETS:
        if not (found.get("sas_token") or found.get("account_key")):
            found["sas_token"], found["account_key"] = _variable(*tokens), _variable(*keys)
    named = found["account_name"]
    connection = dict(_connection_string(os.environ.get(_CONNECTION, "")))
    if not named or connection.get("account_name") in {None, named}:
        secret = found.get("sas_token") or found.get("account_key")
        for name, value in connection.items():
            if not found.get(name) and not (secret and name in {"sas_token", "account_key"}):
                found[name] = value
    return {name: value for name, value in found.items() if value}


def _variable(*names: str) -> str:
    return next((value.strip() for name in names if (value := os.environ.get(name))), "")


def _connection_string(text: str) -> Iterator[tuple[str, str]]:
    parts = dict(part.partition("=")[::2] for part in text.split(";"))
    for name, ours in (("AccountName", "account_name"), ("AccountKey", "account_key"), ("BlobEndpoint", "endpoint")):
        if value := parts.get(name, "").strip():
            yield ours, value
    if token := parts.get("SharedAccessSignature", "").strip():
        yield "sas_token", token
    if "BlobEndpoint" not in parts and "EndpointSuffix" in parts and "AccountName" in parts:
        yield "endpoint", f"https://{parts['AccountName']}.blob.{parts['EndpointSuffix'].strip()}"


def _checked(values: dict[str, str]) -> dict[str, str]:
    if "bucket" not in values:
        raise StoreConfigError("bucket", "bucket required for abs replica: the name of the container")
    if not _CONTAINER.fullmatch(values["bucket"]):
        raise StoreConfigError("bucket", "a container's name has 3 to 63 lower-case letters, digits and single hyphens")
    if "account_name" not in values:
        raise StoreConfigError("account-name", "account-name required for abs replica, or AZURE_STORAGE_ACCOUNT")
    if not _ACCOUNT.fullmatch(values["account_name"]):
        raise StoreConfigError("account-name", "an account's name has 3 to 24 lower-case letters and digits")
    path = values["path"] = values.get("path", "").strip("/")
    if path and (not is_key(path) or "\\" in path or any(part.endswith(".") for part in path.split("/"))):
        raise StoreConfigError(
            "path", "path must have no empty, '.' or '..' parts, none that ends with a dot, and no backslash"
        )
    endpoint = values["endpoint"] = values.get("endpoint", "").rstrip("/")
    if endpoint and not _ENDPOINT.fullmatch(endpoint):
        raise StoreConfigError(
            "endpoint", "endpoint must be https://HOST[:PORT][/ACCOUNT], without credentials or query"
        )
    if "account_key" in values:
        try:
            base64.b64decode(values["account_key"], validate=True)
        except binascii.Error:
            raise StoreConfigError(
                "account-key", "account-key is not base64: copy it whole, with its = signs"
            ) from None
    if "sas_token" in values:
        token = values["sas_token"] = values["sas_token"].removeprefix("?")
        if not dict(parse_qsl(token)).get("sig") or not token.isascii() or re.search(r"\s", token):
            raise StoreConfigError("sas-token", "sas-token is none: it reads sv=…&se=…&sp=…&sig=…")
    return values
