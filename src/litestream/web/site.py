"""The status page and what it is made of, for people and for those who watch: nothing here changes anything.

`GET /` is the page; `/healthz`, `/readyz` and `/status.json` are for programs; `/live.json` is the page's own and
changes with it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import TYPE_CHECKING, Any, Protocol

from litestream.errors import LitestreamError
from litestream.web.api import MAX_TIMEOUT, Answer, RequestError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

_FOR_EVER = "public, max-age=31536000, immutable"
_FILES = {"status.css": "text/css; charset=utf-8", "status.js": "text/javascript; charset=utf-8"}
_ICON = "icon.svg"


class Sight(Protocol):
    """What can be seen of a running replicator. Raises `RequestError` for what the caller has wrong."""

    async def status(self, path: str, within: float | None) -> Answer: ...
    async def health(self) -> Answer:
        """Whether the process works: `ok`, and what it was told by."""
        ...

    async def readiness(self, within: float | None) -> Answer:
        """Whether everything is replicated: `ok`, and `reasons` why not."""
        ...

    async def changes(self, since: str, detail: int) -> str: ...


def routes(sight: Sight) -> list[BaseRoute]:
    """The routes, for `serve_metrics`."""
    from starlette.routing import Route

    async def health(request: Request) -> Response:
        del request
        return _judged(await sight.health())

    async def ready(request: Request) -> Response:
        return _judged(await sight.readiness(_seconds(request, "within")))

    async def status(request: Request) -> Response:
        return _json(200, await sight.status(request.query_params.get("db", ""), _seconds(request, "within")))

    async def live(request: Request) -> Response:
        number = request.query_params.get("id", "0")
        detail = int(number) if number.isascii() and number.isdigit() and len(number) < 16 else 0
        return _json(200, await sight.changes(request.query_params.get("since", ""), detail))

    found: list[BaseRoute] = [
        Route("/healthz", _answered(health)),
        Route("/readyz", _answered(ready)),
        Route("/status.json", _answered(status)),
        Route("/live.json", _answered(live)),
    ]
    pages = {"/": _page(), **{f"/{name}": _file(name, kind) for name, kind in _FILES.items()}}
    pages[f"/{_ICON}"] = _file(_ICON, "image/svg+xml")
    return found + [Route(path, _served(*page)) for path, page in pages.items()]


# -- inside

_Endpoint = Callable[["Request"], Awaitable["Response"]]


def _answered(endpoint: _Endpoint) -> _Endpoint:
    """The same, with what it raises as an answer."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except RequestError as error:
            details = {"details": error.details} if error.details else {}
            return _json(error.status, {"error": str(error), **details})
        except LitestreamError as error:
            return _json(500, {"error": str(error)})

    return answer


def _judged(found: Answer) -> Response:
    return _json(200 if found["ok"] else 503, found)


def _json(status: int, value: Answer | str) -> Response:
    from starlette.responses import Response

    # ASCII: a path may hold bytes that are no UTF-8, and whoever reads them back gets what stood there.
    text = value if isinstance(value, str) else json.dumps(value)
    return Response(text + "\n", status, media_type="application/json")


def _seconds(request: Request, name: str) -> float | None:
    """A number of seconds from the query. Raises `RequestError`."""
    text = request.query_params.get(name)
    try:
        found = float(text) if text else None
    except ValueError:
        found = math.nan
    if found is not None and not 0 <= found <= MAX_TIMEOUT:
        raise RequestError(400, "invalid request", f"{name} must be a number of seconds, {MAX_TIMEOUT:g} at most")
    return found


def _read(name: str) -> bytes:
    return resources.files("litestream.web").joinpath("static", name).read_bytes()


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _page() -> tuple[bytes, str]:
    """The document: it names its files with a hash of their content, so that they may be kept for ever."""
    html = _read("index.html")
    for name in (*_FILES, _ICON):
        html = html.replace(f'"{name}"'.encode(), f'"{name}?v={_tag(_read(name))}"'.encode())
    return html, "text/html; charset=utf-8"


def _file(name: str, kind: str) -> tuple[bytes, str]:
    return _read(name), kind


def _served(body: bytes, kind: str) -> _Endpoint:
    tag = _tag(body)

    async def answer(request: Request) -> Response:
        from starlette.responses import Response

        kept = _FOR_EVER if request.query_params.get("v") == tag else "no-cache"
        headers: dict[str, Any] = {"etag": f'"{tag}"', "cache-control": kept}
        if f'"{tag}"' in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=kind, headers=headers)

    return answer
