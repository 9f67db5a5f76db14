"""The store that encrypts: the whole contract, and that nobody without a key reads or changes anything unseen."""

from __future__ import annotations

import asyncio
import builtins
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.contract import BodyError, StoreContract, chunks, read
from litestream.client import ReplicaClient
from litestream.errors import (
    CorruptObjectError,
    EncryptionError,
    ObjectExistsError,
    StorageError,
    StoreConfigError,
)
from litestream.storage.age import encrypted, pump
from litestream.storage.age.encrypted import EncryptedStore
from litestream.storage.age.keys import MAX_RECIPIENTS
from litestream.storage.file import FileStore
from litestream.storage.memory import MemoryStore
from litestream.storage.protocol import ObjectInfo, Store
from litestream.storage.reading import read_tail
from litestream.storage.wrappers.wrapper import Wrapper, closed

pyrage: Any = pytest.importorskip("pyrage")

ALICE, BOB = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
MAGIC = b"age-encryption.org/v1\n"
CHUNK = 64 << 10
"""What age authenticates at once."""


def public(identity: Any) -> str:  # noqa: ANN401 - pyrage publishes no types
    """The recipient that belongs to an identity."""
    return str(identity.to_public())


def store_of(inner: Store | None = None, *, identity: Any = ALICE) -> EncryptedStore:  # noqa: ANN401
    """A store that writes and reads with one key."""
    inner = MemoryStore() if inner is None else inner
    return EncryptedStore(inner, recipients=[public(identity)], identities=[str(identity)])


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    """Whatever a test does, every thread that encrypts has ended with it."""
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "litestream-pump"]


class Unsealed(Wrapper):
    """An encrypted store whose sizes are those of the contents: the contract speaks of what the caller put."""

    async def list(self, prefix: str) -> builtins.list[ObjectInfo]:
        infos = await self.inner.list(prefix)
        if len(infos) > 20:  # nobody looks at their sizes
            return infos
        return [ObjectInfo(info.key, len(await read(self.inner, info.key)), info.modified) for info in infos]

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        size = 0

        async def counted(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            nonlocal size
            try:
                async for chunk in stream:
                    size += len(chunk)
                    yield chunk
            finally:
                await closed(stream)

        if isinstance(body, bytes):
            size = len(body)
        else:
            body = counted(body)
        info = await self.inner.put(key, body, create_only=create_only)
        return ObjectInfo(info.key, size, info.modified)


class TestOnMemory(StoreContract):
    """The contract, above the store in memory."""

    @pytest.fixture
    async def store(self) -> Store:
        return Unsealed(store_of())


class TestOnFiles(StoreContract):
    """The contract, above files."""

    many = 1200

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        root = tmp_path / "replica"
        yield Unsealed(store_of(FileStore(root)))
        for path in root.rglob("*"):
            assert path.is_dir() or path.read_bytes().startswith(MAGIC), path


# -- what is stored


@pytest.mark.parametrize("size", [0, 1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 1 << 20, (1 << 20) + 1])
@pytest.mark.parametrize("streamed", [False, True])
async def test_stored_object_is_an_age_file(size: int, streamed: bool) -> None:
    """What is stored is a binary age file, which the age library alone decrypts, and holds nothing of the content."""
    data = (b"canary-%07d-" % size * (size // 15 + 1))[:size]
    inner = MemoryStore()
    store = store_of(inner)
    info = await store.put("a", chunks(data[: size // 3], data[size // 3 :]) if streamed else data)
    raw = await read(inner, "a")
    assert raw.startswith(MAGIC)
    assert b"canary" not in raw
    assert pyrage.decrypt(raw, [ALICE]) == data
    assert info == (await store.list(""))[0] == ObjectInfo("a", len(raw), info.modified)
    assert await read(store, "a") == data
    assert await read(store, "a", size // 2) == data[size // 2 :]


@given(data=st.binary(max_size=3000), repeat=st.sampled_from([1, 37, 400]), cuts=st.lists(st.integers(0, 1 << 20)))
async def test_round_trip(data: bytes, repeat: int, cuts: list[int]) -> None:
    """Any content, put in any pieces, is read back from any offset."""
    data *= repeat
    at = sorted(cut % (len(data) + 1) for cut in cuts)
    pieces = [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]
    store = store_of()
    await store.put("a", chunks(*pieces))
    for start in {0, *at[:4], len(data)}:
        assert await read(store, "a", start) == data[start:]


async def test_several_recipients() -> None:
    """Each of several recipients reads what was written for all."""
    inner = MemoryStore()
    text = f"# the team\n{public(ALICE)}\n\n  {public(BOB)}  \n"
    await EncryptedStore(inner, recipients=[text]).put("a", b"hello")
    for identity in (ALICE, BOB):
        assert await read(EncryptedStore(inner, identities=[str(identity)]), "a") == b"hello"


async def test_read_tail() -> None:
    """The end of an encrypted object is found, though the listing has another size; of a plain one by its size."""
    plain, store = MemoryStore(), store_of()
    data = bytes(i % 251 for i in range(300_000))
    for size in (0, 10, 232, 300_000):
        for each in (plain, store):
            info = await each.put("a", data[:size])
            assert await read_tail(each, "a", info.size, 232) == data[:size][-232:]


# -- damage


async def test_any_changed_byte_is_an_error() -> None:
    """An object with one byte changed, at each hundredth place and all over its head, is CorruptObjectError."""
    inner = MemoryStore()
    store = store_of(inner)
    await store.put("a", bytes(i % 251 for i in range(2 * CHUNK + 500)))
    raw = await read(inner, "a")
    for at in [*range(400), *range(400, len(raw), 100), len(raw) - 1]:
        await inner.put("a", raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :])
        with pytest.raises(CorruptObjectError) as caught:
            await read(store, "a")
        assert caught.value.key == "a"
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [10, CHUNK, 2 * CHUNK, 2 * CHUNK + 500, 5 * CHUNK])
async def test_cut_off_is_an_error(size: int) -> None:
    """An object that ends early (between two chunks, inside one, inside the head) or goes on is CorruptObjectError."""
    inner = MemoryStore()
    store = store_of(inner)
    await store.put("a", b"x" * size)
    raw = await read(inner, "a")
    first = raw.index(b"\n", raw.index(b"\n---") + 1) + 17  # behind the head and the nonce
    borders = {first + n * (CHUNK + 16) for n in range(size // CHUNK + 2)}
    cuts = {cut + near for cut in borders for near in (-17, -16, -1, 0, 1)} | {0, 1, 22, 100, first - 16, len(raw) - 1}
    for cut in sorted(cut for cut in cuts if 0 <= cut < len(raw)):
        await inner.put("a", raw[:cut])
        with pytest.raises(CorruptObjectError) as caught:
            await read(store, "a")
        assert caught.value.key == "a"
    for more in (b"\0", b"x" * CHUNK, raw):
        await inner.put("a", raw + more)
        with pytest.raises(CorruptObjectError):
            await read(store, "a")


async def test_only_whole_chunks_come_out() -> None:
    """Of an object that is damaged in its fifth chunk nothing of that chunk or later ones is given out."""
    inner = MemoryStore()
    store = store_of(inner)
    data = bytes(i % 251 for i in range(8 * CHUNK))
    await store.put("a", data)
    raw = bytearray(await read(inner, "a"))
    raw[len(raw) - 4 * CHUNK] ^= 1
    await inner.put("a", bytes(raw))
    got = bytearray()

    async def take() -> None:
        async for chunk in store.get("a"):
            got.extend(chunk)

    with pytest.raises(CorruptObjectError, match="damaged or cut short"):
        await take()
    assert 0 < len(got) <= 4 * CHUNK
    assert data.startswith(got)


@pytest.mark.parametrize("size", [10, 10 * CHUNK])
async def test_wrong_identity(size: int) -> None:
    """An object for somebody else says so, and gives nothing."""
    inner = MemoryStore()
    await store_of(inner, identity=BOB).put("a", b"x" * size)
    with pytest.raises(EncryptionError, match=r"^a: is encrypted with age for others than age\.identities"):
        await read(store_of(inner), "a")


@pytest.mark.parametrize("data", [b"", b"\x04\x22\x4d\x18" + b"x" * 1000, b"x" * 10 * CHUNK, MAGIC[:-1]])
async def test_plain_object_is_refused(data: bytes) -> None:
    """An object that is not encrypted is never given out for one that was: anybody could have put it there."""
    inner = MemoryStore()
    await inner.put("a", data)
    with pytest.raises(EncryptionError, match=r"^a: is not encrypted"):
        await read(store_of(inner), "a")


HEADS = {
    "stanzas": b"-> a\n\n" * 100_000,
    "body": b"-> a\n" + (b"A" * 64 + b"\n") * 10_000,
    "arguments": b"-> " + b"a " * 300_000,
    "stanzas, small": b"-> a\n\n" * 10_000,
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("end", [b"", b"\n--- " + b"A" * 43 + b"\n" + b"x" * 100], ids=["open", "ended"])
async def test_made_up_head(name: str, end: bytes) -> None:
    """A head that would take the age library minutes to read is refused at once."""
    inner = MemoryStore()
    await inner.put("a", MAGIC + HEADS[name] + end)
    began = time.monotonic()
    with pytest.raises(CorruptObjectError, match="its head does not end"):
        await read(store_of(inner), "a")
    assert time.monotonic() - began < 1


async def test_as_many_recipients_as_allowed() -> None:
    """Objects for the greatest number of recipients can be read; one more is refused when the store is made."""
    others = [public(pyrage.x25519.Identity.generate()) for _ in range(MAX_RECIPIENTS)]
    store = EncryptedStore(MemoryStore(), recipients=[*others[1:], public(ALICE)], identities=[str(ALICE)])
    await store.put("a", b"x" * 100_000)
    assert await read(store, "a") == b"x" * 100_000
    with pytest.raises(StoreConfigError, match="more than 64 recipients"):
        EncryptedStore(MemoryStore(), recipients=[*others, public(ALICE)])


# -- one side alone


async def test_recipients_only() -> None:
    """With recipients alone everything can be written and listed and nothing read; the error says what to set."""
    store = EncryptedStore(MemoryStore(), recipients=[public(ALICE)])
    assert not store.readable
    assert not ReplicaClient(store).readable
    await store.put("a", b"x")
    assert [info.key for info in await store.list("")] == ["a"]
    with pytest.raises(StorageError, match=r"set age\.identities") as caught:
        await read(store, "a")
    assert (caught.value.key, caught.value.permanent, caught.value.code) == ("a", True, "NoIdentity")


@pytest.mark.parametrize("create_only", [False, True])
async def test_identities_only(create_only: bool) -> None:
    """With identities alone everything can be read and nothing is ever written (0.3.13 writes plaintext)."""
    inner = MemoryStore()
    store = EncryptedStore(inner, identities=[str(ALICE)])
    assert store.readable
    assert ReplicaClient(store).readable
    for body in (b"x", chunks(b"x")):
        with pytest.raises(StorageError, match=r"set age\.recipients") as caught:
            await store.put("a", body, create_only=create_only)
        assert (caught.value.key, caught.value.permanent, caught.value.code) == ("a", True, "NoRecipient")
    assert await inner.list("") == []


def test_other_stores_are_readable() -> None:
    """A store that does not encrypt can be read."""
    assert ReplicaClient(MemoryStore()).readable


# -- create-only


async def test_retry_sends_the_same_bytes() -> None:
    """A create-only put whose answer was lost is known again, also where nothing can be decrypted."""
    inner = LostAnswers(MemoryStore())
    store = EncryptedStore(inner, recipients=[public(ALICE)])
    for size in (10, 10 * CHUNK):
        key = f"a/{size}"
        inner.lose = 2
        for _ in range(2):
            with pytest.raises(StorageError, match="lost"):
                await store.put(key, b"x" * size, create_only=True)
        info = await store.put(key, chunks(b"x" * size), create_only=True)
        assert [info] == [found for found in await store.list("a/") if found.key == key]
        with pytest.raises(ObjectExistsError):
            await store.put(key, b"y" * size, create_only=True)


async def test_cancelled_put_is_remembered_too() -> None:
    """The same for a put that was cancelled after the store had everything."""
    inner = LostAnswers(MemoryStore())
    store = EncryptedStore(inner, recipients=[public(ALICE)])
    inner.hang = True
    put = asyncio.create_task(store.put("a", b"content", create_only=True))
    await inner.done.wait()
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    inner.hang = False
    assert (await store.put("a", b"content", create_only=True)).key == "a"


async def test_other_process_compares_contents() -> None:
    """Whoever has an identity knows an object again by its content; without one, it could be anybody's."""
    inner = MemoryStore()
    info = await store_of(inner).put("a/b", b"content", create_only=True)
    assert await store_of(inner).put("a/b", b"content", create_only=True) == info
    for other in (b"contenT", b"conten", b"content and more", b""):
        with pytest.raises(ObjectExistsError):
            await store_of(inner).put("a/b", other, create_only=True)
    with pytest.raises(ObjectExistsError):
        await EncryptedStore(inner, recipients=[public(ALICE)]).put("a/b", b"content", create_only=True)


@pytest.mark.parametrize("there", ["plain", "bob", "damaged"])
async def test_unreadable_object_in_the_way(there: str) -> None:
    """What cannot be decrypted is other content, and stays."""
    inner = MemoryStore()
    if there == "plain":
        raw = b"content"
    else:
        await store_of(inner, identity=BOB if there == "bob" else ALICE).put("a", b"content")
        raw = await read(inner, "a")
        raw = raw if there == "bob" else raw[:-1]
    await inner.put("a", raw)
    with pytest.raises(ObjectExistsError):
        await store_of(inner).put("a", b"content", create_only=True)
    assert await read(inner, "a") == raw


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed puts are remembered up to a limit, the latest always."""
    monkeypatch.setattr(encrypted, "_UNSURE", 4000)
    inner = LostAnswers(MemoryStore())
    store = EncryptedStore(inner, recipients=[public(ALICE)])
    inner.lose = 20
    for n in range(20):
        with pytest.raises(StorageError, match="lost"):
            await store.put(f"a/{n}", b"x" * (9000 if n == 19 else 500), create_only=True)
    assert (await store.put("a/19", b"x" * 9000, create_only=True)).key == "a/19"
    with pytest.raises(ObjectExistsError):
        await store.put("a/0", b"x" * 500, create_only=True)


async def test_create_only_body_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A create-only body beyond the limit is refused before it fills the memory, and closed."""
    monkeypatch.setattr(encrypted, "MAX_CREATE", 1000)
    ended = False

    async def endless() -> AsyncIterator[bytes]:
        nonlocal ended
        try:
            while True:
                yield b"x" * 100
        finally:
            ended = True

    with pytest.raises(StorageError, match="larger than"):
        await store_of().put("a", endless(), create_only=True)
    assert ended


class LostAnswers(Wrapper):
    """Does every put; then fails `lose` times, or never answers while `hang`."""

    lose = 0
    hang = False

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.done = asyncio.Event()

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        info = await self.inner.put(key, body, create_only=create_only)
        self.done.set()
        if self.hang:
            await asyncio.sleep(3600)
        if self.lose:
            self.lose -= 1
            raise StorageError("the answer was lost", key=key)
        return info


# -- streams


class Stalls(Wrapper):
    """Takes some of a body, and no more; gives some of an object, and no more."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.stalled = asyncio.Event()

    async def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
        async for chunk in self.inner.get(key, start=start):
            yield chunk
            self.stalled.set()
            await asyncio.sleep(3600)

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        assert not isinstance(body, bytes)
        assert await anext(aiter(body))
        self.stalled.set()
        await asyncio.sleep(3600)
        raise AssertionError


async def test_cancelled_between_the_pieces() -> None:
    """A put or get that is cancelled while the server is silent ends at once; body and thread end with it."""
    ended = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal ended
        try:
            while True:
                yield b"x" * 100_000
        finally:
            ended = True

    inner = MemoryStore()
    await store_of(inner).put("a", b"x" * (4 << 20))
    for operation in ("put", "get"):
        slow = Stalls(inner)
        store = store_of(slow)
        task: asyncio.Task[Any] = asyncio.create_task(
            store.put("b", body()) if operation == "put" else read(store, "a")
        )
        await slow.stalled.wait()
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 1
    assert ended


@pytest.mark.parametrize("error", [BodyError, OSError, ValueError, StorageError, KeyboardInterrupt])
@pytest.mark.parametrize("size", [0, 10, 1 << 20])
async def test_exceptions_of_the_body(error: type[BaseException], size: int) -> None:
    """Whatever the body raises, at its beginning or later, comes out as it is."""
    if error is KeyboardInterrupt:
        error = type("OutOfNowhere", (BaseException,), {})
    mine = error("mine")

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * size
        raise mine

    inner = MemoryStore()
    with pytest.raises(error) as caught:
        await store_of(inner).put("a", body())
    assert caught.value is mine
    assert await inner.list("") == []


async def test_failing_server_in_the_middle_of_a_get() -> None:
    """An error of the server in the middle of an object is that error, not one about the object."""

    class Breaks(Wrapper):
        async def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
            async for chunk in self.inner.get(key, start=start):
                yield chunk
                raise StorageError("connection lost", key=key, code="Connection")

    inner = MemoryStore()
    await store_of(inner).put("a", b"x" * (4 << 20))
    with pytest.raises(StorageError, match=r"^connection lost$"):
        await read(store_of(Breaks(inner)), "a")


async def test_server_that_ends_early() -> None:
    """A connection that ends as if the object ended there is found out by the encryption."""

    class Ends(Wrapper):
        async def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
            async for chunk in self.inner.get(key, start=start):
                yield chunk
                return

    inner = MemoryStore()
    await store_of(inner).put("a", b"x" * (4 << 20))
    with pytest.raises(CorruptObjectError):
        await read(store_of(Ends(inner)), "a")


async def test_loop_goes_on_beside_large_objects() -> None:
    """While large objects are encrypted and decrypted, other tasks run all the time."""
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.001)
            gaps.append(time.monotonic() - began)

    store = store_of()
    ticking = asyncio.create_task(tick())
    await store.put("a", b"x" * (32 << 20))
    async for _ in store.get("a"):
        pass
    ticking.cancel()
    assert len(gaps) > 20
    assert sorted(gaps)[len(gaps) * 9 // 10] < 0.1


async def test_code_that_fails_in_the_thread() -> None:
    """Failures of the blocking code, native panics among them, are raised where its output is awaited."""

    class Panic(BaseException):
        pass

    for error in (OSError("disk"), Panic("disk")):

        def work(reader: pump.Reader, writer: pump.Writer, error: BaseException = error) -> None:
            writer.write(reader.read(10))
            raise error

        with pytest.raises(pump.WorkError, match=r"^disk$"):
            _ = [chunk async for chunk in pump.through(work, chunks(b"x" * 100))]


async def test_code_that_ends_before_its_input() -> None:
    """Blocking code that stops reading before the end has not seen everything: an error, never success."""

    def work(reader: pump.Reader, writer: pump.Writer) -> None:
        writer.write(reader.read(10))

    with pytest.raises(pump.WorkError, match="behind the end"):
        _ = [chunk async for chunk in pump.through(work, chunks(b"x" * 100))]


# -- keys

WRONG = {
    "misspelt recipient": ("recipients", public(ALICE)[:-1] + "b"),
    "no key": ("recipients", "hello"),
    "unset variable": ("recipients", ""),
    "only a comment": ("recipients", "# age1…\n"),
    "identity as recipient": ("recipients", str(ALICE)),
    "second line": ("recipients", f"{public(ALICE)}\n{public(BOB)}x"),
    "ssh recipient": (
        "recipients",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN a",
    ),
    "plugin recipient": ("recipients", "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t"),
    "misspelt identity": ("identities", str(ALICE)[:-1] + "B"),
    "recipient as identity": ("identities", public(ALICE)),
    "unset identity": ("identities", " \n"),
    "pem identity": ("identities", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_key(name: str) -> None:
    """A key that is none, or on the wrong side, is an error that names the setting and shows nothing of any key."""
    setting, text = WRONG[name]
    good = {"recipients": [public(ALICE)], "identities": [str(ALICE)]}
    for entries in ([text], [*good[setting], text]):
        with pytest.raises(StoreConfigError) as caught:
            EncryptedStore(MemoryStore(), **{**good, setting: entries})
        message = str(caught.value)
        assert caught.value.setting == f"age.{setting}"
        assert f"entry {len(entries)} of age.{setting}" in message
        assert "\n" not in message
        assert caught.value.__cause__ is caught.value.__context__ is None
        for secret in (text.strip(), str(ALICE)):
            assert not secret or secret[:20] not in message


@pytest.mark.parametrize("text", ["AGE-SECRET-KEY-1", "age-secret-key-1"])
def test_sides_swapped(text: str) -> None:
    """A secret key among the recipients is told where it belongs."""
    with pytest.raises(StoreConfigError, match=r"belongs under age\.identities"):
        EncryptedStore(MemoryStore(), recipients=[text + "QQQQ"])


def test_no_key_at_all() -> None:
    """A section without keys is an error: whoever wrote it wanted encryption."""
    with pytest.raises(StoreConfigError, match="neither recipients nor identities") as caught:
        EncryptedStore(MemoryStore())
    assert caught.value.setting == "age"


def test_identity_that_fits_no_recipient() -> None:
    """Recipients that are all somebody else's, beside an identity, are an error that names the missing recipient."""
    with pytest.raises(StoreConfigError, match=f"add {public(ALICE)} to age.recipients") as caught:
        EncryptedStore(MemoryStore(), recipients=[public(BOB)], identities=[str(ALICE)])
    assert caught.value.setting == "age.identities"
    assert str(ALICE) not in str(caught.value)
    EncryptedStore(MemoryStore(), recipients=[public(BOB), public(ALICE)], identities=[str(ALICE)])
    EncryptedStore(MemoryStore(), recipients=[public(BOB)], identities=[str(ALICE), str(BOB)])


def test_package_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyrage the error says what to install."""
    monkeypatch.setitem(sys.modules, "pyrage", None)
    with pytest.raises(StoreConfigError, match=r'install "litestream\[age\]"') as caught:
        EncryptedStore(MemoryStore(), recipients=[public(ALICE)])
    assert caught.value.setting == "age"


def test_no_secret_in_reprs() -> None:
    """What a log could show of the store holds no key."""
    store = store_of()
    assert "SECRET" not in repr(store) + repr(vars(store)) + store.url
