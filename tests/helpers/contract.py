"""What every store must do. A store's own test file subclasses `StoreContract` and gives a `store` fixture::

    class TestMyStore(StoreContract):
        @pytest.fixture
        async def store(self) -> AsyncIterator[Store]: ...

The store must be empty. Nothing here is skipped for a store; what only one store promises is in its own file.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from litestream.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from litestream.storage.protocol import Store

HOSTILE_KEYS = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../outside",
    "a/../../outside",
    "a/..",
    ".",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "a\0b",
    "a\nb",
    "a\ud800b",
    "k" * 1025,
    "é" * 513,
    "a/.b.123-0123456789abcdef.tmp",
]


async def read(store: Store, key: str, start: int = 0) -> bytes:
    """A whole object."""
    return b"".join([chunk async for chunk in store.get(key, start=start)])


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """A body in pieces."""
    for part in parts:
        await asyncio.sleep(0)
        yield part


async def keys(store: Store, prefix: str = "") -> list[str]:
    """What a listing finds."""
    return [info.key for info in await store.list(prefix)]


async def keys_are_kept(store: Store, names: list[str]) -> None:
    """What is put under each of these names, into an empty store, is listed, read and deleted under the same."""
    for name in names:
        await store.put(name, name.encode())
    assert await keys(store) == sorted(names)
    for name in names:
        assert await read(store, name) == name.encode()
    await store.delete(names)
    assert await keys(store) == []


class BodyError(Exception):
    """Raised by a body."""


class StoreContract:
    """The suite. `large` is a size that the store does not handle in one piece, `many` more than it lists at once."""

    large = 3 << 20
    many = 2500

    async def test_put_and_get(self, store: Store) -> None:
        """What is put is what is got, and the answer says its size and time."""
        before = time.time()
        info = await store.put("a/b/c.lz4", b"hello")
        assert (info.key, info.size) == ("a/b/c.lz4", 5)
        assert before - 5 < info.modified < time.time() + 5
        assert await read(store, "a/b/c.lz4") == b"hello"
        assert await store.list("a/") == [info]

    async def test_empty_object(self, store: Store) -> None:
        """An object of no bytes is an object, as bytes and as a stream."""
        assert (await store.put("a", b"")).size == 0
        assert (await store.put("b", chunks())).size == 0
        assert [info.size for info in await store.list("")] == [0, 0]
        assert await read(store, "a") == await read(store, "b") == b""

    async def test_stream(self, store: Store) -> None:
        """A body in pieces of any size, empty ones too, is stored whole."""
        data = bytes(range(256)) * (self.large // 256)
        info = await store.put("s", chunks(data[:10], b"", data[10:300_000], data[300_000:]))
        assert info.size == len(data)
        assert await read(store, "s") == data

    async def test_large_bytes(self, store: Store) -> None:
        """A large object given as bytes is stored whole."""
        data = bytes(range(256)) * (self.large // 256) + b"end"
        assert (await store.put("s", data)).size == len(data)
        assert await read(store, "s") == data

    async def test_replaced(self, store: Store) -> None:
        """A second put replaces the object, also by a shorter one."""
        await store.put("a", b"first content")
        await store.put("a", b"2nd")
        assert await read(store, "a") == b"2nd"
        assert [info.size for info in await store.list("")] == [3]

    @pytest.mark.parametrize("start", [0, 1, 999, 1000])
    async def test_range(self, store: Store, start: int) -> None:
        """A get from an offset gives the rest, at the very end nothing."""
        data = bytes(i % 251 for i in range(1000))
        await store.put("a", data)
        assert await read(store, "a", start) == data[start:]

    async def test_range_of_large(self, store: Store) -> None:
        """The last bytes of a large object can be read alone."""
        data = bytes(i % 251 for i in range(self.large))
        await store.put("a", data)
        assert await read(store, "a", self.large - 232) == data[-232:]

    @pytest.mark.parametrize("start", [11, 1 << 40, -1])
    async def test_range_outside(self, store: Store, start: int) -> None:
        """A get from beyond the end is an error: the object is not what the caller thinks."""
        await store.put("a", b"0123456789")
        with pytest.raises(StorageError) as caught:
            await read(store, "a", start)
        assert caught.value.key == "a"

    async def test_absent(self, store: Store) -> None:
        """An absent object is ObjectNotFoundError with its key, also where a part of the key is an object."""
        await store.put("a", b"x")
        for key in ("b", "c/d/e", "a/b"):
            with pytest.raises(ObjectNotFoundError) as caught:
                await read(store, key)
            assert caught.value.key == key
            assert caught.value.permanent

    async def test_key_prefix_is_no_object(self, store: Store) -> None:
        """What is only the beginning of keys is no object itself."""
        await store.put("a/b", b"x")
        with pytest.raises(ObjectNotFoundError):
            await read(store, "a")
        await store.delete(["a"])
        assert await keys(store) == ["a/b"]

    async def test_list_empty(self, store: Store) -> None:
        """An empty store, and a prefix below which there is nothing, list as empty."""
        assert await store.list("") == []
        await store.put("b", b"")
        assert await store.list("generations/") == []
        assert await store.list("b/") == []

    async def test_list_order(self, store: Store) -> None:
        """Listings are sorted by key, whatever order the objects came in and however deep they are."""
        names = ["a/b", "a", "a.b", "a/b.c", "a/b/c", "b/a", "B", "a-/x", "ä", "z/z/z/z"]
        stored = [name for name in names if name not in {"a", "a/b"}]  # files cannot be directories too
        for name in stored:
            await store.put(name, b"")
        assert await keys(store) == sorted(stored)
        assert await keys(store, "a/") == ["a/b.c", "a/b/c"]

    async def test_list_prefix_is_whole(self, store: Store) -> None:
        """A prefix ends at a part: `a/` does not list `ab/`."""
        await store.put("a/1", b"")
        await store.put("ab/1", b"")
        assert await keys(store, "a/") == ["a/1"]

    async def test_many(self, store: Store) -> None:
        """Many objects (more than the service lists at once) are listed whole, in order, and deleted in one call."""
        names = [f"generations/00000000000000aa/wal/{i:08x}_00000000.wal.lz4" for i in range(self.many)]
        for at in range(0, self.many, 50):
            await asyncio.gather(*(store.put(name, b"%d" % at) for name in reversed(names[at : at + 50])))
        assert await keys(store, "generations/") == names
        await store.delete(names[1:])
        assert await keys(store) == names[:1]

    async def test_delete(self, store: Store) -> None:
        """Deleted objects are gone, absent ones are no error, and the key can be used again."""
        await store.put("a/b", b"x")
        await store.put("c", b"y")
        await store.delete(["a/b", "absent", "a/none/here", "c/below-an-object"])
        assert await keys(store) == ["c"]
        await store.delete([])
        await store.delete(["a/b"])
        await store.put("a/b", b"again")
        assert await read(store, "a/b") == b"again"

    async def test_create_only(self, store: Store) -> None:
        """A create-only put stores; again with the same content is success; other content is refused and not stored."""
        first = await store.put("a/b", b"content", create_only=True)
        again = await store.put("a/b", b"content", create_only=True)
        assert again == first
        with pytest.raises(ObjectExistsError) as caught:
            await store.put("a/b", b"CONTENT", create_only=True)
        assert caught.value.key == "a/b"
        assert caught.value.permanent
        with pytest.raises(ObjectExistsError):
            await store.put("a/b", b"content and more", create_only=True)
        assert await read(store, "a/b") == b"content"
        assert await keys(store) == ["a/b"]

    async def test_create_only_stream(self, store: Store) -> None:
        """Create-only means the same for a large stream, which differs in its last byte."""
        data = bytes(i % 251 for i in range(self.large))
        await store.put("s", chunks(data), create_only=True)
        assert (await store.put("s", chunks(data[:5], data[5:]), create_only=True)).size == len(data)
        with pytest.raises(ObjectExistsError):
            await store.put("s", chunks(data[:-1], b"\xff"), create_only=True)
        assert await read(store, "s") == data
        assert await keys(store) == ["s"]

    @pytest.mark.parametrize("size", [100, 2 << 20])
    async def test_create_only_race(self, store: Store, size: int) -> None:
        """Of many create-only puts at once one wins, just one where the store has conditions."""
        bodies = [bytes([i]) * size for i in range(8)]
        puts = (store.put("a/race", chunks(body), create_only=True) for body in bodies)
        results = await asyncio.gather(*puts, return_exceptions=True)
        winners = [i for i, result in enumerate(results) if not isinstance(result, BaseException)]
        assert all(isinstance(result, ObjectExistsError) for i, result in enumerate(results) if i not in winners)
        if store.conditional:
            assert len(winners) == 1
        assert await read(store, "a/race") in [bodies[i] for i in winners]
        assert await keys(store) == ["a/race"]

    async def test_same_content_race(self, store: Store) -> None:
        """Create-only puts at once with the same content all succeed."""
        await asyncio.gather(*(store.put("a", chunks(b"same" * 100_000), create_only=True) for _ in range(8)))
        assert await keys(store) == ["a"]

    @pytest.mark.parametrize("size", [10, 3 << 20])
    async def test_body_that_raises(self, store: Store, size: int) -> None:
        """An exception of the body comes out as it is; nothing is stored, an older object stays as it was."""

        async def body() -> AsyncIterator[bytes]:
            yield b"x" * size
            raise BodyError

        await store.put("old", b"old")
        for key in ("new/a", "old"):
            with pytest.raises(BodyError):
                await store.put(key, body())
        assert await keys(store) == ["old"]
        assert await read(store, "old") == b"old"

    async def test_body_with_os_error(self, store: Store) -> None:
        """An OSError of the body is the body's, not the store's."""

        async def body() -> AsyncIterator[bytes]:
            yield b"x"
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await store.put("a", body())
        assert await keys(store) == []

    @pytest.mark.parametrize("size", [10, 3 << 20])
    async def test_cancelled_put(self, store: Store, size: int) -> None:
        """A put that is cancelled while it waits for its body leaves no object, and closes the body."""
        waiting, closed = asyncio.Event(), asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            try:
                yield b"x" * size
                waiting.set()
                await asyncio.sleep(3600)
            finally:
                closed.set()

        put = asyncio.create_task(store.put("a/b", body()))
        await asyncio.wait_for(waiting.wait(), 30)
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        assert closed.is_set()
        assert await keys(store) == []

    async def test_cancelled_at_any_step(self, store: Store) -> None:
        """A put cancelled at any moment has either returned, or leaves no object."""
        data = bytes(i % 251 for i in range(self.large))
        cancelled = 0
        for step in range(40):
            put = asyncio.create_task(store.put("a/b", chunks(data[:1_500_000], data[1_500_000:])))
            for _ in range(step):
                await asyncio.sleep(0.0002)
            put.cancel()
            try:
                await put
            except asyncio.CancelledError:
                cancelled += 1
                assert await keys(store) == []
            else:
                assert await read(store, "a/b") == data
                await store.delete(["a/b"])
        assert cancelled  # the first is cancelled before it began

    async def test_abandoned_get(self, store: Store) -> None:
        """A reader may stop in the middle."""
        await store.put("a", b"x" * self.large)
        reader = store.get("a")
        assert await anext(reader)
        close = getattr(reader, "aclose", None)
        assert close is not None
        await close()
        assert (await store.list(""))[0].size == self.large

    @pytest.mark.parametrize("key", HOSTILE_KEYS, ids=lambda key: ascii(key)[:30])
    async def test_hostile_key(self, store: Store, key: str) -> None:
        """A key that is none is refused by every operation before anything is done."""
        with pytest.raises(StorageError) as caught:
            await store.put(key, b"x")
        assert caught.value.permanent
        assert "\n" not in str(caught.value)
        with pytest.raises(StorageError) as caught:
            await read(store, key)
        assert not isinstance(caught.value, ObjectNotFoundError)
        await store.put("good", b"x")
        with pytest.raises(StorageError):
            await store.delete(["good", key])
        assert await keys(store) == ["good"]

    @pytest.mark.parametrize("prefix", ["/", "..", "../", "a", "a/../", "a//", "a\0/", "./"], ids=ascii)
    async def test_hostile_prefix(self, store: Store, prefix: str) -> None:
        """A prefix that is none is refused."""
        with pytest.raises(StorageError):
            await store.list(prefix)

    async def test_long_and_odd_keys(self, store: Store) -> None:
        """Keys may be 1,024 bytes long and hold spaces, percent signs, dots, quotes and any letters."""
        names = ["/".join(["k" * 127] * 8), "a b/%2e%2e/c", "..a/b..", "'\"\\*?[x]", "日本/é", ".hidden", "a.tmp"]
        await keys_are_kept(store, names)

    async def test_closed_twice(self, store: Store) -> None:
        """Closing twice is no error."""
        await store.close()
        await store.close()

    def test_names(self, store: Store) -> None:
        """Type and URL are one line for people."""
        assert store.type
        assert store.url.startswith(f"{store.type}://")
