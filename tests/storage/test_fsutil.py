"""Atomic files, directories, leftovers and modes."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest

from litestream.fsutil import (
    AtomicFile,
    access_of,
    fsync_dir,
    is_temp_name,
    make_dirs,
    remove_stale_temps,
    write_atomic,
)


def test_write_and_replace(tmp_path: Path) -> None:
    """A file is written whole, from bytes or pieces, and replaced; its status is returned."""
    path = tmp_path / "f"
    assert write_atomic(path, b"12345").st_size == 5
    assert write_atomic(path, (b"a", b"", b"b")).st_size == 2
    assert path.read_bytes() == b"ab"
    assert os.listdir(tmp_path) == ["f"]


def test_create_only(tmp_path: Path) -> None:
    """A name that is taken, also by a dangling link, is not replaced with `create_only`."""
    path = tmp_path / "f"
    write_atomic(path, b"1", create_only=True)
    (tmp_path / "link").symlink_to("nowhere")
    for taken in (path, tmp_path / "link"):
        with pytest.raises(FileExistsError):
            write_atomic(taken, b"2", create_only=True)
    assert path.read_bytes() == b"1"
    assert sorted(os.listdir(tmp_path)) == ["f", "link"]


def test_failing_pieces(tmp_path: Path) -> None:
    """Pieces that raise leave the old file and nothing else."""
    path = tmp_path / "f"
    write_atomic(path, b"old")
    with pytest.raises(ZeroDivisionError):
        write_atomic(path, (bytes([1 // i]) for i in (1, 0)))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_missing_directory(tmp_path: Path) -> None:
    """The directory is not made by a write."""
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "no" / "f", b"")


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "a"])
def test_long_names(tmp_path: Path, name: str) -> None:
    """Names as long as the file system allows can be written: the temporary one is cut to fit."""
    with AtomicFile(tmp_path / name) as file:
        temp = os.path.basename(file.temp)
        assert is_temp_name(temp)
        assert len(os.fsencode(temp)) <= 255
        file.publish()
    assert os.listdir(tmp_path) == [name]


def test_too_long_name(tmp_path: Path) -> None:
    """A name that is too long fails at once, and nothing stays."""
    with pytest.raises(OSError, match="too long"):
        write_atomic(tmp_path / ("n" * 256), b"")
    assert os.listdir(tmp_path) == []


def test_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare name is a file in the current directory."""
    monkeypatch.chdir(tmp_path)
    write_atomic("f", b"1")
    write_atomic("g", b"1", create_only=True)
    make_dirs("a/b")
    assert sorted(os.listdir(tmp_path)) == ["a", "f", "g"]


def test_retract_spares_a_successor(tmp_path: Path) -> None:
    """Taking a name back does not remove what somebody else has put there since."""
    path = tmp_path / "f"
    with AtomicFile(path) as file:
        file.publish()
        write_atomic(path, b"other")
        file.retract()
    assert path.read_bytes() == b"other"
    with AtomicFile(tmp_path / "g") as file:
        file.publish(create_only=True)
        file.retract()
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".a.1-0123456789abcdef.tmp", True),
        ("..1-0123456789abcdef.tmp", True),
        (".a\nb.1-0123456789abcdef.tmp", True),
        ("a.1-0123456789abcdef.tmp", False),
        (".a.tmp", False),
        (".a.1-0123456789abcde.tmp", False),
        (".a.x-0123456789abcdef.tmp", False),
        (".a.1-0123456789abcdef.tmp\n", False),
        ("00000000.snapshot.lz4.tmp", False),
    ],
)
def test_temp_names(name: str, expected: bool) -> None:
    """Only our own temporary names count as such: others' are not ours to hide or remove."""
    assert is_temp_name(name) is expected


def test_stale_temps(tmp_path: Path) -> None:
    """Leftovers of dead processes go; those of living ones go after a minute, and never while they are locked."""
    number = iter(range(100))

    def temp(pid: int, age: float) -> Path:
        path = tmp_path / f".x.{pid}-{next(number):016x}.tmp"
        path.write_text("")
        os.utime(path, (time.time() - age, time.time() - age))
        return path

    dead = os.fork()
    if not dead:
        os._exit(0)
    os.waitpid(dead, 0)
    gone = [temp(dead, 0), temp(os.getpid(), 0), temp(1, 61), temp(10**30, 0)]
    locked = [temp(dead, 1000), temp(os.getpid(), 0)]
    stays = [*locked, temp(1, 30), tmp_path / ".x.tmp", tmp_path / "x.lz4.tmp"]
    for path in stays[-2:]:
        path.write_text("")
    (tmp_path / f".d.{dead}-0123456789abcdef.tmp").mkdir()
    (tmp_path / f".l.{dead}-0123456789abcdef.tmp").symlink_to(gone[0])
    files = [path.open() for path in locked]
    for file in files:
        fcntl.flock(file, fcntl.LOCK_EX)
    remove_stale_temps(tmp_path)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in stays)
    assert (tmp_path / f".d.{dead}-0123456789abcdef.tmp").is_dir()
    for file in files:
        file.close()
    remove_stale_temps(tmp_path)
    assert not any(path.exists() for path in locked)


def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where flock is not supported files are written all the same."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    write_atomic(tmp_path / "f", b"1")
    assert os.listdir(tmp_path) == ["f"]


def test_file_system_without_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where modes cannot be changed a file keeps the narrow one."""

    def fchmod(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchmod", fchmod)
    write_atomic(tmp_path / "f", b"1", mode=0o644)
    assert os.stat(tmp_path / "f").st_mode & 0o777 == 0o600


def test_not_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `durable` a file is whole under its name, and nothing was flushed."""

    def fsync(_: int) -> None:
        raise AssertionError

    monkeypatch.setattr(os, "fsync", fsync)
    with AtomicFile(tmp_path / "f") as file:
        file.write(b"123")
        assert file.publish(durable=False).st_size == 3
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_directory_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """File systems that have no fsync for directories are accepted; a failing one is not."""

    def fsync(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    if code == errno.EIO:
        with pytest.raises(OSError, match="Input/output"):
            fsync_dir(tmp_path)
    else:
        fsync_dir(tmp_path)


def test_make_dirs(tmp_path: Path) -> None:
    """Missing directories are made with the given mode, existing ones are left as they are, a file is an error."""
    (tmp_path / "a").mkdir(mode=0o711)
    make_dirs(tmp_path / "a/b/c/", 0o750)
    assert [os.stat(tmp_path / p).st_mode & 0o777 for p in ("a", "a/b", "a/b/c")] == [0o711, 0o750, 0o750]
    make_dirs(tmp_path / "a/b")
    (tmp_path / "f").write_text("")
    for path in ("f", "f/g"):
        with pytest.raises(NotADirectoryError):
            make_dirs(tmp_path / path)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(NotADirectoryError):
        make_dirs(tmp_path / "link")


@pytest.mark.parametrize(
    ("mode", "file_mode", "dir_mode"),
    [(0o600, 0o600, 0o700), (0o640, 0o640, 0o750), (0o664, 0o664, 0o775), (0o755, 0o644, 0o755), (0o400, 0o400, 0o700)],
)
def test_access_of(tmp_path: Path, mode: int, file_mode: int, dir_mode: int) -> None:
    """What is derived from a file is for those who may read that file, and nobody else."""
    path = tmp_path / "db"
    path.write_text("")
    path.chmod(mode)
    access = access_of(path)
    assert (access.file_mode, access.dir_mode) == (file_mode, dir_mode)
    assert access.owner == (os.getuid(), os.stat(path).st_gid)
