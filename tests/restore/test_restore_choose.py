"""Which generation of which replica is restored, and what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.faultstore import Fault, FaultStore
from helpers.recorded import history as history
from helpers.recorded import tiny as tiny
from helpers.recording import GENERATION, SECOND, Recording, memory_store, replica
from litestream.client import ReplicaClient
from litestream.core.layout import SEED, V03
from litestream.core.position import Pos
from litestream.errors import (
    CorruptObjectError,
    LTXReplicaError,
    MixedLayoutError,
    NoBackupError,
    NoSnapshotsError,
    RestoreError,
    StorageError,
)
from litestream.restore import RestoreOptions, RestoreResult, restore
from litestream.storage.file import FileStore
from litestream.storage.memory import MemoryStore

A, B, C = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccccccccccc"
HOUR = 3600 * SECOND
Objects = dict[str, tuple[bytes, float]]


async def _restore(stores: dict[str, Objects], tmp_path: Path, **options: object) -> RestoreResult:
    replicas = [(name, ReplicaClient(memory_store(objects))) for name, objects in stores.items()]
    return await _run(replicas, tmp_path, **options)


async def _run(replicas: list[tuple[str, ReplicaClient]], tmp_path: Path, **options: object) -> RestoreResult:
    out = tmp_path / "out.db"
    out.unlink(missing_ok=True)
    return await restore(replicas, str(out), options=RestoreOptions(**options))  # type: ignore[arg-type]


def _without(objects: Objects, part: str) -> Objects:
    return {key: value for key, value in objects.items() if part not in key}


@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "unstamped"])
async def test_newest_generation_by_time(stamped: bool, tiny: Recording, tmp_path: Path) -> None:
    """The generation with the last commit is the default; -generation takes any."""
    objects = replica(tiny, generation=A, shift_ns=HOUR, stamped=stamped) | replica(tiny, generation=B, stamped=stamped)

    assert (await _restore({"r": objects}, tmp_path)).generation == A
    assert (await _restore({"r": objects}, tmp_path, generation=B)).generation == B


async def test_stamps_count_more_than_the_stores_times(tiny: Recording, tmp_path: Path) -> None:
    """A copied replica has new times at random; the commits tell which generation is newer."""
    objects = replica(tiny, generation=A, shift_ns=HOUR) | replica(tiny, generation=B)
    objects = {key: (data, 2e9 if B in key else 1e9) for key, (data, _) in objects.items()}

    assert (await _restore({"r": objects}, tmp_path)).generation == A


async def test_what_another_names_as_predecessor_is_older(tiny: Recording, tmp_path: Path) -> None:
    """A clock that was set back between two generations does not bring the older one back."""
    objects = replica(tiny, generation=A, shift_ns=HOUR) | replica(tiny, generation=B, previous=Pos(A, 1, 32))
    objects |= replica(tiny, generation=C, previous=Pos(B, 1, 32), shift_ns=-HOUR)

    assert (await _restore({"r": objects}, tmp_path)).generation == C
    # C begins last but its times are the earliest; a timestamp before all of B and A falls into it.
    at = tiny.last.time_ns - HOUR
    assert (await _restore({"r": objects}, tmp_path, timestamp_ns=at)).generation == C


async def test_timestamp_reaches_into_an_older_generation(tiny: Recording, tmp_path: Path) -> None:
    """The newest generation that has a state so early is taken."""
    objects = replica(tiny, generation=A) | replica(tiny, generation=B, previous=Pos(A, 1, 32), shift_ns=HOUR)

    for at, generation in ((HOUR - 1, A), (HOUR, B), (2 * HOUR, B)):
        result = await _restore({"r": objects}, tmp_path, timestamp_ns=tiny.points[0].time_ns + at)
        assert result.generation == generation


async def test_latest_data_wins_across_replicas(tiny: Recording, tmp_path: Path) -> None:
    """Of two replicas the one that goes further is restored, in whatever order they are named."""
    whole = replica(tiny)
    behind = _without(whole, V03.wal_key(GENERATION, 1, tiny.commits(1)[-1]))
    for stores in ({"one": behind, "two": whole}, {"two": whole, "one": behind}):
        assert (await _restore(stores, tmp_path)).replica == "two"
    older = {"one": replica(tiny, generation=A), "two": replica(tiny, generation=B, shift_ns=HOUR)}
    assert (await _restore(older, tmp_path)).replica == "two"
    empty: dict[str, Objects] = {"one": {}, "two": whole}
    assert (await _restore(empty, tmp_path)).replica == "two"


async def test_replica_that_cannot_be_read_is_an_error(tiny: Recording, tmp_path: Path) -> None:
    """It may have the latest data, so it is named; asked for alone, its own error is given."""
    broken = ReplicaClient(FaultStore(MemoryStore(), Fault("list", times=9)))
    whole = ReplicaClient(memory_store(replica(tiny)))

    with pytest.raises(
        RestoreError,
        match=r"replica second cannot be read, and may have the latest data: .*injected.*; -replica first restores",
    ):
        await _run([("first", whole), ("second", broken)], tmp_path)
    with pytest.raises(StorageError, match="injected"):
        await _run([("second", broken)], tmp_path)


async def test_error_says_where_else_to_look(tiny: Recording, tmp_path: Path) -> None:
    """A damaged object's error names another replica, or another generation, that may be restored."""
    bad = replica(tiny, generation=A, shift_ns=HOUR)
    bad = _without(_without(bad, V03.wal_key(A, 1, 0)), V03.snapshot_key(A, 1))

    with pytest.raises(CorruptObjectError, match="another replica may be whole: -replica two"):
        await _restore({"one": bad, "two": replica(tiny, generation=B)}, tmp_path)
    with pytest.raises(CorruptObjectError, match=f"an older state may be restored with -generation {B}"):
        await _restore({"one": bad | replica(tiny, generation=B)}, tmp_path)


async def test_no_backup_only_where_proved(tiny: Recording, tmp_path: Path) -> None:
    """Empty replicas and a generation that does not exist are "no backup"; a store that fails is not."""
    with pytest.raises(NoBackupError, match="no matching backups found"):
        await _restore({"one": {}, "two": {}}, tmp_path)
    with pytest.raises(NoBackupError):
        await _run([("file", ReplicaClient(FileStore(tmp_path / "absent")))], tmp_path)
    with pytest.raises(NoBackupError):
        await _restore({"r": replica(tiny, generation=A)}, tmp_path, generation=B)
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(StorageError):
        await _run([("file", ReplicaClient(FileStore(tmp_path / "file")))], tmp_path)


async def test_generation_without_a_snapshot(tiny: Recording, tmp_path: Path) -> None:
    """WAL whose snapshot is still being written is passed over and told of; alone it is an error, not "no backup"."""
    old, new = replica(tiny, generation=A), _without(replica(tiny, generation=B, shift_ns=HOUR), ".snapshot")

    result = await _restore({"r": old | new}, tmp_path)

    assert result.generation == A
    assert result.warnings == (f"generation {B} on r has WAL but no snapshot (yet)",)
    with pytest.raises(NoSnapshotsError, match=f"no snapshots available: generation {B} on r has WAL"):
        await _restore({"r": new}, tmp_path)


async def test_two_layouts_in_one_generation(tiny: Recording, tmp_path: Path) -> None:
    """A mixture is refused; two generations of different layouts are fine."""
    with pytest.raises(MixedLayoutError):
        await _restore({"r": replica(tiny) | replica(tiny, layout=SEED)}, tmp_path)
    mixed = replica(tiny, generation=A) | replica(tiny, generation=B, layout=SEED, shift_ns=HOUR)
    assert (await _restore({"r": mixed}, tmp_path)).generation == B


async def test_ltx_beside_generations(tiny: Recording, tmp_path: Path) -> None:
    """Newer LTX files than generations would be lost in silence; -generation says that it is meant."""
    objects = replica(tiny)
    later = (tiny.last.time_ns + HOUR) / SECOND
    for key in ("ltx/0/0000000000000001-0000000000000001.ltx", "0009/0000000000000001-0000000000000002.ltx"):
        with pytest.raises(LTXReplicaError, match=r"LTX format .*; -generation restores the older data"):
            await _restore({"r": {**objects, key: (b"LTX1", later)}}, tmp_path)
        await _restore({"r": {**objects, key: (b"LTX1", later)}}, tmp_path, generation=GENERATION)
        await _restore({"r": {**objects, key: (b"LTX1", 1.0)}}, tmp_path)
        with pytest.raises(LTXReplicaError):
            await _restore({"r": {key: (b"LTX1", later)}}, tmp_path)


async def test_object_that_retention_deletes_meanwhile(tiny: Recording, tmp_path: Path) -> None:
    """What is gone between listing and fetch is no error: the plan is made anew."""
    objects = replica(tiny)
    key = V03.wal_key(GENERATION, 0, 0)
    store = FaultStore(memory_store(_without(objects, key)))
    listed = await memory_store(objects).list("generations/")
    store._listed["generations/"] = listed
    store.add(Fault("list", "stale", match="generations/"))

    with pytest.raises(CorruptObjectError, match="missing initial wal segment"):
        await _run([("r", ReplicaClient(store))], tmp_path, index=0)
    store._listed["generations/"] = listed
    store.add(Fault("list", "stale", match="generations/"))
    result = await _run([("r", ReplicaClient(store))], tmp_path)
    assert result.index == 1


async def test_object_that_is_listed_for_ever_but_not_there(tiny: Recording, tmp_path: Path) -> None:
    """A store that goes on listing what it does not have ends in an error that names the object."""
    objects = replica(tiny)
    key = V03.wal_key(GENERATION, 1, 0)
    store = FaultStore(memory_store(_without(objects, key)))
    store._listed["generations/"] = await memory_store(objects).list("generations/")
    store.add(Fault("list", "stale", match="generations/", times=100))

    with pytest.raises(CorruptObjectError, match=f"{key}: is in the listing, but cannot be read"):
        await _run([("r", ReplicaClient(store))], tmp_path)
    assert 2 <= store.count("list", "generations/") <= 5


@pytest.mark.parametrize("what", ["break", "cut", "flip", "fail"])
async def test_faults_while_fetching(what: str, history: Recording, tmp_path: Path) -> None:
    """Each single read of a restore failing, cut or wrong: an error, never a wrong state, and nothing left behind."""
    store = FaultStore(memory_store(replica(history, stamped=what != "flip")))
    await _run([("r", ReplicaClient(store))], tmp_path)
    reads = store.count("get")
    (tmp_path / "out.db").unlink()
    for number in range(reads):
        fault = Fault("get", what, skip=number)  # type: ignore[arg-type]
        store = FaultStore(memory_store(replica(history, stamped=what != "flip")), fault)
        try:
            await _run([("r", ReplicaClient(store))], tmp_path)
        except (CorruptObjectError, StorageError):
            assert list(tmp_path.iterdir()) == []
        else:
            assert (tmp_path / "out.db").read_bytes() == history.last.image
            (tmp_path / "out.db").unlink()


async def test_one_listing_and_few_stamps(history: Recording, tmp_path: Path) -> None:
    """A timestamp among many segments is found by a search: the generations are listed once."""
    store = FaultStore(memory_store(replica(history, cuts=history.boundaries)))
    segments = sum(len(history.boundaries(i)) + 1 for i in range(len(history.wals)))

    result = await _run([("r", ReplicaClient(store))], tmp_path, timestamp_ns=history.points[3].time_ns)

    assert store.count("list", "generations/") == 1
    assert segments > 100
    assert store.count("get") < result.segments + 25
