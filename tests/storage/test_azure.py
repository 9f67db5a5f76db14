"""Azure Blob Storage on Azurite: the two suites with both kinds of key, and what only Azure does."""

from __future__ import annotations

import asyncio
import base64
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from textwrap import dedent

import pytest

from helpers.contract import StoreContract, keys, read
from helpers.netcontract import NetworkContract, told
from helpers.servers.azurite import Azurite, azurite
from litestream.errors import ObjectNotFoundError, StorageError
from litestream.storage.azure import AzureConfig
from litestream.storage.protocol import Store
from litestream.storage.wrap import Limits, wrap

__all__ = ["azurite"]
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


async def test_write_only_token(azurite: Azurite) -> None:
    """A token that may create and read, and neither list nor delete, is enough to replicate, and no more."""
    container = azurite.container()
    store = config(azurite, bucket=container, sas_token=azurite.container_sas(container, "rc")).open()
    await store.put("a", b"x", create_only=True)
    assert await read(store, "a") == b"x"
    for refused in (store.delete(["a"]), store.delete(["a", "b"]), store.list("")):
        with pytest.raises(StorageError) as caught:
            await refused
        assert caught.value.permanent, caught.value
        assert caught.value.code not in {"", "NotFound", "NoSuchBucket"}, caught.value
    assert await keys(config(azurite, bucket=container).open()) == ["a"]


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
    await store.put("snapshot", b"whole", create_only=True)
    assert await read(store, "snapshot") == b"whole"


def test_memory_of_a_large_stream(azurite: Azurite) -> None:
    """256 MiB go up and come down again in a process that never needs 120 MiB more than at rest."""
    settings = config(azurite)
    program = f"""
        import asyncio, hashlib, resource
        from litestream.storage.azure import AzureConfig

        store = AzureConfig(account_name={settings.account_name!r}, bucket={settings.bucket!r},
                            endpoint={settings.endpoint!r}, account_key={settings.account_key!r}).open()
        piece = bytes(range(256)) * 4096
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

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
            print(up, peak() - before)

        asyncio.run(main())
    """
    result = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True, timeout=120)
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
