"""What every store over a network must do when the network or the server does not. Beside `StoreContract`::

    class TestMyStore(StoreContract, NetworkContract):
        secrets = ("testsecret",)

        @pytest.fixture(autouse=True)
        def server(self, my_server: MyServer) -> None:
            self.upstream_port, self._bucket = my_server.port, my_server.new_bucket()

        def open_at(self, port: int, *, tls: bool = False, wrong_credentials: bool = False, missing: bool = False):
            return MyConfig.from_settings({"endpoint": f"http://127.0.0.1:{port}", ...}).open()

`open_at` gives the plain back end, always of the same, empty place (with `missing`, of a bucket that does not exist);
the suite puts the wrappers of time limits and retries around it. `port` is that of the server, or of a proxy before it.
"""

from __future__ import annotations

import asyncio
import re
import time
import traceback
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.contract import chunks, keys, read
from helpers.tcpproxy import TCPProxy
from helpers.tls import Certificates, Pair, make_certificates
from litestream.errors import ObjectNotFoundError, StorageError
from litestream.storage.protocol import Store
from litestream.storage.wrappers.wrap import Limits, wrap

LIMIT = 1.5
"""Seconds that an operation may take without an answer."""
SLACK = 3.5
"""Seconds that a busy machine may take on top."""
OLD = b"old content, stored before the trouble"

Operation = Callable[[Store], Awaitable[object]]

OPERATIONS: dict[str, Operation] = {
    "put": lambda store: store.put("n/new", b"x" * 1000),
    "put-stream": lambda store: store.put("n/new", chunks(b"x" * 500, b"y" * 500)),
    "put-create": lambda store: store.put("n/new", b"x" * 1000, create_only=True),
    "get": lambda store: read(store, "n/old"),
    "list": lambda store: store.list("n/"),
    "delete": lambda store: store.delete(["n/old"]),
}
by_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())


@dataclass(frozen=True, slots=True)
class Trouble:
    """One way in which a connection breaks at once."""

    name: str
    begin: Callable[[TCPProxy], None]


TROUBLES = [
    Trouble("reset", TCPProxy.reset),
    Trouble("refuse", TCPProxy.refuse),
    Trouble("no-answer", TCPProxy.lost_answer),
]


def told(error: BaseException) -> str:
    """Everything that a log with tracebacks would show of an error, and its repr."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


class NetworkContract:
    """The suite.

    Attributes:
        upstream_port: the real server's port.
        has_tls: whether `open_at` knows `tls`. `tls_server` says who speaks TLS: a proxy, unless overridden.
        has_credentials, has_missing: whether `open_at` knows these.
        secrets: what must never stand in a text: passwords, keys, tokens, the wrong ones too.
        credential_hint: what the error about wrong credentials has to name.
        part: bytes of a body that the store does not send in one request.
    """

    upstream_port: int
    has_tls = True
    has_credentials = True
    has_missing = True
    secrets: tuple[str, ...] = ()
    credential_codes: frozenset[str] = frozenset({"AccessDenied"})
    credential_hint = r"(?i)credential|key|password|token|sas|user"
    part = 20 << 20

    @abstractmethod
    def open_at(self, port: int, *, tls: bool = False, wrong_credentials: bool = False, missing: bool = False) -> Store:
        """The back end at a port of loopback."""

    @contextmanager
    def tls_server(self, pair: Pair) -> Iterator[TCPProxy]:
        """The server behind TLS with that certificate."""
        with TCPProxy(self.upstream_port, tls=pair.context()) as proxy:
            yield proxy

    @asynccontextmanager
    async def opened(
        self, port: int, *, tls: bool = False, wrong_credentials: bool = False, missing: bool = False
    ) -> AsyncIterator[Store]:
        """The store with its wrappers, one attempt each; closed afterwards, which is quick and leaves no task."""
        before = asyncio.all_tasks()
        inner = self.open_at(port, tls=tls, wrong_credentials=wrong_credentials, missing=missing)
        store = wrap(inner, Limits(timeout=LIMIT, attempts=1))
        try:
            yield store
        finally:
            async with asyncio.timeout(LIMIT + SLACK):
                await store.close()
        await self._no_tasks_but(before)

    async def _no_tasks_but(self, before: set[asyncio.Task[object]]) -> None:
        for _ in range(100):
            left = asyncio.all_tasks() - before
            if not left:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"tasks are left: {left}")

    async def fault(self, work: Awaitable[object], seconds: float = LIMIT + SLACK) -> StorageError:
        """The error in which `work` must end, in time, as one line, without secrets."""
        with pytest.raises(StorageError) as caught:
            async with asyncio.timeout(seconds):
                await work
        error = caught.value
        assert str(error) and "\n" not in str(error)
        assert error.code, f"no code: {error}"
        for secret in self.secrets:
            assert secret not in told(error)
        return error

    @pytest.fixture
    async def proxy(self) -> AsyncIterator[TCPProxy]:
        """A proxy before the server, and an object `n/old` behind it."""
        async with self.opened(self.upstream_port) as store:
            await store.put("n/old", OLD)
        with TCPProxy(self.upstream_port) as proxy:
            yield proxy

    @pytest.fixture
    def certificates(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificates:
        """Certificates of this test; nothing in the environment says which authorities to trust."""
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE"):
            monkeypatch.delenv(name, raising=False)
        return make_certificates(tmp_path / "certificates")

    @pytest.mark.parametrize("warm", [False, True], ids=["new-connection", "open-connection"])
    @by_operation
    async def test_silent_server(self, proxy: TCPProxy, operation: Operation, warm: bool) -> None:
        """A server that takes connections and never answers: each operation ends in a temporary error, in time."""
        async with self.opened(proxy.port) as store:
            if warm:
                await store.list("n/")
            proxy.hang()
            error = await self.fault(operation(store))
            assert not error.permanent
            proxy.forward()
        await self._only_old()

    @by_operation
    async def test_cancelled_while_silent(self, proxy: TCPProxy, operation: Operation) -> None:
        """An operation that waits for a silent server can be cancelled within a second."""
        before = asyncio.all_tasks()
        store = self.open_at(proxy.port)
        proxy.hang()
        task = asyncio.ensure_future(operation(store))
        await asyncio.sleep(0.2)
        assert not task.done()
        task.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 1.0
        async with asyncio.timeout(LIMIT + SLACK):
            await store.close()
        await self._no_tasks_but(before)
        proxy.forward()
        await self._only_old()

    async def test_large_put_cancelled_while_silent(self, proxy: TCPProxy) -> None:
        """An upload of many parts can be cancelled within about a second, and leaves no object."""
        async with self.opened(proxy.port) as store:
            proxy.slow(16 << 20)
            task = asyncio.ensure_future(store.put("n/new", chunks(*[b"x" * (1 << 20)] * (self.part >> 19))))
            await asyncio.sleep(0.5)
            proxy.hang()
            await asyncio.sleep(0.2)
            assert not task.done()
            task.cancel()
            began = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began < 2.0
        proxy.forward()
        await self._only_old()

    @pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
    @by_operation
    async def test_broken_connection(self, proxy: TCPProxy, operation: Operation, trouble: Trouble) -> None:
        """Reset, refused and unanswered connections are temporary errors, and the same store works again afterwards."""
        async with self.opened(proxy.port) as store:
            await store.list("n/")
            trouble.begin(proxy)
            error = await self.fault(operation(store))
            assert not error.permanent
            assert not isinstance(error, ObjectNotFoundError)
            proxy.forward()
            await self._until_it_works(store)

    @pytest.mark.parametrize("large", [False, True], ids=["one-request", "parts"])
    @pytest.mark.parametrize("there", [False, True], ids=["new", "replaced"])
    async def test_put_cut(self, proxy: TCPProxy, large: bool, there: bool) -> None:
        """A put whose connection is cut in the middle leaves no object, or the whole one; an old one stays whole."""
        size = self.part + (self.part >> 1) if large else 1 << 20
        data = bytes(range(256)) * (size >> 8)
        key = "n/old" if there else "n/new"
        async with self.opened(proxy.port) as store:
            proxy.cut_after(client=size // 2)
            body = chunks(*[data[at : at + (1 << 20)] for at in range(0, size, 1 << 20)])
            assert not (await self.fault(store.put(key, body), 60)).permanent
            proxy.reset()
        async with self.opened(self.upstream_port) as store:
            left = await keys(store, "n/")
            assert left in (["n/old"], [key, "n/old"])
            assert await read(store, key) in (data, OLD) if key in left else True
            if not there:
                assert await read(store, "n/old") == OLD

    async def test_lost_answer(self, proxy: TCPProxy) -> None:
        """A put whose answer is lost is an error; putting the same again is success."""
        data = bytes(range(256)) * 1000
        async with self.opened(proxy.port) as store:
            proxy.lost_answer()
            assert not (await self.fault(store.put("n/new", data, create_only=True))).permanent
            proxy.forward()
            await self._until_it_works(store)
            assert (await store.put("n/new", data, create_only=True)).size == len(data)
            assert await read(store, "n/new") == data

    @pytest.mark.parametrize("at", [100_000, 3_000_000])
    async def test_get_cut(self, proxy: TCPProxy, at: int) -> None:
        """A get whose connection is cut is an error, never a short body, and no less if the cut comes late."""
        data = bytes(range(256)) * (4 << 12)
        got = bytearray()
        async with self.opened(self.upstream_port) as store:
            await store.put("n/large", data)
        async with self.opened(proxy.port) as store:
            await store.list("n/")
            proxy.cut_after(server=at)

            async def reading() -> None:
                async for chunk in store.get("n/large"):
                    got.extend(chunk)

            assert not (await self.fault(reading(), 30)).permanent
            assert data.startswith(bytes(got)) and len(got) < len(data)
            proxy.forward()
            await self._until_it_works(store)
            assert await read(store, "n/large") == data

    async def test_slow_network(self, proxy: TCPProxy) -> None:
        """A transfer that takes longer than the limit is none the worse for it, as long as bytes flow."""
        data = bytes(range(256)) * (6 << 12)
        async with self.opened(proxy.port) as store:
            proxy.slow(2 << 20)
            for body in (data, chunks(*[data[at : at + (1 << 18)] for at in range(0, len(data), 1 << 18)])):
                began = time.monotonic()
                assert (await store.put("n/slow", body)).size == len(data)
                assert time.monotonic() - began > LIMIT
            assert await read(store, "n/slow") == data

    @pytest.mark.parametrize("name", ["put", "put-create", "get", "list"])
    async def test_wrong_credentials(self, proxy: TCPProxy, name: str) -> None:
        """Wrong credentials are a permanent error whose code says so, and whose text says what to look at."""
        if not self.has_credentials:
            pytest.skip("this server asks for no credentials")
        async with self.opened(proxy.port, wrong_credentials=True) as store:
            error = await self.fault(OPERATIONS[name](store), 20)
            assert error.permanent
            assert error.code in self.credential_codes, error
            assert re.search(self.credential_hint, str(error)), error
            assert not isinstance(error, ObjectNotFoundError)
            for secret in self.secrets:
                assert secret not in repr(store) + store.url
        await self._only_old()

    @pytest.mark.parametrize("name", ["put", "put-stream", "put-create", "get", "list"])
    async def test_missing_bucket(self, name: str) -> None:
        """A bucket that does not exist is a permanent error: not made, not an absent object, not an empty listing."""
        if not self.has_missing:
            pytest.skip("this store makes its place itself")
        async with self.opened(self.upstream_port, missing=True) as store:
            for _ in range(2):
                error = await self.fault(OPERATIONS[name](store))
                assert error.permanent
                assert error.code == "NoSuchBucket", error
                assert not isinstance(error, ObjectNotFoundError)

    async def test_trusted_authority(self, certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
        """A certificate of the authority in SSL_CERT_FILE is accepted."""
        if not self.has_tls:
            pytest.skip("this store speaks no TLS")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
        with self.tls_server(certificates.good) as proxy:
            async with self.opened(proxy.port, tls=True) as store:
                await store.put("n/new", b"over TLS")
                assert await read(store, "n/new") == b"over TLS"
            assert proxy.upstream_connections

    @pytest.mark.parametrize("name", ["self_signed", "unknown_authority", "wrong_host", "expired"])
    async def test_refused_certificate(
        self, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """Any other certificate is refused, for good and with its reason; nothing is sent, least of all in plain."""
        if not self.has_tls:
            pytest.skip("this store speaks no TLS")
        if name != "unknown_authority":
            monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
        pair = certificates.good if name == "unknown_authority" else getattr(certificates, name)
        with self.tls_server(pair) as proxy:
            async with self.opened(proxy.port, tls=True) as store:
                for operation in ("put", "get", "list"):
                    error = await self.fault(OPERATIONS[operation](store))
                    assert error.code == "TLS", error
                    assert error.permanent
            assert proxy.connections
            assert not proxy.spoke_plain
            assert not proxy.upstream_connections

    async def _until_it_works(self, store: Store) -> None:
        """Clients that keep one connection may need a moment for a new one."""
        async with asyncio.timeout(10):
            while True:
                try:
                    await store.list("n/")
                    return
                except StorageError as error:
                    if error.permanent:
                        raise
                    await asyncio.sleep(0.1)

    async def _only_old(self) -> None:
        async with self.opened(self.upstream_port) as store:
            assert await keys(store, "n/") == ["n/old"]
            assert await read(store, "n/old") == OLD
