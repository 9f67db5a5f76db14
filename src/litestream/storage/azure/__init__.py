"""Azure Blob Storage (`abs`): settings, credentials, and what differs from other obstore stores."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from litestream.errors import StorageError
from litestream.storage.azure.settings import read_settings
from litestream.storage.keys import check_key
from litestream.storage.obs import ObstoreStore, client_options
from litestream.storage.obs.errors import Failure, Words
from litestream.storage.protocol import ObjectInfo, Store
from litestream.storage.wrappers.progress import progress

if TYPE_CHECKING:
    from obstore.store import AzureConfig as ObstoreConfig
    from obstore.store import ObjectStore, RetryConfig

_BATCH = 256
"""Deletes in one request, at most."""
_SINGLE = 16
"""Deletes at once, where a batch will not do."""
_IDENTITIES = (
    "AZURE_CLIENT_ID",
    "AZURE_STORAGE_CLIENT_ID",
    "AZURE_STORAGE_TOKEN",
    "AZURE_CREDENTIAL_TYPE",
    "AZURE_USE_AZURE_CLI",
    "AZURE_MSI_ENDPOINT",
    "AZURE_IDENTITY_ENDPOINT",
    "IDENTITY_ENDPOINT",
)
"""Any of these says who we are; obstore reads them."""
_METADATA = ("169.254.169.254", 80)
_NOISE = re.compile(r"\s*\bRequestId:.*", re.DOTALL)
_NO_CONTAINER = re.compile("ContainerNotFound|specified container does not exist")
_NO_BYTE = "Wanted range starting at"
_DIRECTORY_ERROR = re.compile(r"AADSTS\d+")
_CHECK = "check account-name, account-key or sas-token (its expiry, its permissions rcwdl) and the clock"
_ROLE = "give the identity the role Storage Blob Data Contributor, or the sas-token the permissions rcwdl"
_KEPT = "the blob is under an immutability policy or a legal hold: run retention where the policy allows it"
_HINTS = {
    "AuthenticationFailed": _CHECK,
    "AuthorizationFailure": f"{_CHECK}; or the account's firewall refuses this address",
    "InvalidAuthenticationInfo": _CHECK,
    "NoAuthenticationInformation": _CHECK,
    "AccessDenied": _CHECK,
    "AccountIsDisabled": "the storage account is disabled",
    "AuthorizationPermissionMismatch": _ROLE,
    "UnauthorizedBlobOverwrite": "the blob is there, and the sas-token may create and not overwrite (w)",
    "AuthorizationResourceTypeMismatch": "the sas-token must be for the container (sr=c) or for containers and objects",
    "AuthorizationProtocolMismatch": "the sas-token is for https only",
    "AuthorizationSourceIPMismatch": "the sas-token is for other addresses",
    "KeyBasedAuthenticationNotPermitted": "the account allows no keys: leave account-key out and use an identity",
    "BlobImmutableDueToPolicy": _KEPT,
    "BlobArchived": "the blob is in the archive tier: rehydrate it first",
    "NoSuchBucket": "create it, or check bucket, account-name and endpoint",
    "NoIdentity": "set account-key or sas-token, or give this machine an identity: AZURE_CLIENT_ID and its kin",
}
_WORDS = Words("container", _HINTS)
_PERMANENT = {"BlobImmutableDueToPolicy", "BlobArchived"}
"""Conflicts (409) that do not pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureConfig:
    """Settings of one `abs` replica.

    Attributes:
        bucket: the container; must exist.
        path: what all keys begin with, without slashes around it.
        endpoint: the account's address; empty: `https://ACCOUNT.blob.core.windows.net`.
        account_key: base64; used if there is no `sas_token`. Without either, the identity that the environment names.
    """

    bucket: str
    account_name: str
    path: str = ""
    endpoint: str = ""
    account_key: str = field(default="", repr=False)
    sas_token: str = field(default="", repr=False)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """From the keys of litestream.yml, `url` among them; what is not given comes from the environment.

        Raises `StoreConfigError`.
        """
        return cls(**read_settings(settings))

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:  # noqa: ANN401 - all are strings; checked below
        """From `abs://[ACCOUNT@]CONTAINER/PATH`; `settings` go before what the URL says. Raises `StoreConfigError`."""
        return cls.from_settings({**settings, "url": url})

    @property
    def url(self) -> str:
        """The canonical URL, without secrets."""
        return f"abs://{self.account_name}@{self.bucket}" + (f"/{self.path}" if self.path else "")

    def open(self) -> Store:
        """The store; contacts nothing."""
        return AzureStore(self)


class AzureStore(ObstoreStore):
    """A `Store` in a container. Objects are block blobs: what is not committed whole is never visible, and Azure
    drops it after a week."""

    def __init__(self, config: AzureConfig) -> None:
        root = f"{config.path}/" if config.path else ""
        super().__init__(kind="abs", url=config.url, root=root, words=_WORDS)
        self._config = config

    async def _open(self, retry_config: RetryConfig) -> ObjectStore:
        from obstore.store import AzureStore as Obstore

        config = self._config
        account: ObstoreConfig = {"account_name": config.account_name}
        account["endpoint"] = config.endpoint or f"https://{config.account_name}.blob.core.windows.net"
        if config.sas_token:
            account |= {"credential_type": "sas_token", "sas_key": config.sas_token}
        elif config.account_key:
            account |= {"credential_type": "access_key", "account_key": config.account_key}
        elif await _only_command_line():
            account["credential_type"] = "azure_cli"
        options = client_options()
        options["allow_http"] = account["endpoint"].startswith("http:")
        with self._errors("open", ""):
            return Obstore(config.bucket, config=account, client_options=options, retry_config=retry_config)

    async def get(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        self._check(key)
        try:
            async with aclosing(super().get(key, start=start)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except StorageError as error:
            if error.code != "InvalidRange" or not start or await self._size(key) != start:
                raise

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        self._check(key)
        return await super().put(key, body, create_only=create_only)

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._check(key)
        await super().delete(keys)

    def _check(self, key: str) -> None:
        """Refuse what Azure would store under another name."""
        if "\\" in key or any(part.endswith(".") for part in check_key(key).split("/")):
            message = f"invalid object key {key!a}: Azure takes no backslash and no part that ends with a dot"
            raise StorageError(message, key=key, permanent=True)

    def _explain(self, failure: Failure, doing: str, key: str) -> StorageError:
        if failure.code.isdigit():  # one delete of a batch: obstore has only the status of its answer
            failure = replace(failure, status=int(failure.code), code="")
        if _NO_BYTE in failure.text:  # Azurite's way to say 416
            failure = replace(failure, status=416, code="InvalidRange", message="there are no bytes from there on")
        if "token request" in failure.text:
            return self._no_identity(failure, doing, key)
        error = super()._explain(replace(failure, message=_NOISE.sub("", failure.message)), doing, key)
        error.permanent |= error.code in _PERMANENT
        return error

    def _no_identity(self, failure: Failure, doing: str, key: str) -> StorageError:
        """There is no key, and whoever hands out tokens refuses or does not answer."""
        refused = 400 <= failure.status < 500 and failure.status not in {408, 429}
        told = _DIRECTORY_ERROR.search(failure.text)
        reason = told[0] if told else f"HTTP {failure.status}" if failure.status else failure.message
        message = f"{self.url}: cannot {doing} {key}".rstrip() + f": no token for this machine's identity: {reason}"
        code = "NoIdentity" if refused or not failure.code else failure.code
        return StorageError(f"{message} ({_HINTS['NoIdentity']})", key=key, permanent=refused, code=code)

    async def _delete(self, paths: Sequence[str]) -> None:
        import obstore

        store = await self._store()
        for at in range(0, len(paths), _BATCH):
            batch = list(paths[at : at + _BATCH])
            with self._errors("delete", batch[0][len(self._root) :]):
                try:
                    await obstore.delete_async(store, batch)
                except FileNotFoundError as error:
                    self._container_there(error, batch[0])
                    # One was absent; what became of the others, the answer does not say.
                    await self._delete_each(store, batch)
            progress()

    async def _delete_each(self, store: ObjectStore, paths: Sequence[str]) -> None:
        import obstore

        gate = asyncio.Semaphore(_SINGLE)

        async def delete(path: str) -> None:
            async with gate:
                try:
                    await obstore.delete_async(store, path)
                except FileNotFoundError as error:
                    self._container_there(error, path)
                progress()

        for result in await asyncio.gather(*(delete(path) for path in paths), return_exceptions=True):
            if result is not None:
                raise result

    def _container_there(self, error: FileNotFoundError, path: str) -> None:
        """Raise unless it was only the blob that is absent."""
        if _NO_CONTAINER.search(str(error)):
            failure = Failure(status=404, code="ContainerNotFound")
            raise self._explain(failure, "delete", path[len(self._root) :]) from None


async def _only_command_line() -> bool:
    """Whether `az` is what knows who we are: nothing in the environment does, and there is no metadata service."""
    import os

    if any(os.environ.get(name) for name in _IDENTITIES) or shutil.which("az") is None:
        return False
    try:
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_connection(*_METADATA)
    except OSError:
        return True
    writer.close()
    return False
