"""`-resume`: what an interrupted restore leaves, that only the rest is fetched, that nothing left there is trusted."""

from __future__ import annotations

import logging
import os
import random
import shutil
import stat
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.faultstore import FOREVER, Fault, FaultStore
from helpers.recorded import history as history
from helpers.recording import Recorder, Recording, memory_store, replica
from litestream.client import ReplicaClient
from litestream.errors import CorruptObjectError, NoBackupError, RestoreError, StorageError
from litestream.restore import RestoreOptions, RestoreResult, restore
from litestream.restore.beside import beside
from litestream.restore.spool import TAIL, opened
from litestream.storage.memory import MemoryStore
from litestream.storage.protocol import Store
from litestream.storage.wrappers.wrapper import Wrapper

Objects = dict[str, tuple[bytes, float]]


class Line(Wrapper):
    """A connection that ends after so many bytes, in pieces of 4 KiB.

    Attributes:
        left: bytes until it ends; None: it holds.
        passed: bytes that came through.
    """

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.left: int | None = None
        self.passed = 0

    async def get(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        async for chunk in self.inner.get(key, start=start):
            for at in range(0, len(chunk), 4096):
                piece = chunk[at : at + 4096]
                if self.left is not None:
                    if len(piece) > self.left:
                        raise StorageError("the line is down", key=key)
                    self.left -= len(piece)
                self.passed += len(piece)
                yield piece


async def _restore(store: Store, out: Path, *, resume: bool = True, **options: object) -> RestoreResult:
    wanted = RestoreOptions(resume=resume, **options)  # type: ignore[arg-type]
    return await restore([("r", ReplicaClient(store))], str(out), options=wanted)


def _spool(out: Path) -> Path:
    return Path(beside(str(out), TAIL))


def _kept(out: Path) -> list[Path]:
    return sorted(path for path in _spool(out).iterdir() if path.name != "lock")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Snapshots of 1 MiB and more, and as much WAL behind them."""
    with Recorder(tmp_path_factory.mktemp("large"), 4096) as r:
        r.run("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
        r.run(*[("INSERT INTO t(body) VALUES(randomblob(?))", (9000,)) for _ in range(120)])
        r.restart()
        r.run("INSERT INTO t(body) VALUES('second WAL')")
        r.snapshot()
        for _ in range(12):
            r.run(*[("INSERT INTO t(body) VALUES(randomblob(?))", (9000,)) for _ in range(8)])
        r.restart()
        r.run("DELETE FROM t WHERE id%3=0")
        return r.recording


def _as_it_is(store: Store) -> Store:
    return store


def _encrypted(objects: Objects) -> tuple[MemoryStore, Callable[[Store], Store]]:
    """The same objects, encrypted, and what decrypts them."""
    pyrage: Any = pytest.importorskip("pyrage")
    from litestream.storage.age.encrypted import EncryptedStore

    key = pyrage.x25519.Identity.generate()
    recipient, identity = str(key.to_public()), str(key)
    sealed = {name: (pyrage.encrypt(body, [key.to_public()]), time) for name, (body, time) in objects.items()}
    return memory_store(sealed), lambda store: EncryptedStore(store, recipients=[recipient], identities=[identity])


@pytest.mark.parametrize("kind", ["stamped", "plain", "age"])
async def test_each_byte_is_fetched_once(kind: str, large: Recording, tmp_path: Path) -> None:
    """However often the line breaks, in the middle of objects, hardly more than the replica comes over it."""
    rng = random.Random(f"lines {kind}")
    objects = replica(large, stamped=kind != "plain")
    store, around = _encrypted(objects) if kind == "age" else (memory_store(objects), _as_it_is)
    line, out = Line(store), tmp_path / "out.db"
    size = sum(len(body) for body, _ in store._objects.values())
    tries = 0
    while tries < 60:
        tries += 1
        line.left = rng.randrange(20_000, size // 3)
        try:
            await _restore(around(line), out)
        except StorageError:
            assert sorted(p.name for p in tmp_path.iterdir()) == [_spool(out).name]
            continue
        break
    assert out.read_bytes() == large.last.image
    assert tries > 3
    assert line.passed < 1.2 * size
    assert os.listdir(tmp_path) == ["out.db"]


async def test_what_is_kept_is_private_and_still_encrypted(large: Recording, tmp_path: Path) -> None:
    """The directory and its files are for their owner, and of an encrypted replica hold no content."""
    store, around = _encrypted(replica(large))
    line, out = Line(store), tmp_path / "out.db"
    line.left = 1_000_000
    with pytest.raises(StorageError):
        await _restore(around(line), out)
    assert stat.S_IMODE(_spool(out).stat().st_mode) == 0o700
    assert _kept(out)
    for path in _kept(out):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        content = path.read_bytes()
        assert b"age-encryption.org" in content
        assert b"SQLite format 3" not in content


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _cut(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def _lengthen(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randrange(1, 60)))


def _zero(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))].ljust(len(data), b"\0"))


def _exchange(path: Path, rng: random.Random) -> None:
    other = rng.choice([p for p in path.parent.iterdir() if p != path])
    shutil.copyfile(other, path)


@pytest.mark.parametrize("damage", [_flip, _cut, _lengthen, _zero, _exchange])
@pytest.mark.parametrize("stamped", [True, False])
async def test_damage_to_what_was_kept_costs_a_fetch(
    damage: Callable[[Path, random.Random], None], stamped: bool, large: Recording, tmp_path: Path
) -> None:
    """Files that were changed, cut, lengthened, torn by a power cut or exchanged never fail a restore."""
    rng = random.Random(f"{damage.__name__} {stamped}")
    for round_ in range(4):
        out = tmp_path / f"{round_}.db"
        line = Line(memory_store(replica(large, stamped=stamped)))
        line.left = rng.randrange(1_500_000, 2_000_000)
        with pytest.raises(StorageError):
            await _restore(line, out)
        for path in rng.sample(_kept(out), k=min(3, len(_kept(out)))):
            damage(path, rng)
        line.left = None
        await _restore(line, out)
        assert out.read_bytes() == large.last.image


async def test_object_that_was_damaged_when_it_was_fetched_is_fetched_again(large: Recording, tmp_path: Path) -> None:
    """What an earlier restore kept is let go when it turns out to be wrong: the store may have a good one by now."""
    out, objects = tmp_path / "out.db", replica(large)
    store = FaultStore(memory_store(objects), Fault("get", "flip", match="snapshot", skip=1, times=FOREVER))
    with pytest.raises(CorruptObjectError):
        await _restore(store, out)
    assert _kept(out)
    store.heal()
    await _restore(store, out)
    assert out.read_bytes() == large.last.image


async def test_damage_in_the_store_is_still_an_error(large: Recording, tmp_path: Path) -> None:
    """An object that is damaged in the replica itself is named, with -resume as without."""
    objects = replica(large)
    key = next(key for key in objects if "/wal/" in key and key.endswith("00000000.wal.lz4") and "00000001" in key)
    body, time = objects[key]
    objects[key] = (body[:300] + bytes([body[300] ^ 1]) + body[301:], time)
    with pytest.raises(CorruptObjectError) as caught:
        await _restore(memory_store(objects), tmp_path / "out.db")
    assert caught.value.key == key


async def test_replica_that_changed_meanwhile(large: Recording, tmp_path: Path) -> None:
    """What is no longer part of the plan is removed from the disk, and the state of now is restored."""
    out, store = tmp_path / "out.db", memory_store(replica(large, generation="00000000000000aa"))
    line = Line(store)
    line.left = 1_000_000
    with pytest.raises(StorageError):
        await _restore(line, out)
    before = {path.name for path in _kept(out)}
    store._objects.clear()
    store._objects.update(replica(large, generation="00000000000000bb"))
    line.left = 100_000
    with pytest.raises(StorageError):
        await _restore(line, out)
    assert not before & {path.name for path in _kept(out)}
    line.left = None
    result = await _restore(line, out)
    assert (result.generation, out.read_bytes()) == ("00000000000000bb", large.last.image)


async def test_object_that_was_replaced_is_fetched_anew(large: Recording, tmp_path: Path) -> None:
    """An object of another time is another one, whatever its name."""
    objects = replica(large)
    store, out = memory_store(objects), tmp_path / "out.db"
    line = Line(store)
    line.left = 1_200_000
    with pytest.raises(StorageError):
        await _restore(line, out)
    store._objects.update({key: (body, time + 1) for key, (body, time) in objects.items()})
    line.left, line.passed = None, 0
    result = await _restore(line, out)
    assert out.read_bytes() == large.last.image
    assert result.fetched == line.passed > 0.95 * sum(file.size for file in result.files)


async def test_second_restore_is_refused_while_one_runs(large: Recording, tmp_path: Path) -> None:
    """Two that would write the same files do not run together; the second leaves the first one's alone."""
    out = tmp_path / "out.db"
    with opened(str(out)), pytest.raises(RestoreError, match="another restore with -resume to this output is running"):
        await _restore(memory_store(replica(large)), out)
    assert os.listdir(tmp_path) == []
    await _restore(memory_store(replica(large)), out)


async def test_too_little_room_is_said_before_anything_is_fetched(
    large: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored objects need room beside the database; what is there already counts."""
    line, out = Line(memory_store(replica(large))), tmp_path / "out.db"
    line.left = 1_000_000
    with pytest.raises(StorageError):
        await _restore(line, out)
    line.left, passed = None, line.passed
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=100, f_frsize=4096))
    with pytest.raises(RestoreError, match=r"no room for what -resume keeps until the end: [0-9]+ bytes"):
        await _restore(line, out)
    assert line.passed - passed < 2000
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=400, f_frsize=4096))
    await _restore(line, out)
    assert out.read_bytes() == large.last.image


async def test_full_disk_is_one_line_and_keeps_what_is_there(
    large: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that has no room ends the restore; what was kept before is used by the next one."""
    line, out = Line(memory_store(replica(large))), tmp_path / "out.db"
    write, written = os.pwritev, 0

    def scarce(fd: int, parts: tuple[bytes, bytes], at: int) -> int:
        nonlocal written
        written += 1
        return write(fd, parts, at) if written < 200 else write(fd, (parts[0],), at)

    monkeypatch.setattr(os, "pwritev", scarce)
    with pytest.raises(RestoreError, match=r"no room for what -resume keeps: .*No space left on device") as caught:
        await _restore(line, out)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    line.passed = 0
    result = await _restore(line, out)
    assert out.read_bytes() == large.last.image
    assert line.passed < sum(file.size for file in result.files) - 199 * 4096 + 20_000


async def test_nothing_is_left_where_nothing_was_fetched(tmp_path: Path) -> None:
    """No backup: neither the directory nor those above it stay."""
    with pytest.raises(NoBackupError):
        await _restore(MemoryStore(), tmp_path / "new" / "folder" / "out.db")
    assert os.listdir(tmp_path) == []


async def test_without_the_flag_it_is_left_alone_and_told(
    large: Recording, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An ordinary restore says what an interrupted one has left, and neither reads nor removes it."""
    line, out = Line(memory_store(replica(large))), tmp_path / "out.db"
    line.left = 500_000
    with pytest.raises(StorageError):
        await _restore(line, out)
    line.left, kept = None, {path: path.read_bytes() for path in _kept(out)}
    with caplog.at_level(logging.INFO, "litestream.restore"):
        await _restore(line, out, resume=False)
    assert {path: path.read_bytes() for path in _kept(out)} == kept
    assert caplog.messages[-1].startswith("an interrupted restore -resume has left what it fetched: ")
    assert str(_spool(out)) in caplog.messages[-1]


async def test_directory_that_is_none_of_ours(large: Recording, tmp_path: Path) -> None:
    """A link or a file under the directory's name is refused, and nothing is written through it."""
    out, other = tmp_path / "out.db", tmp_path / "other"
    other.mkdir()
    _spool(out).symlink_to(other)
    with pytest.raises(RestoreError, match="is no directory of this user's: remove it"):
        await _restore(memory_store(replica(large)), out)
    assert os.listdir(other) == []
    _spool(out).unlink()
    _spool(out).touch()
    with pytest.raises(RestoreError, match="is no directory of this user's: remove it"):
        await _restore(memory_store(replica(large)), out)


def test_long_names_stay_within_the_limit() -> None:
    """The name beside an output of 255 bytes is one that a file may have, and differs where only the end differs."""
    names = {os.path.basename(beside("/x/" + "n" * 254 + end, TAIL)) for end in "ab"}
    assert len(names) == 2
    assert {len(name) for name in names} == {255}
    assert beside("/x/app.db", TAIL) == "/x/.app.db-litestream-resume"
