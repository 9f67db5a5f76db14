"""Random histories: whatever an application did, however the WAL was cut and whenever snapshots were taken."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from helpers.recording import GENERATION, Point, Recorder, Recording, memory_store, replica
from litestream.client import ReplicaClient
from litestream.core.layout import LAYOUTS, Layout, WALName
from litestream.core.stamp import Kind
from litestream.errors import LitestreamError, NoSnapshotsError, RestoreError
from litestream.restore import RestoreOptions, restore
from litestream.streams import read_stamp

ACTIONS = (
    "insert",
    "insert",
    "large",
    "update",
    "delete",
    "vacuum",
    "schema",
    "rollback",
    "restart",
    "passive",
    "snap",
)


@dataclass(frozen=True)
class Life:
    """One history and the replica made of it."""

    page_size: int
    auto_vacuum: int
    actions: list[tuple[str, int]]
    layout: Layout
    stamped: bool
    cut: int
    """Cut between frames with this probability in percent; 0: at each commit; -1: nowhere."""


lives = st.builds(
    Life,
    page_size=st.sampled_from([512, 512, 1024, 4096, 8192, 32768, 65536]),
    auto_vacuum=st.sampled_from([0, 1, 2]),
    actions=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2**16)), min_size=1, max_size=16),
    layout=st.sampled_from(LAYOUTS),
    stamped=st.booleans(),
    cut=st.sampled_from([-1, 0, 10, 50, 100]),
)


def _live(life: Life, folder: Path) -> Recording:
    with Recorder(folder, life.page_size, auto_vacuum=life.auto_vacuum) as r:
        r.run("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)", "INSERT INTO t(body) VALUES('first')")
        r.snapshot()
        for action, seed in life.actions:
            rnd = random.Random(seed)
            if action == "snap":
                r.snapshot(during=(lambda rnd=rnd: _meanwhile(r, rnd)) if seed % 2 else None)  # type: ignore[misc]
            else:
                _act(r, action, rnd)
        return r.recording


def _meanwhile(r: Recorder, rnd: random.Random) -> None:
    """What may happen while a snapshot is read: commits and backfills, but (its reader is there) no new WAL."""
    _act(r, rnd.choice(("insert", "update", "delete", "vacuum")), rnd)
    if rnd.random() < 0.5:
        r.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _act(r: Recorder, action: str, rnd: random.Random) -> None:
    match action:
        case "insert":
            r.run(*[("INSERT INTO t(body) VALUES(?)", (rnd.randbytes(rnd.randrange(300)),)) for _ in range(3)])
        case "large":
            r.run(*[("INSERT INTO t(body) VALUES(?)", (rnd.randbytes(5000),)) for _ in range(rnd.randrange(1, 30))])
        case "update":
            r.run(("UPDATE t SET body=? WHERE id%?=0", (rnd.randbytes(200), rnd.randrange(1, 5))))
        case "delete":
            r.run(("DELETE FROM t WHERE id%?=0", (rnd.randrange(1, 4),)))
        case "vacuum":
            r.db.execute(rnd.choice(("VACUUM", "PRAGMA incremental_vacuum(3)"))).fetchall()
            r.record()
        case "schema":
            r.run(f"CREATE TABLE IF NOT EXISTS extra{rnd.randrange(3)} AS SELECT * FROM t")
        case "rollback":
            r.db.execute("PRAGMA cache_size=3")
            r.db.execute("BEGIN")
            for _ in range(20):
                r.db.execute("INSERT INTO t(body) VALUES(?)", (rnd.randbytes(2500),))
            r.db.execute("ROLLBACK")
        case "restart":
            r.restart()
        case "passive":
            r.passive()


def _objects(life: Life, recording: Recording) -> dict[str, tuple[bytes, float]]:
    def cuts(index: int) -> Iterable[int]:
        rnd = random.Random(f"{life.cut} {index}")
        if life.cut == 0:
            return recording.commits(index)
        return [o for o in recording.boundaries(index) if rnd.randrange(100) < life.cut]

    return replica(recording, layout=life.layout, stamped=life.stamped, cuts=cuts)


def _restored(objects: dict[str, tuple[bytes, float]], **options: object) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.db"
        client = ReplicaClient(memory_store(objects))
        coroutine = restore(
            [("r", client)],
            str(out),
            options=RestoreOptions(integrity_check="full", **options),  # type: ignore[arg-type]
        )
        asyncio.run(coroutine)
        return out.read_bytes()


def _expected_at(objects: dict[str, tuple[bytes, float]], recording: Recording, until: int) -> Point | None:
    """The rule of `-timestamp`, written as plainly as it can be, over the stamps of a stamped replica."""
    stamps = [stamp for data, _ in objects.values() if (stamp := read_stamp(data)) is not None]
    wal = sorted((s for s in stamps if s.kind is Kind.WAL), key=lambda s: (s.pos.index, s.pos.offset))
    early = [s for s in wal if s.last_commit_ns <= until]
    snapshots = [s for s in stamps if s.kind is Kind.SNAPSHOT and s.last_commit_ns <= until]
    for snapshot in sorted(snapshots, key=lambda s: s.pos.index, reverse=True):
        ends = [s.required for s in early if s.pos.index >= snapshot.pos.index]
        end = max(ends, default=(snapshot.pos.index, 0))
        if snapshot.required <= end:
            return recording.best(lambda p, end=end: (p.index, p.offset) <= end)  # type: ignore[misc]
    return None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(life=lives, choice=st.integers(0, 2**16))
def test_random_histories(life: Life, choice: int) -> None:
    """The latest state is the last commit; each index and time gives the state that its rule names."""
    with tempfile.TemporaryDirectory() as folder:
        recording = _live(life, Path(folder))
    objects = _objects(life, recording)
    note(f"{len(recording.wals)} indexes, {len(recording.snapshots)} snapshots, {len(objects)} objects")

    assert _restored(objects) == recording.last.image

    if not life.stamped:
        return  # without stamps nobody knows what a snapshot needs
    rnd = random.Random(choice)
    index = rnd.randrange(len(recording.wals))
    if any(s.index <= index and s.required[0] <= index for s in recording.snapshots):
        assert _restored(objects, index=index) == recording.best(lambda p: p.index <= index).image
    else:
        _fails(objects, NoSnapshotsError, index=index)
    until = rnd.choice(recording.points).time_ns + rnd.choice((-1, 0, 1))
    expected = _expected_at(objects, recording, until)
    if expected is not None:
        assert _restored(objects, timestamp_ns=until) == expected.image
    else:
        _fails(objects, RestoreError, timestamp_ns=until)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(life=lives, choice=st.integers(0, 2**32))
def test_random_damage(life: Life, choice: int) -> None:
    """One object gone, swapped or damaged at random: a committed state at or after all that is needed, or an error."""
    with tempfile.TemporaryDirectory() as folder:
        recording = _live(life, Path(folder))
    objects = _objects(life, recording)
    rnd = random.Random(choice)
    key = rnd.choice(sorted(objects))
    data, modified = objects[key]
    kind = rnd.choice(("drop", "flip", "cut", "swap") if life.stamped else ("flip", "cut"))
    note(f"{kind} {key}")
    if kind == "drop":
        del objects[key]
    else:
        at = rnd.randrange(len(data))
        bad = {
            "flip": data[:at] + bytes([data[at] ^ (1 << rnd.randrange(8))]) + data[at + 1 :],
            "cut": data[:at],
            "swap": objects[rnd.choice(sorted(objects))][0],
        }[kind]
        objects[key] = (bad, modified)

    try:
        got = _restored(objects)
    except LitestreamError:
        return
    if kind == "drop" and key == _newest(life, recording):
        # What is left tells nothing of it. The rest of its transaction, if it was cut, is left out too.
        assert any(got == point.image for point in recording.points)
    else:
        assert got == recording.last.image


def _fails(objects: dict[str, tuple[bytes, float]], error: type[LitestreamError], **options: object) -> None:
    try:
        _restored(objects, **options)
    except error:
        return
    raise AssertionError(f"restored with {options}, which no state fits")


def _newest(life: Life, recording: Recording) -> str:
    index = recording.last.index
    names = [life.layout.parse(key) for key in _objects(life, recording)]
    offsets = [n.offset for n in names if isinstance(n, WALName) and n.index == index]
    return life.layout.wal_key(GENERATION, index, max(offsets))
