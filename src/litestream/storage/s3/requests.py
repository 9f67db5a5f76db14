"""S3 requests that obstore has no call for: a listing that survives foreign names, pending uploads, the region."""

from __future__ import annotations

import hashlib
import hmac
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, unquote, unquote_plus, urlsplit

from litestream.storage.obs.errors import Failure, read_answer, read_failure
from litestream.storage.plain_http import Answer, request
from litestream.storage.protocol import ObjectInfo
from litestream.storage.s3.aws import Credentials, CredentialSource
from litestream.storage.s3.xml import elements, parse_xml, text_of
from litestream.storage.wrappers.progress import progress

TIMEOUT = 20.0
"""Seconds for each wait on the network."""
LOOKUP_TIMEOUT = 5.0
_EMPTY = hashlib.sha256(b"").hexdigest()


class AnswerError(Exception):
    """A request of this module failed; `failure` says how. Never leaves the back end."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.code or str(failure.status))
        self.failure = failure


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """A multipart upload that was neither completed nor aborted; `started` in Unix seconds."""

    name: str
    upload_id: str
    started: float


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    credentials: Credentials,
    region: str,
    now: datetime,
    service: str = "s3",
) -> dict[str, str]:
    """The headers of a request without a body, with those of AWS's signature version 4.

    The URL's path and query must be encoded already, the query's parts sorted.
    """
    parts = urlsplit(url)
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    signed = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    signed |= {"host": parts.netloc, "x-amz-date": stamp, "x-amz-content-sha256": _EMPTY}
    if credentials.session_token:
        signed["x-amz-security-token"] = credentials.session_token
    names = ";".join(sorted(signed))
    lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    canonical = "\n".join((method, parts.path or "/", parts.query, lines, names, _EMPTY))
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in (stamp[:8], region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"{credentials.access_key_id}/{scope}"
    signed["authorization"] = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return signed


@dataclass(frozen=True, slots=True)
class BucketRequests:
    """Signed requests to one bucket: `url` is where its objects are, without a slash at its end."""

    url: str
    region: str
    source: CredentialSource
    context: ssl.SSLContext | None = field(default=None, repr=False)

    async def list_objects(self, prefix: str) -> list[ObjectInfo]:
        """All objects whose names begin with `prefix`, whatever the names are. Raises `AnswerError`."""
        found: list[ObjectInfo] = []
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url", "max-keys": "1000"}
        while True:
            answer = await self._ask("GET", "", query)
            root = parse_xml(answer.body)
            if root is None or not root.tag.endswith("ListBucketResult"):
                raise AnswerError(Failure(code="BadAnswer", message="the answer is no listing of a bucket"))
            encoded = text_of(root, "EncodingType") == "url"
            for entry in elements(root, "Contents"):
                name = next((element.text or "" for element in elements(entry, "Key")), "")
                found.append(
                    ObjectInfo(
                        _decoded(name) if encoded else name,
                        int(text_of(entry, "Size") or 0),
                        datetime.fromisoformat(text_of(entry, "LastModified")).timestamp(),
                    )
                )
            progress()
            token = text_of(root, "NextContinuationToken")
            if text_of(root, "IsTruncated").lower() != "true":
                return found
            if not token or token == query.get("continuation-token"):
                raise AnswerError(Failure(code="BadAnswer", message="the listing breaks off"))
            query["continuation-token"] = token

    async def uploads(self, prefix: str) -> list[PendingUpload]:
        """Pending multipart uploads of objects whose names begin with `prefix`; at most 1,000. Raises `AnswerError`."""
        # Without an encoding: some servers say that they encode the names of uploads, and do not.
        root = parse_xml((await self._ask("GET", "", {"uploads": "", "prefix": prefix})).body)
        return [
            PendingUpload(
                next((element.text or "" for element in elements(entry, "Key")), ""),
                text_of(entry, "UploadId"),
                datetime.fromisoformat(text_of(entry, "Initiated")).timestamp(),
            )
            for entry in elements(root, "Upload")
        ]

    async def abort(self, upload: PendingUpload) -> None:
        """Abort an upload and free what it holds. Raises `AnswerError`."""
        await self._ask("DELETE", "/" + quote(upload.name, safe="/-_.~"), {"uploadId": upload.upload_id})

    async def _ask(self, method: str, path: str, query: Mapping[str, str]) -> Answer:
        pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query.items())
        url = f"{self.url}{path}?" + "&".join(f"{name}={value}" for name, value in pairs)
        if not urlsplit(url).path:
            url = url.replace("?", "/?", 1)
        headers = sign(method, url, {}, await self.source.get(), self.region, datetime.now(UTC))
        del headers["host"]  # the library sends it
        try:
            answer = await request(method, url, headers, timeout=TIMEOUT, context=self.context)
        except OSError as error:
            raise AnswerError(read_failure(error)) from None
        if not 200 <= answer.status < 300:
            raise AnswerError(read_answer(answer.status, answer.text, answer.headers))
        return answer


def _decoded(name: str) -> str:
    # "+" is a space to AWS and itself to others, which write %20 then: names with a plus are written %2B by both.
    return unquote_plus(name) if "%20" not in name else unquote(name)


async def bucket_region(url: str, context: ssl.SSLContext | None) -> str:
    """The region of a bucket on AWS, which every bucket tells everybody; empty if it cannot be had."""
    try:
        answer = await request("HEAD", url, timeout=LOOKUP_TIMEOUT, context=context)
    except OSError:
        return ""
    return next((value for name, value in answer.headers.items() if name.lower() == "x-amz-bucket-region"), "")
