"""Every point of a known history, from every layout, with and without stamps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from helpers.recorded import history as history
from helpers.recording import GENERATION, Recording, memory_store, replica
from litestream.client import ReplicaClient
from litestream.core.layout import LAYOUTS, V03, Layout
from litestream.core.position import Pos
from litestream.errors import CorruptObjectError, NoSnapshotsError, RestoreError
from litestream.restore import RestoreOptions, RestoreResult, restore

Cuts = Callable[[int], Iterable[int]]


async def _restore(objects: dict[str, tuple[bytes, float]], out: Path, **options: object) -> RestoreResult:
    out.unlink(missing_ok=True)
    client = ReplicaClient(memory_store(objects))
    return await restore([("memory", client)], str(out), options=RestoreOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "unstamped"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
async def test_latest(layout: Layout, stamped: bool, history: Recording, tmp_path: Path) -> None:
    """The latest state is the last commit, byte for byte, and the result says where it is."""
    out = tmp_path / "out.db"

    result = await _restore(replica(history, layout=layout, stamped=stamped), out)

    last = history.last
    assert out.read_bytes() == last.image
    assert (result.pos, result.timestamp_ns) == (Pos(GENERATION, last.index, last.offset), last.time_ns)
    assert (result.size, result.page_size) == (len(last.image), 512)
    assert result.snapshot_index == history.snapshots[-1].index


@pytest.mark.parametrize("wal", [True, False], ids=["wal", "snapshot only"])
async def test_the_log_tells_the_steps(wal: bool, history: Recording, tmp_path: Path) -> None:
    """The seed's lines, in the order in which things happen."""
    objects = {key: value for key, value in replica(history, stamped=False).items() if wal or "/wal/" not in key}
    logger, records = logging.getLogger("litestream.restore"), list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        await _restore(objects, tmp_path / "out.db")
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
    index = history.snapshots[-1].index
    assert records == [
        f"restoring snapshot {GENERATION}/{index:08x} to {tmp_path}/out.db",
        *([] if wal else ["no wal files found, snapshot only"]),
        "renaming database from temporary location",
    ]


@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "unstamped"])
@pytest.mark.parametrize("every", [1, 2, 7, 1000], ids="every {} frames".format)
async def test_latest_however_the_wal_is_cut(every: int, stamped: bool, history: Recording, tmp_path: Path) -> None:
    """Segments may end inside a transaction."""
    out = tmp_path / "out.db"
    objects = replica(history, cuts=lambda index: history.boundaries(index)[::every], stamped=stamped)

    await _restore(objects, out)

    assert out.read_bytes() == history.last.image


@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "unstamped"])
async def test_each_index(stamped: bool, history: Recording, tmp_path: Path) -> None:
    """`-index` restores the state at the end of that index's WAL, also where the newest snapshot is later."""
    out = tmp_path / "out.db"
    objects = replica(history, stamped=stamped)
    for index in range(len(history.wals)):
        result = await _restore(objects, out, index=index)

        assert out.read_bytes() == history.best(lambda p, index=index: p.index <= index).image  # type: ignore[misc]
        assert result.index == index


async def test_index_beyond_the_last_is_an_error(history: Recording, tmp_path: Path) -> None:
    """An index that does not exist (yet) is not quietly the last one."""
    count = len(history.wals)

    with pytest.raises(RestoreError, match=f"index {count:08x} is beyond the last one, {GENERATION}/{count - 1:08x}"):
        await _restore(replica(history), tmp_path / "out.db", index=count)


async def test_index_before_the_first_snapshot_is_an_error(history: Recording, tmp_path: Path) -> None:
    """WAL without a snapshot below it cannot be restored."""
    objects = {k: v for k, v in replica(history).items() if "00000000.snapshot" not in k}

    with pytest.raises(NoSnapshotsError, match="no snapshots available at or before index 00000000"):
        await _restore(objects, tmp_path / "out.db", index=0)


@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "unstamped"])
async def test_each_timestamp(stamped: bool, history: Recording, tmp_path: Path) -> None:
    """A timestamp gives the last commit at or before it, whatever snapshots are later."""
    out = tmp_path / "out.db"
    objects = replica(history, stamped=stamped)
    first = history.snapshots[0].required
    for point in history.points:
        if (point.index, point.offset) < first:
            continue
        for time_ns in (point.time_ns, point.time_ns + 999_999_999):
            await _restore(objects, out, timestamp_ns=time_ns)

            assert out.read_bytes() == history.best(lambda p, t=time_ns: p.time_ns <= t).image  # type: ignore[misc]


async def test_timestamps_do_not_depend_on_the_stores_clock(history: Recording, tmp_path: Path) -> None:
    """With stamps, a replica copied to another disk (all times new) restores to the same state."""
    out = tmp_path / "out.db"
    point = history.points[4]
    objects = {key: (data, 4e9) for key, (data, _) in replica(history).items()}

    await _restore(objects, out, timestamp_ns=point.time_ns)

    assert out.read_bytes() == point.image


async def test_timestamp_before_the_first_snapshot_is_an_error(history: Recording, tmp_path: Path) -> None:
    """There is nothing so early; that is not "no backup"."""
    with pytest.raises(RestoreError, match=r"no state of 2001-01-01T00:00:00Z or before"):
        await _restore(replica(history), tmp_path / "out.db", timestamp_ns=978307200 * 10**9)


async def test_timestamp_with_commit_times_that_go_back(history: Recording, tmp_path: Path) -> None:
    """Where a clock was set back, "everything up to T" has no sense: an error that says so."""
    objects = replica(history)
    late = replica(history, shift_ns=10**15)
    index = history.last.index
    middle = V03.wal_key(GENERATION, index, history.commits(index)[0])
    objects[middle] = late[middle]
    at = history.last.time_ns + 1
    # One more segment than the one that is asked for, so that the newest's own time does not answer.
    newest = V03.wal_key(GENERATION, index, history.commits(index)[-1])
    objects[newest] = replica(history, shift_ns=2)[newest]

    with pytest.raises(RestoreError, match="commit times go back before"):
        await _restore(objects, tmp_path / "out.db", timestamp_ns=at)


@pytest.mark.parametrize("stamped", [True, False], ids=["stamped", "unstamped"])
async def test_unfinished_transaction_at_the_end_is_not_applied(
    stamped: bool, history: Recording, tmp_path: Path
) -> None:
    """A large transaction may be half uploaded: the state before it is restored."""
    out = tmp_path / "out.db"
    objects = replica(history, cuts=history.boundaries, stamped=stamped)
    before, after = [p for p in history.points if p.index == 1][:2]
    begun = [o for o in history.boundaries(1) if before.offset < o < after.offset]
    assert len(begun) > 20
    for cut in (begun[0], begun[10], begun[-1]):
        kept = {
            key: value
            for key, value in objects.items()
            if not _at_or_behind(key, (1, cut)) and (".snapshot" not in key or "00000000.snapshot" in key)
        }
        result = await _restore(kept, out)

        assert out.read_bytes() == before.image
        assert result.pos == Pos(GENERATION, before.index, before.offset)


async def test_a_snapshot_needs_its_wal(history: Recording, tmp_path: Path) -> None:
    """A snapshot whose stamp needs WAL that is not there shows that an object is missing, and which."""
    second = history.snapshots[1]
    objects = {
        key: value
        for key, value in replica(history).items()
        if not _at_or_behind(key, (1, history.commits(1)[1])) and f"{history.snapshots[2].index:08x}.snap" not in key
    }
    missing = f"00000001_{history.commits(1)[1]:08x}.wal.lz4"

    with pytest.raises(CorruptObjectError, match=rf"{missing}: missing WAL segment: the snapshot .* needs the WAL"):
        await _restore(objects, tmp_path / "out.db")
    assert second.required[1] > history.commits(1)[1]


async def test_dry_run_says_what_would_be_read_and_writes_nothing(history: Recording, tmp_path: Path) -> None:
    """The plan names each object in order."""
    out = tmp_path / "no" / "out.db"

    result = await _restore(replica(history), out, dry_run=True)

    names = [file.key.rpartition("/")[2] for file in result.files]
    index = history.last.index
    wal = [f"{index:08x}_{offset:08x}.wal.lz4" for offset in (0, *history.commits(index))]
    assert names == [f"{index:08x}.snapshot.lz4", *wal]
    assert (result.dry_run, result.fetched) == (True, sum(file.size for file in result.files))
    assert not out.parent.exists()


async def test_progress_ends_at_the_total(history: Recording, tmp_path: Path) -> None:
    """Progress grows to the number of bytes that the plan has."""
    seen: list[tuple[int, int]] = []

    result = await restore(
        [("memory", ReplicaClient(memory_store(replica(history))))],
        str(tmp_path / "out.db"),
        progress=lambda done, total: seen.append((done, total)),
    )

    assert seen == sorted(seen)
    assert seen[-1] == (result.fetched, result.fetched)


async def test_options_that_contradict_each_other() -> None:
    """Index and timestamp together, nonsense numbers and unknown checks are refused."""
    for options in ({"index": 1, "timestamp_ns": 1}, {"parallelism": 0}, {"integrity_check": "some"}):
        with pytest.raises(RestoreError):
            RestoreOptions(**options)


def _at_or_behind(key: str, position: tuple[int, int]) -> bool:
    name = key.rpartition("/")[2]
    if not name.endswith(".wal.lz4"):
        return False
    index, _, offset = name.removesuffix(".wal.lz4").partition("_")
    return (int(index, 16), int(offset, 16)) >= position
