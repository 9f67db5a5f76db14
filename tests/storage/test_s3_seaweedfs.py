"""S3 on SeaweedFS: both suites, with small parts too, and what only a real server can show."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from textwrap import dedent

import pytest

from helpers.contract import BodyError, chunks, keys, keys_are_kept, read
from helpers.netcontract import NetworkContract, told
from helpers.remotecontract import SentContract
from helpers.servers.s3 import S3Server
from helpers.servers.seaweedfs import READER, READER_SECRET
from litestream.errors import ObjectNotFoundError, StorageError
from litestream.storage.protocol import Store
from litestream.storage.s3 import S3Config
from litestream.storage.s3.store import S3Store

pytestmark = pytest.mark.xdist_group("seaweedfs")

MIB = 1 << 20
WRONG = "wrongsecret-kept"


class TestSeaweedFS(SentContract, NetworkContract):
    """As people use it."""

    secrets = ("testsecret-kept", WRONG)
    credential_codes = frozenset({"SignatureDoesNotMatch"})

    @pytest.fixture(autouse=True)
    def server(self, seaweedfs: S3Server) -> None:
        """One bucket per test."""
        self.upstream = seaweedfs
        self.upstream_port, self.bucket = seaweedfs.port, seaweedfs.new_bucket()

    def open_at(self, port: int, *, tls: bool = False, wrong_credentials: bool = False, missing: bool = False) -> Store:
        """The store, by way of a proxy perhaps."""
        settings = self.upstream.settings("nosuch-bucket" if missing else self.bucket)
        settings["endpoint"] = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
        if wrong_credentials:
            settings["secret_access_key"] = WRONG
        return S3Config.from_settings(settings).open()

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        """A store of its own."""
        store = self.open_at(self.upstream_port)
        yield store
        await store.close()

    async def test_long_and_odd_keys(self, store: Store) -> None:
        """As everywhere, but without a backslash: this server makes a slash of it."""
        names = ["/".join(["k" * 127] * 8), "a b/%2e%2e/c", "..a/b..", "'\"*?[x]#&=+", "日本/é", ".hidden", "a.tmp"]
        await keys_are_kept(store, names)


async def nothing_pending(server: S3Server, bucket: str) -> None:
    """Parts that arrive after the abort are removed a little later."""
    deadline = time.monotonic() + 15
    while left := await asyncio.to_thread(server.pending, bucket):
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.2)


class TestSmallParts(SentContract):
    """Below a path, and with bodies that are uploads of several parts."""

    large = 12 * MIB
    many = 1001

    @pytest.fixture
    async def store(self, seaweedfs: S3Server) -> AsyncIterator[Store]:
        """Parts of the smallest size that there is."""
        bucket = seaweedfs.new_bucket()
        store = S3Config.from_settings(seaweedfs.settings(bucket, path="some/place", part_size="5MiB")).open()
        yield store
        await nothing_pending(seaweedfs, bucket)
        await store.close()
        assert all(name.startswith("some/place/") for name in seaweedfs.names(bucket))

    async def test_cancelled_at_any_step(self, store: Store) -> None:
        """An upload cancelled at any moment leaves no object or the whole one, and no pending upload."""
        data = bytes(i % 251 for i in range(self.large))
        cancelled = 0
        for step in range(0, 60, 6):
            put = asyncio.create_task(store.put("a/b", chunks(data[:6_000_000], data[6_000_000:])))
            await asyncio.sleep(step / 1000)
            put.cancel()
            try:
                await put
            except asyncio.CancelledError:
                cancelled += 1
            if await keys(store):
                assert await read(store, "a/b") == data
                await store.delete(["a/b"])
        assert cancelled

    async def test_long_and_odd_keys(self, store: Store) -> None:
        """The path counts: a key that is too long below it is refused before anything is sent."""
        await store.put("/".join(["k" * 127] * 8)[: 1024 - len("some/place/")], b"x")
        too_long = "/".join(["k" * 127] * 8)
        for work in (store.put(too_long, b"x"), read(store, too_long), store.delete([too_long])):
            with pytest.raises(StorageError, match="with the replica's path") as caught:
                await work
            assert caught.value.permanent
        assert len(await keys(store)) == 1


@pytest.fixture
def bucket(seaweedfs: S3Server) -> str:
    """A bucket of the test."""
    return seaweedfs.new_bucket()


def opened(server: S3Server, bucket: str, **more: object) -> S3Store:
    """A store below `p/` in it."""
    store = S3Config.from_settings(server.settings(bucket, path="p", **more)).open()
    assert isinstance(store, S3Store)
    return store


async def test_foreign_names(seaweedfs: S3Server, bucket: str) -> None:
    """Names that are none of ours, of the kind that obstore gives up at, do not hide ours."""
    store = opened(seaweedfs, bucket)
    await store.put("a/1", b"one")
    await store.put("a/2 +%", b"two")
    foreign = ["p/a/x\ny", "p/a/folder/", "q/a/3", "pp", "p/"]
    for name in foreign:
        seaweedfs.admin.put_object(Bucket=bucket, Key=name, Body=b"")
    assert [(info.key, info.size) for info in await store.list("a/")] == [("a/1", 3), ("a/2 +%", 3)]
    assert await keys(store) == ["a/1", "a/2 +%"]
    before = {info.key: info.modified for info in await store.list("")}
    seaweedfs.admin.delete_object(Bucket=bucket, Key="p/a/x\ny")
    assert {info.key: info.modified for info in await store.list("") if info.size} == pytest.approx(before, abs=1.0)


async def test_folder_marker(seaweedfs: S3Server, bucket: str) -> None:
    """The empty object that a console makes for a folder is no key, though obstore takes its slash off."""
    store = opened(seaweedfs, bucket)
    await store.put("a/b/1", b"one")
    for name in ("p/", "p/a/", "p/a/b/"):
        seaweedfs.admin.put_object(Bucket=bucket, Key=name, Body=b"")
    assert await keys(store) == await keys(store, "a/") == await keys(store, "a/b/") == ["a/b/1"]


async def test_neighbours(seaweedfs: S3Server, bucket: str) -> None:
    """Two replicas of one bucket see nothing of each other, even if one path begins like the other."""
    one, two = opened(seaweedfs, bucket), S3Config.from_settings(seaweedfs.settings(bucket, path="pp")).open()
    await one.put("a", b"1")
    await two.put("a", b"2")
    await two.put("b", b"2")
    assert await keys(one) == ["a"]
    await two.delete(["a"])
    assert await read(one, "a") == b"1"


async def test_delete_many(seaweedfs: S3Server, bucket: str) -> None:
    """1,500 keys are deleted in one call, and absent ones among them are no error."""
    store = opened(seaweedfs, bucket)
    names = [f"k/{i:04}" for i in range(1500)]
    for at in range(0, 1500, 100):
        await asyncio.gather(*(store.put(name, b"") for name in names[at : at + 100]))
    await store.put("kept", b"")
    await store.delete(names + [f"absent/{i}" for i in range(600)])
    assert await keys(store) == ["kept"]


async def test_reader_may_not_write(seaweedfs: S3Server, bucket: str) -> None:
    """Keys that may only read: put and delete name the action that is missing; get and list work."""
    await opened(seaweedfs, bucket).put("a", b"x")
    store = opened(seaweedfs, bucket, access_key_id=READER, secret_access_key=READER_SECRET)
    assert await read(store, "a") == b"x"
    assert await keys(store) == ["a"]
    for work, action in (
        (store.put("b", b"x"), "s3:PutObject"),
        (store.put("b", b"x", create_only=True), "s3:PutObject"),
        (store.put("b", chunks(*[b"x" * MIB] * 20)), "s3:PutObject"),
        (store.delete(["a"]), "s3:DeleteObject"),
    ):
        with pytest.raises(StorageError, match=action) as caught:
            await work
        assert (caught.value.code, caught.value.permanent) == ("AccessDenied", True)
        assert "\n" not in str(caught.value)
        assert READER_SECRET not in told(caught.value)
    assert await keys(store) == ["a"]


async def test_wrong_access_key(seaweedfs: S3Server, bucket: str) -> None:
    """An access key that the service does not know is named as what to check, and is not repeated."""
    store = opened(seaweedfs, bucket, access_key_id="AKIAUNKNOWN")
    with pytest.raises(StorageError, match="check access-key-id") as caught:
        await store.list("")
    assert (caught.value.code, caught.value.permanent) == ("InvalidAccessKeyId", True)
    assert "AKIAUNKNOWN" not in told(caught.value)


async def test_absent_in_a_missing_bucket(seaweedfs: S3Server) -> None:
    """Reading from a bucket that is not there says so: the object is not just absent. Nothing makes the bucket."""
    store = opened(seaweedfs, "nosuch-bucket-here")
    for work in (read(store, "a"), store.delete(["a"]), store.clean_up()):
        with pytest.raises(StorageError, match=r"the bucket does not exist \(create it, or check bucket") as caught:
            await work
        assert not isinstance(caught.value, ObjectNotFoundError)
        assert caught.value.code == "NoSuchBucket"
    assert "nosuch-bucket-here" not in {entry["Name"] for entry in seaweedfs.admin.list_buckets()["Buckets"]}


async def test_failed_upload_is_aborted(seaweedfs: S3Server, bucket: str) -> None:
    """A body that fails after two parts leaves neither an object nor parts that cost money."""
    store = opened(seaweedfs, bucket, part_size="5MiB")

    async def body() -> AsyncIterator[bytes]:
        for _ in range(12):
            yield b"x" * MIB
        assert seaweedfs.pending(bucket) == ["p/a"]
        raise BodyError

    with pytest.raises(BodyError):
        await store.put("a", body())
    assert await keys(store) == []
    await nothing_pending(seaweedfs, bucket)
    await store.close()


async def test_abandoned_uploads(seaweedfs: S3Server, bucket: str) -> None:
    """Old pending uploads below our path are aborted; younger ones and those of others stay."""
    for name in ("p/old", "p/odd + name", "q/foreign", "pp/foreign"):
        seaweedfs.admin.create_multipart_upload(Bucket=bucket, Key=name)
    store = opened(seaweedfs, bucket)
    assert await store.clean_up() == 0
    assert len(seaweedfs.pending(bucket)) == 4
    await asyncio.sleep(1.1)
    assert await store.clean_up(older_than=1) == 2
    assert sorted(seaweedfs.pending(bucket)) == ["pp/foreign", "q/foreign"]


async def test_without_a_path_only_ours_are_aborted(seaweedfs: S3Server, bucket: str) -> None:
    """A replica without a path may share its bucket: only uploads of our own names are aborted."""
    for name in ("generations/0123456789abcdef/snapshots/00000000.snapshot.lz4", "somebody/elses"):
        seaweedfs.admin.create_multipart_upload(Bucket=bucket, Key=name)
    store = S3Config.from_settings(seaweedfs.settings(bucket)).open()
    assert isinstance(store, S3Store)
    await asyncio.sleep(1.1)
    assert await store.clean_up(older_than=1) == 1
    assert seaweedfs.pending(bucket) == ["somebody/elses"]


async def test_clean_up_after_the_first_large_put(
    seaweedfs: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first upload of several parts, and no put before, is followed by a clean-up in the background."""
    monkeypatch.setattr(S3Store.clean_up, "__defaults__", (-60.0,))
    seaweedfs.admin.create_multipart_upload(Bucket=bucket, Key="p/old")
    store = opened(seaweedfs, bucket, part_size="5MiB")
    await store.put("small", b"x")
    assert seaweedfs.pending(bucket) == ["p/old"]
    await store.put("large", chunks(*[b"x" * MIB] * 6))
    deadline = time.monotonic() + 10
    while seaweedfs.pending(bucket):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await store.close()


async def test_customer_key(seaweedfs: S3Server, bucket: str) -> None:
    """Objects under a customer's key are read with it, in one request or by parts, and by nobody without it."""
    key = base64.b64encode(os.urandom(32)).decode()
    store = opened(seaweedfs, bucket, sse_customer_key=key, part_size="5MiB")
    await store.put("a", b"secret content", create_only=True)
    await store.put("a", b"secret content", create_only=True)
    await store.put("b", chunks(*[b"y" * MIB] * 6))
    assert await read(store, "a") == b"secret content"
    assert await read(store, "a", 7) == b"content"
    assert await read(store, "b") == b"y" * 6 * MIB
    with pytest.raises(StorageError) as caught:
        await read(opened(seaweedfs, bucket), "a")
    assert not isinstance(caught.value, ObjectNotFoundError)
    assert key not in told(caught.value) + repr(store)


async def test_bounded_memory(seaweedfs: S3Server, bucket: str) -> None:
    """A stream of 64 MiB, and reading it back, needs a few parts of memory more than a small object."""

    def peak(mebibytes: int) -> int:
        script = dedent(
            """
            import asyncio, re, sys
            from litestream.storage.s3 import S3Config
            bucket, endpoint, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
            async def body():
                for i in range(size):
                    yield bytes([i % 256]) * (1 << 20)
            async def main():
                store = S3Config(bucket=bucket, endpoint=endpoint, region="us-east-1", part_size=5 << 20,
                                 access_key_id="testkey", secret_access_key="testsecret-kept").open()
                await store.put("stream", body())
                got = 0
                async for chunk in store.get("stream"):
                    got += len(chunk)
                assert got == size << 20, got
            asyncio.run(main())
            print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
            """
        )
        command = [sys.executable, "-c", script, bucket, seaweedfs.endpoint, str(mebibytes)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return int(done.stdout) >> 10

    small, large = await asyncio.to_thread(peak, 1), await asyncio.to_thread(peak, 64)
    assert large - small < 45, (small, large)


async def test_official_tools_read_it(seaweedfs: S3Server, bucket: str, tmp_path: Path) -> None:
    """What we put is what another client gets, with its storage class."""
    store = opened(seaweedfs, bucket, storage_class="STANDARD_IA")
    await store.put("a", b"content")
    got = seaweedfs.admin.get_object(Bucket=bucket, Key="p/a")
    assert got["Body"].read() == b"content"
    assert got["StorageClass"] == "STANDARD_IA"
