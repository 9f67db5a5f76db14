"""What `sync` uploads, and what it does when something does not fit."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from helpers.fakedb import FakeDB, Restored
from helpers.faultstore import Fault, FaultStore
from litestream.client import ReplicaClient
from litestream.core.position import Pos
from litestream.core.stamp import STAMP_SIZE, Stamp
from litestream.errors import (
    CorruptObjectError,
    GenerationChangedError,
    LitestreamError,
    NoGenerationError,
    ObjectExistsError,
    PositionError,
    StorageError,
)
from litestream.metrics import Metrics
from litestream.replica import Replica, upload
from litestream.storage.memory import MemoryStore
from litestream.streams import compress, open_object, read_stamp, seal


async def test_first_sync_gives_a_restorable_replica(db: FakeDB, replica: Replica, restored: Restored) -> None:
    """The first sync takes a snapshot and uploads the WAL that belongs to it."""
    db.begin()
    db.commit(3)
    await replica.sync()
    assert replica.pos == db.pos()
    assert await restored() == db.state()


async def test_it_is_up_to_date_when_everything_copied_is_there(db: FakeDB, metrics: Metrics) -> None:
    """Neither before a commit was uploaded, nor after an error until the replica was asked again."""
    store = FaultStore(MemoryStore())
    replica = Replica(db, ReplicaClient(store), metrics=metrics)
    db.begin()
    assert not replica.up_to_date
    await replica.sync()
    assert replica.up_to_date
    db.commit()
    assert not replica.up_to_date
    store.add(Fault("put", "lost", match="wal/"))
    with pytest.raises(StorageError):
        await replica.sync()
    assert not replica.up_to_date
    await replica.sync()
    assert replica.up_to_date


async def test_single_segment_goes_up_verbatim(db: FakeDB, replica: Replica, client: ReplicaClient) -> None:
    """One pending segment is stored as the very bytes of the shadow."""
    db.begin()
    await replica.sync()
    start = db.pos()
    db.commit(2)
    await replica.sync()
    assert await client.read_wal_segment(start) == db.segments[start]


async def test_backlog_is_joined_by_index(db: FakeDB, replica: Replica, client: ReplicaClient) -> None:
    """Pending segments of one index become one object, those of another index another one."""
    generation = db.begin()
    db.commit()
    await replica.sync()
    middle = db.pos()
    for _ in range(3):
        db.commit(2)
    end = db.pos()
    db.checkpoint()
    for _ in range(2):
        db.commit()
    await replica.sync()
    assert [s.pos for s in await client.wal_segments(generation)] == [
        Pos(generation, 0, 0),
        middle,
        Pos(generation, 1, 0),
    ]
    data, stamp = open_object(await client.read_wal_segment(middle))
    assert stamp is not None
    assert (len(data), stamp.required) == (end.offset - middle.offset, (0, end.offset))
    assert replica.pos == db.pos()


async def test_backlog_is_split_at_the_cap(
    db: FakeDB, replica: Replica, client: ReplicaClient, monkeypatch: pytest.MonkeyPatch, restored: Restored
) -> None:
    """A backlog over the cap becomes several objects, none of them over it unless it is a single segment."""
    monkeypatch.setattr(upload, "batches", lambda segments: original(segments, 4000))
    from litestream.replica.batch import batches as original

    generation = db.begin()
    for _ in range(10):
        db.commit(2)
    db.commit(40)
    await replica.sync()
    segments = await client.wal_segments(generation)
    assert 3 < len(segments) < 11
    assert all(segment.size <= 4000 for segment in segments[:-1])
    assert await restored() == db.state()


async def test_position_is_counted_and_acknowledged(db: FakeDB, replica: Replica, metrics: Metrics) -> None:
    """After an upload the database and the metrics know the replica's position."""
    db.begin()
    db.commit(3)
    await replica.sync()
    db.checkpoint()
    db.commit()
    await replica.sync()
    labels = {"db": db.path, "name": "memory"}
    assert db.acknowledged == {"memory": db.pos()}
    assert metrics.replica_wal_index.labels(**labels).value == 1
    assert metrics.replica_wal_offset.labels(**labels).value == db.pos().offset
    assert metrics.replica_wal_bytes.labels(**labels).value == 32 + 3 * 536 + 32 + 536
    assert metrics.replica_snapshot_total.labels(**labels).value == 1


async def test_no_listing_in_the_steady_state(db: FakeDB, replica: Replica, store: FaultStore) -> None:
    """Once the position is known a sync is one put, and none at all if nothing moved."""
    db.begin()
    await replica.sync()
    store.calls.clear()
    for _ in range(3):
        db.commit()
        await replica.sync()
        await replica.sync()
    assert [operation for operation, _ in store.calls] == ["put"] * 3


async def test_sync_continues_after_a_restart(
    db: FakeDB, replica: Replica, client: ReplicaClient, store: FaultStore, restored: Restored
) -> None:
    """A new run finds its position in the replica and sends only what is missing."""
    db.begin()
    db.commit(2)
    await replica.sync()
    db.commit()
    again = Replica(db, client)
    store.calls.clear()
    await again.sync()
    assert store.count("put") == 1
    assert again.pos == db.pos()
    assert await restored() == db.state()


async def test_error_forgets_the_position(db: FakeDB, replica: Replica, store: FaultStore) -> None:
    """After an error the position is zero and worked out anew, snapshots included."""
    generation = db.begin()
    db.commit()
    await replica.sync()
    db.commit()
    store.add(Fault("put", match="wal/"))
    with pytest.raises(StorageError, match=r"^write index segments: index=0 err=.*injected fault: fail"):
        await replica.sync()
    assert replica.pos == Pos()
    store.calls.clear()
    await replica.sync()
    assert replica.pos == db.pos()
    assert ("list", f"generations/{generation}/wal/") in store.calls


@pytest.mark.parametrize("more", [0, 1])
async def test_lost_answer_of_a_put(db: FakeDB, replica: Replica, store: FaultStore, more: int) -> None:
    """A segment whose answer was lost is found by the listing, also if more was committed meanwhile."""
    db.begin()
    await replica.sync()
    db.commit()
    store.add(Fault("put", "lost", match="wal/"))
    with pytest.raises(StorageError):
        await replica.sync()
    for _ in range(more):
        db.commit()
    await replica.sync()
    assert replica.pos == db.pos()
    assert db.reasons == []


async def test_another_writer_is_a_fork(db: FakeDB, replica: Replica, client: ReplicaClient) -> None:
    """An object of other content under our next name asks for a new generation, and stays as it is."""
    generation = db.begin()
    await replica.sync()
    db.commit()
    theirs = seal(b"theirs", dataclasses.replace(_stamp(db), pos=Pos(generation)))
    await client.write_wal_segment(Pos(generation), theirs)
    with pytest.raises(ObjectExistsError, match="other content"):
        await replica.sync()
    assert len(db.reasons) == 1
    assert await client.read_wal_segment(Pos(generation)) == theirs


async def test_replica_ahead_of_the_database(db: FakeDB, replica: Replica, client: ReplicaClient) -> None:
    """A database that lost what the replica has begins a new generation."""
    generation = db.begin()
    db.commit()
    await replica.sync()
    end = db.pos()
    stamp = dataclasses.replace(_stamp(db), pos=end)
    await client.write_wal_segment(end, seal(bytes(536), stamp))
    again = Replica(db, client)
    ahead = Pos(generation, 0, end.offset + 536)
    with pytest.raises(PositionError, match=f"^replica skipped position: replica={ahead} initial={end}$"):
        await again.sync()
    assert len(db.reasons) == 1
    assert again.pos == Pos()


async def test_gap_in_the_shadow(db: FakeDB, replica: Replica) -> None:
    """What the shadow no longer has cannot be sent: a new generation."""
    db.begin()
    await replica.sync()
    start = db.pos()
    db.commit()
    middle = db.pos()
    db.commit()
    db.prune(middle)
    with pytest.raises(PositionError, match=f"err=replica skipped position: replica={start} initial={middle}$"):
        await replica.sync()
    assert len(db.reasons) == 1


async def test_end_of_an_index_that_is_missing(db: FakeDB, replica: Replica) -> None:
    """The next index is not begun while the last segment of the one before is missing."""
    db.begin()
    db.commit()
    await replica.sync()
    at = db.pos()
    db.commit()
    last = db.pos()
    db.checkpoint()
    db.commit()
    db.segments.pop(at)
    with pytest.raises(PositionError, match=f"replica skipped position: replica={at} initial={last}"):
        await replica.sync()


async def test_other_history_of_the_same_names(db: FakeDB, replica: Replica, client: ReplicaClient) -> None:
    """A segment whose predecessor had another checksum is not sent, though its position fits."""
    db.begin()
    db.commit()
    await replica.sync()
    at = db.pos()
    db.commit()
    data, stamp = open_object(db.segments[at])
    assert stamp is not None
    db.segments[at] = seal(data, dataclasses.replace(stamp, prev_checksum=b"somebody"))
    with pytest.raises(PositionError, match="another history"):
        await Replica(db, client).sync()
    assert len(db.reasons) == 1


async def test_hole_between_pending_segments(db: FakeDB, replica: Replica) -> None:
    """Segments of one upload must follow each other to the byte."""
    generation = db.begin()
    await replica.sync()
    db.commit()
    middle = db.pos()
    db.commit()
    last = db.pos()
    db.commit()
    db.segments.pop(middle)
    text = f"index=0 err=wal segment: pos={last} err=non-contiguous segment: expected={middle} current={last}$"
    with pytest.raises(PositionError, match=text):
        await replica.sync()
    assert middle.generation == generation


@pytest.mark.parametrize("damage", ["cut", "flip", "swap", "no stamp"])
async def test_damaged_shadow_is_never_sent(
    db: FakeDB, replica: Replica, client: ReplicaClient, store: FaultStore, damage: str
) -> None:
    """A shadow segment that a power cut damaged is not uploaded; a new generation follows."""
    generation = db.begin()
    await replica.sync()
    at = db.pos()
    db.commit()
    after = db.pos()
    db.commit()
    body = db.segments[at]
    db.segments[at] = {
        "cut": body[:-1],
        "flip": body[:40] + bytes([body[40] ^ 1]) + body[41:],
        "swap": db.segments[after],
        "no stamp": body[:-STAMP_SIZE],
    }[damage]
    with pytest.raises(CorruptObjectError, match="shadow segment"):
        await replica.sync()
    assert len(db.reasons) == 1
    assert await client.wal_segments(generation) == []


async def test_damaged_end_of_the_replica(db: FakeDB, replica: Replica, client: ReplicaClient) -> None:
    """A replica whose newest segment cannot be read gets a new generation, not the same error for ever."""
    generation = db.begin()
    await replica.sync()
    db.commit()
    await client.store.put(client.layout.wal_key(generation, 0, 0), db.segments[Pos(generation)][:-5])
    with pytest.raises(LitestreamError, match=r"^cannot determine replica position: "):
        await Replica(db, client).sync()
    assert len(db.reasons) == 1


async def test_unstamped_end_of_the_replica(db: FakeDB, replica: Replica, client: ReplicaClient) -> None:
    """Without a stamp the newest segment is unpacked to learn where it ends."""
    generation = db.begin()
    await replica.sync()
    await client.write_wal_segment(Pos(generation, 2, 32), compress(bytes(1000)))
    assert await replica.calc_pos(generation) == Pos(generation, 2, 1032)


async def test_new_generation(db: FakeDB, replica: Replica, client: ReplicaClient, restored: Restored) -> None:
    """Each generation begins with a snapshot of its own."""
    first = db.begin()
    db.commit()
    await replica.sync()
    db.checkpoint()
    second = db.begin()
    db.commit()
    await replica.sync()
    assert [s.generation for s in await replica.snapshots()] == sorted([first, second])
    assert replica.pos == db.pos()
    assert await restored() == db.state()


async def test_generation_changes_during_an_upload(db: FakeDB, replica: Replica, store: FaultStore) -> None:
    """What is left of a generation that is over is nobody's error; the next sync is in the new one."""
    db.begin()
    await replica.sync()
    db.commit()
    store.add(Fault("put", "slow", match="wal/", seconds=0.05))
    db.checkpoint()
    db.commit()
    syncing = asyncio.create_task(replica.sync())
    await asyncio.sleep(0.02)
    db.begin()
    db.commit()
    await syncing
    assert replica.pos != db.pos()
    await replica.sync()
    assert replica.pos == db.pos()
    assert db.reasons == []


async def test_generation_changes_during_the_first_snapshot(
    db: FakeDB, replica: Replica, client: ReplicaClient
) -> None:
    """A snapshot of a generation that is over is not published."""
    db.begin()
    db.on_chunk = db.begin
    with pytest.raises(GenerationChangedError, match=r"^generation changed during snapshot, exiting sync$"):
        await replica.sync()
    assert await replica.snapshots() == []
    assert db.opened == db.closed == 1


async def test_wal_of_a_killed_run_is_continued(
    db: FakeDB, replica: Replica, client: ReplicaClient, store: FaultStore, restored: Restored
) -> None:
    """WAL that was uploaded before its snapshot could be is kept, and not uploaded again."""
    generation = db.begin()
    db.commit()
    store.add(Fault("put", "break", match="snapshots/"))
    with pytest.raises(StorageError):
        await replica.sync()
    assert len(await client.wal_segments(generation)) == 1
    assert await replica.snapshots() == []
    store.calls.clear()
    db.commit()
    await Replica(db, client).sync()
    assert store.count("put", "wal/") == 1
    assert await restored() == db.state()


async def test_replica_that_joins_later(db: FakeDB, client: ReplicaClient, restored: Restored) -> None:
    """An empty replica begins with the index that the database is at."""
    generation = db.begin()
    for _ in range(3):
        db.commit()
        db.checkpoint()
    db.commit()
    db.prune(Pos(generation, 2, 0))
    db.commit()
    await Replica(db, client).sync()
    assert [s.index for s in await client.snapshots(generation)] == [3]
    assert {s.index for s in await client.wal_segments(generation)} == {3}
    assert await restored() == db.state()


async def test_slow_replica_delays_no_other(db: FakeDB, replica: Replica, store: FaultStore) -> None:
    """A replica whose store hangs does not keep another one from being up to date."""
    other = Replica(db, ReplicaClient(MemoryStore()), name="other")
    db.begin()
    store.add(Fault("put", "hang"))
    hanging = asyncio.create_task(replica.sync())
    await asyncio.sleep(0.01)
    db.commit()
    await asyncio.wait_for(other.sync(), 5)
    assert other.pos == db.pos()
    store.release()
    with pytest.raises(StorageError):
        await hanging


async def test_cancelled_sync_can_be_repeated(db: FakeDB, replica: Replica, store: FaultStore) -> None:
    """A cancelled sync closes its snapshot and forgets the position."""
    db.begin()
    db.commit()
    store.add(Fault("put", "hang", match="snapshots/"))
    syncing = asyncio.create_task(replica.sync())
    await asyncio.sleep(0.05)
    syncing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await syncing
    assert db.opened == db.closed == 1
    assert replica.pos == Pos()
    await replica.sync()
    assert replica.pos == db.pos()


async def test_no_generation(replica: Replica, store: FaultStore) -> None:
    """Without a generation nothing is asked of the store."""
    with pytest.raises(NoGenerationError, match=r"^no generation, waiting for data$"):
        await replica.sync()
    assert store.calls == []


def _stamp(db: FakeDB) -> Stamp:
    stamp = read_stamp(next(iter(db.segments.values())))
    assert stamp is not None
    return stamp


@pytest.mark.parametrize("gone", ["00000000_00000000", "00000001_", "00000002_00000000"])
async def test_replica_that_lost_wal_is_not_continued(
    db: FakeDB, client: ReplicaClient, restored: Restored, gone: str
) -> None:
    """Somebody deleted WAL that the newest snapshot needs: a start sees it, and asks for a new generation."""
    db.begin()
    for _ in range(3):
        db.commit(2)
        await (first := Replica(db, client, metrics=Metrics())).sync()
        db.commit(1)
        await first.sync()
        db.checkpoint()
    for info in await client.store.list("generations/"):
        if gone in info.key:
            await client.store.delete([info.key])

    replica = Replica(db, client, metrics=Metrics())
    with pytest.raises(PositionError, match="replica lacks WAL"):
        await replica.sync()
    assert db.reasons
    db.begin()
    db.commit(1)
    await replica.sync()
    assert await restored() == db.state()
