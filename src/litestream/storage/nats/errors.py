"""What a NATS server and nats-py say, as one line of ours."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import nats.errors

from litestream.errors import StorageError

NO_STREAM, NO_MESSAGE, WRONG_SEQUENCE, NOT_ENABLED = 10059, 10037, 10071, {10039, 10076}
GONE = {10043, 10057, NO_MESSAGE}
"""What a message is that was to be deleted and is not there."""
_FULL = {10023, 10047, 10077, 10122}
_DENIED = {10108, 10109, 10110}
_LONGEST = 200
_SUBJECT = re.compile(r'"(\S+)"')


class ApiError(Exception):
    """JetStream's answer is an error."""

    def __init__(self, error: dict[str, object]) -> None:
        self.code = int(str(error.get("err_code") or 0))
        super().__init__(str(error.get("description") or error.get("code") or "unknown error"))


class RefusedError(Exception):
    """The server says that the user may not send to the subject, or not get its answers."""


class DamagedError(Exception):
    """What is stored is not whole; the text says what is missing."""


class NoTLSError(OSError):
    """The server wants to go on in plain."""


@contextmanager
def translated(url: str, bucket: str, action: str, key: str) -> Iterator[None]:
    """The exceptions of the server, the client and the network as `StorageError`; never around a body."""
    try:
        yield
    except ApiError as error:
        raise _api_error(error, f"{url}: cannot {action} {_shown(key)}", bucket, key) from None
    except RefusedError as error:
        text = f"{url}: cannot {action} {_shown(key)}: the user has no permission (allow it to publish to {error})"
        raise StorageError(text, key=key, permanent=True, code="AccessDenied") from None
    except DamagedError as error:
        text = f"{url}: cannot {action} {_shown(key)}: {error} (replaced meanwhile, or damaged)"
        raise StorageError(text, key=key, code="Damaged") from None
    except nats.errors.NoRespondersError:
        text = f"{url}: cannot {action} {_shown(key)}: JetStream does not answer (is it on, for this account?)"
        raise StorageError(text, key=key, code="Unavailable") from None
    except (TimeoutError, nats.errors.Error, OSError) as error:
        code, reason = _reason(error)
        raise StorageError(f"{url}: cannot {action} {_shown(key)}: {reason}", key=key, code=code) from error


def connect_error(error: Exception, url: str, way: str) -> StorageError:
    """Why there is no connection. `way` is how we logged in."""
    tls = _tls_reason(error)
    if tls:
        return StorageError(f"{url}: cannot connect: {tls}", permanent=True, code="TLS")
    text = str(error).lower()
    if "authorization" in text or "authentication" in text:
        reason = f"the server refuses us ({way}): check username, password, token, nkey, seed, creds"
        return StorageError(f"{url}: cannot connect: {reason}", permanent=True, code="AccessDenied")
    code, reason = _reason(error)
    return StorageError(f"{url}: cannot connect: {reason}", code=code)


def _tls_reason(error: Exception) -> str:
    if isinstance(error, NoTLSError):
        return "the server does not offer TLS, and nothing is sent without (take tls away if that is right)"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message} (set root-cas)"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "").lower().replace("_", " ")
        return f"the TLS handshake failed{f': {reason}' if reason else ''} (does it want client-cert?)"
    return ""


def _api_error(error: ApiError, what: str, bucket: str, key: str) -> StorageError:
    if error.code == NO_STREAM:
        text = f"{what}: there is no object store bucket of that name (create it: nats object add {bucket})"
        return StorageError(text, key=key, permanent=True, code="NoSuchBucket")
    if error.code in NOT_ENABLED:
        text = f"{what}: JetStream is not enabled there, or not for this account"
        return StorageError(text, key=key, permanent=True, code="Unavailable")
    if error.code in _FULL:
        text = f"{what}: the bucket, or the account, is full: {_said(error)} (raise its limit)"
        return StorageError(text, key=key, code="DiskFull")
    if error.code in _DENIED:
        text = f"{what}: the bucket does not allow it: {_said(error)}"
        return StorageError(text, key=key, permanent=True, code="AccessDenied")
    return StorageError(f"{what}: {_said(error)}", key=key, code=f"JetStream{error.code or ''}")


def _reason(error: Exception) -> tuple[str, str]:
    """(code, words) of a fault on the way."""
    if isinstance(error, asyncio.TimeoutError):
        return "Timeout", "no answer in time"
    if isinstance(error, nats.errors.MaxPayloadError):
        return "TooLarge", "a message is larger than the server takes"
    if isinstance(error, socket.gaierror):
        return "Connection", "the host name cannot be resolved"
    if isinstance(error, ConnectionRefusedError):
        return "Connection", "connection refused (is the server running?)"
    if isinstance(error, ConnectionError | nats.errors.ConnectionClosedError | nats.errors.UnexpectedEOF | EOFError):
        return "Connection", "the connection was cut"
    if isinstance(error, nats.errors.NoServersError | nats.errors.OutboundBufferLimitError):
        return "Connection", "there is no connection"
    if isinstance(error, OSError) and error.errno:
        return "Connection", os.strerror(error.errno)
    return "Connection", _said(error)


def refused_subject(error: Exception) -> str:
    """The subject that a permission is missing for, in lower case, as the client has the server's words."""
    match = _SUBJECT.search(str(error))
    return match[1].lower() if match else ""


def _said(error: Exception) -> str:
    text = " ".join("".join(char if char.isprintable() else " " for char in str(error)).split())
    return text[:_LONGEST] or type(error).__name__


def _shown(key: str) -> str:
    return key.encode("utf-8", "backslashreplace").decode() or "the bucket"
