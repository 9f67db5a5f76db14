"""The WAL checksum: the plain reference, its inverse, and the numpy form that must agree with it."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.walmaker import PAGE_SIZES, flip, make_wal, pages
from litestream.core.checksum import (
    frame_start,
    verify_frames,
    verify_frames_numpy,
    verify_frames_plain,
    wal_checksum,
    wal_checksum_back,
)
from litestream.core.wal import WAL_HEADER_SIZE, frame_offset, frame_size

words = st.integers(0, 0xFFFFFFFF)
checksums = st.tuples(words, words)
units = st.binary(max_size=400).map(lambda b: b[: len(b) // 8 * 8])


def test_checksum_of_a_known_header() -> None:
    """A WAL header that SQLite itself wrote has the checksum that SQLite put into it."""
    raw = bytes.fromhex("377f0682002de21800001000000000009badbb82bf059d71")
    assert wal_checksum(raw, big=False) == (0x57A2B0AE, 0x81278E12)


@given(data=units, start=checksums, big=st.booleans())
def test_back_undoes_forward(data: bytes, start: tuple[int, int], big: bool) -> None:
    """Going back from where the checksum ended gives where it began, and the other way round."""
    assert wal_checksum_back(data, wal_checksum(data, start, big=big), big=big) == start
    assert wal_checksum(data, wal_checksum_back(data, start, big=big), big=big) == start


@given(data=units, cut=st.integers(0, 50), start=checksums, big=st.booleans())
def test_checksum_runs_on(data: bytes, cut: int, start: tuple[int, int], big: bool) -> None:
    """The checksum of two pieces, one after the other, is that of the whole."""
    first, second = data[: 8 * cut], data[8 * cut :]
    assert wal_checksum(second, wal_checksum(first, start, big=big), big=big) == wal_checksum(data, start, big=big)


@given(data=units, big=st.booleans(), start=checksums)
def test_byte_orders_mirror_each_other(data: bytes, big: bool, start: tuple[int, int]) -> None:
    """Turning every word round and taking the other byte order gives the same checksum."""
    turned = b"".join(data[i : i + 4][::-1] for i in range(0, len(data), 4))
    assert wal_checksum(turned, start, big=not big) == wal_checksum(data, start, big=big)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("loaded", [False, True])
def test_where_a_frame_begins(page_size: int, big: bool, loaded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checksum before a frame is found with numpy and without, whatever its bytes are."""
    import numpy  # noqa: ICN001 - only that it is there

    if not loaded:
        monkeypatch.delitem(sys.modules, numpy.__name__)
    frame = random.Random(page_size).randbytes(24 + page_size)
    start = frame_start(frame, big=big)
    end = wal_checksum(frame[24:], wal_checksum(frame[:8], start, big=big), big=big)
    assert b"".join(part.to_bytes(4, "big") for part in end) == frame[16:24]


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("big", [False, True])
def test_numpy_agrees_on_valid_frames(page_size: int, big: bool) -> None:
    """Frames chained by the reference are all valid for numpy, for every page size and byte order."""
    header, wal = make_wal(page_size, pages(random.Random(page_size), page_size, [0, 0, 3, 0, 0, 1]), big=big)
    args = (page_size, WAL_HEADER_SIZE, 6, header.checksum, header.salts, big)
    assert verify_frames_numpy(wal, *args) == verify_frames_plain(wal, *args) == 6


@settings(deadline=None, max_examples=200)
@given(
    page_size=st.sampled_from(PAGE_SIZES),
    big=st.booleans(),
    count=st.integers(1, 9),
    shift=st.integers(0, 9),
    seed=st.integers(0, 1 << 32),
    damage=st.sampled_from(["none", "bit", "salt", "pgno 0", "start", "noise"]),
)
def test_numpy_agrees_on_damaged_frames(
    page_size: int, big: bool, count: int, shift: int, seed: int, damage: str
) -> None:
    """Whatever is wrong, at any alignment of the buffer, both forms count the same valid frames."""
    rng = random.Random(seed)
    header, wal = make_wal(page_size, pages(rng, page_size, [rng.randrange(2) for _ in range(count)]), big=big)
    start, expected = header.checksum, count
    size, hit = frame_size(page_size), rng.randrange(count)
    at = frame_offset(hit, page_size)
    if damage == "bit":
        wal, expected = flip(wal, rng.randrange(8 * at, 8 * (at + size))), hit
    elif damage == "salt":
        wal, expected = wal[: at + 8] + rng.randbytes(8) + wal[at + 16 :], hit
    elif damage == "pgno 0":
        wal, expected = wal[:at] + bytes(4) + wal[at + 4 :], hit
    elif damage == "start":
        start, expected = (start[0] ^ 1 << rng.randrange(32), start[1]), 0
    elif damage == "noise":
        wal, expected = wal[:at] + rng.randbytes(size) + wal[at + size :], hit
    buf = rng.randbytes(shift) + wal
    args = (page_size, shift + WAL_HEADER_SIZE, count, start, header.salts, big)
    assert verify_frames_plain(buf, *args) == expected
    assert verify_frames_numpy(buf, *args) == expected


@pytest.mark.parametrize("hit", [None, 0, 3911, 3912, 3913, 8000, 9999])
def test_numpy_goes_on_over_its_chunks(hit: int | None) -> None:
    """More frames than numpy takes at once are checked across the seams, and damage beside a seam is found."""
    header, wal = make_wal(512, pages(random.Random(1), 512, [0] * 10_000))
    if hit is not None:
        wal = flip(wal, 8 * (frame_offset(hit, 512) + 100))
    args = (512, WAL_HEADER_SIZE, 10_000, header.checksum, header.salts, False)
    assert verify_frames_numpy(wal, *args) == (10_000 if hit is None else hit)


def test_both_forms_refuse_page_zero_with_a_right_checksum() -> None:
    """A frame of page 0 ends the run though salts and checksum fit, as in SQLite's recovery."""
    frames = pages(random.Random(2), 512, [0, 0, 1])
    frames[1] = (0, 0, frames[1][2])
    header, wal = make_wal(512, frames)
    args = (512, WAL_HEADER_SIZE, 3, header.checksum, header.salts, False)
    assert verify_frames_plain(wal, *args) == verify_frames_numpy(wal, *args) == 1


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("count", [1, 40, 300])
def test_any_buffer_and_only_whole_frames(kind: type[bytes | bytearray | memoryview], count: int) -> None:
    """Every kind of buffer is taken, and asking for more frames than stand there counts the whole ones."""
    header, wal = make_wal(1024, pages(random.Random(3), 1024, [1] * count))
    for cut, whole in ((0, count), (1, count - 1)):
        buf = kind(wal[: len(wal) - cut])
        valid = verify_frames(
            buf, page_size=1024, offset=32, count=999, start=header.checksum, salts=header.salts, big=False
        )
        assert valid == whole


def test_few_frames_do_not_load_numpy() -> None:
    """A small transaction is checked without the time and memory that loading numpy takes; a big one loads it."""
    script = """
import sys
sys.path.insert(0, sys.argv[1])
import random
from helpers.walmaker import make_wal, pages
from litestream.core.wal import scan_frames
for count in (60, 70):
    header, wal = make_wal(4096, pages(random.Random(4), 4096, [1] * count))
    assert scan_frames(wal, header, start=header.checksum, offset=32).count == count
    print("numpy" in sys.modules)
"""
    tests = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", script, tests], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
