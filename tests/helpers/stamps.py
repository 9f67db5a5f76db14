"""Stamps for tests: Hypothesis strategies, and hand-made histories of stamped objects."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

from hypothesis import strategies as st

from litestream.core.position import MAX_INDEX, Pos, SnapshotInfo, WALSegmentInfo
from litestream.core.stamp import Kind, Stamp

GENERATION = "0123456789abcdef"

U63 = (1 << 63) - 1

generations = st.integers(1, (1 << 64) - 1).map(lambda n: f"{n:016x}")
indexes = st.one_of(st.integers(0, 5), st.integers(0, MAX_INDEX))
offsets = st.one_of(st.sampled_from([0, 32, 0xFFFFFFFF, 0x100000000]), st.integers(0, U63))
positions = st.builds(Pos, generations, indexes, offsets)


def stamps() -> st.SearchStrategy[Stamp]:
    """Any stamp that can be written down."""
    return st.builds(
        Stamp,
        kind=st.sampled_from(Kind),
        pos=positions,
        page_size=st.sampled_from([512 << n for n in range(8)]),
        db_pages=st.integers(0, 0xFFFFFFFF),
        length=st.integers(0, U63),
        frame_hash=st.binary(min_size=32, max_size=32),
        prev=st.one_of(st.just(Pos()), positions),
        prev_checksum=st.binary(min_size=8, max_size=8),
        end_checksum=st.binary(min_size=8, max_size=8),
        wal_header=st.binary(min_size=32, max_size=32),
        required=st.tuples(indexes, offsets),
        first_commit_ns=st.integers(-U63 - 1, U63),
        last_commit_ns=st.integers(-U63 - 1, U63),
        writer=st.binary(min_size=16, max_size=16),
    )


def example_stamp(**changes: object) -> Stamp:
    """One ordinary stamp of a segment."""
    stamp = Stamp(
        kind=Kind.WAL,
        pos=Pos(GENERATION, 3, 32),
        page_size=4096,
        db_pages=7,
        length=0,
        frame_hash=bytes(32),
        prev=Pos(GENERATION, 3, 32),
        prev_checksum=b"before..",
        end_checksum=b"after...",
        wal_header=b"h" * 32,
        required=(3, 32),
        first_commit_ns=1,
        last_commit_ns=2,
        writer=b"writer".ljust(16),
    )
    return dataclasses.replace(stamp, **changes)  # type: ignore[arg-type]  # fields of Stamp


def checksum_at(generation: str, index: int, offset: int) -> bytes:
    """A made-up running checksum that is another one at each position."""
    return hashlib.sha256(f"{generation} {index} {offset}".encode()).digest()[:8]


def chain(lengths: Sequence[Sequence[int]], *, generation: str = GENERATION, start_ns: int = 1000) -> list[Stamp]:
    """Stamps of a whole generation: `lengths[i]` are the lengths of index i's segments. One commit in each."""
    stamps: list[Stamp] = []
    for index, sizes in enumerate(lengths):
        offset = 0
        for size in sizes:
            prev = Pos(generation, index, offset)
            if offset == 0:
                prev = Pos(generation, *stamps[-1].required) if stamps else Pos()
            end = (index, offset + size)
            moment = start_ns + len(stamps)
            stamps.append(
                example_stamp(
                    pos=Pos(generation, index, offset),
                    length=size,
                    prev=prev,
                    prev_checksum=stamps[-1].end_checksum if stamps else bytes(8),
                    end_checksum=checksum_at(generation, *end),
                    wal_header=bytes([index]) * 32,
                    required=end,
                    db_pages=len(stamps) + 1,
                    first_commit_ns=moment,
                    last_commit_ns=moment,
                )
            )
            offset += size
    return stamps


def snapshot_stamp(index: int, required: tuple[int, int], *, generation: str = GENERATION, moment: int = 1000) -> Stamp:
    """The stamp of a snapshot."""
    return example_stamp(
        kind=Kind.SNAPSHOT,
        pos=Pos(generation, index, 0),
        prev=Pos(),
        prev_checksum=bytes(8),
        required=required,
        first_commit_ns=moment,
        last_commit_ns=moment,
    )


def segment_info(stamp: Stamp, *, created_at: float = 0.0) -> WALSegmentInfo:
    """What a listing says of a stamped segment."""
    return WALSegmentInfo(stamp.pos.generation, stamp.pos.index, stamp.pos.offset, stamp.length + 300, created_at)


def snapshot_info(stamp: Stamp, *, created_at: float = 0.0) -> SnapshotInfo:
    """What a listing says of a stamped snapshot."""
    return SnapshotInfo(stamp.pos.generation, stamp.pos.index, 1000, created_at)
