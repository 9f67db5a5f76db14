"""The hashes of pages: whatever happens, an entry is right for the position at which it is believed, or zero."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litestream import fsutil
from litestream.core.position import Pos
from litestream.db import hashes as module
from litestream.db.hashes import ENTRY, PageHashes

GENERATION = "0123456789abcdef"
SIZE = 512
ACCESS = fsutil.Access()


def page(version: int) -> bytes:
    return version.to_bytes(8, "big") * (SIZE // 8)


def digest(hashes: PageHashes, content: bytes) -> bytes:
    return hashes.digests(memoryview(content))[0]


class World:
    """A database of some pages, each a number; commits move the position by one."""

    def __init__(self, meta: Path) -> None:
        self.meta = str(meta)
        self.pages: dict[int, int] = dict.fromkeys(range(1, 9), 0)
        self.at = Pos(GENERATION, 0, 0)
        self.version = 0
        self.hashes = PageHashes.load(self.meta, self.at, SIZE, ACCESS)
        self.read: dict[int, int] = {}

    def commit(self, numbers: list[int], length: int, *, kept: bool = True) -> None:
        """Frames of these pages, then so many pages in all; `kept`: the process lives until they are stored."""
        self.version += 1
        after = Pos(GENERATION, 0, self.at.offset + 1)
        self.hashes.forget([*((n, 0) for n in numbers[:-1]), (numbers[-1], length)], self.at, after)
        if not kept:
            return
        self.at = after
        for n in [*numbers, *range(max(self.pages, default=0) + 1, length + 1)]:
            self.pages[n] = self.version
        self.pages = {n: version for n, version in self.pages.items() if n <= length}

    def begin(self) -> None:
        self.hashes.begin()
        self.read = dict(self.pages)

    def learn(self, numbers: list[int]) -> None:
        known = {n: digest(self.hashes, page(self.read[n])) for n in numbers if n in self.read}
        self.hashes.learn(known, self.at)

    def reload(self) -> None:
        self.hashes.close()
        self.hashes = PageHashes.load(self.meta, self.at, SIZE, ACCESS)
        self.read = {}

    def check(self) -> int:
        """Every entry is right or zero. Returns how many there are."""
        found = 0
        for n in range(1, 20):
            entry = self.hashes.entries(n, 1)
            if entry == bytes(ENTRY):
                continue
            found += 1
            assert entry == digest(self.hashes, page(self.pages[n])), n
        return found


numbers = st.lists(st.integers(1, 12), min_size=1, max_size=5)
steps = st.one_of(
    st.tuples(st.just("commit"), numbers, st.integers(1, 12)),
    st.tuples(st.just("killed"), numbers, st.integers(1, 12)),
    st.tuples(st.just("begin")),
    st.tuples(st.just("learn"), numbers),
    st.tuples(st.just("learn"), st.just(list(range(1, 13)))),
    st.tuples(st.just("end")),
    st.tuples(st.just("reload")),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=40))
def test_entries_are_right_or_zero(tmp_path_factory: pytest.TempPathFactory, run: list[tuple[object, ...]]) -> None:
    """After any sequence of commits, kills, readings and restarts no entry is of another content than the state's."""
    world = World(tmp_path_factory.mktemp("meta"))
    for name, *rest in run:
        if name in {"commit", "killed"}:
            pages, length = rest
            assert isinstance(pages, list)
            assert isinstance(length, int)
            world.commit(pages, length, kept=name == "commit")
            if name == "killed":
                world.reload()
        elif name == "learn":
            assert isinstance(rest[0], list)
            world.learn(rest[0])
        elif name == "end":
            world.hashes.end(complete=False)
            world.read = {}
        else:
            {"begin": world.begin, "reload": world.reload}[str(name)]()
        world.check()
    world.hashes.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A database whose eight pages are all hashed, after one commit."""
    one = World(tmp_path)
    one.commit([1, 2], 8)
    one.begin()
    one.learn(list(range(1, 9)))
    one.hashes.end(complete=True)
    assert one.check() == 8
    return one


def test_known_is_known_after_a_restart(world: World) -> None:
    """What was learned is there after a kill, and nothing more is wanted until something changes."""
    assert not world.hashes.wanted
    world.reload()
    assert world.hashes.loaded
    assert world.check() == 8
    world.commit([3], 8)
    assert world.hashes.wanted
    assert world.check() == 7


def test_what_changed_since_it_was_read_is_not_learned(world: World) -> None:
    """A page that a frame has changed since the reading began, or that was cut off, stays unknown."""
    world.commit([3, 4], 8)
    world.begin()
    world.commit([4], 8)
    world.commit([1], 6)
    world.commit([1], 8)
    world.learn([3, 4, 5, 7, 8])
    world.hashes.end(complete=True)
    assert world.hashes.wanted
    assert world.check() == 4
    assert world.hashes.entries(4, 1) == world.hashes.entries(7, 1) == bytes(ENTRY)


def test_an_older_copy_is_refused(world: World, tmp_path: Path) -> None:
    """A file that was put back holds for another position: it is removed, not believed."""
    old = (tmp_path / "pages").read_bytes()
    world.commit([3], 8)
    world.hashes.close()
    (tmp_path / "pages").write_bytes(old)
    world.commit([4], 8)
    world.reload()
    assert not world.hashes.loaded
    assert not (tmp_path / "pages").exists()


@pytest.mark.parametrize(
    "pos", [Pos("f" * 16, 0, 1), Pos(GENERATION, 0, 0), Pos(GENERATION, 0, 2), Pos(GENERATION, 1, 1)]
)
def test_it_holds_for_its_position_only(world: World, tmp_path: Path, pos: Pos) -> None:
    """Another generation, or a position before or behind: nothing is known there. (0 is where the commit began.)"""
    world.hashes.close()
    known = PageHashes.load(str(tmp_path), pos, SIZE, ACCESS)
    assert not known.loaded
    assert known.entries(1, 8) == bytes(8 * ENTRY)


@pytest.mark.parametrize("size", range(0, 128, 9))
def test_a_torn_head_is_none(world: World, tmp_path: Path, size: int) -> None:
    """A file cut short in its head is thrown away."""
    world.hashes.close()
    os.truncate(tmp_path / "pages", size)
    world.reload()
    assert not world.hashes.loaded


def test_any_flipped_bit_of_the_head_is_noticed(world: World, tmp_path: Path) -> None:
    """No damaged head is believed."""
    world.hashes.close()
    whole = (tmp_path / "pages").read_bytes()
    for bit in range(128 * 8):
        raw = bytearray(whole)
        raw[bit // 8] ^= 1 << bit % 8
        (tmp_path / "pages").write_bytes(raw)
        assert not PageHashes.load(str(tmp_path), world.at, SIZE, ACCESS).loaded


def test_a_power_cut_ends_what_was_not_closed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """After another start of the host only a file that was closed in order is believed, and only until it is used."""
    monkeypatch.setattr(module, "_DURABLE_FROM", 1)
    world.hashes.close(size=1)
    monkeypatch.setattr(module, "host_run", lambda: b"\1" * 16)
    world.reload()
    assert world.hashes.loaded
    world.commit([1], 8)
    assert world.check() == 7
    world.hashes.trim()
    monkeypatch.setattr(module, "host_run", lambda: b"\2" * 16)
    world.reload()
    assert not world.hashes.loaded


def test_a_file_that_cannot_be_written_is_removed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full or sick disk costs the hashes, not a commit, and leaves none that are wrong."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    world.hashes.trim()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        world.commit([3], 8)
    assert not (tmp_path / "pages").exists()
    assert world.check() == 0
    world.begin()
    world.learn([3, 4])
    assert world.check() == 2
    world.hashes.close()
