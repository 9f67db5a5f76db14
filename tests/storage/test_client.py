"""ReplicaClient: the eleven operations in every layout, and how it tells ours from foreign."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path

import pytest

from helpers.contract import HOSTILE_KEYS, chunks
from helpers.faultstore import Fault, FaultStore
from helpers.stamps import example_stamp
from litestream.client import GenerationView, Overview, ReplicaClient, open_client
from litestream.core.layout import LAYOUTS, SEED, V03, V04, Layout
from litestream.core.position import Pos, SnapshotInfo, WALSegmentInfo
from litestream.core.stamp import STAMP_SIZE, Kind
from litestream.errors import (
    CorruptObjectError,
    InvalidNameError,
    MixedLayoutError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
)
from litestream.storage.file import FileStore
from litestream.storage.memory import MemoryStore
from litestream.storage.protocol import Store
from litestream.streams import seal

A, B = "00000000000000aa", "00000000000000bb"

FOREIGN = [
    "readme.txt",
    "generations/readme.txt",
    "generations/00000000000000AA/wal/00000000_00000000.wal.lz4",
    "generations/0000000000000aa/wal/00000000_00000000.wal.lz4",
    f"generations/x/{A}/wal/00000000_00000000.wal.lz4",
    f"x/generations/{A}/wal/00000000_00000000.wal.lz4",
    f"generations/{A}/wal/00000000_0000000g.wal.lz4",
    f"generations/{A}/wal/00000000_00000000.wal.lz4.tmp",
    f"generations/{A}/wal/00000000-00000000.wal.lz4",
    f"generations/{A}/wal/ffffffff_00000000.wal.lz4",
    f"generations/{A}/snapshots/0000000.snapshot.lz4",
    f"generations/{A}/snapshots/00000000.snapshot.lz4.tmp",
    f"generations/{A}/snapshots/00000000.wal.lz4",
    f"generations/{A}/odd/00000000.snapshot.lz4",
    f"generations/{A}/snapshots/a b%2e%2e.snapshot.lz4",
]


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store, of each kind."""
    return MemoryStore() if request.param == "memory" else FileStore(tmp_path / "replica")


async def joined(reader: AsyncIterator[bytes]) -> bytes:
    """All that a reader gives."""
    return b"".join([chunk async for chunk in reader])


async def fill(client: ReplicaClient, generation: str = A) -> None:
    """Two snapshots and four segments, written out of order."""
    for index in (1, 0):
        await client.write_snapshot(generation, index, b"snapshot %d" % index)
    for index, offset in ((1, 0), (0, 0x1038), (0, 0), (2, 0x2070)):
        await client.write_wal_segment(Pos(generation, index, offset), b"wal %d %d" % (index, offset))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
class TestElevenMethods:
    """Each of the seed's methods, in each layout: read back by a client that was told nothing of it."""

    @pytest.fixture
    async def client(self, store: Store, layout: Layout) -> ReplicaClient:
        """A client that reads what another has written."""
        await fill(ReplicaClient(store, layout))
        return ReplicaClient(store)

    async def test_type(self, client: ReplicaClient) -> None:
        """The type is the store's."""
        assert client.type == client.store.type

    async def test_generations(self, client: ReplicaClient, layout: Layout) -> None:
        """Generations are sorted by name."""
        await ReplicaClient(client.store, layout).write_snapshot("000000000000000c", 0, b"")
        assert await client.generations() == ["000000000000000c", A]

    async def test_delete_generation(self, client: ReplicaClient, layout: Layout) -> None:
        """A deleted generation is gone with all it held, others stay, and an absent one is no error."""
        await fill(ReplicaClient(client.store, layout), B)
        await client.store.put(f"generations/{A}/foreign", b"")
        await client.delete_generation(A)
        await client.delete_generation(A)
        assert await client.generations() == [B]
        assert await client.store.list(f"generations/{A}/") == []
        assert len(await client.store.list("")) == 6

    async def test_snapshots(self, client: ReplicaClient) -> None:
        """Snapshots come by index, with size and time as stored."""
        found = await client.snapshots(A)
        stored = {info.size: info.modified for info in await client.store.list(f"generations/{A}/snapshots/")}
        assert found == [SnapshotInfo(A, 0, 10, found[0].created_at), SnapshotInfo(A, 1, 10, found[1].created_at)]
        assert found[-1].created_at in stored.values()
        assert await client.snapshots(B) == []

    async def test_write_snapshot(self, client: ReplicaClient, layout: Layout) -> None:
        """A written snapshot is what a listing finds; the same index is replaced."""
        writer = ReplicaClient(client.store, layout)
        info = await writer.write_snapshot(A, 0x7FFFFFFF, chunks(b"streamed ", b"snapshot"))
        assert info == (await client.snapshots(A))[-1]
        assert (info.index, info.size) == (0x7FFFFFFF, 17)
        await writer.write_snapshot(A, 0, b"again")
        assert await joined(client.snapshot_reader(A, 0)) == b"again"

    async def test_delete_snapshot(self, client: ReplicaClient) -> None:
        """A deleted snapshot is gone; an absent one is no error."""
        await client.delete_snapshot(A, 0)
        await client.delete_snapshot(A, 0)
        await client.delete_snapshot(B, 0)
        assert [info.index for info in await client.snapshots(A)] == [1]

    async def test_snapshot_reader(self, client: ReplicaClient) -> None:
        """A snapshot is read as it was stored; an absent one is ObjectNotFoundError."""
        assert await joined(client.snapshot_reader(A, 1)) == b"snapshot 1"
        for generation, index in ((A, 2), (B, 0)):
            with pytest.raises(ObjectNotFoundError, match=generation):
                await joined(client.snapshot_reader(generation, index))

    async def test_wal_segments(self, client: ReplicaClient) -> None:
        """Segments come by index and offset, with size and time as stored."""
        found = await client.wal_segments(A)
        assert [str(info.pos) for info in found] == [
            f"{A}/{pos}" for pos in ("00000000:00000000", "00000000:00001038", "00000001:00000000", "00000002:00002070")
        ]
        assert [info.size for info in found] == [7, 10, 7, 10]
        assert await client.wal_segments(B) == []

    async def test_write_wal_segment(self, client: ReplicaClient, layout: Layout) -> None:
        """A written segment is what a listing finds; the same again is success, other content an error."""
        writer = ReplicaClient(client.store, layout)
        pos = Pos(A, 2, 0x1_2345_6789)
        info = await writer.write_wal_segment(pos, chunks(b"se", b"gment"))
        assert info == (await client.wal_segments(A))[-1]
        assert info.pos == pos
        assert await writer.write_wal_segment(pos, b"segment") == info
        with pytest.raises(ObjectExistsError):
            await writer.write_wal_segment(pos, b"SEGMENT")
        assert await client.read_wal_segment(pos) == b"segment"

    async def test_delete_wal_segments(self, client: ReplicaClient, layout: Layout) -> None:
        """Deleted segments are gone, of several generations at once; absent ones are no error."""
        await fill(ReplicaClient(client.store, layout), B)
        gone = [Pos(A, 0, 0), Pos(A, 0, 0x1038), Pos(B, 1, 0), Pos(A, 9, 9), Pos("00000000000000cc", 0, 0)]
        await client.delete_wal_segments(gone)
        await client.delete_wal_segments([])
        assert [info.index for info in await client.wal_segments(A)] == [1, 2]
        assert [info.index for info in await client.wal_segments(B)] == [0, 0, 2]

    async def test_wal_segment_reader(self, client: ReplicaClient) -> None:
        """A segment is read as it was stored; an absent one is ObjectNotFoundError."""
        assert await joined(client.wal_segment_reader(Pos(A, 2, 0x2070))) == b"wal 2 8304"
        assert await client.read_wal_segment(Pos(A, 1, 0)) == b"wal 1 0"
        for pos in (Pos(A, 1, 1), Pos(B, 0, 0)):
            with pytest.raises(ObjectNotFoundError, match=pos.generation):
                await joined(client.wal_segment_reader(pos))

    async def test_overview(self, client: ReplicaClient, layout: Layout) -> None:
        """The overview holds what the single methods say."""
        overview = await client.overview()
        assert overview == {A: (layout, await client.snapshots(A), await client.wal_segments(A))}
        assert overview[A].layout is layout
        assert not overview.has_ltx

    async def test_foreign_objects(self, client: ReplicaClient, layout: Layout) -> None:
        """Foreign names change nothing."""
        before = await client.overview()
        for key in FOREIGN:
            await client.store.put(key, b"foreign")
        fresh = ReplicaClient(client.store)
        assert await fresh.generations() == [A]
        assert await fresh.overview() == before
        assert await fresh.snapshots(A) == before[A].snapshots
        assert await fresh.wal_segments(A) == before[A].segments

    async def test_layouts_side_by_side(self, client: ReplicaClient, layout: Layout) -> None:
        """Each generation has its own layout."""
        for number, other in enumerate(LAYOUTS):
            await fill(ReplicaClient(client.store, other), f"{number:016x}")
        overview = await ReplicaClient(client.store, layout).overview()
        assert [view.layout for view in overview.values()] == [*LAYOUTS, layout]
        for number in range(3):
            assert await client.read_wal_segment(Pos(f"{number:016x}", 0, 0)) == b"wal 0 0"


@pytest.mark.parametrize("first", LAYOUTS, ids=str)
@pytest.mark.parametrize("second", LAYOUTS, ids=str)
async def test_mixture(first: Layout, second: Layout) -> None:
    """Segments of two layouts in one generation are an error wherever it is read, not a guess."""
    if first == second:
        return
    store = MemoryStore()
    await store.put(first.wal_key(A, 0, 0), b"")
    await store.put(second.wal_key(A, 1, 0), b"")
    for client in (ReplicaClient(store), ReplicaClient(store, second)):
        with pytest.raises(MixedLayoutError):
            await client.overview()
        with pytest.raises(MixedLayoutError):
            await client.wal_segments(A)
        with pytest.raises(MixedLayoutError):
            await client.read_wal_segment(Pos(A, 0, 0))


async def test_mixture_of_snapshots_and_segments() -> None:
    """Snapshots of v0.4 beside segments of v0.3 are a mixture, also when they are listed one after the other."""
    store = MemoryStore()
    await store.put(V04.snapshot_key(A, 0), b"")
    await store.put(V03.wal_key(A, 0, 0), b"")
    client = ReplicaClient(store)
    with pytest.raises(MixedLayoutError):
        await client.overview()
    client = ReplicaClient(store)
    await client.snapshots(A)
    with pytest.raises(MixedLayoutError):
        await client.wal_segments(A)


async def test_no_second_layout_is_written() -> None:
    """A generation known to be in one layout is not continued in another."""
    store = MemoryStore()
    await fill(ReplicaClient(store, SEED))
    client = ReplicaClient(store, V03)
    await client.wal_segments(A)
    with pytest.raises(MixedLayoutError):
        await client.write_wal_segment(Pos(A, 9, 0), b"")
    with pytest.raises(MixedLayoutError):
        await client.write_snapshot(A, 9, b"")
    assert len(await store.list("")) == 6


async def test_seed_snapshots_before_segments() -> None:
    """A seed generation seen first with its snapshot alone is still read right when segments follow."""
    store = MemoryStore()
    await store.put(SEED.snapshot_key(A, 0), b"s")
    client = ReplicaClient(store)
    assert (await client.overview())[A].layout is V03  # nothing tells them apart yet
    assert await joined(client.snapshot_reader(A, 0)) == b"s"
    await store.put(SEED.wal_key(A, 0, 0), b"w")
    assert await client.read_wal_segment(Pos(A, 0, 0)) == b"w"
    assert (await client.overview())[A].layout is SEED


@pytest.mark.parametrize(
    "key",
    [
        "ltx/0/0000000000000001-0000000000000001.ltx",
        "ltx/9/0000000000000001-000000000000000f.ltx",
        "0000/0000000000000001-0000000000000001.ltx",
        "0009/0000000000000001-000000000000000f.ltx",
    ],
)
async def test_ltx(key: str) -> None:
    """Files of the official 0.5 are seen, beside generations and alone."""
    store = MemoryStore()
    await store.put(key, b"LTX1")
    overview = await ReplicaClient(store).overview()
    assert (overview, overview.has_ltx) == ({}, True)
    await fill(ReplicaClient(store))
    overview = await ReplicaClient(store).overview()
    assert (list(overview), overview.has_ltx) == ([A], True)


async def test_no_ltx() -> None:
    """An empty replica, and files that only look like LTX, are none."""
    store = MemoryStore()
    assert await ReplicaClient(store).overview() == Overview()
    for key in (
        "ltx/readme",
        "ltx/0/x.ltx",
        "0000/0000000000000001.ltx",
        "x/ltx/0/0000000000000001-0000000000000001.ltx",
    ):
        await store.put(key, b"")
    assert not (await ReplicaClient(store).overview()).has_ltx


async def test_one_listing() -> None:
    """The overview lists the generations once, however many there are; reading after it needs no listing."""
    store = FaultStore(MemoryStore())
    for number in range(5):
        await fill(ReplicaClient(store, LAYOUTS[number % 3]), f"{number:016x}")
    store.calls.clear()
    client = ReplicaClient(store)
    await client.overview()
    assert store.count("list", "generations/") == 1
    store.calls.clear()
    for number in range(5):
        await client.read_wal_segment(Pos(f"{number:016x}", 0, 0))
        await joined(client.snapshot_reader(f"{number:016x}", 0))
    assert store.count("list") == 0


async def test_writer_lists_nothing() -> None:
    """Writing, and reading back what was written, needs no listing."""
    store = FaultStore(MemoryStore())
    client = ReplicaClient(store)
    await fill(client)
    await client.read_wal_segment(Pos(A, 0, 0))
    assert store.count("list") == 0


@pytest.mark.parametrize("operation", ["list", "get", "put", "delete"])
async def test_store_errors_come_out(operation: str) -> None:
    """A failing store is never taken for an empty one."""
    store = FaultStore(MemoryStore())
    await fill(ReplicaClient(store))
    store.add(Fault("*", match="generations/", times=100))
    client = ReplicaClient(store)
    calls: dict[str, list[Coroutine[object, object, object]]] = {
        "list": [client.generations(), client.snapshots(A), client.wal_segments(A), client.overview()],
        "get": [client.read_wal_segment(Pos(A, 0, 0)), joined(client.snapshot_reader(A, 0))],
        "put": [client.write_snapshot(A, 0, b""), client.write_wal_segment(Pos(A, 5, 0), b"")],
        "delete": [
            client.delete_generation(A),
            client.delete_snapshot(A, 0),
            client.delete_wal_segments([Pos(A, 0, 0)]),
        ],
    }
    for name, coroutines in calls.items():
        for coroutine in coroutines:
            if name != operation:
                coroutine.close()
                continue
            with pytest.raises(StorageError, match="injected"):
                await coroutine
    store.heal()
    assert len(await store.list("")) == 6


async def test_interrupted_deletion() -> None:
    """A generation whose deletion breaks off has lost its snapshots first: it does not look like a backup."""
    store = FaultStore(MemoryStore(), Fault("delete", skip=3))
    client = ReplicaClient(store)
    await fill(client)
    with pytest.raises(StorageError):
        await client.delete_generation(A)
    view = (await client.overview())[A]
    assert (len(view.snapshots), len(view.segments)) == (0, 3)


@pytest.mark.parametrize(
    "generation", ["", "..", "../../x", "aa", A.upper(), f"{A}/", f"/{A}", A + "0", "\0" * 16, f"{A}\n", "٣" * 16]
)
async def test_hostile_generation(generation: str) -> None:
    """A generation that is none is refused by every method before the store is asked."""
    store = FaultStore(MemoryStore())
    client = ReplicaClient(store)
    pos = Pos(generation, 0, 0)
    for coroutine in (
        client.delete_generation(generation),
        client.snapshots(generation),
        client.write_snapshot(generation, 0, b""),
        client.delete_snapshot(generation, 0),
        joined(client.snapshot_reader(generation, 0)),
        client.wal_segments(generation),
        client.write_wal_segment(pos, b""),
        client.delete_wal_segments([pos]),
        joined(client.wal_segment_reader(pos)),
    ):
        with pytest.raises(InvalidNameError):
            await coroutine
    assert store.calls == []


@pytest.mark.parametrize(("index", "offset"), [(-1, 0), (1 << 31, 0), (0, -1), (0, 1 << 63)])
async def test_numbers_out_of_range(index: int, offset: int) -> None:
    """Indexes and offsets outside their range are refused and store nothing."""
    client = ReplicaClient(MemoryStore())
    with pytest.raises(InvalidNameError):
        await client.write_wal_segment(Pos(A, index, offset), b"")
    if offset == 0:
        with pytest.raises(InvalidNameError):
            await client.write_snapshot(A, index, b"")
    assert await client.store.list("") == []


class LyingStore(MemoryStore):
    """A store whose listings hold any names."""

    async def put_any(self, key: str, data: bytes) -> None:
        """Store under a key that no put would accept."""
        self._objects[key] = (data, 0.0)


async def test_hostile_names_in_listings() -> None:
    """Names in a listing that would lead outside, or are no names, are foreign: nothing is made of them."""
    store = LyingStore()
    good = V03.wal_key(A, 0, 0)
    await store.put(good, b"")
    for key in HOSTILE_KEYS:
        await store.put_any(f"generations/{key}", b"")
        await store.put_any(f"generations/{A}/{key}", b"")
        await store.put_any(f"generations/{A}/wal/{key}", b"")
        await store.put_any(f"generations/{A}/wal/00000000_00000000.wal.lz4{key[:1] or '/'}", b"")
        await store.put_any(f"generations/../{A}/wal/00000000_00000000.wal.lz4", b"")
    client = ReplicaClient(store)
    assert await client.generations() == [A]
    overview = await client.overview()
    assert [info.pos for info in overview[A].segments] == [Pos(A, 0, 0)]
    assert overview[A].snapshots == []


def stamped_object(kind: Kind, pos: Pos) -> bytes:
    """A small object of ours."""
    return seal(b"content", example_stamp(kind=kind, pos=pos))


async def test_stamp_of(store: Store) -> None:
    """The stamp of a listed object comes from its last bytes; without a stamp it is None."""
    faults = FaultStore(store)
    client = ReplicaClient(faults)
    segment = await client.write_wal_segment(Pos(A, 1, 32), stamped_object(Kind.WAL, Pos(A, 1, 32)))
    snapshot = await client.write_snapshot(A, 1, stamped_object(Kind.SNAPSHOT, Pos(A, 1)))
    for info, kind in ((segment, Kind.WAL), (snapshot, Kind.SNAPSHOT)):
        stamp = await client.stamp_of(info)
        assert stamp is not None
        assert (stamp.kind, stamp.pos.index) == (kind, 1)
    plain = await client.write_wal_segment(Pos(A, 2, 0), b"x" * 500)
    short = await client.write_wal_segment(Pos(A, 3, 0), b"x")
    assert await client.stamp_of(plain) is None
    assert await client.stamp_of(short) is None


async def test_stamp_of_another_object() -> None:
    """An object that stands under another's name is found by its stamp, and named."""
    client = ReplicaClient(MemoryStore())
    for pos in (Pos(A, 1, 64), Pos(A, 2, 32), Pos(B, 1, 32)):
        info = await client.write_wal_segment(pos, stamped_object(Kind.WAL, Pos(A, 1, 32)))
        with pytest.raises(CorruptObjectError, match="holds the wal object of") as caught:
            await client.stamp_of(info)
        assert caught.value.key == V03.wal_key(pos.generation, pos.index, pos.offset)
    swapped = await client.write_snapshot(A, 1, stamped_object(Kind.WAL, Pos(A, 1)))
    with pytest.raises(CorruptObjectError):
        await client.stamp_of(swapped)


async def test_damaged_stamp() -> None:
    """A stamp with a wrong bit, and one that is gone with its object, are errors."""
    client = ReplicaClient(MemoryStore())
    data = stamped_object(Kind.WAL, Pos(A, 1, 32))
    info = await client.write_wal_segment(Pos(A, 1, 32), data[:-50] + b"\xff" + data[-49:])
    with pytest.raises(CorruptObjectError, match=A):
        await client.stamp_of(info)
    with pytest.raises(ObjectNotFoundError):
        await client.stamp_of(WALSegmentInfo(A, 7, 0, 1000, 0.0))
    with pytest.raises(StorageError):
        await client.stamp_of(WALSegmentInfo(A, 1, 32, len(data) + 2 * STAMP_SIZE, 0.0))


async def test_official_tree(tmp_path: Path) -> None:
    """A replica of files is the tree that the official 0.3 writes, and its empty directories go with a generation."""
    client = open_client(str(tmp_path / "r"))
    await fill(client)
    found = sorted(str(path.relative_to(tmp_path / "r")) for path in tmp_path.rglob("*") if path.is_file())
    assert found == [
        f"generations/{A}/snapshots/00000000.snapshot.lz4",
        f"generations/{A}/snapshots/00000001.snapshot.lz4",
        f"generations/{A}/wal/00000000_00000000.wal.lz4",
        f"generations/{A}/wal/00000000_00001038.wal.lz4",
        f"generations/{A}/wal/00000001_00000000.wal.lz4",
        f"generations/{A}/wal/00000002_00002070.wal.lz4",
    ]
    await client.delete_generation(A)
    assert os.listdir(tmp_path / "r") == []
    await client.close()


def test_open_client() -> None:
    """A URL and a layout make a client."""
    client = open_client("memory://open-client", layout=V04)
    assert (client.type, client.layout) == ("memory", V04)
    assert GenerationView(V03, [], []).layout is V03
