"""`-update`: a copy is brought to a later state by the WAL between the two, or restored whole, and never wrong."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import random
import re
import stat
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.recorded import history as history
from helpers.recording import GENERATION, Recorder, Recording, memory_store, replica
from litestream import fsutil
from litestream.client import ReplicaClient
from litestream.core.layout import LAYOUTS, V03, WALName
from litestream.core.position import Pos
from litestream.errors import CorruptObjectError, IntegrityCheckError, OutputExistsError, RestoreError
from litestream.restore import RestoreOptions, RestoreResult, restore
from litestream.restore import base as base_module
from litestream.restore.beside import beside
from litestream.storage.memory import MemoryStore
from litestream.storage.protocol import Store
from litestream.storage.wrappers.wrapper import Wrapper
from litestream.streams import compress

Objects = dict[str, tuple[bytes, float]]


class Counted(Wrapper):
    """A store that writes down which objects are read, and how many bytes of each."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.read: dict[str, int] = {}

    async def get(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        async for chunk in self.inner.get(key, start=start):
            self.read[key] = self.read.get(key, 0) + len(chunk)
            yield chunk


async def _update(objects: Objects | Store, out: Path, **options: object) -> RestoreResult:
    store = memory_store(objects) if isinstance(objects, dict) else objects
    wanted = RestoreOptions(update=True, **options)  # type: ignore[arg-type]
    return await restore([("r", ReplicaClient(store))], str(out), options=wanted)


def _index(key: str) -> tuple[int, int]:
    parsed = next(name for layout in LAYOUTS if (name := layout.parse(key)) is not None)
    return parsed.index, parsed.offset if isinstance(parsed, WALName) else 0


def _early(recording: Recording, objects: Objects, upto: tuple[int, int]) -> Objects:
    """The objects as they were when the WAL was replicated up to a position."""
    taken = {snapshot.index for snapshot in recording.snapshots if snapshot.required <= upto}
    return {k: o for k, o in objects.items() if _index(k) < upto and ("snapshot" not in k or _index(k)[0] in taken)}


def _note(out: Path) -> Path:
    return Path(beside(str(out), base_module.TAIL))


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """One snapshot of 300 KiB, and twenty small transactions behind it in three WALs."""
    with Recorder(tmp_path_factory.mktemp("long"), 1024) as r:
        r.run("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
        r.run(*[("INSERT INTO t(body) VALUES(randomblob(?))", (3000,)) for _ in range(100)])
        r.restart()
        r.run("INSERT INTO t(body) VALUES('second WAL')")
        r.snapshot()
        for n in range(20):
            if n in (7, 14):
                r.restart()
            r.run(
                ("INSERT INTO t(body) VALUES(?)", (f"row {n}",)), ("UPDATE t SET body=randomblob(99) WHERE id=?", (n,))
            )
        return r.recording


@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("resume", [False, True])
async def test_only_the_wal_since_then_is_read(stamped: bool, resume: bool, long: Recording, tmp_path: Path) -> None:
    """From any commit to any later one, an update reads no snapshot and no WAL before the copy, and is exact."""
    objects, out = replica(long, stamped=stamped), tmp_path / "out.db"
    positions = [point for point in long.points if point.index >= 1]
    for number, point in enumerate(positions):
        if number % 3 and point is not positions[-1]:
            continue
        counted = Counted(memory_store(_early(long, objects, (point.index, point.offset))))
        result = await _update(counted, out, resume=resume)
        assert out.read_bytes() == point.image
        assert (result.index, result.offset, result.size) == (point.index, point.offset, len(point.image))
        assert result.updated is (number > 0)
        if number:
            snapshots = [size for key, size in counted.read.items() if "snapshot" in key]
            assert sum(snapshots) < 1000  # a stamp, which a plan is made with
            assert result.fetched < 8000
            assert 2 <= result.segments <= 5
    assert sorted(os.listdir(tmp_path)) == [_note(out).name, "out.db"]
    assert stat.S_IMODE(_note(out).stat().st_mode) == 0o600


async def test_nothing_new_reads_and_writes_nothing(long: Recording, tmp_path: Path) -> None:
    """A copy that is up to date stays the very file that it is."""
    objects, out = replica(long), tmp_path / "out.db"
    await _update(objects, out)
    before, note = out.stat(), _note(out).read_bytes()
    result = await _update(objects, out)
    assert (result.updated, result.segments, result.fetched) == (True, 0, 0)
    assert result.pos == base_module.load(str(out))[0].pos
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert _note(out).read_bytes() == note
    plan = await _update(objects, out, dry_run=True)
    assert (plan.updated, plan.files, plan.pos) == (True, [], result.pos)


async def test_copy_of_a_snapshot_alone(tmp_path: Path) -> None:
    """A copy that was made before there was any WAL goes on with the beginning of the first."""
    with Recorder(tmp_path, 1024) as r:
        r.run("CREATE TABLE t(b)")
        r.run(*[("INSERT INTO t VALUES(randomblob(?))", (900,)) for _ in range(50)])
        r.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        image = r.path.read_bytes()
        r.recording.wals.clear()
        r.recording.points.clear()
        r._started = False
        r.snapshot()
        r.run("INSERT INTO t VALUES(1)")
        r.restart()
        r.run("INSERT INTO t VALUES(2)")
        r.snapshot()
    out = tmp_path / "out.db"
    objects = replica(r.recording)
    assert not (await _update({k: o for k, o in objects.items() if k.endswith("0.snapshot.lz4")}, out)).segments
    assert out.read_bytes() == image
    assert (await _update({k: o for k, o in objects.items() if k.endswith("0.snapshot.lz4")}, out)).updated
    result = await _update(objects, out)
    assert (result.updated, result.segments, out.read_bytes()) == (True, 2, r.recording.last.image)


async def test_nothing_new_without_stamps(long: Recording, tmp_path: Path) -> None:
    """Without stamps the last segment is read to see that there is nothing new, and the file stays."""
    objects, out = replica(long, stamped=False), tmp_path / "out.db"
    await _update(objects, out)
    before = out.stat()
    result = await _update(objects, out)
    assert (result.updated, result.segments) == (True, 1)
    assert out.stat().st_ino == before.st_ino
    assert sorted(os.listdir(tmp_path)) == [_note(out).name, "out.db"]


actions = st.lists(st.sampled_from(["insert", "delete", "vacuum", "restart", "snap", "many"]), min_size=2, max_size=14)


@given(
    actions=actions,
    page_size=st.sampled_from([512, 1024, 4096, 65536]),
    auto_vacuum=st.sampled_from([0, 1, 2]),
    layout=st.sampled_from(LAYOUTS),
    stamped=st.booleans(),
    cut=st.sampled_from([0, 30, 100]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_histories(**drawn: object) -> None:
    """Whatever happened between two states, and wherever the WAL was cut, an updated copy is the later one."""
    asyncio.run(_live_and_update(**drawn))  # type: ignore[arg-type]


async def _live_and_update(
    actions: list[str], page_size: int, auto_vacuum: int, layout: object, stamped: bool, cut: int, seed: int
) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        with Recorder(Path(folder), page_size, auto_vacuum=auto_vacuum) as r:
            r.run("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
            r.snapshot()
            for action in actions:
                _act(r, action, rng)
            recording = r.recording
        kept = {n: [o for o in recording.boundaries(n) if rng.randrange(100) < cut] for n in range(len(recording.wals))}
        out = Path(folder) / "out.db"
        for point in sorted(rng.sample(recording.points, min(4, len(recording.points))), key=lambda p: p.time_ns):
            upto = (point.index, point.offset)
            then = replace(recording, snapshots=[s for s in recording.snapshots if s.required <= upto])
            objects = replica(then, layout=layout, stamped=stamped, cuts=kept.get if cut else None)  # type: ignore[arg-type]
            early = {key: body for key, body in objects.items() if _index(key) < upto}
            result = await _update(early, out)
            reached = (result.index, result.offset)
            expected = recording.best(lambda p, reached=reached: (p.index, p.offset) <= reached)  # type: ignore[misc]
            assert out.read_bytes() == expected.image
            assert reached >= upto or not result.segments
            digest = hashlib.sha256(expected.image).hexdigest()
            assert base_module.load(str(out))[-1].sha256 == digest


def _act(r: Recorder, action: str, rng: random.Random) -> None:
    match action:
        case "insert":
            r.run(("INSERT INTO t(body) VALUES(?)", (rng.randbytes(rng.randrange(2000)),)))
        case "many":
            r.run(*[("INSERT INTO t(body) VALUES(?)", (rng.randbytes(900),)) for _ in range(40)])
        case "delete":
            r.run(("DELETE FROM t WHERE id%?=0", (rng.randrange(1, 4),)))
        case "vacuum":
            r.db.execute("VACUUM").fetchall()
            r.record()
        case "restart":
            r.restart()
        case "snap":
            r.snapshot()


def _one_byte(out: Path) -> None:
    data = bytearray(out.read_bytes())
    data[-7] ^= 1
    status = out.stat()
    out.write_bytes(data)
    os.utime(out, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_one_byte, "it was changed after it was restored"),
        (lambda out: out.write_bytes(out.read_bytes() + b"x"), "it was changed after it was restored"),
        (lambda out: out.with_name("out.db-wal").write_bytes(b"x"), "somebody has written to it"),
        (lambda out: out.with_name("out.db-journal").write_bytes(b"x"), "somebody has written to it"),
        (lambda out: _note(out).unlink(), "it was not made by -update"),
        (lambda out: _note(out).write_bytes(b"{}"), "it was not made by -update"),
        (lambda out: _one_byte(_note(out)), "it was not made by -update"),
    ],
)
async def test_file_that_is_not_what_the_note_says_is_refused(
    change: Callable[[Path], object],
    reason: str,
    long: Recording,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may be somebody's data: it stays. With -force all of it is restored, and the log says why."""
    objects, out = replica(long), tmp_path / "out.db"
    await _update(_early(long, objects, (2, 0)), out)
    change(out)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    with pytest.raises(OutputExistsError, match=f"cannot be updated: {out}: {reason}"):
        await _update(objects, out)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
    with caplog.at_level(logging.INFO, "litestream.restore"):
        result = await _update(objects, out, force=True)
    assert (result.updated, out.read_bytes()) == (False, long.last.image)
    assert sorted(os.listdir(tmp_path)) == [_note(out).name, "out.db"]
    assert [m for m in caplog.messages if m.startswith(f"cannot update {out}, restoring all of it: {reason}")]
    assert (await _update(objects, out)).updated


async def test_traces_of_readers_are_no_change(long: Recording, tmp_path: Path) -> None:
    """An empty -wal and a -shm, as readers leave them, go with the old file."""
    objects, out = replica(long), tmp_path / "out.db"
    await _update(_early(long, objects, (2, 0)), out)
    out.with_name("out.db-wal").touch()
    out.with_name("out.db-shm").write_bytes(bytes(32768))
    out.chmod(0o640)
    assert (await _update(objects, out)).updated
    assert sorted(os.listdir(tmp_path)) == [_note(out).name, "out.db"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o640


def _without(objects: Objects, index: int, number: int) -> Objects:
    keys = [key for key in objects if isinstance(name := V03.parse(key), WALName) and name.index == index]
    return {key: value for key, value in objects.items() if key != keys[number]}


def _pruned(recording: Recording, objects: Objects) -> Objects:
    return {key: value for key, value in objects.items() if _index(key)[0] >= recording.snapshots[-1].index}


def _begun_anew(recording: Recording, objects: Objects) -> Objects:
    return replica(recording, generation="00000000000000ff")


def _holed(recording: Recording, objects: Objects) -> Objects:
    return {key: value for key, value in objects.items() if "snapshot" in key or _index(key)[0] != 2}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_begun_anew, "another generation has begun"),
        (_pruned, "the WAL at .* is not there any more"),
        (_holed, "the WAL after .* is not all there: .* missing WAL index"),
    ],
)
async def test_what_cannot_be_updated_is_restored_whole(
    change: Callable[[Recording, Objects], Objects],
    reason: str,
    tmp_path: Path,
    history: Recording,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another generation, WAL that retention has deleted: all of it is restored, and the log says why."""
    objects, out = replica(history), tmp_path / "out.db"
    await _update(_early(history, objects, (1, 0)), out)
    with caplog.at_level(logging.INFO, "litestream.restore"):
        result = await _update(change(history, objects), out)
    assert (result.updated, out.read_bytes()) == (False, history.last.image)
    assert [m for m in caplog.messages if re.match(f"cannot update {out}, restoring all of it: {reason}", m)]
    assert (await _update(change(history, objects), out)).segments == 0


async def test_snapshot_behind_the_wal(long: Recording, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of other programs' objects: the WAL ends at the copy, but there is a newer snapshot: all of it is restored."""
    objects, out = replica(long, stamped=False), tmp_path / "out.db"
    await _update(_early(long, objects, (2, 0)), out)
    first = {key: value for key, value in objects.items() if _index(key)[0] < 2}
    newer = {V03.snapshot_key(GENERATION, 3): (compress(long.last.image), objects[max(objects)][1])}
    with caplog.at_level(logging.INFO, "litestream.restore"):
        result = await _update(first | newer, out)
    assert (result.updated, out.read_bytes()) == (False, long.last.image)
    assert [m for m in caplog.messages if "the newest snapshot is later than the WAL that is there" in m]


async def test_wal_that_ends_before_the_copy(long: Recording, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The end of an index is missing, of which names do not tell: neither way leads to a state, and the copy stays."""
    objects, out = replica(long, stamped=False), tmp_path / "out.db"
    await _update(_early(long, objects, (2, 0)), out)
    before = out.read_bytes()
    with caplog.at_level(logging.INFO, "litestream.restore"), pytest.raises(IntegrityCheckError):
        await _update(_without(objects, 1, -1), out)
    assert out.read_bytes() == before
    assert [m for m in caplog.messages if "does not go up to" in m]


@pytest.mark.parametrize("stamped", [True, False])
async def test_gap_in_the_wal_changes_nothing(stamped: bool, long: Recording, tmp_path: Path) -> None:
    """Where a segment between is missing, neither the update nor the restore succeeds, and the copy stays."""
    objects, out = replica(long, stamped=stamped), tmp_path / "out.db"
    await _update(_early(long, objects, (1, long.points[5].offset)), out)
    before = out.read_bytes()
    with pytest.raises(CorruptObjectError, match="missing"):
        await _update(_without(objects, 2, 1), out)
    assert out.read_bytes() == before
    assert (await _update(objects, out)).updated
    assert out.read_bytes() == long.last.image


@pytest.mark.parametrize("stamped", [True, False])
async def test_other_history_under_the_same_name(
    stamped: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A replica whose WAL has other content at the copy's position is not applied to it: all of it is restored."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    lives = []
    for name in "ab":
        with Recorder(tmp_path / name, 1024) as r:
            r.run("CREATE TABLE t(b)")
            r.run(*[("INSERT INTO t VALUES(randomblob(?))", (500,)) for _ in range(60)])
            r.snapshot()
            for n in range(4):
                r.run(("INSERT INTO t VALUES(?)", (f"{name} {n}",)))
            lives.append(r.recording)
    out = tmp_path / "out.db"
    first = replica(lives[0], stamped=stamped)
    await _update(_early(lives[0], first, (0, lives[0].points[-2].offset)), out)
    with caplog.at_level(logging.INFO, "litestream.restore"):
        result = await _update(replica(lives[1], stamped=stamped), out)
    assert (result.updated, out.read_bytes()) == (False, lives[1].last.image)
    assert [m for m in caplog.messages if "another history" in m]


async def test_limits_hold_for_updates(long: Recording, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """-index and -timestamp lead to a later state by an update, and to an earlier one by a restore of all."""
    objects, out = replica(long), tmp_path / "out.db"
    middle = [point for point in long.points if point.index == 2][3]
    result = await _update(objects, out, timestamp_ns=middle.time_ns)
    assert (result.updated, out.read_bytes()) == (False, middle.image)
    result = await _update(objects, out, index=2)
    assert result.updated
    assert out.read_bytes() == long.best(lambda p: p.index == 2).image
    with caplog.at_level(logging.INFO, "litestream.restore"):
        result = await _update(objects, out, timestamp_ns=middle.time_ns)
    assert (result.updated, out.read_bytes()) == (False, middle.image)
    assert [m for m in caplog.messages if "the copy is later than the state that is asked for" in m]
    result = await _update(objects, out)
    assert (result.updated, out.read_bytes()) == (True, long.last.image)


async def test_less_of_two_is_fetched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the newest snapshot is smaller than the WAL since the copy, it is the snapshot."""
    with Recorder(tmp_path, 1024) as r:
        r.run("CREATE TABLE t(b)")
        r.snapshot()
        r.run("INSERT INTO t VALUES(1)")
        r.restart()
        for _ in range(6):
            r.run(("INSERT INTO t VALUES(randomblob(?))", (20_000,)), "DELETE FROM t WHERE length(b)>9")
        r.db.execute("VACUUM").fetchall()
        r.record()
        r.restart()
        r.run("INSERT INTO t VALUES(2)")
        r.snapshot()
    objects, out = replica(r.recording), tmp_path / "out.db"
    await _update(_early(r.recording, objects, (1, 0)), out)
    with caplog.at_level(logging.INFO, "litestream.restore"):
        result = await _update(objects, out)
    assert (result.updated, out.read_bytes()) == (False, r.recording.last.image)
    assert [m for m in caplog.messages if "larger than the newest snapshot" in m]


async def test_file_that_is_written_meanwhile_is_not_replaced(
    long: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who writes to the copy between its proof and its replacement keeps what was written."""
    objects, out = replica(long), tmp_path / "out.db"
    await _update(_early(long, objects, (2, 0)), out)
    save = base_module.save

    def save_and_write(path: str, states: list[base_module.State]) -> None:
        save(path, states)
        with out.open("ab") as file:
            file.write(b"mine")

    monkeypatch.setattr(base_module, "save", save_and_write)
    with pytest.raises(OutputExistsError, match="somebody has just written to it"):
        await _update(objects, out)
    assert out.read_bytes().endswith(b"mine")
    assert sorted(os.listdir(tmp_path)) == [_note(out).name, "out.db"]


@pytest.mark.parametrize("step", range(6))
async def test_death_between_any_two_steps(
    step: int, long: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it dies while notes and file are replaced, the next update knows the file, and goes on from it."""
    objects, out = replica(long), tmp_path / "out.db"
    await _update(_early(long, objects, (2, 0)), out)
    old, done = out.read_bytes(), 0

    class Death(BaseException):
        pass

    def mortal(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **named: object) -> object:
            nonlocal done
            done += 1
            if done == step + 1:
                raise Death
            return real(*args, **named)

        return call

    monkeypatch.setattr(os, "rename", mortal(os.rename))
    monkeypatch.setattr(os, "fsync", mortal(os.fsync))
    monkeypatch.setattr(fsutil, "fsync_dir", mortal(fsutil.fsync_dir))
    with pytest.raises(Death):
        await _update(objects, out)
    monkeypatch.undo()
    assert out.read_bytes() in (old, long.last.image)
    result = await _update(objects, out)
    assert (result.updated, out.read_bytes()) == (True, long.last.image)


async def test_failed_check_leaves_the_copy(long: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy whose successor fails SQLite's check stays as it is, and can be updated later."""
    objects, out = replica(long), tmp_path / "out.db"
    await _update(_early(long, objects, (2, 0)), out)
    old = out.read_bytes()
    from litestream.sqlite.check import Check

    monkeypatch.setattr(Check, "run", lambda self: ["made up"])
    with pytest.raises(RestoreError, match="fails SQLite's quick check: made up"):
        await _update(objects, out)
    monkeypatch.undo()
    assert out.read_bytes() == old
    assert (await _update(objects, out)).updated


def test_notes_that_are_none_of_ours(tmp_path: Path) -> None:
    """Whatever stands in a note, it is read without an exception; only one that fits its hash counts."""
    out = tmp_path / "out.db"
    rng = random.Random(5)
    for raw in (b"", b"\n", b"[]", rng.randbytes(500), b"\xff\n{}", b"[" * 30_000):
        _note(out).write_bytes(raw)
        assert base_module.load(str(out)) == []
        digest = hashlib.sha256(raw).hexdigest().encode()
        _note(out).write_bytes(digest + b"\n" + raw)
        assert base_module.load(str(out)) == []
    wrong: tuple[object, ...] = ([{}], [{"pos": "x"}], {"a": 1}, [1], "text")
    for states in wrong:
        text = json.dumps({"version": 1, "states": states}).encode()
        _note(out).write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
        assert base_module.load(str(out)) == []


def test_copies_without_shared_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither blocks can be shared nor the kernel copies, the file is read and written; damage is seen."""
    import fcntl

    data = random.Random(1).randbytes((5 << 20) + 77)
    (tmp_path / "a").write_bytes(data)

    def refuse(*_: object) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    pos = Pos(GENERATION, 1, 1)
    for whole, works in ((True, True), (False, True), (True, False), (False, False)):
        if not works:
            monkeypatch.setattr(os, "copy_file_range", refuse)
        digest = hashlib.sha256(data if whole else b"other").hexdigest()
        state = base_module.State(pos, 0, "", (0, 0), 0, 512, len(data), digest)
        with (tmp_path / "b").open("wb+") as file:
            assert base_module.Base(str(tmp_path / "a"), state, ()).copy_to(file.fileno(), Event()) is whole
        assert (tmp_path / "b").read_bytes() == data


async def test_cancelling_does_not_read_to_the_end(
    long: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while a large copy is read and hashed ends soon, and changes nothing."""
    out, hashing = tmp_path / "out.db", Event()
    await _update(replica(long), out)
    read, reads = os.preadv, 0

    def endless(fd: int, buffers: list[memoryview], at: int) -> int:
        nonlocal reads
        reads += 1
        hashing.set()
        time.sleep(0.01)
        return read(fd, buffers, 0)

    before = out.read_bytes()
    monkeypatch.setattr(os, "preadv", endless)
    update = asyncio.create_task(_update(replica(long), out))
    await asyncio.to_thread(hashing.wait, 10)
    update.cancel()
    with pytest.raises(asyncio.CancelledError):
        await update
    await asyncio.sleep(0.05)
    ended = reads
    await asyncio.sleep(0.05)
    assert (reads, out.read_bytes()) == (ended, before)


async def test_memory_store_is_left_as_it_was(long: Recording, tmp_path: Path) -> None:
    """An update writes nothing to the replica."""
    objects, out = replica(long), tmp_path / "out.db"
    store = MemoryStore()
    store._objects.update(objects)
    await _update(store, out)
    await _update(store, out)
    assert store._objects == objects
