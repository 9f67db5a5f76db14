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

_TRANSPORT: tuple[tuple[tuple[str, ...], str, str], ...] = (
    # (what the dump of obstore, or Python's own error, says; our code; what it is in words)
    (
        ("not valid for name", "NotValidForName", "Hostname mismatch", "IP address mismatch"),
        "TLS",
        "the certificate is for another host name",
    ),
    (
        (
            "UnknownIssuer",
            "unknown issuer",
            "SelfSigned",
            "self-signed",
            "self signed",
            "CaUsedAsEndEntity",
            "local issuer",
        ),
        "TLS",
        "the certificate is not trusted",
    ),
    (("certificate expired", "certificate has expired", "(Expired"), "TLS", "the certificate has expired"),
    (("InvalidCertificate", "invalid peer certificate", "CERTIFICATE_VERIFY"), "TLS", "the certificate is not valid"),
    (
        ("InvalidContentType", "InvalidMessage", "CorruptMessage", "WRONG_VERSION_NUMBER"),
        "TLS",
        "the server does not speak TLS on this port",
    ),
    (("HandshakeFailure", "AlertReceived", "PeerIncompatible", "SSLError"), "TLS", "the TLS handshake failed"),
    (("dns error", "failed to lookup address", "gaierror"), "Connection", "the host name cannot be resolved"),
    (("ConnectionRefused", "Connection refused"), "Connection", "connection refused"),
    (
        ("NetworkUnreachable", "HostUnreachable", "No route to host", "unreachable"),
        "Connection",
        "no route to the host",
    ),
    (
        ("kind: Timeout", "TimedOut", "timed out", "TimeoutError", "deadline has elapsed"),
        "Timeout",
        "no answer in time",
    ),
    (
        ("ConnectionReset", "ConnectionAborted", "BrokenPipe", "UnexpectedEof", "IncompleteMessage", "Disconnected"),
        "Connection",
        "the connection was cut",
    ),
    (("Got invalid",), "BadAnswer", "the answer is none of this kind of service"),
    (
        ("HTTP error", "HttpError", "response body", "reqwest::Error", "no HTTP answer"),
        "Connection",
        "the connection failed",
    ),
)
_THROTTLED = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "ServerBusy"}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"}
_NOT_FOUND = {"NoSuchKey", "BlobNotFound", "NoSuchVersion"}
_ELSEWHERE = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
"""Codes for a bucket that is in another region than the request was signed for."""
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
    retry_after: float = 0.0
    not_found: bool = False
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Words:
    """How a back end speaks: what it calls a bucket, and per code (or `CODE:OPERATION`) what to do about it.

    `{region}` in a hint stands for the region that the service has named.
    """

    bucket: str
    hints: Mapping[str, str]


def read_failure(error: BaseException) -> Failure:
    """Take an exception of obstore, or an `OSError` of a request of ours, apart."""
    text = f"{type(error).__name__}: {error}" if isinstance(error, OSError) else str(error)
    status = _STATUS.search(text)
    number = int(next(filter(None, status.groups()))) if status else 0
    if "Received redirect without LOCATION" in text:
        number = 301
    found = read_answer(number, text, not_found=isinstance(error, FileNotFoundError))
    if found.status or found.code or found.not_found:
        return found
    for patterns, word, words in _TRANSPORT:
        if any(pattern in text for pattern in patterns):
            return Failure(code=word, message=words, text=text)
    return found


def read_answer(
    status: int, text: str, headers: Mapping[str, str] | None = None, *, not_found: bool = False
) -> Failure:
    """Take an answer of the service apart."""
    code, message, region = _CODE.search(text), _MESSAGE.search(text), _REGION.search(text)
    wait = next((value for name, value in (headers or {}).items() if name.lower() == "retry-after"), "")
    return Failure(
        status=status,
        code=next(filter(None, code.groups())) if code else "",
        message=_one_line(message[1]) if message else "",
        region=next(filter(None, region.groups())) if region else "",
        retry_after=float(wait) if wait.isdigit() else 0.0,
        not_found=not_found,
        text=text,
    )


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
    hint = words.hints.get(f"{code}:{doing}") or words.hints.get(code, "")
    hint = hint.replace("{region}", failure.region or "that of the bucket")
    message = f"{what}: {reason}" + (f" ({hint})" if hint else "")
    return StorageError(message, key=key, permanent=permanent, code=code, retry_after=failure.retry_after)


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
    if status // 100 == 3 or code in _ELSEWHERE:
        return "WrongRegion", True
    if code in _PASSING or status in {408, 409, 425}:
        return code or {408: "Timeout", 409: "Conflict"}.get(status, "Unavailable"), False
    if status in {401, 403}:
        return code or "AccessDenied", True
    if status:
        return code or f"HTTP{status}", True
    # Without a status: a fault of the transport, or one key of a bulk delete.
    return code or "Unknown", code not in {"", "Connection", "Timeout", "BadAnswer"}


def _one_line(text: str) -> str:
    return _URL.sub("…", " ".join(text.split()))[:200].rstrip(" .")


def _first_line(text: str) -> str:
    """The beginning of a text that none of the patterns knows, without addresses."""
    return _one_line(text.split("\n", 1)[0])
