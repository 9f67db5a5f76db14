"""The store of an `s3` replica: credentials and region for obstore, and what it does beside obstore."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from litestream.errors import StorageError
from litestream.storage.obs import CONCURRENCY, ObstoreStore, client_options
from litestream.storage.obs.errors import Failure, Words
from litestream.storage.protocol import ObjectInfo
from litestream.storage.s3 import S3Config, aws
from litestream.storage.s3 import hosts as s3_hosts
from litestream.storage.s3.environment import authorities, source_of, tls_context
from litestream.storage.s3.hints import hints
from litestream.storage.s3.requests import AnswerError, BucketRequests, bucket_region

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig
    from obstore.store import S3Config as ObstoreConfig

ABANDONED = 24 * 3600.0
"""Seconds after which a pending upload below our prefix is nobody's any more."""
LOOKUP = "https://s3.amazonaws.com"
"""Where the region of a bucket is asked for."""
_SETTLED = 2.0
"""Seconds after which the parts of a broken upload have arrived, if ever."""
_REFUSED = {"ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "TokenRefreshRequired"}
"""Codes after which the credentials are fetched anew."""

_logger = logging.getLogger("litestream.storage")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the bucket is, once the region is known."""

    url: str
    region: str


class S3Store(ObstoreStore):
    """A `Store` in a bucket. Uploads that were broken off long ago are removed after the first large one."""

    def __init__(self, config: S3Config, *, kind: str = "s3", url: str = "") -> None:
        service, named = s3_hosts.service_of(config.endpoint)
        super().__init__(
            kind=kind,
            url=url or config.url,
            root=f"{config.path}/" if config.path else "",
            words=Words("bucket", hints(config)),
            conditional=service.conditional if config.conditional is None else config.conditional,
            part_size=config.part_size,
            concurrency=config.concurrency or service.concurrency or CONCURRENCY,
            attributes={"Storage-Class": config.storage_class} if config.storage_class else None,
        )
        self._config, self._service = config, service
        self._region = config.region or s3_hosts.arn_region(config.bucket) or named or service.region
        self._ca = authorities()
        self._source = source_of(config, self._region)
        self._signing = ("", "", "")
        self._placed: _Place | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._begun = self._uploading = 0
        self._cleaned = False

    def requests(self, operation: str, *, objects: int = 0, size: int = 0) -> int:
        """How many requests an operation is (see `litestream.storage.wrappers.requests`)."""
        if operation == "PUT":
            return 1 if size <= self._part_size else -(-size // self._part_size) + 2
        if operation == "GET" or not objects:
            return 1
        return objects if operation == "DELETE" and not self._service.bulk_delete else -(-objects // 1000)

    async def _open(self, retry_config: RetryConfig) -> ObjectStore:
        from obstore.store import S3Store as Obstore

        config, place = self._config, await self._place()
        options: ObstoreConfig = {
            "endpoint": place.url,
            "aws_endpoint_url_s3": place.url,  # or that of the environment would win
            "virtual_hosted_style_request": True,  # the URL holds the bucket already, either way
            "region": place.region,
            "unsigned_payload": not config.sign_payload,
            "disable_bulk_delete": not self._service.bulk_delete,
        }
        if config.require_content_md5 or (config.require_content_md5 is None and not config.endpoint):
            options["checksum_algorithm"] = "SHA256"
        if config.sse:
            options["server_side_encryption"] = config.sse
        if config.sse_kms_key_id:
            options["sse_kms_key_id"] = config.sse_kms_key_id
        if config.sse_customer_key:
            options["server_side_encryption"] = "sse-c"
            options["sse_customer_key_base64"] = config.sse_customer_key
        with self._errors("open", ""):
            return Obstore(
                config.bucket if not config.bucket.startswith("arn:") else "access-point",
                config=options,
                client_options=self._client(place.url),
                retry_config=retry_config,
                credential_provider=self._source.provide,
            )

    def _client(self, url: str) -> ClientConfig:
        options = client_options()
        options["allow_http"] = url.startswith("http:")
        options["allow_invalid_certificates"] = self._config.skip_verify
        if self._ca:
            options["root_certificate"] = self._ca
        return options

    async def _place(self) -> _Place:
        """Where the bucket is. The first call on AWS without a region asks for it."""
        if self._placed is None:
            config = self._config
            region = self._region or await self._look_up()
            path_style = self._service.path_style if config.force_path_style is None else config.force_path_style
            url = s3_hosts.bucket_url(config.bucket, config.endpoint, region, path_style)
            self._placed = _Place(url, region)
        return self._placed

    async def _look_up(self) -> str:
        url = s3_hosts.bucket_url(self._config.bucket, LOOKUP, "", path_style=False)
        found = await bucket_region(url, tls_context(self._ca, skip_verify=self._config.skip_verify))
        # The environment's region is that of the machine, not of the bucket: better than nothing.
        return found or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"

    async def _store(self, *, parts: bool = False) -> ObjectStore:
        signing = (await self._credentials()).keys()
        if signing != self._signing:
            self._signing, self._stores = signing, None  # obstore would go on with the old ones for a while
        return await super()._store(parts=parts)

    async def _credentials(self) -> aws.Credentials:
        """Fetched here, where the reason of a failure is not lost, rather than when obstore asks."""
        try:
            return await self._source.get()
        except StorageError as error:
            message = f"{self._url}: {error}"
            raise StorageError(message, permanent=error.permanent, code=error.code) from None

    def _explain(self, failure: Failure, doing: str, key: str) -> StorageError:
        if failure.code in _REFUSED:
            self._source.forget()
            self._stores = None
        return super()._explain(failure, doing, key)

    async def _list(self, prefix: str) -> Sequence[ObjectInfo]:
        import obstore

        try:
            if found := await super()._list(prefix):
                return found
            # obstore takes any answer without entries for an empty listing: also a web page of another service.
        except obstore.exceptions.InvalidPathError:
            pass  # one foreign name with `//` or a newline, and obstore gives up the whole listing
        try:
            listed = await (await self._requests()).list_objects(self._root + prefix)
        except AnswerError as error:
            raise self._explain(error.failure, "list", prefix) from None
        return [
            ObjectInfo(info.key[len(self._root) :], info.size, info.modified)
            for info in listed
            if info.key.startswith(self._root)
        ]

    async def _requests(self) -> BucketRequests:
        await self._credentials()
        place = await self._place()
        return BucketRequests(
            place.url, place.region, self._source, tls_context(self._ca, skip_verify=self._config.skip_verify)
        )

    async def _put_parts(self, key: str, head: bytearray, rest: AsyncIterator[bytes]) -> ObjectInfo:
        self._begun += 1
        self._uploading += 1
        try:
            info = await super()._put_parts(key, head, rest)
        except BaseException:
            self._later(self._abort_again(self._root + key))
            raise
        finally:
            self._uploading -= 1
        if not self._cleaned:
            # Whoever sends no large objects has left no uploads behind, and pays for no request.
            self._cleaned = True
            self._later(self._clean_quietly())
        return info

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it in the background, until the store is closed."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _abort_again(self, name: str) -> None:
        """An abort misses parts that arrive after it, and S3 keeps those, and their price. So look once more."""
        await asyncio.sleep(_SETTLED)
        begun = self._begun
        if self._uploading:
            return  # perhaps the same object again: what is left is removed with the abandoned ones
        try:
            requests = await self._requests()
            left = [upload for upload in await requests.uploads(name) if upload.name == name]
            if self._begun == begun:
                for upload in left:
                    await requests.abort(upload)
        except (AnswerError, StorageError, ValueError) as error:
            _logger.debug("%s: an upload is not removed: %s", self._url, type(error).__name__)

    async def clean_up(self, older_than: float = ABANDONED) -> int:
        """Abort multipart uploads of ours that began more than `older_than` seconds ago; how many there were.

        Ours are those below the prefix of this store, or below `generations/` where it has none: a bucket without a
        prefix may be shared. Needs `s3:ListBucketMultipartUploads` and `s3:AbortMultipartUpload`. `StorageError`.
        """
        requests = await self._requests()
        prefix = self._root or "generations/"
        aborted = 0
        try:
            for upload in await requests.uploads(prefix):
                if upload.name.startswith(prefix) and upload.started < time.time() - older_than:
                    await requests.abort(upload)
                    aborted += 1
        except AnswerError as error:
            raise self._explain(error.failure, "clean up", prefix) from None
        return aborted

    async def _clean_quietly(self) -> None:
        try:
            if aborted := await self.clean_up():
                _logger.info("%s: %d abandoned uploads removed", self._url, aborted)
        except (StorageError, ValueError) as error:
            _logger.debug("abandoned uploads are not removed: %s", error)

    async def close(self) -> None:
        for task in list(self._background):
            task.cancel()
        if self._background:
            await asyncio.wait(self._background)
        await super().close()
