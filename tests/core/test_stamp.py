"""The stamp's bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.stamps import GENERATION, example_stamp, stamps
from litestream.core.position import Pos
from litestream.core.stamp import STAMP_SIZE, Kind, Stamp
from litestream.errors import CorruptObjectError


def resealed(raw: bytearray) -> bytes:
    """`raw` with a digest that fits: what another version of this program could have written."""
    raw[-8:] = hashlib.sha256(raw[8:-8]).digest()[:8]
    return bytes(raw)


@given(stamps(), st.binary(max_size=300))
def test_round_trip(stamp: Stamp, before: bytes) -> None:
    """A stamp is read back the same, whatever stands before it."""
    raw = stamp.pack()
    assert len(raw) == STAMP_SIZE
    assert Stamp.unpack(before + raw) == stamp


def test_drawing() -> None:
    """The bytes stand where the drawing in the module says."""
    stamp = example_stamp(
        kind=Kind.SNAPSHOT,
        pos=Pos(GENERATION, 0x11, 0x22),
        prev=Pos("fedcba9876543210", 0x33, 0x44),
        length=0x55,
        db_pages=0x66,
        frame_hash=bytes(range(32)),
        required=(0x77, 0x88),
        first_commit_ns=-1,
        last_commit_ns=0x99,
    )
    raw = stamp.pack()
    assert raw[:8] == struct.pack("<II", 0x184D2A5A, 224)
    assert raw[8:16] == b"LSP\x01\x01\0\0\0"
    assert raw[16:24].hex() == GENERATION
    assert struct.unpack(">QQII", raw[24:48]) == (0x11, 0x22, 4096, 0x66)
    assert struct.unpack(">Q", raw[48:56]) == (0x55,)
    assert raw[56:88] == bytes(range(32))
    assert raw[88:96].hex() == "fedcba9876543210"
    assert struct.unpack(">QQ", raw[96:112]) == (0x33, 0x44)
    assert raw[112:120] == b"before.."
    assert raw[120:128] == b"after..."
    assert raw[128:160] == b"h" * 32
    assert struct.unpack(">QQqq", raw[160:192]) == (0x77, 0x88, -1, 0x99)
    assert raw[192:208] == b"writer".ljust(16)
    assert raw[208:224] == bytes(16)
    assert raw[224:] == hashlib.sha256(raw[8:224]).digest()[:8]


def test_every_bit_counts() -> None:
    """A stamp with any one bit flipped is damaged, or no stamp at all; never another stamp."""
    raw = example_stamp().pack()
    for bit in range(len(raw) * 8):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        if bit < 12 * 8:
            assert Stamp.unpack(bytes(damaged)) is None
        else:
            with pytest.raises(CorruptObjectError, match="stamp is damaged"):
                Stamp.unpack(bytes(damaged))


@given(st.binary(max_size=2 * STAMP_SIZE))
def test_foreign_bytes(tail: bytes) -> None:
    """Bytes that do not begin as a stamp are none."""
    assert Stamp.unpack(tail) is None


def test_cut_short() -> None:
    """A stamp that is not whole is none."""
    raw = example_stamp().pack()
    for size in range(STAMP_SIZE):
        assert Stamp.unpack(raw[:size]) is None
        assert Stamp.unpack(raw[STAMP_SIZE - size :]) is None


def test_unknown_kind() -> None:
    """A stamp of a kind that this version does not know is an error of ours, not a crash."""
    raw = bytearray(example_stamp().pack())
    raw[12] = 3
    with pytest.raises(CorruptObjectError, match=r"unknown kind \(3\)"):
        Stamp.unpack(resealed(raw))


@pytest.mark.parametrize("name", ["frame_hash", "prev_checksum", "end_checksum", "wal_header", "writer"])
@pytest.mark.parametrize("change", [-1, 1])
def test_wrong_sizes_are_refused(name: str, change: int) -> None:
    """A field that is too short or too long is refused rather than filled up or cut off."""
    size = len(getattr(example_stamp(), name)) + change
    with pytest.raises(ValueError, match=name):
        example_stamp(**{name: bytes(size)}).pack()


def test_frozen() -> None:
    """A stamp is a value."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        example_stamp().length = 1  # type: ignore[misc]  # that is the point
