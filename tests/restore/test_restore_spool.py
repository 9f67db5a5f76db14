"""What `-resume` keeps of one object: nothing that stands there is used unless it is what was fetched, at its place."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from litestream.restore.spool import _HEAD, _MOST, _RECORD, Kept, Spool, Spooled, opened
from litestream.storage.memory import MemoryStore
from litestream.storage.wrappers.wrapper import Wrapper

NAME = bytes(range(32))
BODY = random.Random("spool").randbytes(3 * _MOST + 5000)


def kept(path: Path, name: bytes = NAME) -> Kept:
    return Kept(str(path), name, "key", len(BODY))


def fill(path: Path, upto: int = len(BODY)) -> Kept:
    file = kept(path)
    with file.appending() as fd:
        file.append(fd, BODY[:upto])
    return file


def place(number: int) -> int:
    """Where record `number` of full ones begins."""
    return _HEAD + number * (_RECORD.size + _MOST)


def change(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def everything(file: Kept) -> bytes:
    """What is read from the beginning on, as far as it is there."""
    found = b""
    while len(found) < file.have:
        piece = file.read(len(found))
        if not piece:
            break
        found += piece
    return found


@pytest.mark.parametrize("upto", [1, _MOST, _MOST + 1, len(BODY)])
def test_what_was_kept_is_found_again(upto: int, tmp_path: Path) -> None:
    """By a later process, from any place on."""
    fill(tmp_path / "k", upto)
    again = kept(tmp_path / "k")
    assert (again.have, again.reused) == (upto, True)
    assert everything(again) == BODY[:upto]
    assert again.read(upto - 1) == BODY[upto - 1 : upto]


@pytest.mark.parametrize("inside", [0, 17, _MOST - 1])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_changed_byte_ends_the_file_there(number: int, inside: int, tmp_path: Path) -> None:
    """The records before stay; the damaged one and all behind it are fetched again, and stay right then."""
    path = tmp_path / "k"
    fill(path)
    at = place(number) + _RECORD.size + inside
    change(path, at, bytes([BODY[number * _MOST + inside] ^ 1]))
    again = kept(path)
    assert everything(again) == BODY[: number * _MOST]
    assert again.have == number * _MOST
    with again.appending() as fd:
        again.append(fd, BODY[again.have :])
    assert everything(kept(path)) == BODY


def test_records_in_another_order_are_none(tmp_path: Path) -> None:
    """Each says where in the object it belongs."""
    path = tmp_path / "k"
    fill(path)
    raw = path.read_bytes()
    first, second = raw[place(0) : place(1)], raw[place(1) : place(2)]
    change(path, place(0), second + first)
    assert everything(kept(path)) == b""


def test_records_of_another_object_are_none(tmp_path: Path) -> None:
    """Neither under the other's name, nor under this one."""
    fill(tmp_path / "k")
    other = bytes(32)
    assert kept(tmp_path / "k", other).have == 0
    change(tmp_path / "k", 0, other)
    assert everything(kept(tmp_path / "k", other)) == b""


class Pieces(Wrapper):
    """A store that gives an object in pieces of 64 KiB."""

    async def get(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        async for chunk in self.inner.get(key, start=start):
            for at in range(0, len(chunk), 65536):
                yield chunk[at : at + 65536]


async def spooled(spool: Spool) -> Spooled:
    store = MemoryStore()
    await store.put("key", BODY)
    found = Spooled(Pieces(store), spool)
    await found.list("")
    return found


async def test_two_readers_when_one_of_them_finds_damage(tmp_path: Path) -> None:
    """One appends what it fetches; the other one finds a record damaged that stands before: both get every byte, and
    what is kept in the end has no hole."""
    with opened(str(tmp_path / "out.db")) as spool:
        store = await spooled(spool)
        first, got = store.get("key"), b""
        while len(got) < _MOST:
            got += await anext(first)
        (path,) = [each for each in Path(spool.path).iterdir() if each.name != "lock"]
        change(path, _HEAD + _RECORD.size, bytes([BODY[0] ^ 1]))
        assert b"".join([piece async for piece in store.get("key")]) == BODY
        got += b"".join([piece async for piece in first])
        assert got == BODY
        assert b"".join([piece async for piece in store.get("key")]) == BODY
        (info,) = await store.list("")
        file = spool.object(store.inner, info)
        assert everything(file) == BODY[: file.have]
        assert everything(Kept(str(path), bytes.fromhex(path.name), "key", len(BODY))) == BODY[: file.have]
