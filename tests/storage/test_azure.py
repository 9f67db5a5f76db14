"""Azure Blob Storage on Azurite: the two suites with both kinds of key, and what only Azure does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from textwrap import dedent

import pytest

from helpers.contract import StoreContract, chunks, keys, read
from helpers.netcontract import NetworkContract, told
from helpers.peak import PEAK
from helpers.servers.azurite import Azurite
from litestream.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from litestream.storage.azure import AzureConfig
from litestream.storage.protocol import Store
from litestream.storage.wrappers.wrap import Limits, wrap

pytestmark = pytest.mark.xdist_group("azurite")

OTHER_KEY = base64.b64encode(b"another key of the right length, which is sixty-four bytes, no mo").decode()


class Suites(StoreContract, NetworkContract):
    """What both kinds of key have in common."""

    credential_codes = frozenset({"AuthorizationFailure", "AuthenticationFailed"})
    credential_hint = r"account-key.*sas-token"
    part = 16 << 20

    @pytest.fixture(autouse=True)
    def server(self, azurite: Azurite) -> None:
        """One container per test."""
        self.azurite = azurite
        self.upstream_port = azurite.port
        self.container = azurite.container()
        self.secrets = (azurite.key, OTHER_KEY, *re.findall(r"sig=[^&]+", self.credentials()["sas_token"]))

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        """A store in it."""
        store = self.open_at(self.upstream_port)
        yield store
        await store.close()

    async def test_put_and_get(self, store: Store) -> None:
        """What is put is what is got. Azure tells whole seconds, and the answer to a put is no listing."""
        before = time.time()
        info = await store.put("a/b/c.lz4", b"hello")
        assert (info.key, info.size) == ("a/b/c.lz4", 5)
        assert await read(store, "a/b/c.lz4") == b"hello"
        (listed,) = await store.list("a/")
        assert (listed.key, listed.size) == (info.key, info.size)
        assert before - 5 < info.modified < time.time() + 5
        assert abs(listed.modified - info.modified) < 5

    async def test_create_only(self, store: Store) -> None:
        """A create-only put stores; again with the same content is success; other content is refused and not stored."""
        first = await store.put("a/b", b"content", create_only=True)
        again = await store.put("a/b", b"content", create_only=True)
        assert (again.key, again.size) == (first.key, first.size)
        for other in (b"CONTENT", b"content and more", b""):
            with pytest.raises(ObjectExistsError) as caught:
                await store.put("a/b", other, create_only=True)
            assert caught.value.key == "a/b"
            assert caught.value.permanent
        assert await read(store, "a/b") == b"content"
        assert await keys(store) == ["a/b"]

    async def test_cancelled_at_any_step(self, store: Store) -> None:
        """A put cancelled at any moment leaves no object or the whole one: what is sent cannot be called back."""
        data = bytes(i % 251 for i in range(self.large))
        absent = 0
        for step in range(40):
            put = asyncio.create_task(store.put("a/b", chunks(data[:1_500_000], data[1_500_000:])))
            for _ in range(step):
                await asyncio.sleep(0.0002)
            put.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await put
            await asyncio.sleep(0.05)
            if await keys(store):
                assert await read(store, "a/b") == data
                await store.delete(["a/b"])
            else:
                absent += 1
        assert absent  # the first is cancelled before it began

    async def test_long_and_odd_keys(self, store: Store) -> None:
        """Keys may be long and hold spaces, percent signs, dots, quotes and any letters, as far as Azure keeps them."""
        longest = "/".join(["k" * 127] * 8)[: 1024 - len("some/path/")]
        names = [longest, "a b/%2e%2e/c", "..a/..b", "'\"*?[x]#&=+", "日本/é", ".hidden", "a.tmp"]
        for name in names:
            await store.put(name, name.encode())
        assert await keys(store) == sorted(names)
        for name in names:
            assert await read(store, name) == name.encode()
        await store.delete(names)
        assert await keys(store) == []

    @pytest.mark.parametrize("key", ["a\\b", "a./b", "a/b.."])
    async def test_keys_that_azure_would_change(self, store: Store, key: str) -> None:
        """Azure makes a slash of a backslash and drops dots at the end of a part: such keys are refused."""
        for work in (store.put(key, b"x"), read(store, key), store.delete([key])):
            with pytest.raises(StorageError, match="Azure takes no") as caught:
                await work
            assert caught.value.permanent
        assert await keys(store) == []

    def credentials(self) -> dict[str, str]:
        """Both settings, one of them empty."""
        raise NotImplementedError

    def wrong(self) -> dict[str, str]:
        """The same with credentials that Azure refuses."""
        raise NotImplementedError

    def open_at(self, port: int, *, tls: bool = False, wrong_credentials: bool = False, missing: bool = False) -> Store:
        """The store at a port."""
        return AzureConfig(
            account_name=self.azurite.account,
            bucket="no-such-container" if missing else self.container,
            path="some/path",
            endpoint=self.azurite.endpoint_at(port, tls=tls),
            **(self.wrong() if wrong_credentials else self.credentials()),
        ).open()


class TestAzureKey(Suites):
    """With the account's key."""

    def credentials(self) -> dict[str, str]:
        return {"account_key": self.azurite.key, "sas_token": ""}

    def wrong(self) -> dict[str, str]:
        return {"account_key": OTHER_KEY, "sas_token": ""}


class TestAzureSAS(Suites):
    """With a token for the container."""

    has_missing = False  # the token's signature holds for one container only: any other is refused

    def credentials(self) -> dict[str, str]:
        return {"account_key": "", "sas_token": self.azurite.container_sas(self.container)}

    def wrong(self) -> dict[str, str]:
        return {"account_key": "", "sas_token": self.azurite.container_sas(self.container, lasts=-60)}


def config(azurite: Azurite, **settings: str) -> AzureConfig:
    """A new container with the account's key."""
    given = {"bucket": settings.pop("bucket", "") or azurite.container(), "account_key": azurite.key, **settings}
    return AzureConfig(account_name=azurite.account, endpoint=azurite.endpoint, **given)


async def test_foreign_blobs(azurite: Azurite) -> None:
    """What lies outside the path is neither listed nor deleted; paths that only begin alike are others."""
    container = azurite.container()
    ours, longer, above = (config(azurite, bucket=container, path=path).open() for path in ("a/b", "a/bc", ""))
    for store in (ours, longer, above):
        await store.put("x", b"1")
    assert await keys(ours) == ["x"]
    assert await keys(above) == ["a/b/x", "a/bc/x", "x"]
    await ours.delete(["x"])
    assert await keys(above) == ["a/bc/x", "x"]


async def test_token_goes_first(azurite: Azurite) -> None:
    """With a SAS token and a key, the token is what is used."""
    container = azurite.container()
    both = config(azurite, bucket=container, account_key=OTHER_KEY, sas_token=azurite.container_sas(container))
    await both.open().put("a", b"x")
    both = config(azurite, bucket=container, sas_token=azurite.container_sas(container, "r"))
    with pytest.raises(StorageError) as caught:
        await both.open().put("a", b"x")
    assert caught.value.permanent
    assert "rcwdl" in str(caught.value)


async def test_tokens_that_cannot_delete(azurite: Azurite) -> None:
    """Tokens that may neither list nor delete are enough to replicate: `rc` for what is one request, `rw` for all."""
    container = azurite.container()
    large = [b"x" * (1 << 20)] * 20
    creates = config(azurite, bucket=container, sas_token=azurite.container_sas(container, "rc")).open()
    writes = config(azurite, bucket=container, sas_token=azurite.container_sas(container, "rw")).open()
    for name, store in (("c", creates), ("w", writes)):
        await store.put(name, b"x", create_only=True)
        assert await read(store, name) == b"x"
        for refused in (store.delete([name]), store.delete([name, "b"]), store.list("")):
            with pytest.raises(StorageError) as caught:
                await refused
            assert caught.value.permanent, caught.value
            assert caught.value.code not in {"", "NotFound", "NoSuchBucket"}, caught.value
    assert (await writes.put("large", chunks(*large))).size == 20 << 20
    with pytest.raises(StorageError, match="rcwdl") as caught:
        await creates.put("refused", chunks(*large))
    assert caught.value.permanent
    assert await keys(config(azurite, bucket=container).open()) == ["c", "large", "w"]


async def test_expired_token_is_named(azurite: Azurite) -> None:
    """An expired token is refused in one line that speaks of its expiry and has no part of it."""
    container = azurite.container()
    token = azurite.container_sas(container, lasts=-5)
    store = config(azurite, bucket=container, sas_token=token).open()
    for key in ("get", "batch"):
        with pytest.raises(StorageError, match="its expiry") as caught:
            await (read(store, "a") if key == "get" else store.delete(["a", "b"]))
        assert "sig=" not in told(caught.value)
        assert token.partition("sig=")[2] not in told(caught.value) + repr(store)


async def test_delete_many(azurite: Azurite) -> None:
    """1,500 blobs go in a few requests; absent ones among them are no error and keep no other from going."""
    store = config(azurite, path="p").open()
    names = [f"d/{i:04}" for i in range(1500)]
    for at in range(0, 1500, 100):
        await asyncio.gather(*(store.put(name, b"x") for name in names[at : at + 100]))
    await store.put("kept", b"x")
    doomed = names[:600] + [f"d/absent-{i}" for i in range(20)] + names[600:]
    await store.delete(doomed)
    assert await keys(store) == ["kept"]
    await store.delete(doomed)
    await store.delete(["absent"])
    assert await keys(store) == ["kept"]


async def test_delete_in_missing_container(azurite: Azurite) -> None:
    """A container that is not there is an error for deletes too."""
    store = config(azurite, bucket="not-there").open()
    for doomed in (["a"], ["a", "b"]):
        with pytest.raises(StorageError, match="create it") as caught:
            await store.delete(doomed)
        assert caught.value.code == "NoSuchBucket"


async def test_uncommitted_blocks(azurite: Azurite) -> None:
    """An upload that breaks off leaves blocks that no listing and no get finds; a later put of the key is whole."""
    container = azurite.container()
    store = config(azurite, bucket=container).open()
    sent = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * (1 << 20)
            if "snapshot" in azurite.blobs(container, uncommitted=True):
                sent.set()
                await asyncio.sleep(60)

    put = asyncio.create_task(store.put("snapshot", body()))
    await asyncio.wait_for(sent.wait(), 30)
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    assert "snapshot" in azurite.blobs(container, uncommitted=True)
    assert "snapshot" not in azurite.blobs(container)
    assert await store.list("") == []
    with pytest.raises(ObjectNotFoundError):
        await read(store, "snapshot")
    await store.put("snapshot", b"whole")
    assert await read(store, "snapshot") == b"whole"


def test_memory_of_a_large_stream(azurite: Azurite) -> None:
    """256 MiB go up and come down again in a process that never needs 120 MiB more than at rest."""
    settings = config(azurite)
    program = f"""
        import asyncio
        from litestream.storage.azure import AzureConfig

        store = AzureConfig(account_name={settings.account_name!r}, bucket={settings.bucket!r},
                            endpoint={settings.endpoint!r}, account_key={settings.account_key!r}).open()
        piece = bytes(range(256)) * 4096
        async def body():
            for _ in range(256):
                yield piece

        async def main():
            await store.put("small", b"x")
            before = peak()
            assert (await store.put("large", body())).size == 256 << 20
            up = peak() - before
            count = 0
            async for chunk in store.get("large"):
                count += len(chunk)
            assert count == 256 << 20
            print(up >> 10, peak() - before >> 10)

        asyncio.run(main())
    """
    command = [sys.executable, "-c", PEAK + dedent(program)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert all(int(mebibytes) < 120 for mebibytes in result.stdout.split()), result.stdout


async def test_killed_server(tmp_path: Path) -> None:
    """While the server is down operations fail; once it is back the same store goes on, and has what it was told."""
    server = Azurite(tmp_path)
    server.start()
    try:
        store = wrap(config(server).open(), Limits(timeout=2, attempts=1))
        await store.put("a", b"x")
        server.stop()
        with pytest.raises(StorageError) as caught:
            await store.put("b", b"y")
        assert not caught.value.permanent
        server.start()
        assert await read(store, "a") == b"x"
        await store.put("b", b"y", create_only=True)
        assert await keys(store) == ["a", "b"]
        await store.close()
    finally:
        server.stop()
