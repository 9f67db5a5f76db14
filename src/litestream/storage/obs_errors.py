"""What obstore's exceptions say, as one line of ours.

obstore tells of the HTTP answer in the text only: a first line, the service's XML, and a dump of its own structures.
From it a status, the service's code, its message and the kind of a transport fault are read, and nothing is passed on
whole: URLs may carry a signature.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from litestream.errors import ObjectNotFoundError, StorageError

_STATUS = re.compile(r"status code: (\d{3})|\bstatus: (\d{3}),")
_CODE = re.compile(r"<Code>\s*([\w.:-]{1,80})\s*</Code>|\(code: ([\w.-]{1,80})\)")
_MESSAGE = re.compile(r"<Message>(.{1,2000}?)</Message>", re.DOTALL)
_REGION = re.compile(r"<Region>([a-z0-9-]{2,40})</Region>|expecting '([a-z0-9-]{2,40})'")
_URL = re.compile(r"\w+://\S+|\?\S+")

_TRANSPORT = (
    # (what the dump says, our code, what it is in words)
    (r"certificate not valid for name|NotValidForName", "TLS", "the certificate is for another host name"),
    (r"UnknownIssuer|SelfSigned|self.signed|unknown issuer|CaUsedAsEndEntity", "TLS", "the certificate is not trusted"),
    (r"certificate (has )?expired|\bExpired", "TLS", "the certificate has expired"),
    (r"InvalidCertificate|invalid peer certificate", "TLS", "the certificate is not valid"),
    (r"InvalidContentType|InvalidMessage|CorruptMessage", "TLS", "the server does not speak TLS on this port"),
    (r"HandshakeFailure|AlertReceived|PeerIncompatible", "TLS", "the TLS handshake failed"),
    (r"dns error|failed to lookup address", "Connection", "the host name cannot be resolved"),
    (r"ConnectionRefused", "Connection", "connection refused"),
    (r"NetworkUnreachable|HostUnreachable", "Connection", "no route to the host"),
    (r"kind: Timeout|TimedOut|timed out|deadline has elapsed", "Timeout", "no answer in time"),
    (
        r"ConnectionReset|ConnectionAborted|BrokenPipe|UnexpectedEof|IncompleteMessage|kind: Interrupted",
        "Connection",
        "the connection was cut",
    ),
    (r"HTTP error|HttpError|error decoding response body|reqwest::Error", "Connection", "the connection failed"),
)
_THROTTLED = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "ServerBusy"}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"}
_NOT_FOUND = {"NoSuchKey", "BlobNotFound", "NoSuchVersion"}
_PASSING = {
    "RequestTimeout",
    "ExpiredToken",
    "TokenRefreshRequired",
    "RequestTimeTooSkewed",
    "IncompleteBody",
    "BadDigest",
    "InternalError",
    "OperationAborted",
    "NoSuchUpload",
}
"""Codes of 4xx answers after which the same request may well succeed."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What an exception of obstore says: HTTP `status` (0 without an answer), the service's `code` and `message`,
    else the `code` and words of a transport fault."""

    status: int = 0
    code: str = ""
    message: str = ""
    region: str = ""
    not_found: bool = False
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Words:
    """How a back end speaks: what it calls a bucket, and per code what to do about it."""

    bucket: str
    hints: Mapping[str, str]


def read_failure(error: BaseException) -> Failure:
    """Take an exception of obstore apart."""
    text = str(error)
    status = _STATUS.search(text)
    code = _CODE.search(text)
    message = _MESSAGE.search(text)
    region = _REGION.search(text)
    number = int(next(filter(None, status.groups()))) if status else 0
    found = Failure(
        status=number,
        code=next(filter(None, code.groups())) if code else "",
        message=_one_line(message[1]) if message else "",
        region=next(filter(None, region.groups())) if region else "",
        not_found=isinstance(error, FileNotFoundError),
        text=text,
    )
    if found.status or found.code or found.not_found:
        return found
    for pattern, word, words in _TRANSPORT:
        if re.search(pattern, text):
            return Failure(code=word, message=words, text=text)
    return found


def explain(failure: Failure, doing: str, key: str, url: str, words: Words) -> StorageError:
    """The error for a person: what failed, on which object, what to do."""
    code, permanent = _judge(failure, doing)
    if code == "NotFound":
        return ObjectNotFoundError(key)
    what = f"{url}: cannot {doing} {key}".rstrip()
    if code == "NoSuchBucket":
        reason = f"the {words.bucket} does not exist"
    elif failure.status:
        said = " ".join(filter(None, (f"HTTP {failure.status}", failure.code)))
        told = failure.message if code not in words.hints else ""
        reason = f"{said}: {told}" if told else said
    else:
        reason = failure.message or failure.code or _first_line(failure.text)
    hint = words.hints.get(code, "").format(region=failure.region or "the one of the bucket")
    message = f"{what}: {reason}" + (f" ({hint})" if hint else "")
    return StorageError(message, key=key, permanent=permanent, code=code)


def _judge(failure: Failure, doing: str) -> tuple[str, bool]:
    """Our code, and whether the same request is pointless."""
    status, code = failure.status, failure.code
    if code in _NO_BUCKET:
        return "NoSuchBucket", True
    if code in _NOT_FOUND and doing == "get":
        return "NotFound", True
    if (status == 404 or failure.not_found) and not code:
        return ("NotFound" if doing == "get" else "NoSuchBucket"), True
    if code in _THROTTLED or status == 429:
        return "Throttled", False
    if code == "NotImplemented" or status == 501:
        return "NotImplemented", True
    if status >= 500:
        return "Unavailable", False
    if status in {301, 307, 308} or code in {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}:
        return "WrongRegion", True
    if code in _PASSING or status in {408, 409, 425}:
        return code or {408: "Timeout", 409: "Conflict"}.get(status, "Unavailable"), False
    if status in {401, 403}:
        return code or "AccessDenied", True
    if status:
        return code or f"HTTP{status}", True
    return code or "Unknown", code == "TLS"


def _one_line(text: str) -> str:
    return _URL.sub("…", " ".join(text.split()))[:200].rstrip(" .")


def _first_line(text: str) -> str:
    """The beginning of a text that none of the patterns knows, without addresses."""
    return _one_line(text.split("\n", 1)[0])
