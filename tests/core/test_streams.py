"""Objects: LZ4 frames with stamps, whole and in pieces, sound and damaged."""

from __future__ import annotations

import ctypes
import itertools
import random
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.peak import PEAK
from helpers.stamps import GENERATION, chain, example_stamp, stamps
from litestream.core.position import Pos
from litestream.core.stamp import STAMP_SIZE, Kind, Stamp
from litestream.errors import CorruptObjectError, FormatError, PositionError
from litestream.streams import (
    BLOCK_SIZE,
    FRAME_HEADER,
    FrameWriter,
    ObjectReader,
    compress,
    join_segments,
    open_object,
    read_stamp,
    seal,
    stamped,
)

contents = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda data, n: data * n, st.binary(max_size=50), st.integers(0, 3000)),
)

SIZES = [0, 1, 31, 32, 65535, 65536, 262144, 1 << 20, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE]


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at these places."""
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def read(obj: bytes, size: int, *, limit: int | None = None) -> tuple[bytes, Stamp | None]:
    """An object read in chunks of `size`."""
    reader = ObjectReader(key="k", limit=limit)
    data = b"".join(b"".join(reader.feed(obj[at : at + size])) for at in range(0, len(obj), size))
    return data, reader.finish()


def noise(size: int) -> bytes:
    """Bytes that cannot be compressed."""
    return random.Random(size).randbytes(size)


# --- frames


@pytest.mark.parametrize("size", SIZES)
def test_header(size: int) -> None:
    """Every frame begins as those of the official programs, also the empty and the shortest."""
    for data in (bytes(size), noise(size)):
        writer = FrameWriter()
        for frame in (compress(data), writer.write(data) + writer.finish()):
            assert frame[:7] == FRAME_HEADER == bytes.fromhex("04224d186470b9")
            info = lz4.frame.get_frame_info(frame)
            assert info["block_size"] == BLOCK_SIZE
            assert not info["block_linked"]
            assert not info["block_checksum"]
            assert info["content_checksum"]
            assert info["content_size"] == 0
            assert lz4.frame.decompress(frame) == data


def test_lone_wal_header() -> None:
    """32 bytes that do not compress make the 51 bytes that the official programs make of them."""
    data = noise(32)
    frame = compress(data)
    assert frame[:-4] == FRAME_HEADER + struct.pack("<I", 0x80000020) + data + bytes(4)
    assert len(frame) == 51


@given(contents, st.lists(st.integers(0, 150_000), max_size=10))
def test_writer_round_trip(data: bytes, cuts: list[int]) -> None:
    """A frame written in any pieces is an object like any other, with hash and length known at its end."""
    writer = FrameWriter()
    frame = b"".join(writer.write(piece) for piece in pieces(data, cuts)) + writer.finish()
    assert writer.length == len(data)
    got, stamp = open_object(frame + writer.seal(example_stamp()))
    assert got == data
    assert stamp == example_stamp(length=len(data), frame_hash=writer.sha256)


def test_writer_takes_any_buffer() -> None:
    """Bytes, byte arrays and views (also of other items than bytes) may be written."""
    writer = FrameWriter()
    view = memoryview(bytes(range(16))).cast("I")
    frame = writer.write(b"a") + writer.write(bytearray(b"b")) + writer.write(view) + writer.finish()
    assert open_object(frame) == (b"ab" + bytes(range(16)), None)


def test_writer_is_used_once() -> None:
    """A finished writer takes nothing more, and only a finished one gives a stamp."""
    writer = FrameWriter()
    with pytest.raises(ValueError, match="not finished"):
        writer.seal(example_stamp())
    writer.finish()
    with pytest.raises(ValueError, match="is finished"):
        writer.write(b"x")
    with pytest.raises(ValueError, match="is finished"):
        writer.finish()


def test_foreign_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that writes other frames is refused, rather than found out at a restore."""
    monkeypatch.setattr(lz4.frame, "compress_begin", lambda *_, **__: b"\x04\x22\x4d\x18\x60\x40\x82")
    with pytest.raises(FormatError, match="04224d18604082"):
        compress(b"x")


@pytest.mark.skipif(shutil.which("lz4") is None, reason="the lz4 command is not installed")
def test_other_tools_read_objects(tmp_path: Path) -> None:
    """The lz4 command unpacks a stamped object and passes over the stamp."""
    data = noise(1000) + bytes(9 << 20)
    (tmp_path / "x.lz4").write_bytes(seal(data, example_stamp()))
    subprocess.run(["lz4", "-q", "-d", "x.lz4", "x"], cwd=tmp_path, check=True)
    assert (tmp_path / "x").read_bytes() == data


# --- objects


@given(contents, st.one_of(st.none(), stamps()), st.integers(1, 400))
def test_object_round_trip(data: bytes, stamp: Stamp | None, size: int) -> None:
    """An object, stamped or not, reads back the same at once and in chunks of any size."""
    obj = compress(data) if stamp is None else seal(data, stamp)
    got, found = open_object(obj)
    assert got == data
    assert read(obj, size) == (got, found)
    if stamp is None:
        assert found is None
    else:
        assert found is not None
        assert (found.length, found.pos, found.writer) == (len(data), stamp.pos, stamp.writer)
        assert obj == stamped(compress(data), found)
        assert read_stamp(obj[-STAMP_SIZE:]) == found


@pytest.mark.parametrize("size", [1, 7, 65536, 1 << 30])
def test_large_object(size: int) -> None:
    """Content of several blocks comes out in pieces of at most one, however it is fed."""
    data = noise(BLOCK_SIZE // 16) + bytes(2 * BLOCK_SIZE) + b"end"
    obj = seal(data, example_stamp())
    reader = ObjectReader()
    got = []
    for at in range(0, len(obj), size):
        for piece in reader.feed(obj[at : at + size]):
            assert 0 < len(piece) <= BLOCK_SIZE
            got.append(piece)
    assert b"".join(got) == data
    assert reader.length == len(data)
    assert reader.finish() == read_stamp(obj)


def test_frames_of_other_tools() -> None:
    """A frame with smaller, linked blocks and its size is read too: somebody may have packed it again by hand."""
    data = noise(1000) * 300
    for block_size in (lz4.frame.BLOCKSIZE_MAX64KB, lz4.frame.BLOCKSIZE_MAX1MB):
        frame = lz4.frame.compress(data, block_size=block_size, content_checksum=True, block_checksum=True)
        assert read(frame, 1000) == (data, None)


@given(st.binary(max_size=3000), st.integers(1, 9), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255))))
@settings(max_examples=200)
def test_as_the_library_reads_it(data: bytes, repeat: int, changes: list[tuple[int, int]]) -> None:
    """Frames that we take apart ourselves have the content, or the damage, that the LZ4 library finds in them."""
    frame = bytearray(compress(data * repeat))
    for at, value in changes[:3]:
        if at >= len(FRAME_HEADER):
            frame[at % (len(frame) - len(FRAME_HEADER)) + len(FRAME_HEADER)] = value
    try:
        expected, used = lz4.frame.decompress(bytes(frame), return_bytes_read=True)
    except RuntimeError:
        used = 0
    for size in (len(frame), 3):
        if used == len(frame):
            assert read(bytes(frame), size) == (expected, None)
        else:
            with pytest.raises(CorruptObjectError):
                read(bytes(frame), size)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("with_size", [False, True])
def test_large_blocks_of_other_tools(linked: bool, with_size: bool) -> None:
    """Blocks of 4 MiB that need the ones before them, or a frame that says its size, are left to the LZ4 library."""
    data = noise(9000) * 1000
    frame = lz4.frame.compress(
        data,
        block_size=lz4.frame.BLOCKSIZE_MAX4MB,
        block_linked=linked,
        content_checksum=True,
        store_size=with_size,
    )
    assert read(frame, 1000) == (data, None)


@pytest.mark.parametrize("shift", [0, 1, 5])
def test_hashed_beside(shift: int) -> None:
    """With threads for the stamp's hash the same comes out, and damage to any block is found."""
    data = noise(BLOCK_SIZE) + noise(1 << 20) + bytes(BLOCK_SIZE)
    obj = seal(data, example_stamp())
    with ThreadPoolExecutor(1) as pool:
        reader = ObjectReader(beside=pool)
        got = b"".join(b"".join(reader.feed(obj[at : at + 1_000_000])) for at in range(0, len(obj), 1_000_000))
        assert got == data
        assert reader.finish() == read_stamp(obj)
        damaged = bytearray(obj)
        damaged[20 + shift * (1 << 20)] ^= 1  # stored blocks: only a checksum or the hash can tell
        reader = ObjectReader(beside=pool)
        with pytest.raises(CorruptObjectError):
            list(reader.feed(bytes(damaged)))
        changed = stamped(compress(data), example_stamp(length=len(data)))
        changed = compress(data[:-1] + b"x") + changed[-STAMP_SIZE:]
        reader = ObjectReader(beside=pool)
        assert sum(map(len, reader.feed(changed))) == len(data)
        with pytest.raises(CorruptObjectError, match="does not fit the stamp's hash"):
            reader.finish()


@pytest.mark.parametrize("function", ["LZ4_decompress_safe", "none such"])
def test_read_into_buffers(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """With buffers the same comes out, in memory that is used again where the library allows it; damage is found."""
    if function == "none such":
        monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    data = (noise(1 << 20) + bytes(BLOCK_SIZE - (1 << 20))) * 3 + b"end"
    obj = bytearray(seal(data, example_stamp()))
    reader = ObjectReader(buffers=2)
    read, places = b"", []
    for piece in reader.views(obj):
        read += piece
        if isinstance(piece, memoryview):
            places.append(ctypes.addressof(ctypes.c_char.from_buffer(piece)))
    assert read == data
    assert reader.finish() == read_stamp(obj)
    assert [places.index(place) for place in places] == ([0, 1, 0] if function != "none such" else [])
    for at in (30, len(obj) // 2):
        damaged = bytearray(obj)
        damaged[at] ^= 64
        with pytest.raises(CorruptObjectError):
            list(ObjectReader(buffers=2).views(damaged))


@given(contents, st.integers(0, 100), st.integers(1, 500))
def test_content_left_behind(data: bytes, taken: int, size: int) -> None:
    """Content that was not taken out yet comes with the next chunk; the end cannot be reached without it."""
    reader = ObjectReader()
    obj = seal(data, example_stamp())
    got = []
    for at in range(0, len(obj), size):
        for number, piece in enumerate(reader.feed(obj[at : at + size])):
            got.append(piece)
            if number == taken:
                break
    got += reader.feed(b"")
    assert b"".join(got) == data
    assert reader.finish() is not None


def test_end_with_content_left() -> None:
    """Asking for the end while content is left is the caller's mistake, and said so."""
    reader = ObjectReader()
    reader.feed(compress(bytes(2 * BLOCK_SIZE)))
    with pytest.raises(ValueError, match="content is left"):
        reader.finish()


# --- damage


@pytest.mark.parametrize("data", [b"", b"x", noise(48), bytes(500) + noise(20)], ids=["empty", "x", "noise", "zeros"])
def test_every_bit_of_a_stamped_object_counts(data: bytes) -> None:
    """A stamped object with any one bit flipped is found damaged, whole and in chunks."""
    obj = seal(data, example_stamp())
    for bit in range(len(obj) * 8):
        damaged = bytearray(obj)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptObjectError, match=r"^the-key: "):
            open_object(bytes(damaged), key="the-key")
        with pytest.raises(CorruptObjectError, match=r"^k: "):
            read(bytes(damaged), 100)


@pytest.mark.parametrize("data", [b"", b"x", noise(48), bytes(500) + noise(20)], ids=["empty", "x", "noise", "zeros"])
def test_every_bit_of_an_unstamped_object_counts(data: bytes) -> None:
    """Without a stamp the checksums of LZ4 find any one flipped bit that makes a difference."""
    obj = compress(data)
    for bit in range(len(obj) * 8):
        damaged = bytearray(obj)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            assert open_object(bytes(damaged)) == (data, None)
        except CorruptObjectError:
            continue
        assert data[:1] == b"\0"  # zeros may be copied from one place or another


@given(contents, st.integers(0, 400), st.data())
@settings(max_examples=50)
def test_truncation(data: bytes, size: int, draw: st.DataObject) -> None:
    """An object cut anywhere is found out; cut exactly at its stamp it reads as one without a stamp."""
    obj = seal(data, example_stamp())
    end = len(obj) - STAMP_SIZE
    for cut in {draw.draw(st.integers(0, len(obj) - 1)) for _ in range(20)} | {0, 1, 4, 5, end - 1, end + 1}:
        if cut == end:
            continue
        with pytest.raises(CorruptObjectError):
            open_object(obj[:cut])
        with pytest.raises(CorruptObjectError):
            read(obj[:cut], size + 1)
    assert open_object(obj[:end]) == (data, None)


def test_every_truncation() -> None:
    """Each prefix of an object but its bare frame is damaged."""
    obj = seal(noise(100), example_stamp())
    for cut in range(len(obj)):
        if cut != len(obj) - STAMP_SIZE:
            with pytest.raises(CorruptObjectError):
                open_object(obj[:cut])


@given(contents, st.booleans(), st.binary(min_size=1, max_size=500), st.integers(1, 300))
def test_growth(data: bytes, with_stamp: bool, more: bytes, size: int) -> None:
    """Anything behind an object is found out, whatever it is."""
    obj = (seal(data, example_stamp()) if with_stamp else compress(data)) + more
    with pytest.raises(CorruptObjectError):
        open_object(obj)
    with pytest.raises(CorruptObjectError):
        read(obj, size)


@pytest.mark.parametrize("data", [noise(5000), bytes(5000)], ids=["stored", "compressed"])
def test_lying_block_sizes(data: bytes) -> None:
    """A block that says it is longer, shorter, empty or larger than can be is damage, with or without what it says."""
    frame = compress(data)
    word = int.from_bytes(frame[7:11], "little")
    lies = [BLOCK_SIZE + 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 0x80000000 | BLOCK_SIZE, 0, 1, word - 1, word + 1]
    for lie in lies:
        lying = frame[:7] + lie.to_bytes(4, "little") + frame[11:]
        for size in (1, len(lying)):
            with pytest.raises(CorruptObjectError, match=r"damaged|cut short|foreign bytes"):
                read(lying, size)
            with pytest.raises(CorruptObjectError):
                read(lying + noise(BLOCK_SIZE + 5000), BLOCK_SIZE)


def test_growth_is_not_read_to_its_end() -> None:
    """The first byte too many is the error, so that a huge foreign tail is neither fetched nor held."""
    reader = ObjectReader(key="k")
    assert b"".join(reader.feed(seal(b"abc", example_stamp()))) == b"abc"
    with pytest.raises(CorruptObjectError, match="foreign bytes behind the frame"):
        list(reader.feed(b"x"))


def test_blocks_of_any_size() -> None:
    """Blocks shorter than 4 MiB in the middle, as a flushing writer makes them, come out whole at any cut."""
    data = [b"short", noise(BLOCK_SIZE), b"", b"x" * BLOCK_SIZE, b"end"]
    context = lz4.frame.create_compression_context()
    frame: bytes = lz4.frame.compress_begin(
        context, block_size=lz4.frame.BLOCKSIZE_MAX4MB, block_linked=False, content_checksum=True, auto_flush=True
    )
    frame += b"".join(lz4.frame.compress_chunk(context, piece) for piece in data if piece)
    frame += lz4.frame.compress_flush(context)
    for behind in range(16):
        reader = ObjectReader()
        cut = len(frame) - behind
        assert b"".join(reader.feed(frame[:cut])) + b"".join(reader.feed(frame[cut:])) == b"".join(data)
        assert reader.finish() is None


def test_growth_by_what_readers_skip() -> None:
    """A second frame, a second stamp and a foreign skippable frame are foreign bytes too."""
    frame, obj = compress(b"abc"), seal(b"abc", example_stamp())
    skippable = struct.pack("<II", 0x184D2A50, STAMP_SIZE - 8) + bytes(STAMP_SIZE - 8)
    for grown in (frame + frame, frame + obj, obj + obj[-STAMP_SIZE:], obj + frame, frame + skippable, obj + skippable):
        for size in (1, 100, 10_000):
            with pytest.raises(CorruptObjectError, match=r"foreign bytes behind the frame|stamp"):
                read(grown, size)
    for grown in (skippable + frame, obj[-STAMP_SIZE:] + frame, obj[-STAMP_SIZE:]):
        with pytest.raises(CorruptObjectError, match="not an LZ4 frame"):
            read(grown, 10_000)


def test_stamp_of_another_object() -> None:
    """A stamp that belongs to other content is refused, by hash and by length."""
    one, other = seal(b"one", example_stamp()), seal(b"other", example_stamp())
    with pytest.raises(CorruptObjectError, match="does not fit the stamp's hash"):
        read(compress(b"one") + other[-STAMP_SIZE:], 1000)
    with pytest.raises(CorruptObjectError, match=r"does not fit the stamp's hash|larger than"):
        open_object(compress(b"other") + one[-STAMP_SIZE:])
    wrong = stamped(compress(b"one"), example_stamp(length=4))
    with pytest.raises(CorruptObjectError, match="3 bytes, the stamp says 4"):
        open_object(wrong)
    wrong = stamped(compress(b"one"), example_stamp(length=2))
    with pytest.raises(CorruptObjectError, match="3 bytes, the stamp says 2"):
        read(wrong, 1000)


@given(st.binary(max_size=600), st.integers(1, 50))
def test_foreign_bytes(obj: bytes, size: int) -> None:
    """Bytes that are no object are refused, and nothing but our own error leaves."""
    with pytest.raises(CorruptObjectError):
        open_object(obj)
    with pytest.raises(CorruptObjectError):
        read(FRAME_HEADER + obj[:1] + b"\xff" + obj, size)


def test_frame_without_checksum() -> None:
    """A frame without a content checksum proves nothing and is refused."""
    with pytest.raises(CorruptObjectError, match="no content checksum"):
        open_object(lz4.frame.compress(b"abc", content_checksum=False))


def test_damaged_stamp_names_the_object() -> None:
    """The error about a damaged stamp has the object's key."""
    tail = bytearray(seal(b"x", example_stamp())[-STAMP_SIZE:])
    tail[100] ^= 1
    with pytest.raises(CorruptObjectError, match=r"^a/b: the stamp is damaged$") as caught:
        read_stamp(bytes(tail), "a/b")
    assert caught.value.key == "a/b"
    assert read_stamp(compress(noise(500))) is None


# --- limits


@given(contents, st.integers(0, 70_000), st.integers(1, 300))
def test_limit(data: bytes, limit: int, size: int) -> None:
    """Content up to the limit passes, one byte more does not."""
    obj = compress(data)
    if len(data) <= limit:
        assert open_object(obj, limit=limit)[0] == data
        assert read(obj, size, limit=limit)[0] == data
        return
    with pytest.raises(CorruptObjectError, match=f"larger than the {limit} bytes allowed"):
        open_object(obj, limit=limit)
    with pytest.raises(CorruptObjectError, match=f"larger than the {limit} bytes allowed"):
        read(obj, size, limit=limit)


MEMORY = """
import sys
from litestream.streams import FrameWriter, ObjectReader, open_object, stamped
from litestream.errors import CorruptObjectError
sys.path.insert(0, sys.argv[1])
from helpers.stamps import example_stamp
import litestream.streams
MiB = 1 << 20
def grown(before):
    return (peak() - before) // 1024
chunk = bytes(4 * MiB)
before = peak()
writer = FrameWriter()
frame = b"".join(writer.write(chunk) for _ in range(256)) + writer.finish()
obj = frame + writer.seal(example_stamp())
reader = ObjectReader()
total = sum(len(piece) for piece in reader.feed(obj))  # one chunk that unpacks to 1 GiB
assert total == 1 << 30 and reader.finish() is not None
for bomb, limit in ((frame, MiB), (frame, 0), (stamped(frame, example_stamp(length=1000)), None)):
    try:
        open_object(bomb, limit=limit)
        raise SystemExit("the bomb went off")
    except CorruptObjectError:
        pass
print(grown(before))
"""


def test_memory() -> None:
    """1 GiB goes through a writer and a reader, and bombs are refused, within a few blocks of memory."""
    run = subprocess.run(
        [sys.executable, "-c", PEAK + MEMORY, str(Path(__file__).parent.parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(run.stdout) < 40


# --- joining


@st.composite
def segments(draw: st.DrawFn) -> tuple[list[bytes], list[bytes], list[Stamp]]:
    """Contents, objects and stamps of consecutive segments of one index."""
    data = draw(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=6))
    found = chain([[10], [len(d) for d in data]])[1:]
    start = draw(st.integers(0, len(data) - 1))
    objects = [seal(d, stamp) for d, stamp in zip(data, found, strict=True)]
    return data[start:], objects[start:], found[start:]


@given(segments())
def test_join(case: tuple[list[bytes], list[bytes], list[Stamp]]) -> None:
    """Joined segments are their concatenation, with the stamp of the whole."""
    data, objects, found = case
    joined, stamp = open_object(join_segments(objects))
    first, last = found[0], found[-1]
    assert joined == b"".join(data)
    assert stamp is not None
    assert stamp == example_stamp(
        kind=Kind.WAL,
        pos=first.pos,
        prev=first.prev,
        prev_checksum=first.prev_checksum,
        first_commit_ns=first.first_commit_ns,
        last_commit_ns=last.last_commit_ns,
        end_checksum=last.end_checksum,
        required=last.required,
        db_pages=last.db_pages,
        wal_header=last.wal_header,
        length=len(joined),
        frame_hash=stamp.frame_hash,
    )


@given(segments(), st.data())
def test_join_in_two_steps(case: tuple[list[bytes], list[bytes], list[Stamp]], draw: st.DataObject) -> None:
    """What was joined can be joined again, to the same object."""
    _, objects, _ = case
    cut = draw.draw(st.integers(1, len(objects)))
    again = [join_segments(objects[:cut]), *objects[cut:]]
    assert open_object(join_segments(again)) == open_object(join_segments(objects))


def test_a_single_segment_stays_as_it_is() -> None:
    """One segment is not unpacked, let alone packed again."""
    obj = seal(b"abc", example_stamp())
    assert join_segments([obj]) == obj


def test_nothing_to_join() -> None:
    """Joining nothing is the caller's mistake."""
    with pytest.raises(ValueError, match="no segments"):
        join_segments([])


def test_segments_that_do_not_follow() -> None:
    """A gap, a swap, a repetition, another index or another history are errors that say the positions."""
    found = chain([[4, 4, 4], [4]])
    objects = [seal(b"data", stamp) for stamp in found]
    a, b, c, other = objects
    for wrong in ([a, c], [b, a], [a, a], [c, other], [a, b, b]):
        with pytest.raises(PositionError, match=r"^non-contiguous segment: expected=\S+ current=\S+$"):
            join_segments(wrong)
    with pytest.raises(
        PositionError, match=f"expected={GENERATION}/00000000:00000004 current={GENERATION}/00000000:00000008"
    ):
        join_segments([a, c])
    for change in ({"prev_checksum": bytes(8)}, {"wal_header": bytes(31) + b"x"}, {"page_size": 512}):
        fork = seal(b"data", example_stamp(**{**_fields(found[1]), **change}))
        with pytest.raises(PositionError, match="does not continue the one before it"):
            join_segments([a, fork])


def test_damaged_segments_are_not_joined() -> None:
    """An unstamped or damaged segment is never packed into a new object that looks sound."""
    found = chain([[4, 4]])
    objects = [seal(b"data", stamp) for stamp in found]
    with pytest.raises(CorruptObjectError, match="no stamp"):
        join_segments([objects[0], compress(b"data")])
    with pytest.raises(CorruptObjectError):
        join_segments([objects[0], objects[1][:-1]])


def test_a_piece_without_a_commit() -> None:
    """The commit times of a whole are those of its pieces that hold a commit."""
    found = chain([[4, 4, 4]])
    times = [(0, 0), (7, 8), (0, 0)]
    objects = [
        seal(b"data", example_stamp(**{**_fields(stamp), "first_commit_ns": first, "last_commit_ns": last}))
        for stamp, (first, last) in zip(found, times, strict=True)
    ]
    _, stamp = open_object(join_segments(objects))
    assert stamp is not None
    assert (stamp.first_commit_ns, stamp.last_commit_ns) == (7, 8)
    assert stamp.pos == Pos(GENERATION, 0, 0)


def _fields(stamp: Stamp) -> dict[str, object]:
    return {name: getattr(stamp, name) for name in Stamp.__slots__}
