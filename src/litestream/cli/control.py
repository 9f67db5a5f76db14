"""What the verbs share that talk to a running replicator: their flags, the request, the answer in the official form."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from litestream.cli import stdout
from litestream.cli.flags import Flag, Parsed
from litestream.cli.tables import write_json
from litestream.errors import ConfigError, FormatError, LitestreamError

DEFAULT_SOCKET = "/var/run/litestream.sock"

SOCKET = Flag("socket", "Path of the control socket.", "PATH", default=DEFAULT_SOCKET)
RAW = Flag("json", "Print JSON.")
PATH_MISSING = "database path required"

_GRACE = 10.0
"""Seconds that an answer may take longer than what was asked for."""


class ControlError(LitestreamError):
    """The replicator refused, or failed. `status` is that of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotConnectedError(LitestreamError):
    """Nobody could be asked. `absent`: there is no replicator at that socket."""

    def __init__(self, reason: str, *, absent: bool) -> None:
        super().__init__(f"failed to connect to control socket: {reason}")
        self.absent = absent


def timeout_flag(default: float) -> Flag:
    """`-timeout`: the official whole seconds, or a duration."""
    text = "Longest time to wait, in seconds or as a duration (90, 5m)."
    return Flag("timeout", text, "SECONDS", default=f"{default:g}")


def timeout_of(parsed: Parsed, default: float) -> float:
    """The value of `-timeout` in seconds. Raises `ConfigError`."""
    text = parsed.text("timeout")
    if not text:
        return default
    from litestream.core.durations import parse_duration

    try:
        seconds = float(text) if re.fullmatch(r"[0-9]{1,7}", text) else parse_duration(text)
    except FormatError as error:
        raise ConfigError(f"-timeout: {error}") from None
    if seconds <= 0:
        raise ConfigError("-timeout: must be greater than 0")
    return seconds


def socket_of(parsed: Parsed) -> str:
    """The socket that is meant."""
    return parsed.text("socket") or DEFAULT_SOCKET


def absolute(path: str) -> str:
    """A database's path as the replicator, which has another working directory, understands it."""
    if path.startswith(("sqlite://", "sqlite3://")):
        path = path.partition("://")[2]
    return os.path.abspath(os.path.expanduser(path) if path.startswith("~/") else path)


def ask(socket: str, method: str, target: str, body: Mapping[str, Any] | None = None, *, timeout: float) -> Any:  # noqa: ANN401 - JSON
    """Send one request and return the answer's document.

    Raises `NotConnectedError` if nobody listens, `ControlError` with the replicator's words if it says no.
    """
    import http.client
    import json
    import socket as sockets

    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(socket)

    connection = Connection("localhost", timeout=timeout + _GRACE)
    try:
        connection.connect()
    except OSError as error:
        connection.close()
        absent = isinstance(error, FileNotFoundError | ConnectionRefusedError)
        raise NotConnectedError(f"{socket}: {error.strerror or error}", absent=absent) from None
    try:
        connection.request(method, target, json.dumps(body) if body is not None else None)
        answer = connection.getresponse()
        text = answer.read()
    except TimeoutError:
        raise LitestreamError(f"control socket {socket}: no answer within {timeout + _GRACE:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise LitestreamError(f"control socket {socket}: {error or type(error).__name__}") from None
    finally:
        connection.close()
    try:
        document = json.loads(text)
    except ValueError:
        document = {"error": f"HTTP status {answer.status}"}
    if answer.status >= 300:
        reason = document.get("error", answer.status) if isinstance(document, dict) else answer.status
        details = document.get("details", "") if isinstance(document, dict) else ""
        raise ControlError(answer.status, f"{reason} ({details})" if details else str(reason))
    return document


def post(parsed: Parsed, body: Mapping[str, Any], *, timeout: float) -> Any:  # noqa: ANN401 - JSON
    """Ask for the operation of this verb. An error says which one failed, as the official program words it."""
    try:
        return ask(socket_of(parsed), "POST", f"/{parsed.verb}", {**body, "timeout": timeout}, timeout=timeout)
    except ControlError as error:
        raise ControlError(error.status, f"{parsed.verb} failed: {error}") from None


def write_result(parsed: Parsed, pairs: Sequence[tuple[str, object]]) -> None:
    """Print what became of it: `name: value` a line, or one JSON object."""
    if parsed.switch("json"):
        write_json(dict(pairs))
        return
    from litestream.daemon.logs import safe

    stdout.write("".join(f"{name}: {safe(str(value))}\n" for name, value in pairs))


def tell_missing(answer: Mapping[str, Any]) -> int:
    """Say which replicas a last sync did not bring up to date; the exit code."""
    from litestream.cli import fail

    missing = answer.get("missing") or {}
    for name, reason in missing.items():
        fail(f"{name}: not everything reached the replica: {reason}")
    return 1 if missing else 0
