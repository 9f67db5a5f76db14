"""The control API: HTTP and JSON in the official form, over whatever can control a running replicator.

Bodies are JSON objects; a field that nobody knows is ignored, one of a wrong type is refused. Errors are
`{"error": TEXT}`, with `details` where there is more to say.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from litestream.errors import ConfigError, LitestreamError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

Answer = dict[str, Any]

MAX_BODY = 64 * 1024
"""Bytes of a request: a path and a URL."""

BODY_TIMEOUT = 10.0
"""Seconds for a request's body to arrive."""

TIMEOUT = 30.0
"""Seconds that a request may take that names no `timeout`, as in the official program."""

MAX_TIMEOUT = 86400.0

_log = logging.getLogger("litestream.control")


class RequestError(LitestreamError):
    """A request that cannot be fulfilled. `status` is that of HTTP; `details` says more, in one line."""

    def __init__(self, status: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.details = details


class Control(Protocol):
    """What a running replicator can be asked for. Raises `RequestError`, `ConfigError` for what the caller has wrong,
    and other `LitestreamError`s for what went wrong here. `timeout` is in seconds."""

    async def start(self, path: str, timeout: float) -> Answer: ...
    async def stop(self, path: str, timeout: float) -> Answer: ...
    async def sync(self, path: str, *, wait: bool, timeout: float) -> Answer: ...
    async def wait(self, path: str, pos: str, *, every: bool, timeout: float) -> Answer: ...
    async def register(self, path: str, replica_url: str, timeout: float) -> Answer: ...
    async def unregister(self, path: str, timeout: float) -> Answer: ...
    async def reset(self, path: str, timeout: float) -> Answer: ...
    async def reload(self, timeout: float) -> Answer: ...
    async def txid(self, path: str) -> Answer: ...
    async def databases(self) -> Answer: ...
    async def info(self) -> Answer: ...
    async def status(self, path: str, within: float | None) -> Answer: ...
    async def sync_status(self, path: str) -> Answer: ...


def application(control: Control) -> Starlette:
    """The ASGI application."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    posts: dict[str, _Operation] = {
        "/start": lambda given: control.start(given.needed("path"), given.timeout()),
        "/stop": lambda given: control.stop(given.needed("path"), given.timeout()),
        "/sync": lambda given: control.sync(given.needed("path"), wait=given.flag("wait"), timeout=given.timeout()),
        "/wait": lambda given: control.wait(
            given.needed("path"), given.text("pos"), every=given.flag("all"), timeout=given.timeout()
        ),
        "/register": lambda given: control.register(given.needed("path"), given.needed("replica_url"), given.timeout()),
        "/unregister": lambda given: control.unregister(given.needed("path"), given.timeout()),
        "/reset": lambda given: control.reset(given.needed("path"), given.timeout()),
        "/reload": lambda given: control.reload(given.timeout()),
    }
    gets: dict[str, _Operation] = {
        "/txid": lambda given: control.txid(given.needed("path")),
        "/list": lambda given: control.databases(),
        "/info": lambda given: control.info(),
        "/status": lambda given: control.status(given.text("path"), given.seconds("within")),
        "/debug/sync-status": lambda given: control.sync_status(given.text("path")),
    }
    return Starlette(
        routes=[
            *(Route(path, _endpoint(work), methods=["POST"]) for path, work in posts.items()),
            *(Route(path, _endpoint(work), methods=["GET"]) for path, work in gets.items()),
        ]
    )


class _Fields:
    """The fields of a request, by name, each of the type that is asked for."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def needed(self, name: str) -> str:
        found = self.text(name)
        if not found:
            raise RequestError(400, f"{name} required")
        return found

    def text(self, name: str) -> str:
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise RequestError(400, "invalid request body", f"{name} must be a string")
        return value or ""

    def flag(self, name: str) -> bool:
        value = self._values.get(name)
        if value is not None and not isinstance(value, bool):
            raise RequestError(400, "invalid request body", f"{name} must be true or false")
        return bool(value)

    def seconds(self, name: str) -> float | None:
        """A number of seconds, from a body or a query; None where it is not given."""
        value = self._values.get(name)
        try:
            number = float(value) if value is not None and not isinstance(value, bool) else None
        except (TypeError, ValueError, OverflowError):
            number = -1.0
        if number is None and value is None:
            return None
        if number is None or not 0 <= number <= MAX_TIMEOUT:
            raise RequestError(
                400, "invalid request body", f"{name} must be a number of seconds, {MAX_TIMEOUT:g} at most"
            )
        return number

    def timeout(self) -> float:
        return self.seconds("timeout") or TIMEOUT


_Operation = Callable[[_Fields], Awaitable[Answer]]


def _endpoint(work: _Operation) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            fields = await _body(request) if request.method == "POST" else dict(request.query_params)
            return _json(200, await work(_Fields(fields)))
        except RequestError as error:
            return _json(error.status, _error(str(error), error.details))
        except ConfigError as error:
            return _json(400, _error(str(error)))
        except LitestreamError as error:
            return _json(500, _error(str(error)))
        except Exception as error:
            _log.exception("control request failed", extra={"fields": {"request": request.url.path}})
            return _json(500, _error(f"internal error: {type(error).__name__}"))

    return answer


async def _body(request: Request) -> dict[str, Any]:
    """The object of a request; an empty body is an empty one. Raises `RequestError`."""
    data = b""
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_BODY:
                    raise RequestError(413, "request body too large", f"{MAX_BODY} bytes are allowed")
    except TimeoutError:
        raise RequestError(408, "request body timeout", f"it must arrive within {BODY_TIMEOUT:g} s") from None
    try:
        value = json.loads(data) if data else {}
    except (ValueError, RecursionError) as error:
        raise RequestError(400, "invalid request body", str(error)) from None
    if not isinstance(value, dict):
        raise RequestError(400, "invalid request body", "a JSON object is needed")
    return value


def _error(message: str, details: str = "") -> Answer:
    return {"error": message, "details": details} if details else {"error": message}


def _json(status: int, value: Answer) -> Response:
    from starlette.responses import Response

    # ASCII: a path may hold bytes that are no UTF-8, and whoever reads them back gets what stood there.
    return Response(json.dumps(value) + "\n", status, media_type="application/json")
