"""What holds for every answer over HTTP: headers, and who is answered.

A page on the internet can make a browser ask a name of its own that resolves to 127.0.0.1, and read the answer (DNS
rebinding). The name is still in the `Host` header: where we listen on this host only, names other than its own are
refused. Where a network was configured, any name may be right.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
"""Unless the answer has one of its own."""

_REFUSED = b"this host name is not served: use localhost or 127.0.0.1, or configure addr with a host\n"


class Guard:
    """An ASGI application around another one. `own` is the configured host; it and loopback names are answered.

    With `own` None every name is.
    """

    def __init__(self, app: ASGIApp, own: str | None) -> None:
        self._app = app
        self._own = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                given = {name.lower() for name, _ in headers}
                message["headers"] = headers + [(k, v) for k, v in HEADERS.items() if k not in given]
            await send(message)

        if scope["type"] != "http" or self._own is None or is_own_name(_host(scope["headers"]), self._own):
            await self._app(scope, receive, sending)
            return
        head = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(_REFUSED))]
        await sending({"type": "http.response.start", "status": 421, "headers": head})
        await sending({"type": "http.response.body", "body": _REFUSED})


def is_own_name(host: str, own: str) -> bool:
    """Whether a `Host` header names this machine itself: `own`, localhost or an address of loopback, any port.

    None at all is fine: every browser sends one.
    """
    name, colon, port = host.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        name = host
    name = name.lower().removesuffix(".")
    if name in ("", "localhost", own.lower()) or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _host(headers: Iterable[tuple[bytes, bytes]]) -> str:
    return next((value.decode("latin-1") for name, value in headers if name == b"host"), "")
