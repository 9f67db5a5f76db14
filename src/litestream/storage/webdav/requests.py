"""The requests that a WebDAV server gets, and what its answers mean in our errors."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from litestream.errors import StorageError
from litestream.storage.http1 import Answer, Body, BodyError, HTTPClient
from litestream.storage.obs.errors import Failure, Words, explain, read_answer, read_failure
from litestream.storage.webdav.xml import PROPFIND, Entry, NotDAVError, Parts, read_entries
from litestream.storage.wrappers.progress import progress

if TYPE_CHECKING:
    from litestream.storage.webdav import WebDAVConfig

DONE = {200, 201, 204}
NO_PARENT = {404, 409, 500}
"""What servers say of a PUT into a directory that is not there."""
BUSY = {403, 423}
"""What servers say of a MOVE while they are busy with the names: locked (golang), or not seen yet (rclone says 403)."""
REDIRECTS = {301, 302, 303, 307, 308}
_CLEAN_UP = 0.5
"""Seconds for taking back a put that failed or was cancelled."""
_WORDS = Words(
    "directory that webdav-url names",
    {
        "AccessDenied": "check webdav-username and webdav-password, and that this user may write there",
        "NoSuchBucket": "create it, or correct webdav-url: only directories below it are made",
        "HTTP405": "is webdav-url the address of a WebDAV directory?",
        "NotWebDAV": "is webdav-url the address of a WebDAV directory?",
        "OtherPath": "set webdav-url to the address that the server knows itself by",
        "Redirect": "set webdav-url to the address that it redirects to",
        "HTTP413": "the server, or a proxy before it, limits the size of uploads",
    },
)


class DAV:
    """One server. Paths are those on it, as parts; `doing` and `key` are for the text of errors.

    `base` is the directory that must exist. All methods raise `StorageError`.
    """

    def __init__(self, config: WebDAVConfig) -> None:
        self.url = config.url
        self.base: Parts = config.base
        headers = {"User-Agent": "litestream-python"}
        if config.webdav_username:
            pair = f"{config.webdav_username}:{config.webdav_password}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        self._client = HTTPClient(config.origin, headers)

    async def close(self) -> None:
        await self._client.close()

    async def children(self, directory: Parts, doing: str, key: str) -> list[Entry] | None:
        """What is in a directory; None if there is no such directory."""
        entries = await self._propfind(directory, "1", doing, key)
        if entries is None:
            return None
        own = [entry for entry in entries if entry.parts == directory]
        if not own:
            failure = Failure(code="OtherPath", message="the server answered for another path than was asked")
            raise self._explain(failure, doing, key)
        if not own[0].directory:
            return []
        return [entry for entry in entries if entry.parts[:-1] == directory]

    async def entry(self, path: Parts, doing: str, key: str) -> Entry | None:
        """What is at a path; None if there is nothing."""
        entries = await self._propfind(path, "0", doing, key)
        return next((entry for entry in entries or () if entry.parts == path), None)

    async def _propfind(self, path: Parts, depth: Literal["0", "1"], doing: str, key: str) -> list[Entry] | None:
        headers = {"Depth": depth, "Content-Type": "application/xml; charset=utf-8"}
        address = target(path) + ("/" if depth == "1" and path else "")
        async with self.ask(doing, key, "PROPFIND", address, headers, PROPFIND) as answer:
            if answer.status in {404, 409, 410}:
                return None
            if not 200 <= answer.status < 300:
                raise await self.refused(answer, doing, key)
            try:
                found = await read_entries(answer.chunks())
            except NotDAVError:
                failure = Failure(code="NotWebDAV", message="the answer is no WebDAV")
                raise self._explain(failure, doing, key) from None
            progress()
            return found

    async def check_base(self, doing: str, key: str) -> None:
        """Raise unless the directory is there that must be: a wrong address is no empty store."""
        entry = await self._propfind(self.base, "0", doing, key)
        if not entry:
            raise self._explain(Failure(status=404, code="NoSuchBucket"), doing, key)

    @asynccontextmanager
    async def ask(
        self,
        doing: str,
        key: str,
        method: str,
        path: Parts | str,
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
    ) -> AsyncGenerator[Answer, None]:
        """One request. `OSError` within becomes ours; what the body raises stays as it is."""
        try:
            with self._errors(doing, key):
                async with self._client.request(method, target(path), headers, body) as answer:
                    yield answer
                    await answer.read()
        except BodyError as error:
            raise error.error from None

    async def refused(self, answer: Answer, doing: str, key: str) -> StorageError:
        failure = read_answer(answer.status, "", answer.headers)
        if answer.status in {301, 302, 303, 307, 308}:
            failure = Failure(code="Redirect", message="the server redirects to another address")
        elif answer.status == 401 and "basic" not in answer.headers.get("www-authenticate", "basic").lower():
            failure = replace(failure, message="the server wants another kind of authentication than Basic")
        elif answer.status == 507:
            failure = replace(failure, message="the server has no space left")
        error = self._explain(failure, doing, key)
        error.permanent = (error.permanent or not answer.status) and answer.status != 423  # a lock passes
        return error

    def _explain(self, failure: Failure, doing: str, key: str) -> StorageError:
        error = explain(failure, doing, key, self.url, _WORDS)
        error.permanent |= error.code in {"Redirect", "NotWebDAV", "OtherPath"}
        return error

    @contextmanager
    def _errors(self, doing: str, key: str) -> Iterator[None]:
        """`OSError` as ours. Only what talks to the server belongs inside."""
        try:
            yield
        except OSError as error:
            raise self._explain(read_failure(error), doing, key) from None

    async def discard(self, temp: Parts) -> None:
        """Delete a temporary file, if that is quickly done; the server may be busy with it, or just making it."""
        absent = 0
        try:
            async with asyncio.timeout(_CLEAN_UP):
                while absent < 2:
                    async with self._client.request("DELETE", target(temp)) as answer:
                        if answer.status in DONE:
                            return
                        absent += answer.status == 404
                    await asyncio.sleep(_CLEAN_UP / 10)
        except (OSError, TimeoutError):
            pass  # nobody lists it, and the next writer that finds it an hour old removes it


def target(path: Parts | str) -> str:
    """A path as it stands in a request; one that is a text already stays as it is."""
    return path if isinstance(path, str) else "/" + "/".join(quote(part, safe="") for part in path)
