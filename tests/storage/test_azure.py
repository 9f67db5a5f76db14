"""Azure Blob Storage on Azurite: the two suites with both kinds of key, and what only Azure does."""

from __future__ import annotations

import asyncio
import base64
import re
from abc import abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from helpers.contract import chunks, keys, keys_are_kept, read
from helpers.netcontract import NetworkContract, told
from helpers.peak import memory_of_a_stream
from helpers.remotecontract import SentContract
from helpers.servers.azurite import Azurite
from litestream.errors import ObjectNotFoundError, StorageError
from litestream.storage.azure import AzureConfig
from litestream.storage.protocol import Store
from litestream.storage.wrappers.wrap import Limits, wrap

pytestmark = pytest.mark.xdist_group("azurite")

OTHER_KEY = base64.b64encode(b"another key of the right length, which is sixty-four bytes, no mo").decode()


class Suites(SentContract, NetworkContract):
    """What both kinds of key have in common."""

    credential_codes = frozenset({"AuthorizationFailure", "AuthenticationFailed"})
    credential_hint = r"account-key.*sas-token"
    part = 16 << 20
    many = 600  # more than go in two batches of deletes

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

    async def test_long_and_odd_keys(self, store: Store) -> None:
        """Keys may be long and hold spaces, percent signs, dots, quotes and any letters, as far as Azure keeps them."""
        longest = "/".join(["k" * 127] * 8)[: 1024 - len("some/path/")]
        names = [longest, "a b/%2e%2e/c", "..a/..b", "'\"*?[x]#&=+", "日本/é", ".hidden", "a.tmp"]
        await keys_are_kept(store, names)

    @pytest.mark.parametrize("key", ["a\\b", "a./b", "a/b.."])
    async def test_keys_that_azure_would_change(self, store: Store, key: str) -> None:
        """Azure makes a slash of a backslash and drops dots at the end of a part: such keys are refused."""
        for work in (store.put(key, b"x"), read(store, key), store.delete([key])):
            with pytest.raises(StorageError, match="Azure takes no") as caught:
                await work
            assert caught.value.permanent
        assert await keys(store) == []

    @abstractmethod
    def credentials(self) -> dict[str, str]:
        """Both settings, one of them empty."""

    @abstractmethod
    def wrong(self) -> dict[str, str]:
        """The same with credentials that Azure refuses."""

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
    assert max(memory_of_a_stream(config(azurite), 256)) < 120


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
