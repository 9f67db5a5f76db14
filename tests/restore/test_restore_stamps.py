"""Objects that are whole but do not belong: each thing that a stamp says is compared with what stands beside it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from helpers.recorded import history as history
from helpers.recorded import tiny as tiny
from helpers.recording import GENERATION, Recording, memory_store, replica
from helpers.walmaker import make_wal
from litestream.client import ReplicaClient
from litestream.core.layout import V03
from litestream.core.position import Pos
from litestream.core.stamp import Kind, Stamp
from litestream.core.wal import WALHeader
from litestream.errors import CorruptObjectError
from litestream.restore import RestoreOptions, restore
from litestream.streams import compress, open_object, seal

Objects = dict[str, tuple[bytes, float]]
OTHER_WAL = WALHeader.build(512, b"otherWAL").raw

SNAPSHOT = V03.snapshot_key(GENERATION, 1)
FIRST = V03.wal_key(GENERATION, 1, 0)


async def _restore(objects: Objects, out: Path) -> bytes:
    options = RestoreOptions(integrity_check="none")
    await restore([("r", ReplicaClient(memory_store(objects)))], str(out), options=options)
    return out.read_bytes()


def _resealed(objects: Objects, key: str, **changes: object) -> Objects:
    """The object with another stamp, which fits the frame and itself."""
    data, stamp = open_object(objects[key][0])
    assert stamp is not None
    forged: Stamp = dataclasses.replace(stamp, **changes)  # type: ignore[arg-type]
    return {**objects, key: (seal(data, forged), objects[key][1])}


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": Kind.SNAPSHOT},
        {"pos": Pos("b" * 16, 1, 0)},
        {"pos": Pos(GENERATION, 2, 0)},
        {"pos": Pos(GENERATION, 1, 32)},
        {"page_size": 1024},
        {"db_pages": 77},
        {"prev": Pos()},
        {"prev": Pos(GENERATION, 0, 99999)},
        {"prev_checksum": b"nonsense"},
        {"end_checksum": b"nonsense"},
        {"wal_header": OTHER_WAL},
        {"wal_header": bytes(32)},
        {"required": (1, 77)},
    ],
    ids=str,
)
@pytest.mark.parametrize("which", ["first", "middle", "newest"])
async def test_each_field_of_a_segments_stamp(
    which: str, changes: dict[str, object], tiny: Recording, tmp_path: Path
) -> None:
    """A segment whose stamp says something else than its name, content or neighbour is named."""
    objects = {k: v for k, v in replica(tiny).items() if k != SNAPSHOT}  # so that all WAL is needed
    starts = [0, *tiny.commits(1)]
    start = {"first": starts[0], "middle": starts[1], "newest": starts[-1]}[which]
    key = V03.wal_key(GENERATION, 1, start)
    _, stamp = open_object(objects[key][0])
    assert stamp is not None
    if all(getattr(stamp, field) == value for field, value in changes.items()):
        pytest.skip("says so already")

    # The missing one may be the object that the stamp says is before it.
    with pytest.raises(CorruptObjectError, match=rf"{key}|missing WAL segment"):
        await _restore(_resealed(objects, key, **changes), tmp_path / "out.db")


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": Kind.WAL},
        {"pos": Pos("b" * 16, 1, 0)},
        {"pos": Pos(GENERATION, 0, 0)},
        {"page_size": 1024},
        {"end_checksum": b"nonsense"},
        {"wal_header": OTHER_WAL},
        {"required": (1, 1 << 30)},
        {"required": (9, 0)},
    ],
    ids=str,
)
async def test_each_field_of_a_snapshots_stamp(changes: dict[str, object], tiny: Recording, tmp_path: Path) -> None:
    """A snapshot whose stamp says something else than its name, content or WAL is named."""
    objects = _resealed(replica(tiny), SNAPSHOT, **changes)

    with pytest.raises(CorruptObjectError, match=f"{SNAPSHOT}|page size 512, the snapshot has 1024"):
        await _restore(objects, tmp_path / "out.db")


async def test_snapshot_that_needs_wal_up_to_the_middle_of_a_transaction(history: Recording, tmp_path: Path) -> None:
    """Where no transaction ends behind what a snapshot needs, it is no committed state."""
    begun, ended = [p.offset for p in history.points if p.index == 1][:2]
    end = next(o for o in history.boundaries(1) if begun < o < ended)
    first = V03.snapshot_key(GENERATION, 0)
    objects = {
        key: value
        for key, value in replica(history, cuts=history.boundaries).items()
        if key == first or "/wal/00000000" in key or ("/wal/00000001" in key and key < V03.wal_key(GENERATION, 1, end))
    }
    objects = _resealed(
        objects,
        first,
        required=(1, end),
        end_checksum=history.checksum(1, end),
        wal_header=history.wals[1][:32],
    )

    with pytest.raises(CorruptObjectError, match=f"{first}: needs the WAL up to .*:{end:08x}, where no transaction"):
        await _restore(objects, tmp_path / "out.db")


async def test_stamped_snapshot_that_is_no_database(tiny: Recording, tmp_path: Path) -> None:
    """The content is looked at, whatever the stamp says."""
    objects = replica(tiny)
    _, stamp = open_object(objects[SNAPSHOT][0])
    assert stamp is not None
    for content in (b"", b"short", b"no database " * 100):
        objects[SNAPSHOT] = (seal(content, stamp), 1.0)

        with pytest.raises(CorruptObjectError, match=SNAPSHOT):
            await _restore(objects, tmp_path / "out.db")


@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "unstamped"])
async def test_empty_snapshot_where_the_wal_has_every_page(stamped: bool, tiny: Recording, tmp_path: Path) -> None:
    """A database that was still empty when it was copied is all in its WAL."""
    objects = {k: v for k, v in replica(tiny, stamped=stamped).items() if k != SNAPSHOT}
    first = V03.snapshot_key(GENERATION, 0)
    _, stamp = open_object(replica(tiny)[first][0])
    assert stamp is not None
    objects[first] = (seal(b"", stamp) if stamped else compress(b""), 1.0)

    assert await _restore(objects, tmp_path / "out.db") == tiny.last.image


async def test_snapshot_whose_header_does_not_tell_its_size(tiny: Recording, tmp_path: Path) -> None:
    """A header written by a program that does not keep the size: the length of the file counts, as for SQLite."""
    image = bytearray(tiny.last.image)
    image[92:96] = b"\xff\xff\xff\xff"
    objects = {SNAPSHOT: (compress(bytes(image)), 1.0)}

    assert await _restore(objects, tmp_path / "out.db") == image


async def test_wal_of_another_page_size(tiny: Recording, tmp_path: Path) -> None:
    """Snapshot and WAL of different databases do not go together."""
    _, wal = make_wal(1024, [(1, 1, bytes(1024))])
    objects = {SNAPSHOT: replica(tiny, stamped=False)[SNAPSHOT], FIRST: (compress(wal), 1.0)}

    with pytest.raises(CorruptObjectError, match=f"{FIRST}: page size 1024, the snapshot has 512"):
        await _restore(objects, tmp_path / "out.db")


async def test_wal_whose_first_page_is_no_database(tiny: Recording, tmp_path: Path) -> None:
    """A WAL that makes something else of page 1 is refused at the end, without SQLite's help."""
    _, wal = make_wal(512, [(1, 2, b"no header".ljust(512))])
    objects = {SNAPSHOT: replica(tiny, stamped=False)[SNAPSHOT], FIRST: (compress(wal), 1.0)}

    with pytest.raises(CorruptObjectError, match="does not begin with a SQLite database's header"):
        await _restore(objects, tmp_path / "out.db")


async def test_finished_index_that_ends_inside_a_transaction(history: Recording, tmp_path: Path) -> None:
    """Without stamps, an index that ends without a commit shows that its last segment is missing."""
    index = next(i for i in range(len(history.wals) - 1) if _last_cut(history, i))
    key = V03.wal_key(GENERATION, index, _last_cut(history, index) or 0)
    objects = replica(history, stamped=False, cuts=history.boundaries)
    objects = {k: v for k, v in objects.items() if ".snapshot" not in k or "00000000.snapshot" in k}
    del objects[key]

    with pytest.raises(CorruptObjectError, match=f"{key}: missing WAL segment"):
        await _restore(objects, tmp_path / "out.db")


def _last_cut(recording: Recording, index: int) -> int | None:
    """Where the last frame of an index begins, if the frame before it is of the same transaction."""
    last = recording.boundaries(index)[-1:]
    return last[0] if last and last[0] not in recording.commits(index) else None


async def test_segments_that_overlap(tiny: Recording, tmp_path: Path) -> None:
    """Two segments that claim the same bytes are from two writers."""
    objects = replica(tiny, stamped=False)
    longer = replica(tiny, stamped=False, cuts=lambda index: tiny.commits(index)[1:])
    middle = V03.wal_key(GENERATION, 1, tiny.commits(1)[0])
    objects[FIRST] = longer[FIRST]

    with pytest.raises(CorruptObjectError, match=f"{middle}: overlaps the segment before it"):
        await _restore(objects, tmp_path / "out.db")
