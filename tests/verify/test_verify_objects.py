"""What a verification says of sound replicas, and of each kind of damage to each of their objects."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from helpers.golden import unpack
from helpers.recorded import history as history
from helpers.recorded import tiny as tiny
from helpers.recording import GENERATION, Recording, memory_store, replica
from litestream.client import ReplicaClient, open_client
from litestream.core.layout import LAYOUTS, V03, Layout
from litestream.core.position import Pos
from litestream.core.stamp import STAMP_SIZE
from litestream.core.timestamps import parse_rfc3339
from litestream.errors import StorageError
from litestream.storage.memory import MemoryStore
from litestream.verify.model import Report, Status
from litestream.verify.replica import VerifyOptions, verify

Objects = dict[str, tuple[bytes, float]]


async def _verify(objects: Objects, folder: Path, **options: object) -> Report:
    """The report; no scratch file is left."""
    client = ReplicaClient(memory_store(objects))
    report = await verify("memory", client, VerifyOptions(str(folder), **options))  # type: ignore[arg-type]  # as given
    assert list(folder.iterdir()) == []
    return report


def _keys(report: Report) -> set[str]:
    return {problem.key for problem in report.problems()}


def _with(objects: Objects, key: str, data: bytes) -> Objects:
    return {**objects, key: (data, objects[key][1])}


def _newest(recording: Recording) -> str:
    last = recording.last.index
    return V03.wal_key(GENERATION, last, recording.commits(last)[-1])


# -- sound


@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "unstamped"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
async def test_sound(layout: Layout, stamped: bool, history: Recording, tmp_path: Path) -> None:
    """Every object is checked, the whole history can be restored, and SQLite finds nothing wrong."""
    objects = replica(history, layout=layout, stamped=stamped)

    report = await _verify(objects, tmp_path)

    assert (report.status, report.problems(), report.doubts()) == (Status.OK, [], [])
    (found,) = report.generations
    assert (found.objects, found.checked) == (len(objects), len(objects))
    assert found.size == sum(len(data) for data, _ in objects.values())
    (span,) = found.spans
    # Only a stamp tells how much WAL belongs to a snapshot.
    assert span.first == Pos(GENERATION, *(history.snapshots[0].required if stamped else (0, 0)))
    assert span.last == Pos(GENERATION, history.last.index, history.last.offset)
    assert span.last_ns == history.last.time_ns
    assert report.restored is not None
    assert (report.restored.pos, report.restored.size) == (span.last, len(history.last.image))
    assert (report.restored.integrity, report.comparison) == ((), None)


@pytest.mark.parametrize("version", ["v0.3.13", "v0.4.0-beta.2"])
async def test_sound_official_replica(version: str, tmp_path: Path) -> None:
    """What the official programs wrote is found sound, up to the last thing that they had said."""
    golden = unpack(version, tmp_path / "golden")
    (tmp_path / "scratch").mkdir()

    report = await verify("file", open_client(str(golden.replica)), VerifyOptions(str(tmp_path / "scratch")))

    assert (report.status, report.problems(), report.doubts()) == (Status.OK, [], [])
    assert sum(found.checked for found in report.generations) == len(list(golden.replica.rglob("*.lz4")))
    assert all(found.spans for found in report.generations)
    newest = max(span.last_ns for found in report.generations for span in found.spans)
    assert newest >= max(parse_rfc3339(mark.time) for mark in golden.marks) - 60 * 10**9


async def test_official_replica_of_05(tmp_path: Path) -> None:
    """A format that cannot be read is no damage: could not tell."""
    golden = unpack("v0.5.16", tmp_path / "golden")

    report = await verify("file", open_client(str(golden.replica)), VerifyOptions(str(tmp_path)))

    assert report.status is Status.UNKNOWN
    assert "LTX" in report.doubts()[0]


async def test_nothing_there(tmp_path: Path) -> None:
    """A replica that holds nothing is proved to be no backup."""
    report = await _verify({}, tmp_path)

    assert report.status is Status.FAILED
    assert "no matching backups found" in str(report.problems()[0])


# -- damage


def _damaged(data: bytes, kind: str) -> Iterator[bytes]:
    rnd = random.Random(f"{kind}{len(data)}")
    match kind:
        case "flip":
            for at in [0, 4, *(rnd.randrange(len(data)) for _ in range(6)), len(data) - 1]:
                yield data[:at] + bytes([data[at] ^ 1 << rnd.randrange(8)]) + data[at + 1 :]
        case "cut":
            for at in [0, 1, rnd.randrange(2, len(data) - STAMP_SIZE), len(data) - STAMP_SIZE, len(data) - 1]:
                yield data[:at]
        case "grow":
            yield data + b"x"
            yield data + rnd.randbytes(STAMP_SIZE)


@pytest.mark.parametrize("kind", ["flip", "cut", "grow"])
async def test_damaged_object(kind: str, tiny: Recording, tmp_path: Path) -> None:
    """Each object flipped, cut off or grown is named, and no other, wherever it stands."""
    objects = replica(tiny)
    for key, (data, _) in objects.items():
        for bad in _damaged(data, kind):
            report = await _verify(_with(objects, key, bad), tmp_path)

            assert (report.status, _keys(report)) == (Status.FAILED, {key}), (key, report.problems())
            assert all(span.last.generation == GENERATION for span in report.generations[0].spans)


async def test_damaged_object_without_a_stamp(tiny: Recording, tmp_path: Path) -> None:
    """What the official program wrote is checked as far as it goes: each damaged object is found."""
    objects = replica(tiny, stamped=False)
    for key, (data, _) in objects.items():
        for bad in (data[:-1], data[: len(data) // 2], data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]):
            report = await _verify(_with(objects, key, bad), tmp_path)

            assert report.status is Status.FAILED, key
            assert key in _keys(report)


async def test_object_under_the_name_of_another(tiny: Recording, tmp_path: Path) -> None:
    """Each object replaced by each other one, and by the same one of a foreign replica, is named."""
    objects = replica(tiny)
    foreign = {k.replace("f" * 16, GENERATION): v for k, v in replica(tiny, generation="f" * 16).items()}
    for key in objects:
        others = [objects[other][0] for other in objects if other != key] + [foreign[key][0]]
        for bad in others:
            report = await _verify(_with(objects, key, bad), tmp_path)

            assert report.status is Status.FAILED, key
            assert key in _keys(report), (key, report.problems())


async def test_segment_of_another_database(tiny: Recording, history: Recording, tmp_path: Path) -> None:
    """Without stamps a sound segment of another WAL is found by its salts and checksums."""
    objects = replica(tiny, stamped=False)
    other = replica(history, stamped=False)
    for index in (0, 1):
        key = V03.wal_key(GENERATION, index, 0)
        report = await _verify(_with(objects, key, other[key][0]), tmp_path)

        assert report.status is Status.FAILED
        names = {k for k in objects if f"/wal/{index:08x}_" in k}
        # Which of the two neighbours is the foreign one cannot be told.
        assert _keys(report) & names, report.problems()


@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "unstamped"])
async def test_missing_object(stamped: bool, history: Recording, tmp_path: Path) -> None:
    """Each missing object is named, unless what is left is what a younger replica, or retention, would leave."""
    objects = replica(history, stamped=stamped)
    snapshots = [key for key in objects if "snapshot" in key]
    for key in objects:
        left = {k: v for k, v in objects.items() if k != key}
        name = V03.parse(key)
        assert name is not None

        report = await _verify(left, tmp_path)

        last_of_its_index = key == max(k for k in objects if f"/wal/{name.index:08x}_" in k or k == key)
        if key in snapshots or key == _newest(history):
            assert report.status is Status.OK, (key, report.problems())
        elif stamped:
            # Of a WAL that is gone as a whole the first segment is named.
            assert report.status is Status.FAILED, key
            assert key in _keys(report), (key, report.problems())
        elif not last_of_its_index:
            assert report.status is Status.FAILED, key


async def test_spans_around_a_damaged_object(history: Recording, tmp_path: Path) -> None:
    """The states before the damage, and those from the next snapshot on, can still be restored."""
    objects = replica(history)
    key = V03.wal_key(GENERATION, 1, history.commits(1)[0])

    report = await _verify(_with(objects, key, objects[key][0][:-300]), tmp_path)

    assert _keys(report) == {key}
    before, after = report.generations[0].spans
    assert before.first == Pos(GENERATION, *history.snapshots[0].required)
    assert before.last == Pos(GENERATION, 1, history.commits(1)[0])
    assert after.first == Pos(GENERATION, *history.snapshots[2].required)
    assert after.last == Pos(GENERATION, history.last.index, history.last.offset)
    assert report.restored is not None
    assert report.restored.pos == after.last


async def test_listed_object_that_is_gone(tiny: Recording, tmp_path: Path) -> None:
    """An object that stays in the listing and cannot be read is a failure."""
    key = V03.wal_key(GENERATION, 0, tiny.commits(0)[0])

    class Hollow(MemoryStore):
        def get(self, wanted: str, *, start: int = 0) -> AsyncIterator[bytes]:
            return super().get("gone" if wanted == key else wanted, start=start)

    store = Hollow()
    store._objects.update(replica(tiny))
    report = await verify("memory", ReplicaClient(store), VerifyOptions(str(tmp_path)))

    assert report.status is Status.FAILED
    assert "cannot be read: not found" in str(report.problems()[0])


async def test_snapshot_of_another_database(tiny: Recording, history: Recording, tmp_path: Path) -> None:
    """A sound snapshot of the right name that was taken over another WAL is named, also where nothing needs it."""
    objects = replica(tiny)
    key = V03.snapshot_key(GENERATION, 0)

    report = await _verify(_with(objects, key, replica(history)[key][0]), tmp_path)

    assert (report.status, _keys(report)) == (Status.FAILED, {key})
    assert "was taken over another WAL" in str(report.problems()[0])


async def test_snapshot_without_its_wal(history: Recording, tmp_path: Path) -> None:
    """In an older generation too, a snapshot that needs more WAL than there is, is found."""
    index, offset = history.snapshots[1].required
    start = max(cut for cut in [0, *history.commits(index)] if cut < offset)
    missing = V03.wal_key(GENERATION, index, start)
    snapshot = V03.snapshot_key(GENERATION, history.snapshots[1].index)
    old = {k: v for k, v in replica(history).items() if k == snapshot or ("/wal/" in k and k < missing)}
    new = replica(history, generation="f" * 16, shift_ns=10**12)

    report = await _verify(old | new, tmp_path)

    assert (report.status, _keys(report)) == (Status.FAILED, {missing})
    assert "needs the WAL up to" in str(report.problems()[0])
    assert report.generations[1].spans == []


async def test_retention_at_the_same_time(tiny: Recording, tmp_path: Path) -> None:
    """What is deleted, and no longer listed, while it is looked at, is no failure."""
    old = {k for k in replica(tiny) if "00000000.snapshot" in k or "/00000000_" in k}

    class Shrinking(MemoryStore):
        async def get(self, key: str, *, start: int = 0) -> AsyncIterator[bytes]:
            if key == V03.wal_key(GENERATION, 0, tiny.commits(0)[0]):
                for name in old:
                    self._objects.pop(name, None)
            async for chunk in super().get(key, start=start):
                yield chunk

    store = Shrinking()
    store._objects.update(replica(tiny))
    report = await verify("memory", ReplicaClient(store), VerifyOptions(str(tmp_path)))

    assert (report.status, report.problems()) == (Status.OK, [])
    assert report.generations[0].objects == len(replica(tiny)) - len(old)


# -- what cannot be told


async def test_store_that_does_not_answer(tiny: Recording, tmp_path: Path) -> None:
    """An object that a store does not give proves nothing: could not tell, and the rest is still checked."""
    key = V03.wal_key(GENERATION, 0, tiny.commits(0)[0])
    objects = replica(tiny)

    class Mute(MemoryStore):
        def get(self, wanted: str, *, start: int = 0) -> AsyncIterator[bytes]:
            if wanted == key:
                raise StorageError("the service does not answer", key=key)
            return super().get(wanted, start=start)

    store = Mute()
    store._objects.update(objects)
    report = await verify("memory", ReplicaClient(store), VerifyOptions(str(tmp_path)))

    assert (report.status, report.problems()) == (Status.UNKNOWN, [])
    assert ["the service does not answer" in doubt for doubt in report.doubts()] == [True]
    assert report.generations[0].checked == len(objects) - 1


async def test_newest_generation_without_a_snapshot(tiny: Recording, tmp_path: Path) -> None:
    """A generation whose first snapshot is still on its way is neither good nor bad; an old left-over is noted."""
    objects = replica(tiny)
    for shift, status in ((10**15, Status.UNKNOWN), (-(10**15), Status.OK)):
        born = replica(tiny, generation="f" * 16, shift_ns=shift)
        report = await _verify(objects | {k: v for k, v in born.items() if "snapshot" not in k}, tmp_path)

        assert report.status is status
        assert "f" * 16 in str([*report.doubts(), *report.notes])


async def test_no_room(tiny: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for a scratch copy the objects are checked all the same; the result is: could not tell."""
    from litestream.verify import scratch

    monkeypatch.setattr(scratch, "_RESERVE", 1 << 60)
    report = await _verify(replica(tiny), tmp_path)

    assert report.status is Status.UNKNOWN
    assert "no room for a scratch copy" in report.doubts()[0]
    assert report.generations[0].checked == report.generations[0].objects


# -- choosing


async def test_sample(history: Recording, tmp_path: Path) -> None:
    """A share of the objects is read, and always what the newest state needs."""
    objects = replica(history)
    needed = {k for k in objects if f"{history.snapshots[-1].index:08x}" in k}
    rnd = random.Random(1)

    report = await _verify(objects, tmp_path, share=0.3, chance=rnd.random)

    assert report.status is Status.OK
    assert len(needed) < report.generations[0].checked < len(objects)
    (span,) = report.generations[0].spans
    assert span.last == Pos(GENERATION, history.last.index, history.last.offset)

    for share, status in ((1e-9, Status.OK), (1.0, Status.FAILED)):
        old = V03.wal_key(GENERATION, 1, history.commits(1)[0])
        data = objects[old][0]
        bad = _with(objects, old, data[:50] + bytes([data[50] ^ 1]) + data[51:])
        assert (await _verify(bad, tmp_path, share=share)).status is status
    new = _with(objects, _newest(history), objects[_newest(history)][0][:-1])
    assert (await _verify(new, tmp_path, share=1e-9)).status is Status.FAILED


async def test_damage_in_an_older_generation(tiny: Recording, tmp_path: Path) -> None:
    """A full verification looks at every generation; one that is asked for is looked at alone."""
    old, new = replica(tiny), replica(tiny, generation="f" * 16, shift_ns=10**12)
    key = V03.wal_key(GENERATION, 0, 0)
    objects = _with(old | new, key, old[key][0][:-1])

    report = await _verify(objects, tmp_path)
    assert (report.status, _keys(report)) == (Status.FAILED, {key})
    assert report.restored is not None
    assert report.restored.pos.generation == "f" * 16

    alone = await _verify(objects, tmp_path, generation="f" * 16)
    assert (alone.status, len(alone.generations)) == (Status.OK, 1)
    assert (await _verify(objects, tmp_path, generation=GENERATION)).status is Status.FAILED
