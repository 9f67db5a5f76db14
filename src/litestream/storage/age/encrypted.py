"""Encryption with age on this side of the store: what leaves the machine, only the owner of an identity can read.

An object is what it is without encryption (LZ4 frame and stamp), and that is the content of an age v1 file in the
binary form, as the official 0.3.13 writes and reads it. Names, sizes (a few hundred bytes more, and 16 for each
64 KiB) and times stay visible to whoever sees the store.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from litestream.errors import CorruptObjectError, EncryptionError, ObjectExistsError, ObjectNotFoundError, StorageError
from litestream.storage.age.keys import AgeKeys
from litestream.storage.age.pump import WorkError, through
from litestream.storage.keys import MAX_CREATE, check_key
from litestream.storage.protocol import ObjectInfo, Store
from litestream.storage.wrappers.wrapper import Wrapper, closed
from litestream.streams import AGE_MAGIC

INLINE = 64 << 10
"""Bytes up to which an object is encrypted or decrypted on the loop's own thread, in half a millisecond."""
MAX_HEAD = 8 << 10
"""Bytes of the head of an age file, which names its recipients. Reading a head takes time with the square of its size,
so that one made up by somebody who can write to the store could keep us busy for hours."""
_HEAD_END = re.compile(rb"\n--- [A-Za-z0-9+/]{43}\n")
_UNSURE = 16 << 20
"""Bytes of failed puts that are kept; the latest one whatever its size."""


class EncryptedStore(Wrapper):
    """A `Store` whose objects are encrypted for `recipients` and decrypted with `identities`; see `AgeKeys`.

    It is the outermost of all wrappers. With recipients alone nothing can be read, with identities alone nothing can
    be written: such a get or put is a permanent `StorageError` (code `NoIdentity`, `NoRecipient`). Nothing is ever
    written as it is. Sizes in listings and answers are those of the encrypted objects.

    `get` also raises `EncryptionError` for an object that none of the identities decrypts, or that is not encrypted,
    and `CorruptObjectError` for one that was damaged, changed or cut short anywhere. Bytes come out when the 64 KiB
    that they are in are proved, but only the end of the stream proves that nothing was cut off.

    A create-only put holds for the content: what is there is decrypted and compared. Without identities only a
    put that failed in this process is known again, since encrypting the same twice gives different bytes.
    """

    encrypted = True
    """Sizes in listings do not tell where the end of the content is: see `litestream.storage.reading`."""

    def __init__(self, inner: Store, *, recipients: Sequence[str] = (), identities: Sequence[str] = ()) -> None:
        super().__init__(inner)
        self._keys = AgeKeys(recipients, identities)
        self._unsure: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()  # key and hash of content -> as encrypted

    @property
    def readable(self) -> bool:
        """Whether objects can be read here: there are identities."""
        return bool(self._keys.identities)

    async def get(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        check_key(key)
        if not self.readable:
            text = f"{self.url}: cannot read {key}: it is encrypted with age, and this host may only write: set "
            raise StorageError(f"{text}age.identities to read", key=key, permanent=True, code="NoIdentity")
        if start < 0:
            raise StorageError(f"{self.url}: {key} has no bytes at {start}", key=key)
        skip = start
        async with aclosing(self._decrypted(key)) as chunks:
            async for chunk in chunks:
                if len(chunk) > skip:
                    yield chunk[skip:]
                skip = max(0, skip - len(chunk))
        if skip:
            raise StorageError(f"{self.url}: {key} has {start - skip} bytes, none at {start}", key=key)

    async def put(self, key: str, body: bytes | AsyncIterator[bytes], *, create_only: bool = False) -> ObjectInfo:
        try:
            check_key(key)
            if not self._keys.recipients:
                text = f"{self.url}: cannot write {key}: only age.identities are set, and nothing is written "
                raise StorageError(
                    f"{text}unencrypted: set age.recipients", key=key, permanent=True, code="NoRecipient"
                )
            if create_only:
                return await self._create(key, body if isinstance(body, bytes) else await self._collect(key, body))
            if isinstance(body, bytes):
                return await self.inner.put(key, await self._encrypted(body))
            async with aclosing(through(self._keys.encrypt_all, body)) as encrypted:
                return await self.inner.put(key, encrypted)
        except WorkError as error:
            raise StorageError(f"{self.url}: cannot encrypt {key}: {error}", key=key) from error
        finally:
            if not isinstance(body, bytes):
                await closed(body)

    # -- inside

    async def _decrypted(self, key: str) -> AsyncGenerator[bytes, None]:
        chunks = self.inner.get(key)
        head, whole = bytearray(), True
        try:
            async for chunk in chunks:
                head += chunk
                if len(head) > INLINE:
                    whole = False
                    break
            if not head.startswith(AGE_MAGIC):
                raise EncryptionError(
                    "is not encrypted, though age is configured (leave age out to read what was stored before)", key=key
                )
            if _HEAD_END.search(head, 0, MAX_HEAD) is None:
                raise _unreadable(key, f"its head does not end within {MAX_HEAD} bytes")
            if whole:
                yield self._keys.decrypt(bytes(head))
                return
            async with aclosing(through(self._keys.decrypt_all, _chain(bytes(head), chunks))) as pieces:
                async for piece in pieces:
                    yield piece
        except WorkError as error:
            raise _unreadable(key, str(error)) from error
        finally:
            await closed(chunks)

    async def _encrypted(self, data: bytes) -> bytes:
        if len(data) <= INLINE:
            return self._keys.encrypt(data)
        return b"".join([piece async for piece in through(self._keys.encrypt_all, _chain(data))])

    async def _collect(self, key: str, body: AsyncIterator[bytes]) -> bytes:
        data = bytearray()
        async for chunk in body:
            data += chunk
            if len(data) > MAX_CREATE:
                text = f"{self.url}: {key} is larger than the {MAX_CREATE} bytes of an object that is never replaced"
                raise StorageError(text, key=key, permanent=True)
        return bytes(data)

    async def _create(self, key: str, data: bytes) -> ObjectInfo:
        """A create-only put. A retry sends the very bytes of the first try: the store then knows them again."""
        encrypted = self._unsure.pop((key, hashlib.sha256(data).digest()), b"") if self._unsure else b""
        encrypted = encrypted or await self._encrypted(data)
        try:
            return await self.inner.put(key, encrypted, create_only=True)
        except ObjectExistsError:
            if not self.readable:
                raise
            return await self._same(key, data)
        except BaseException:
            self._remember(key, data, encrypted)
            raise

    async def _same(self, key: str, data: bytes) -> ObjectInfo:
        """The object that is there, if it has this content. `ObjectExistsError` otherwise."""
        try:
            at = 0
            async with aclosing(self._decrypted(key)) as chunks:
                async for chunk in chunks:
                    if chunk != data[at : at + len(chunk)]:
                        raise ObjectExistsError(key)
                    at += len(chunk)
            if at != len(data):
                raise ObjectExistsError(key)
        except CorruptObjectError as error:
            raise ObjectExistsError(key) from error
        except ObjectNotFoundError:
            pass  # deleted meanwhile
        parent = "".join(key.rpartition("/")[:2])
        for info in await self.inner.list(parent):
            if info.key == key:
                return info
        raise StorageError(f"{self.url}: {key} comes and goes: is there a second writer?", key=key)

    def _remember(self, key: str, data: bytes, encrypted: bytes) -> None:
        """This put may have been done, or may yet be."""
        self._unsure[key, hashlib.sha256(data).digest()] = encrypted
        while len(self._unsure) > 1 and sum(map(len, self._unsure.values())) > _UNSURE:
            self._unsure.popitem(last=False)


def _unreadable(key: str, why: str) -> CorruptObjectError:
    if "No matching keys" in why:
        return EncryptionError("is encrypted with age for others than age.identities: add the identity for it", key=key)
    return CorruptObjectError(f"cannot be decrypted: it is damaged or cut short ({why})", key=key)


async def _chain(head: bytes, rest: AsyncIterator[bytes] | None = None) -> AsyncGenerator[bytes, None]:
    yield head
    if rest is not None:
        async for chunk in rest:
            yield chunk
