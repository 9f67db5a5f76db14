"""Single HTTP requests of ours, for what obstore has no call for: metadata services, tokens, a few S3 requests.

Each runs in a daemon thread of its own: whoever is cancelled waits for nothing, and the end of the program neither.
Answers are small and read whole. Redirects are never followed: requests carry credentials.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, TypeVar

T = TypeVar("T")

MAX_ANSWER = 32 << 20
"""Bytes; the longest answer asked for, a page of 1,000 names, has about 1 MiB."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said, whatever the status."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        return None


async def request(
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    *,
    timeout: float,
    context: ssl.SSLContext | None = None,
    proxies: bool = True,
) -> Answer:
    """Send one request. `OSError` if there is no answer; `timeout` seconds are for each wait on the network.

    `proxies` says whether those of the environment are used: never for services of this machine.
    """

    def send() -> Answer:
        try:
            return _send(method, url, dict(headers or {}), body, timeout, context, proxies)
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"{type(error).__name__}: no HTTP answer") from None

    return await in_thread(send)


async def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a daemon thread of its own; a caller that is cancelled leaves it behind."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def deliver(result: list[T], error: Exception | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result[0])

    def run() -> None:
        result: list[T] = []
        failure = None
        try:
            result.append(work())
        except Exception as error:
            failure = error
        try:
            loop.call_soon_threadsafe(deliver, result, failure)
        except RuntimeError:
            pass  # the loop has ended, nobody waits any more

    threading.Thread(target=run, name="litestream-http", daemon=True).start()
    return await done


def _send(
    method: str,
    url: str,
    headers: dict[str, str],
    body: bytes | None,
    timeout: float,
    context: ssl.SSLContext | None,
    proxies: bool,
) -> Answer:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect(), urllib.request.HTTPSHandler(context=context)]
    handlers.append(urllib.request.ProxyHandler(None if proxies else {}))
    opener = urllib.request.build_opener(*handlers)
    # The URLs are made by the callers from checked endpoints, http or https.
    asked = urllib.request.Request(url, data=body, headers=headers, method=method)  # noqa: S310
    try:
        with opener.open(asked, timeout=timeout) as got:
            return Answer(got.status, dict(got.headers.items()), got.read(MAX_ANSWER))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, dict(error.headers.items()), error.read(MAX_ANSWER))
    except urllib.error.URLError as error:
        raise error.reason if isinstance(error.reason, OSError) else OSError(str(error.reason)) from None
