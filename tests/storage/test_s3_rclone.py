"""S3 on `rclone serve s3`, which ignores conditions: replicas must work, and safety does not rest on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from helpers.contract import keys, read
from helpers.remotecontract import SentContract
from helpers.servers.s3 import S3Server
from litestream.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from litestream.storage.protocol import Store
from litestream.storage.s3 import S3Config

pytestmark = pytest.mark.xdist_group("rclone_s3")


class TestRclone(SentContract):
    """With `conditional: false`: a create-only put looks first."""

    @pytest.fixture
    async def store(self, rclone_s3: S3Server) -> AsyncIterator[Store]:
        """One bucket per test."""
        settings = rclone_s3.settings(rclone_s3.new_bucket(), path="p", conditional=False)
        store = S3Config.from_settings(settings).open()
        assert not store.conditional
        yield store
        await store.close()

    async def test_key_prefix_is_no_object(self, store: Store) -> None:
        """What is only the beginning of keys is no object; this server calls its deletion an error of its own."""
        await store.put("a/b", b"x")
        with pytest.raises(ObjectNotFoundError):
            await read(store, "a")
        with pytest.raises(StorageError, match="InternalError") as caught:
            await store.delete(["a"])
        assert not caught.value.permanent
        assert await keys(store) == ["a/b"]

    @pytest.mark.parametrize("size", [100, 2 << 20])
    async def test_create_only_race(self, store: Store, size: int) -> None:
        """Of many create-only puts at once some writer's whole content stays; this server fails some with a 500.

        Or, seldom, loses all of them, those that it has acknowledged too.
        """
        stayed = [await self._race(store, f"a/race{i}", size) for i in range(4)]
        assert any(stayed)

    async def _race(self, store: Store, key: str, size: int) -> bool:
        """Many create-only puts of one key at once; whether an object stayed."""
        bodies = [bytes([i]) * size for i in range(8)]
        puts = (store.put(key, body, create_only=True) for body in bodies)
        results = await asyncio.gather(*puts, return_exceptions=True)
        winners = [body for body, result in zip(bodies, results, strict=True) if not isinstance(result, BaseException)]
        for result in results:
            if isinstance(result, StorageError):
                assert isinstance(result, ObjectExistsError) or not result.permanent
            else:
                assert not isinstance(result, BaseException)
        try:
            assert await read(store, key) in winners
        except ObjectNotFoundError:
            return False
        return key in await keys(store)

    async def test_same_content_race(self, store: Store) -> None:
        """Create-only puts at once leave their content; this server fails some, or shows one that is half there."""
        body = b"same" * 100_000
        results = await asyncio.gather(
            *(store.put("a", body, create_only=True) for _ in range(8)), return_exceptions=True
        )
        failed = [result for result in results if isinstance(result, BaseException)]
        assert len(failed) < 8
        assert all(isinstance(error, StorageError) for error in failed), failed
        assert await read(store, "a") == body
        assert set(await keys(store)) == {"a"}

    async def test_many(self, store: Store) -> None:
        """As everywhere, but of many puts at once that would make a directory this server fails some: make it first."""
        # One of them, which stays: with its last object the directory would go.
        await store.put("generations/00000000000000aa/wal/00000000_00000000.wal.lz4", b"0")
        await super().test_many(store)

    async def test_delete(self, store: Store) -> None:
        """Deleted objects are gone, absent ones are no error. (Below a key that is an object, this server errs.)"""
        await store.put("a/b", b"x")
        await store.put("c", b"y")
        await store.delete(["a/b", "absent", "a/none/here"])
        assert await keys(store) == ["c"]
        await store.delete([])
        await store.delete(["a/b"])
        await store.put("a/b", b"again")
        assert await read(store, "a/b") == b"again"

    async def test_long_and_odd_keys(self, store: Store) -> None:
        """As everywhere, but 1,024 bytes are counted with the path."""
        names = [
            "/".join(["k" * 127] * 8)[:1022],
            "a b/%2e%2e/c",
            "..a/b..",
            "'\"\\*?[x]",
            "日本/é",
            ".hidden",
            "a.tmp",
        ]
        for name in names:
            await store.put(name, name.encode())
        assert await keys(store) == sorted(names)
        for name in names:
            assert await read(store, name) == name.encode()


async def test_conditions_that_are_ignored(rclone_s3: S3Server) -> None:
    """A service that ignores the condition overwrites: why `conditional: false` must be set for it."""
    bucket = rclone_s3.new_bucket()
    trusting = S3Config.from_settings(rclone_s3.settings(bucket)).open()
    assert trusting.conditional
    await trusting.put("a", b"first", create_only=True)
    await trusting.put("a", b"second", create_only=True)
    assert await read(trusting, "a") == b"second"
    looking = S3Config.from_settings(rclone_s3.settings(bucket, conditional=False)).open()
    with pytest.raises(ObjectExistsError):
        await looking.put("a", b"third", create_only=True)
    assert await read(looking, "a") == b"second"
    assert await keys(looking) == ["a"]
