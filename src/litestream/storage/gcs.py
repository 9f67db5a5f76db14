"""Google Cloud Storage (`gs`): settings, credentials, and what differs from other obstore stores."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

from litestream.errors import StorageError, StoreConfigError
from litestream.storage.keys import is_key
from litestream.storage.obs import ObstoreStore, client_options
from litestream.storage.obs.errors import Failure, Words
from litestream.storage.protocol import ObjectInfo, Store
from litestream.storage.wrappers.progress import progress
from litestream.storage.wrappers.requests import PART, Operation

if TYPE_CHECKING:
    from obstore.store import GCSConfig as ObstoreConfig
    from obstore.store import GCSCredential, ObjectStore, RetryConfig

ENDPOINT = "https://storage.googleapis.com"
EMULATOR = "STORAGE_EMULATOR_HOST"
"""Google's variable for an emulator: `HOST:PORT` or a URL; nobody is asked for credentials then."""
_CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS"
_KEYS = ("bucket", "path", "endpoint", "credential_path")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_ENDPOINT = re.compile(r"https?://(?:[\w.-]+|\[[0-9A-Fa-f:]+\])(?::\d+)?(?:/[\w.-]+)*/?", re.ASCII)
_DELETES = 16
"""Deletes at once; there is no request for many."""
_ROLE = "give the account the role roles/storage.objectUser on the bucket"
_HINTS = {
    "AccessDenied": f"{_ROLE}, or check which credentials are used",
    "AuthenticationRequired": "the token was refused: check the credentials and the clock",
    "InvalidAuthenticationInfo": "the token was refused: check the credentials and the clock",
    "NoSuchBucket": "create it, or check bucket",
    "NoCredentials": f"set {_CREDENTIALS} or credential-path, run `gcloud auth application-default login`, "
    "or give this machine a service account",
    "UserProjectMissing": "requester pays is not supported",
    "UserAccountDisabled": "billing or the account is disabled",
    "RetentionPolicyNotMet": "the object is under a retention policy: run retention where it allows it",
    "ObjectUnderActiveHold": "the object is under a hold",
    "ForeignName": "remove it, or use a path that nobody else writes to",
    "NoXML": "this emulator has no XML API, so objects can be read but not written",
}
_NO_FILE = ("service account file", "OpenCredentials", "DecodeCredentials", "ReadPem", "InvalidKey", "MissingKey")


@dataclass(frozen=True, slots=True, kw_only=True)
class GCSConfig:
    """Settings of one `gs` replica.

    Attributes:
        bucket: must exist.
        path: what all keys begin with, without slashes around it.
        endpoint: address of the service; empty: Google's.
        credential_path: a file with the JSON of a service account, or of `gcloud auth application-default login`;
            empty: GOOGLE_APPLICATION_CREDENTIALS, what gcloud wrote, or the machine's own service account.
        emulator: whether the endpoint is an emulator, which wants no credentials.
    """

    bucket: str
    path: str = ""
    endpoint: str = ""
    credential_path: str = ""
    emulator: bool = False

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """From the keys of litestream.yml, `url` among them; the emulator's address comes from the environment.

        Raises `StoreConfigError`, which repeats no value.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        for name, value in given.items():
            key = name.replace("_", "-")
            if name not in {"url", *_KEYS}:
                raise StoreConfigError(key, f"{key} is no setting of a gs replica")
            if not isinstance(value, str):
                raise StoreConfigError(key, f"{key} must be a text")
        values = {**_from_url(given["url"]), **given} if "url" in given else given
        values.pop("url", None)
        values = {name: value.strip() for name, value in values.items() if value.strip()}
        emulator = os.environ.get(EMULATOR, "").strip()
        if emulator and "endpoint" not in values:
            values["endpoint"] = emulator if "://" in emulator else f"http://{emulator}"
            return cls(emulator=True, **_checked(values, EMULATOR))
        return cls(emulator=False, **_checked(values, "endpoint"))

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:  # noqa: ANN401 - all are strings; checked below
        """From `gs://BUCKET/PATH` (or gcs://); `settings` go before it. Raises `StoreConfigError`."""
        return cls.from_settings({**settings, "url": url})

    @property
    def url(self) -> str:
        """The canonical URL."""
        return f"gs://{self.bucket}" + (f"/{self.path}" if self.path else "")

    def open(self) -> Store:
        """The store; contacts nothing."""
        return GCSStore(self)


def _from_url(url: str) -> dict[str, str]:
    """`gs://BUCKET/PATH`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise StoreConfigError("url", "the URL is none: gs://BUCKET/PATH") from None
    if parts.scheme.lower() not in {"gs", "gcs"} or not parts.hostname:
        raise StoreConfigError("url", "a URL of a gs replica is gs://BUCKET/PATH")
    if parts.username is not None or port is not None or parts.query or parts.fragment:
        raise StoreConfigError("url", "a gs URL takes no user, port, ?query or #fragment: gs://BUCKET/PATH")
    return {"bucket": parts.netloc, "path": unquote(parts.path)}


def _checked(values: dict[str, str], endpoint: str) -> dict[str, Any]:
    if "bucket" not in values:
        raise StoreConfigError("bucket", "bucket required for gs replica")
    if not _BUCKET.fullmatch(values["bucket"]):
        raise StoreConfigError("bucket", "a bucket's name has lower-case letters, digits, dots, - and _")
    values["path"] = values.get("path", "").strip("/")
    if values["path"] and not is_key(values["path"]):
        raise StoreConfigError("path", "path must have no empty, '.' or '..' parts")
    values["endpoint"] = values.get("endpoint", "").rstrip("/")
    if values["endpoint"] and not _ENDPOINT.fullmatch(values["endpoint"]):
        raise StoreConfigError("endpoint", f"{endpoint} must be https://HOST[:PORT], without credentials or query")
    return values


class GCSStore(ObstoreStore):
    """A `Store` in a bucket. Large uploads are multipart uploads of the XML API; what is not whole is never visible."""

    def __init__(self, config: GCSConfig) -> None:
        root = f"{config.path}/" if config.path else ""
        super().__init__(kind="gs", url=config.url, root=root, words=Words("bucket", _HINTS))
        self._config = config

    def requests(self, operation: Operation, *, objects: int = 0, size: int = 0) -> int:
        """Requests of one operation; each delete is one."""
        if operation == "PUT":
            return 1 if size <= PART else -(-size // PART) + 2
        return 1 if operation == "GET" or not objects else objects if operation == "DELETE" else -(-objects // 1000)

    async def _open(self, retry_config: RetryConfig) -> ObjectStore:
        from obstore.store import GCSStore as Obstore

        config = self._config
        endpoint = config.endpoint or ENDPOINT
        settings: ObstoreConfig = {"base_url": endpoint}
        path = config.credential_path or os.environ.get(_CREDENTIALS, "")
        if path and not config.emulator:
            settings["application_credentials"] = os.path.expanduser(path)
        options = client_options()
        options["allow_http"] = endpoint.startswith("http:")
        with self._errors("open", ""):
            return Obstore(
                config.bucket,
                config=settings,
                client_options=options,
                retry_config=retry_config,
                credential_provider=_nobody if config.emulator else None,
            )

    async def _list(self, prefix: str) -> Sequence[ObjectInfo]:
        import obstore

        try:
            return await super()._list(prefix)
        except obstore.exceptions.InvalidPathError:
            message = "an object there has a name with an empty part, '..' or a control character"
            raise self._explain(Failure(code="ForeignName", message=message), "list", prefix) from None

    async def _delete(self, paths: Sequence[str]) -> None:
        import obstore

        store = await self._store()
        gate = asyncio.Semaphore(_DELETES)

        async def delete(path: str) -> None:
            async with gate:
                with self._errors("delete", path[len(self._root) :]):
                    try:
                        await obstore.delete_async(store, path)
                    except FileNotFoundError as error:
                        if "NoSuchBucket" in str(error):
                            raise
                progress()

        for result in await asyncio.gather(*(delete(path) for path in paths), return_exceptions=True):
            if result is not None:
                raise result

    def _explain(self, failure: Failure, doing: str, key: str) -> StorageError:
        if reason := _credential_fault(failure):
            error = super()._explain(Failure(code="NoCredentials", message=reason), doing, key)
            # A token may be had later; a file or an answer that is wrong stays so.
            error.permanent = "token request" not in failure.text or failure.status in {400, 401, 403, 404}
            return error
        if self._config.emulator and "invalid uploadType" in failure.text:
            failure = Failure(code="NoXML", message="HTTP 400")
        return super()._explain(failure, doing, key)


def _credential_fault(failure: Failure) -> str:
    """What kept obstore from having a token, without what it quotes (file contents, addresses); empty: nothing did."""
    text = failure.text
    if "token request" in text:
        return f"no token: HTTP {failure.status}" if failure.status else f"no token: {failure.message}"
    if not any(mark in text for mark in _NO_FILE):
        return ""
    reason = "it is no JSON of a service account or of gcloud"
    if "No such file" in text:
        reason = "it is not there"
    elif "Permission denied" in text:
        reason = "it may not be read"
    elif "external_account" in text or "impersonated_service_account" in text:
        reason = "workload identity federation and impersonation are not supported"
    return f"the file with the credentials cannot be used: {reason}"


async def _nobody() -> GCSCredential:
    """What an emulator gets in place of a token."""
    return {"token": "anonymous", "expires_at": None}
