"""WebDAV: settings, answers of servers that are odd or hostile, and the memory of large streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from helpers.contract import chunks, keys, read
from helpers.netcontract import told
from helpers.peak import memory_of_a_stream
from helpers.servers.dav import PASSWORD, USER, DAVServer
from litestream.errors import ObjectNotFoundError, StorageError, StoreConfigError
from litestream.storage.webdav import WebDAVConfig

pytestmark = pytest.mark.xdist_group("rclone_webdav")

SECRET = "s3cr3t-of-the-user"


def test_url() -> None:
    """A URL says server, path, user and password; the password is in no text of the configuration."""
    config = WebDAVConfig.from_url(f"webdavs://me%40home:{SECRET}%3A%2F@dav.example.com:8443/a/b%20c/")
    assert config == WebDAVConfig(
        webdav_url="https://dav.example.com:8443",
        path="a/b c",
        webdav_username="me@home",
        webdav_password=f"{SECRET}:/",
    )
    assert config.url == "webdavs://dav.example.com:8443/a/b c"
    assert SECRET not in repr(config) + config.url + repr(config.open()) + config.open().url
    assert WebDAVConfig.from_url("WEBDAV://h/p").url == "webdav://h/p"
    assert WebDAVConfig.from_url("webdav://[::1]:80/p").origin.authority == "[::1]"


def test_settings() -> None:
    """Keys of the file say the same; those of the file go before the URL; credentials in webdav-url are taken out."""
    config = WebDAVConfig.from_settings(
        {"webdav_url": f"https://u:{SECRET}@h/remote.php/dav/", "path": "/x/", "webdav_username": "other"}
    )
    assert (config.webdav_url, config.path) == ("https://h/remote.php/dav/", "x")
    assert (config.webdav_username, config.webdav_password) == ("other", SECRET)
    assert config.url == "webdavs://h/remote.php/dav/x"
    assert WebDAVConfig.from_url(f"webdav://u:{SECRET}@h/p", webdav_password="new").webdav_password == "new"


@pytest.mark.parametrize(
    ("setting", "settings"),
    [
        ("webdav-url", {}),
        ("webdav-url", {"webdav_url": f"ftp://u:{SECRET}@h/"}),
        ("webdav-url", {"webdav_url": f"u:{SECRET}@h"}),
        ("webdav-url", {"webdav_url": f"http://u:{SECRET}@h:port/"}),
        ("webdav-url", {"webdav_url": f"http://u:{SECRET}@h/../x"}),
        ("webdav-url", {"webdav_url": f"http://u:{SECRET}@h/%2e%2e/x"}),
        ("webdav-url", {"webdav_url": f"http://u:{SECRET}@h/?x=1"}),
        ("url", {"url": f"webdav://u:{SECRET}@/p"}),
        ("url", {"url": f"https://u:{SECRET}@h/p"}),
        ("path", {"webdav_url": "http://h", "path": "a/../b"}),
        ("webdav-username", {"webdav_url": "http://h", "webdav_username": "a:b"}),
        ("webdav-password", {"webdav_url": "http://h", "webdav_password": f"{SECRET}\r\nX: y"}),
        ("webdav-password", {"webdav_url": "http://h", "webdav_password": 5}),
        ("skip-verify", {"webdav_url": "http://h", "skip_verify": True}),
    ],
)
def test_wrong_settings(setting: str, settings: dict[str, Any]) -> None:
    """A setting that is wrong is named, and nothing of its value is repeated."""
    with pytest.raises(StoreConfigError) as caught:
        WebDAVConfig.from_settings(settings)
    assert caught.value.setting == setting
    assert SECRET not in told(caught.value)


Reply = Callable[[str, str], bytes]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    """The port of a server; at the end all its connections are closed."""
    tasks = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.transport.abort()
        await asyncio.sleep(0)

    async with await asyncio.start_server(run, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        for task in filter(None, tasks):
            task.cancel()
            await task


@asynccontextmanager
async def answering(reply: Reply) -> AsyncIterator[WebDAVConfig]:
    """A server that says what `reply` gives for (method, path), and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split(" ", 2)
        writer.write(reply(method, path))
        await writer.drain()

    async with serving(serve) as port:
        yield WebDAVConfig(
            webdav_url=f"http://127.0.0.1:{port}/", webdav_username="u", webdav_password=SECRET, path="p"
        )


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    """An HTTP answer with a length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def multistatus(*hrefs: str) -> bytes:
    """An answer to PROPFIND: directories end with a slash, files have 3 bytes."""
    entries = "".join(
        f"<d:response><d:href>{href}</d:href><d:propstat><d:prop>"
        + (
            "<d:resourcetype><d:collection/></d:resourcetype>"
            if href.endswith("/")
            else "<d:getcontentlength>3</d:getcontentlength>"
        )
        + "</d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>"
        for href in hrefs
    )
    return answer("207 Multi-Status", f'<d:multistatus xmlns:d="DAV:">{entries}</d:multistatus>'.encode())


async def test_hostile_listing() -> None:
    """Paths in a listing that lead elsewhere, are encoded oddly or name the directory twice are no objects."""
    hostile = [
        "/p/../up",
        "/p/%2e%2e",
        "/p/a%2Fb",
        "/p/%2e%2e%2Fup",
        "/other/x",
        "/p/b/deep",
        "/p/%00",
        "/p/%ff",
        "/p/",
    ]
    listed = ["/p/", *hostile, "http://elsewhere.example/p/with-host", "/%70/encoded%20name", "/p/%C3%A9"]
    async with answering(lambda method, path: multistatus(*listed)) as config:
        assert await keys(config.open()) == ["encoded name", "with-host", "é"]


@pytest.mark.parametrize(
    ("reply", "code", "text"),
    [
        (answer("200 OK", b"<html>welcome</html>"), "NotWebDAV", "webdav-url"),
        (answer("207 Multi-Status", b"<html>welcome</html>"), "NotWebDAV", "webdav-url"),
        (answer("207 Multi-Status", b"<multi"), "NotWebDAV", "webdav-url"),
        (answer("405 Method Not Allowed"), "HTTP405", "webdav-url"),
        (answer("301 Moved", b"", f"Location: https://u:{SECRET}@x/"), "Redirect", "webdav-url"),
        (multistatus("/internal/p/", "/internal/p/a"), "OtherPath", "webdav-url"),
        (
            answer("401 Unauthorized", b"", 'WWW-Authenticate: Digest realm="x"'),
            "AccessDenied",
            "Basic|webdav-username",
        ),
        (answer("503 Service Unavailable", b"", "Retry-After: 7"), "Unavailable", "503"),
        (answer("507 Insufficient Storage"), "Unavailable", "no space"),
        (answer("423 Locked"), "HTTP423", "423"),
        (b"SSH-2.0-OpenSSH\r\n", "Connection", "connection"),
        (b"", "Connection", "connection"),
        (multistatus("/p/")[:-20], "Connection", "connection"),
    ],
    ids=lambda value: value[:20].decode(errors="replace") if isinstance(value, bytes) else None,
)
async def test_odd_answers(reply: bytes, code: str, text: str) -> None:
    """What is no listing is an error of one line, with a code, and never an empty listing."""
    async with answering(lambda method, path: reply) as config:
        with pytest.raises(StorageError, match=text) as caught:
            await config.open().list("")
    assert caught.value.code == code
    assert caught.value.permanent == (code not in {"Unavailable", "Connection", "HTTP423"})
    assert caught.value.retry_after == (7 if b"Retry-After" in reply else 0)
    assert "\n" not in str(caught.value)
    assert SECRET not in told(caught.value)


async def test_gets_of_odd_servers() -> None:
    """A server without ranges is read from its beginning; a redirect to a directory is no object."""
    async with answering(lambda method, path: answer("200 OK", b"0123456789")) as config:
        store = config.open()
        assert await read(store, "a", 4) == b"456789"
        assert await read(store, "a", 10) == b""
        with pytest.raises(StorageError, match="no byte 11"):
            await read(store, "a", 11)
    async with answering(lambda method, path: b"HTTP/1.0 200 OK\r\n\r\n0123") as config:
        with pytest.raises(StorageError, match="how long"):
            await read(config.open(), "a")
    async with answering(lambda method, path: answer("301 Moved", b"", f"Location: {path}/")) as config:
        with pytest.raises(ObjectNotFoundError):
            await read(config.open(), "a")


async def test_chunked_body_is_lost() -> None:
    """A server that stores an upload without a length as an empty file is found out before the file gets its name."""
    moved = []

    def reply(method: str, path: str) -> bytes:
        if method == "PUT":
            return answer("201 Created")
        if method == "PROPFIND":
            return multistatus("/p/") if path.endswith("/") else multistatus(path)
        moved.extend([path] if method == "MOVE" else [])
        return answer("204 No Content")

    async with answering(reply) as config:
        with pytest.raises(StorageError, match="chunked") as caught:
            await config.open().put("a", chunks(*[b"x" * (1 << 20)] * 17))
        assert caught.value.permanent
        assert not moved
        assert (await config.open().put("a", b"123")).size == 3
        assert moved


async def test_requests_of_puts(rclone_webdav: DAVServer) -> None:
    """Puts into a directory in use are two requests each, on one connection, and so many are told."""
    seen: list[str] = []
    upstream = rclone_webdav.port
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", upstream)

        async def back() -> None:
            while data := await up_reader.read(65536):
                writer.write(data)

        task = asyncio.create_task(back())
        try:
            while data := await reader.read(65536):
                seen.extend(line.split()[0].decode() for line in data.split(b"\r\n") if line.endswith(b" HTTP/1.1"))
                up_writer.write(data)
        finally:
            task.cancel()
            up_writer.transport.abort()

    async with serving(serve) as port:
        config = WebDAVConfig(
            webdav_url=f"http://127.0.0.1:{port}/",
            webdav_username=USER,
            webdav_password=PASSWORD,
            path=rclone_webdav.new_place().name,
        )
        store = config.open()
        await store.put("g/first", b"x")
        seen.clear()
        for at in range(5):
            await store.put(f"g/{at}", b"x", create_only=True)
        assert seen == ["PUT", "MOVE"] * 5
        assert connections == 1
        seen.clear()
        await store.list("")
        assert seen == ["PROPFIND"] * 2
        await store.close()


def test_memory_of_a_large_stream(rclone_webdav: DAVServer) -> None:
    """256 MiB go up and come down again in a process that never needs 90 MiB more than at rest."""
    url, place = f"http://127.0.0.1:{rclone_webdav.port}", rclone_webdav.new_place().name
    config = WebDAVConfig(webdav_url=url, path=place, webdav_username=USER, webdav_password=PASSWORD)
    assert 0 < max(memory_of_a_stream(config, 256)) < 90


async def test_wrong_password_with_a_stream(rclone_webdav: DAVServer) -> None:
    """A large upload with a wrong password is refused before its bytes are sent."""
    config = WebDAVConfig(
        webdav_url=f"http://127.0.0.1:{rclone_webdav.port}", webdav_username=USER, webdav_password=PASSWORD, path="wp"
    )
    store = config.open()
    await store.put("a", b"x")
    wrong = replace(config, webdav_password=SECRET).open()
    # As if the password had changed since: the directory is known.
    wrong._directories = store._directories  # type: ignore[attr-defined]
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(200):
            sent += 1
            yield b"x" * (1 << 20)

    with pytest.raises(StorageError) as caught:
        await wrong.put("b", body())
    assert caught.value.code == "AccessDenied"
    assert sent < 20
    await store.close()
    await wrong.close()
