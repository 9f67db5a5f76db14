"""Damaged replicas: a restore gives the right state or an error that names the object, never anything else.

The newest object alone may be missing, or replaced by an older one, unseen: what is left tells nothing of it. Then
the state before it is restored. Without stamps the last segment of an index is such an object too, where a commit
stands before it; a WAL that lost one is told by SQLite's check at best, so these cases are about stamped replicas.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.recorded import history as history
from helpers.recorded import tiny as tiny
from helpers.recording import GENERATION, Recording, memory_store, replica
from litestream.client import ReplicaClient
from litestream.core.layout import V03
from litestream.core.stamp import STAMP_SIZE
from litestream.errors import CorruptObjectError
from litestream.restore import RestoreOptions, restore
from litestream.streams import compress, open_object, seal

Objects = dict[str, tuple[bytes, float]]

STEP = 5
"""Every how many bytes of an object the damage is done; a prime, so that all byte positions of a word are hit."""


async def _outcome(objects: Objects, out: Path, recording: Recording) -> str:
    """ "latest", "earlier" (another committed state), "WRONG", or the text of the error."""
    client = ReplicaClient(memory_store(objects))
    options = RestoreOptions(integrity_check="none")
    try:
        await restore([("memory", client)], str(out), options=options)
    except CorruptObjectError as error:
        assert [path.name for path in out.parent.iterdir()] == []
        return str(error)
    image = out.read_bytes()
    out.unlink()
    if image == recording.last.image:
        return "latest"
    return "earlier" if any(image == point.image for point in recording.points) else "WRONG"


def _with(objects: Objects, key: str, data: bytes) -> Objects:
    return {**objects, key: (data, objects[key][1])}


def _newest(recording: Recording) -> str:
    index = recording.last.index
    return V03.wal_key(GENERATION, index, recording.commits(index)[-1])


def _needed(recording: Recording) -> set[str]:
    """What a restore of the latest state reads: the newest snapshot and the WAL from it on."""
    index = recording.snapshots[-1].index
    keys = {V03.snapshot_key(GENERATION, index)}
    for number in range(index, len(recording.wals)):
        keys |= {V03.wal_key(GENERATION, number, offset) for offset in (0, *recording.commits(number))}
    return keys


def _damaged(data: bytes, kind: str) -> Iterator[tuple[int, bytes]]:
    """All ways to do this kind of damage, with the place."""
    rnd = random.Random(kind)
    for at in range(0, len(data), STEP):
        match kind:
            case "flip":
                yield at, data[:at] + bytes([data[at] ^ 1 << rnd.randrange(8)]) + data[at + 1 :]
            case "trunc":
                yield at, data[:at]
            case "zero" if at % (4 * STEP) == 0 and any(data[at : at + 64]):
                yield at, data[:at] + bytes(len(data[at : at + 64])) + data[at + 64 :]
    if kind == "grow":
        for count in (1, 16, STAMP_SIZE, 512):
            yield count, data + rnd.randbytes(count)
            yield count, data + bytes(count)
    if kind == "trunc":
        yield len(data) - STAMP_SIZE, data[:-STAMP_SIZE]


@pytest.mark.parametrize("kind", ["flip", "trunc", "zero", "grow"])
async def test_damaged_bytes(kind: str, tiny: Recording, tmp_path: Path) -> None:
    """Bytes of a needed object flipped, cut off, zeroed or appended: an error naming it; elsewhere: no matter."""
    objects = replica(tiny)
    needed = _needed(tiny)
    for key, (data, _) in objects.items():
        for at, bad in _damaged(data, kind):
            got = await _outcome(_with(objects, key, bad), tmp_path / "out.db", tiny)

            if key in needed:
                assert key in got, (key, at, got)
            else:
                # The first snapshot tells whether the generation is a stamped one, so it may be an error there too.
                assert got == "latest" or key in got or "first object of its generation" in got, (key, at, got)


async def test_missing_objects(tiny: Recording, tmp_path: Path) -> None:
    """A missing object is named; without the newest one, the state before it is restored."""
    objects = replica(tiny)
    needed = _needed(tiny)
    for key in objects:
        left = {k: v for k, v in objects.items() if k != key}

        got = await _outcome(left, tmp_path / "out.db", tiny)

        if key == _newest(tiny):
            assert got == "earlier"
        elif key not in needed:
            assert got == "latest", (key, got)
        elif key.endswith(".snapshot.lz4"):
            assert got == "latest"  # from the snapshot before it: all WAL is there
        else:
            assert key in got, (key, got)


async def test_missing_last_segment_of_an_index(history: Recording, tmp_path: Path) -> None:
    """The next index's first segment says where this one ended."""
    objects = {k: v for k, v in replica(history).items() if ".snapshot" not in k or "00000000.snapshot" in k}
    for index in range(len(history.wals) - 1):
        key = V03.wal_key(GENERATION, index, history.commits(index)[-1] if history.commits(index) else 0)
        left = {k: v for k, v in objects.items() if k != key}

        got = await _outcome(left, tmp_path / "out.db", history)

        assert key in got or f"missing WAL index: {GENERATION}/{index:08x}" in got, (key, got)


@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "unstamped"])
async def test_missing_segments_within_an_index(stamped: bool, history: Recording, tmp_path: Path) -> None:
    """A gap inside an index is named by where it begins, also without stamps."""
    objects = replica(history, stamped=stamped)
    index = history.last.index
    starts = [0, *history.commits(index)]
    for start in starts[:-1]:
        key = V03.wal_key(GENERATION, index, start)
        left = {k: v for k, v in objects.items() if k != key}

        got = await _outcome(left, tmp_path / "out.db", history)

        assert key in got, (key, got)


async def test_objects_that_hold_another_object(tiny: Recording, tmp_path: Path) -> None:
    """An object under another's name is named; the newest one replaced by a sibling is found by its own stamp."""
    objects = replica(tiny)
    needed = _needed(tiny)
    for key in objects:
        for other in objects:
            if other != key:
                got = await _outcome(_with(objects, key, objects[other][0]), tmp_path / "out.db", tiny)

                assert key in got if key in needed else got == "latest" or key in got, (key, other, got)


@pytest.mark.parametrize("kind", ["flip", "trunc", "zero", "grow", "swap"])
async def test_damage_without_stamps(kind: str, tiny: Recording, tmp_path: Path) -> None:
    """What the official program wrote is checked as far as it goes: nothing damaged gets through.

    One thing cannot be told: an older snapshot under a newer one's name.
    """
    objects = replica(tiny, stamped=False)
    needed = _needed(tiny) - ({V03.snapshot_key(GENERATION, 1)} if kind == "swap" else set())
    for key, (data, _) in objects.items():
        siblings = [(0, objects[k][0]) for k in objects if k != key and k.rpartition("/")[0] == key.rpartition("/")[0]]
        for at, bad in siblings if kind == "swap" else _damaged(data, kind):
            if kind == "trunc" and at == len(data) - STAMP_SIZE:
                continue
            got = await _outcome(_with(objects, key, bad), tmp_path / "out.db", tiny)

            if key in needed:
                # A bit of the LZ4 coding may not matter to the content.
                assert ".lz4: " in got or (kind == "flip" and got == "latest"), (kind, key, at, got)
            elif kind != "swap":
                assert got == "latest" or key in got, (key, at, got)


async def test_stamp_of_another_replica_of_the_same_database(tiny: Recording, tmp_path: Path) -> None:
    """A segment taken from another generation, or one whose stamp was made to fit its name, does not chain."""
    objects = replica(tiny)
    other = replica(tiny, generation="ffffffffffffffff")
    key = _newest(tiny)
    foreign = V03.wal_key("ffffffffffffffff", *_position(key))

    got = await _outcome(_with(objects, key, other[foreign][0]), tmp_path / "out.db", tiny)
    assert key in got

    previous = V03.wal_key(GENERATION, tiny.last.index, 0)
    data, _ = open_object(objects[previous][0])
    _, stamp = open_object(objects[key][0])
    assert stamp is not None
    got = await _outcome(_with(objects, key, seal(data[32:], stamp)), tmp_path / "out.db", tiny)
    assert key in got


async def test_unstamped_among_stamped_and_the_other_way_round(tiny: Recording, tmp_path: Path) -> None:
    """One object without a stamp in a stamped generation is an error, and so is one with a stamp in an unstamped."""
    for stamped in (True, False):
        objects, others = replica(tiny, stamped=stamped), replica(tiny, stamped=not stamped)
        for key in _needed(tiny):
            got = await _outcome(_with(objects, key, others[key][0]), tmp_path / "out.db", tiny)

            assert key in got and "stamp" in got, (stamped, key, got)


async def test_newer_snapshot_without_its_stamp(tiny: Recording, tmp_path: Path) -> None:
    """Cut off exactly before its stamp, a lone newest snapshot looks unstamped: the generation's first object tells."""
    key = V03.snapshot_key(GENERATION, 1)
    objects = {k: v for k, v in replica(tiny).items() if "/wal/00000001_" not in k}

    got = await _outcome(_with(objects, key, objects[key][0][:-STAMP_SIZE]), tmp_path / "out.db", tiny)

    assert f"{key}: has no stamp, but other objects of its generation do" in got


async def test_error_says_what_else_can_be_restored(tiny: Recording, tmp_path: Path) -> None:
    """A damaged newer snapshot is not passed over in silence; the error names the way to the state before it."""
    key = V03.snapshot_key(GENERATION, 1)
    objects = replica(tiny)
    bad = _with(objects, key, objects[key][0][:-500])

    got = await _outcome(bad, tmp_path / "out.db", tiny)

    assert got.endswith(f"an older state can be restored with -generation {GENERATION} -index 00000000")
    options = RestoreOptions(generation=GENERATION, index=0)
    await restore([("memory", ReplicaClient(memory_store(bad)))], str(tmp_path / "out.db"), options=options)
    assert (tmp_path / "out.db").read_bytes() == tiny.best(lambda p: p.index == 0).image


async def test_bomb_in_the_snapshot(tiny: Recording, tmp_path: Path) -> None:
    """A snapshot that unpacks to far more than its header says writes no more than that."""
    key = V03.snapshot_key(GENERATION, 1)
    head = tiny.snapshots[-1].data
    bomb = compress(head + bytes(200 << 20))
    objects = _with({k: v for k, v in replica(tiny, stamped=False).items() if ".snapshot" in k}, key, bomb)
    client = ReplicaClient(memory_store(objects))
    out = tmp_path / "out.db"

    await restore([("memory", client)], str(out))

    assert out.read_bytes() == head


@pytest.mark.parametrize("content", [b"", b"SQLite", b"not a database" * 50, bytes(4096)], ids=len)
@pytest.mark.parametrize("with_wal", [True, False])
async def test_snapshot_that_is_no_database(content: bytes, with_wal: bool, tiny: Recording, tmp_path: Path) -> None:
    """What does not begin as a SQLite database is refused, with or without WAL behind it."""
    key = V03.snapshot_key(GENERATION, 1)
    objects = _with(replica(tiny, stamped=False), key, compress(content))
    if not with_wal:
        objects = {k: v for k, v in objects.items() if ".snapshot" in k}

    got = await _outcome(objects, tmp_path / "out.db", tiny)

    assert key in got


async def test_page_that_nothing_provides(tiny: Recording, tmp_path: Path) -> None:
    """A snapshot that is too short leaves a hole, which is named by its page."""
    key = V03.snapshot_key(GENERATION, 1)
    whole = tiny.snapshots[-1].data
    for length in (len(whole) - 512, len(whole) - 100):
        objects = _with(replica(tiny, stamped=False), key, compress(whole[:length]))
        objects = {k: v for k, v in objects.items() if ".snapshot" in k}

        got = await _outcome(objects, tmp_path / "out.db", tiny)

        assert f"page {len(whole) // 512} is neither in the snapshot nor in the WAL" in got


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("ends inside a WAL frame", lambda data: data[:-1]),
        ("ends inside a WAL frame", lambda data: data + bytes(24)),
        ("WAL header cut short: 31 of 32 bytes", lambda data: data[:31]),
        ("WAL header cut short: 0 of 32 bytes", lambda _: b""),
    ],
)
async def test_whole_objects_with_half_a_frame(
    text: str, change: Callable[[bytes], bytes], tiny: Recording, tmp_path: Path
) -> None:
    """A sound LZ4 frame without a stamp may hold anything: what is no WAL is said to be none, by name."""
    objects = replica(tiny, stamped=False)
    key = V03.wal_key(GENERATION, tiny.snapshots[-1].index, 0)

    got = await _outcome(
        _with(objects, key, compress(change(open_object(objects[key][0])[0]))), tmp_path / "out.db", tiny
    )

    assert key in got
    assert text in got


async def test_segment_off_the_frames(tiny: Recording, tmp_path: Path) -> None:
    """Without a stamp, only the name says where a segment begins: an offset between two frames is an error."""
    objects = replica(tiny, stamped=False)
    key = _newest(tiny)
    index, offset = _position(key)
    odd = V03.wal_key(GENERATION, index, offset + 1)

    got = await _outcome({odd if k == key else k: v for k, v in objects.items()}, tmp_path / "out.db", tiny)

    assert V03.wal_key(GENERATION, index, offset) in got or odd in got


async def test_snapshot_of_another_page_size(tiny: Recording, tmp_path: Path) -> None:
    """A snapshot whose header tells another page size than the WAL after it is no part of this database."""
    objects = replica(tiny, stamped=False)
    key = V03.snapshot_key(GENERATION, tiny.snapshots[-1].index)
    image = bytearray(open_object(objects[key][0])[0])
    image[16:18] = (1024).to_bytes(2, "big")

    got = await _outcome(_with(objects, key, compress(bytes(image))), tmp_path / "out.db", tiny)

    assert "pages of 1024 bytes" in got


def _position(key: str) -> tuple[int, int]:
    name = V03.parse(key)
    assert name is not None and hasattr(name, "offset")
    return name.index, name.offset
