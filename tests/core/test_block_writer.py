"""Frames whose blocks are packed elsewhere are the ones that the library writes, to every reader."""

from __future__ import annotations

import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litestream.streams import BLOCK_SIZE, FRAME_HEADER, BlockWriter, ObjectReader, pack_block


def frame(blocks: list[bytes]) -> bytes:
    writer, out = BlockWriter(), []
    for block in blocks:
        writer.content(block[:100])
        writer.content(block[100:])
        packed = pack_block(block)
        out += [writer.take(len(block), packed), packed]
    return b"".join([*out, writer.finish()])


blocks = st.lists(
    st.one_of(st.binary(min_size=1, max_size=300), st.integers(1, 3000).map(lambda n: b"page" * n)), max_size=6
)


@settings(max_examples=200)
@given(blocks)
def test_any_blocks_are_one_frame(given_blocks: list[bytes]) -> None:
    """Whatever the blocks are, random bytes that do not shrink among them, the library unpacks the frame to them."""
    whole = frame(given_blocks)
    assert whole.startswith(FRAME_HEADER)
    assert lz4.frame.decompress(whole) == b"".join(given_blocks)
    reader = ObjectReader()
    assert b"".join(reader.feed(whole)) == b"".join(given_blocks)
    assert reader.finish() is None


@pytest.mark.parametrize("size", [1, BLOCK_SIZE - 1, BLOCK_SIZE])
def test_whole_blocks(size: int) -> None:
    """Blocks up to the greatest size, one that shrinks and one that does not."""
    random = bytes((n * n * 2654435761 >> 13) & 255 for n in range(4096)) * (size // 4096 + 1)
    data = [bytes(size), random[:size]]
    assert lz4.frame.decompress(frame(data)) == b"".join(data)


def test_a_flipped_bit_is_noticed() -> None:
    """The content's checksum is real."""
    whole = bytearray(frame([b"x" * 1000]))
    whole[-1] ^= 1
    with pytest.raises(RuntimeError):
        lz4.frame.decompress(bytes(whole))


@pytest.mark.parametrize(("block", "packed"), [(b"", b""), (b"x", b"xx"), (bytes(BLOCK_SIZE + 1), b"x")])
def test_what_is_no_block_is_refused(block: bytes, packed: bytes) -> None:
    """An empty block would end the frame, and a larger one no reader takes."""
    with pytest.raises(ValueError, match="no block"):
        BlockWriter().take(len(block), packed)


def test_content_that_is_in_no_block_is_refused() -> None:
    """The checksum is of what the blocks hold: a frame of anything else is never finished."""
    writer = BlockWriter()
    writer.content(b"a block")
    with pytest.raises(ValueError, match="7 bytes of content, 0 in blocks"):
        writer.finish()
