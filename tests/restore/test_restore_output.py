"""The file that a restore makes: what is refused, what is replaced, modes, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.faultstore import Fault, FaultStore
from helpers.recorded import tiny as tiny
from helpers.recording import GENERATION, Recording, memory_store, replica
from litestream.client import ReplicaClient
from litestream.core.layout import V03
from litestream.errors import CorruptObjectError, IntegrityCheckError, OutputExistsError, RestoreError
from litestream.restore import IntegrityCheck, RestoreOptions, RestoreResult, restore
from litestream.sqlite.check import Check
from litestream.streams import compress


async def _restore(recording: Recording, out: Path | str, **options: object) -> RestoreResult:
    client = ReplicaClient(memory_store(replica(recording)))
    return await restore([("r", client)], str(out), options=RestoreOptions(**options))  # type: ignore[arg-type]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
async def test_existing_files_are_refused(suffix: str, tiny: Recording, tmp_path: Path) -> None:
    """An output of whatever size, or a file that SQLite would take for part of it, is left alone."""
    there = tmp_path / f"out.db{suffix}"
    there.touch()

    with pytest.raises(OutputExistsError, match=f"output file already exists: {there}"):
        await _restore(tiny, tmp_path / "out.db")

    assert _names(tmp_path) == [there.name]
    assert there.stat().st_size == 0


async def test_dangling_link_and_directory_are_refused(tiny: Recording, tmp_path: Path) -> None:
    """A link that leads nowhere is something in the way too; so is a directory, even with -force."""
    link = tmp_path / "out.db"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExistsError):
        await _restore(tiny, link)
    for force in (False, True):
        with pytest.raises(RestoreError, match="is a directory"):
            await _restore(tiny, tmp_path, force=force)
    assert _names(tmp_path) == ["out.db"]


async def test_output_that_appears_meanwhile_is_not_replaced(tiny: Recording, tmp_path: Path) -> None:
    """A file made by somebody else while the restore ran stays as it is."""
    out = tmp_path / "out.db"

    def appear(done: int, total: int) -> None:
        out.write_text("somebody else's")

    client = ReplicaClient(memory_store(replica(tiny)))
    with pytest.raises(OutputExistsError):
        await restore([("r", client)], str(out), progress=appear)
    assert (_names(tmp_path), out.read_text()) == (["out.db"], "somebody else's")


async def test_force_replaces_after_success_only(tiny: Recording, tmp_path: Path) -> None:
    """With -force the old database goes, its WAL with it, once the new one is whole; a failure changes nothing."""
    out = tmp_path / "out.db"
    for suffix in ("", "-wal", "-shm", "-journal"):
        (tmp_path / f"out.db{suffix}").write_text(f"old{suffix}")
    before = _names(tmp_path)

    with pytest.raises(RestoreError):
        await _restore(tiny, out, force=True, index=99)
    assert _names(tmp_path) == before

    await _restore(tiny, out, force=True)
    assert _names(tmp_path) == ["out.db"]
    assert out.read_bytes() == tiny.last.image


async def test_force_that_cannot_rename_puts_the_old_files_back(
    tiny: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old WAL that was moved aside comes back when the new database does not get its name."""
    out, wal = tmp_path / "out.db", tmp_path / "out.db-wal"
    out.write_text("old")
    wal.write_text("old wal")
    rename = os.rename

    def refuse(source: str, target: str) -> None:
        if target == str(out):
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(RestoreError, match="Permission denied"):
        await _restore(tiny, out, force=True)
    assert (out.read_text(), wal.read_text(), _names(tmp_path)) == ("old", "old wal", ["out.db", "out.db-wal"])


async def test_force_follows_a_link(tiny: Recording, tmp_path: Path) -> None:
    """The file behind a link is replaced, not the link."""
    real, link = tmp_path / "real.db", tmp_path / "link.db"
    real.write_text("old")
    (tmp_path / "real.db-wal").write_text("old")
    link.symlink_to(real)

    await _restore(tiny, link, force=True)

    assert link.is_symlink()
    assert (real.read_bytes(), _names(tmp_path)) == (tiny.last.image, ["link.db", "real.db"])


async def test_modes(tiny: Recording, tmp_path: Path) -> None:
    """0600 whatever the umask, the mode of the database that it is a copy of, or the one asked for."""
    source = tmp_path / "source.db"
    source.touch()
    old = os.umask(0)
    try:
        cases: list[tuple[int, dict[str, object]]] = [
            (0o600, {}),
            (0o640, {"source_path": str(source)}),
            (0o644, {"mode": 0o644}),
        ]
        for number, (mode, options) in enumerate(cases):
            source.chmod(0o640)
            out = tmp_path / f"new{number}" / "sub" / "out.db"
            await _restore(tiny, out, **options)

            assert stat.S_IMODE(out.stat().st_mode) == mode
            assert stat.S_IMODE(out.parent.stat().st_mode) == 0o700
        replaced = tmp_path / "replaced.db"
        replaced.touch(0o604)
        await _restore(tiny, replaced, force=True)
        assert stat.S_IMODE(replaced.stat().st_mode) == 0o604
    finally:
        os.umask(old)


@pytest.mark.parametrize("name", ["a b%20?c#.db", "x" * 255, "ü\udcff.db", "-o", ".db"], ids=ascii)
async def test_odd_names(name: str, tiny: Recording, tmp_path: Path) -> None:
    """Any file name that the system takes works, the check included."""
    out = tmp_path / name

    result = await _restore(tiny, out, integrity_check="full")

    assert (os.listdir(tmp_path), result.db_path) == ([name], str(out))


async def test_directory_that_cannot_be_written(tiny: Recording, tmp_path: Path) -> None:
    """A file where a directory should be is one clear line."""
    (tmp_path / "file").touch()

    with pytest.raises(RestoreError, match="cannot write the restored database"):
        await _restore(tiny, tmp_path / "file" / "out.db")
    with pytest.raises(RestoreError, match="no output path given"):
        await _restore(tiny, "")


async def test_full_disk(tiny: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room, at whichever write: said so, and the directories made for it are gone too."""
    real: Callable[..., int] = os.pwrite
    for number in range(2):
        left = [number]

        def full(fd: int, data: bytes, offset: int, left: list[int] = left) -> int:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device")
            return real(fd, data, offset)

        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(RestoreError, match=r"no room for the restored database: .*No space left"):
            await _restore(tiny, tmp_path / "new" / "out.db")
        assert _names(tmp_path) == []


async def test_damaged_source_is_found_by_sqlites_check(tiny: Recording, tmp_path: Path) -> None:
    """A database that was damaged before it was replicated gives no output, unless the check is switched off."""
    image = bytearray(tiny.last.image)
    image[512 : 512 + 100] = bytes(100)  # the root page of the only table
    objects = {V03.snapshot_key(GENERATION, 0): (compress(bytes(image)), 1.0)}
    client = ReplicaClient(memory_store(objects))
    checks: tuple[IntegrityCheck, ...] = ("quick", "full")
    for check in checks:
        options = RestoreOptions(integrity_check=check)
        with pytest.raises(IntegrityCheckError, match=f"fails SQLite's {check} check: .* -integrity-check none"):
            await restore([("r", client)], str(tmp_path / "out.db"), options=options)
        assert _names(tmp_path) == []

    await restore([("r", client)], str(tmp_path / "out.db"), options=RestoreOptions(integrity_check="none"))

    assert (tmp_path / "out.db").read_bytes() == image


async def test_cancelled_while_fetching(tiny: Recording, tmp_path: Path) -> None:
    """Cancelled (as by SIGTERM) at each of its reads, a restore ends and leaves nothing, not even its directories."""
    reads = FaultStore(memory_store(replica(tiny)))
    await restore([("r", ReplicaClient(reads))], str(tmp_path / "out.db"))
    (tmp_path / "out.db").unlink()
    for number in range(reads.count("get")):
        store = FaultStore(memory_store(replica(tiny)), Fault("get", "hang", skip=number))
        task = asyncio.create_task(restore([("r", ReplicaClient(store))], str(tmp_path / "new" / "out.db")))
        for _ in range(5000):
            await asyncio.sleep(0.002)
            if store.struck:
                break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert _names(tmp_path) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("litestream-restore")]


async def test_cancelled_during_the_check(tiny: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of a large database is stopped, not waited for."""
    begun, stopped = threading.Event(), threading.Event()

    def run(self: Check) -> list[str]:
        begun.set()
        assert stopped.wait(20)
        return []

    monkeypatch.setattr(Check, "run", run)
    monkeypatch.setattr(Check, "stop", lambda self: stopped.set())
    task = asyncio.create_task(_restore(tiny, tmp_path / "out.db"))
    assert await asyncio.to_thread(begun.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _names(tmp_path) == []


async def test_leftovers_of_a_killed_restore_are_removed(tiny: Recording, tmp_path: Path) -> None:
    """What kill -9 left is removed by the next restore to that directory."""
    left = tmp_path / ".out.db.999999999-0123456789abcdef.tmp"
    left.write_text("half")

    await _restore(tiny, tmp_path / "out.db")

    assert _names(tmp_path) == ["out.db"]


async def test_failure_leaves_nothing(tiny: Recording, tmp_path: Path) -> None:
    """A damaged object found late leaves neither the output nor its directory."""
    key = V03.snapshot_key(GENERATION, 1)
    objects = replica(tiny, stamped=False)
    objects[key] = (objects[key][0][:-1] + b"?", 1.0)

    with pytest.raises(CorruptObjectError, match=key):
        await restore([("r", ReplicaClient(memory_store(objects)))], str(tmp_path / "a" / "b" / "out.db"))

    assert _names(tmp_path) == []
