"""Objects of a replica: one LZ4 frame, and behind it our stamp. The only importer of lz4.

The frame is the one that every released official program writes (LZ4 Frame Format 1.6)::

      0   4  magic 0x184D2204, little-endian
      4   1  0x64: version 1, independent blocks, content checksum, no block checksums, no content size, no dictionary
      5   1  0x70: blocks of at most 4 MiB
      6   1  0xB9: second byte of the xxHash-32 of the two bytes before
      7   …  blocks: u32 size, little-endian (bit 31: stored as it is), and so many bytes
          4  zero: end of the blocks
          4  xxHash-32 of the uncompressed content, little-endian

Reading accepts any block size (other LZ4 tools are used on replicas by hand) but always demands the content
checksum, and that nothing follows the frame but exactly one valid stamp (`litestream.core.stamp`), or nothing at all.
An object cut off exactly before its stamp therefore reads as one without a stamp: who knows that the generation is
a stamped one must refuse it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import lz4.block
import lz4.frame

from litestream.core.position import Pos
from litestream.core.stamp import STAMP_SIZE, Stamp
from litestream.errors import CorruptObjectError, EncryptionError, FormatError, PositionError

if TYPE_CHECKING:
    from concurrent.futures import Executor

Buffer = bytes | bytearray | memoryview

FRAME_HEADER = bytes.fromhex("04224d186470b9")
"""What every frame that we write begins with."""

AGE_MAGIC = b"age-encryption.org/v1\n"
"""What an object that was encrypted with age begins with, instead of a frame."""

BLOCK_SIZE = 4 << 20
"""Bytes in a block, so also the greatest piece of data that is handled at once."""

_MAGIC = FRAME_HEADER[:4]
_CONTENT_CHECKSUM = 0x04  # bit in the flag byte behind the magic
_HEAD_SIZE = 5  # magic and flag byte
_MAX_RATIO = 255  # a byte of a block stands for so many at most
_STORED = 1 << 31  # in the word before a block: it stands there as it is
_LARGE = 64 << 10
"""Bytes from which on hashing is worth a hop to another thread."""


def _begin(*, auto_flush: bool) -> tuple[object, bytes]:
    """A compression context and the frame's header.

    `lz4.frame.compress` is not used: it picks a smaller block size, and so another header, for short input.
    """
    context = lz4.frame.create_compression_context()
    header: bytes = lz4.frame.compress_begin(
        context,
        block_size=lz4.frame.BLOCKSIZE_MAX4MB,
        block_linked=False,
        block_checksum=False,
        content_checksum=True,
        auto_flush=auto_flush,
    )
    if header != FRAME_HEADER:
        raise FormatError(f"the installed lz4 library writes frames of another kind ({header.hex()})")
    return context, header


def compress(data: Buffer) -> bytes:
    """`data` as one LZ4 frame. Memory: the data, the frame, nothing beside."""
    # auto_flush: blocks are compressed from `data` itself, without the library's own 4 MiB buffer.
    context, header = _begin(auto_flush=True)
    body: bytes = lz4.frame.compress_chunk(context, data) if len(data) else b""
    end: bytes = lz4.frame.compress_flush(context)
    return b"".join((header, body, end))


def stamped(frame: bytes, stamp: Stamp) -> bytes:
    """The object: `frame`, and `stamp` with the frame's hash filled in. `stamp.length` must be right already."""
    return frame + dataclasses.replace(stamp, frame_hash=hashlib.sha256(frame).digest()).pack()


def seal(data: Buffer, stamp: Stamp) -> bytes:
    """The object that holds `data`: compressed, and `stamp` with hash and length filled in."""
    return stamped(compress(data), dataclasses.replace(stamp, length=len(data)))


class _Frame:
    """One frame while it is written.

    Attributes:
        length: uncompressed bytes taken in so far.
    """

    def __init__(self) -> None:
        self.length = 0
        self._hash = hashlib.sha256()
        self._finished = False

    @property
    def sha256(self) -> bytes:
        """SHA-256 of everything given out so far: after `finish()`, the stamp's `frame_hash`."""
        return self._hash.digest()

    def seal(self, stamp: Stamp) -> bytes:
        """The bytes of `stamp` with hash and length filled in, to stand behind the finished frame."""
        if not self._finished:
            raise ValueError("the frame is not finished")
        return dataclasses.replace(stamp, frame_hash=self.sha256, length=self.length).pack()

    def _open(self) -> None:
        if self._finished:
            raise ValueError("the frame is finished")

    def _emit(self, data: bytes) -> bytes:
        self._hash.update(data)
        return data


class FrameWriter(_Frame):
    """Writes one frame in pieces; holds at most one block (4 MiB) of data.

    ::

        for chunk in chunks: yield writer.write(chunk)
        yield writer.finish()
        yield writer.seal(stamp)
    """

    def __init__(self) -> None:
        super().__init__()
        self._context, self._header = _begin(auto_flush=False)

    def write(self, chunk: Buffer) -> bytes:
        """Take `chunk` in; the frame's next bytes, often none."""
        self._open()
        view = memoryview(chunk).cast("B")
        blocks = (view[start : start + BLOCK_SIZE] for start in range(0, len(view), BLOCK_SIZE))
        body = b"".join(lz4.frame.compress_chunk(self._context, block) for block in blocks)
        self.length += len(view)
        return self._emit(self._take_header() + body)

    def finish(self) -> bytes:
        """The frame's last bytes. Once."""
        self._open()
        self._finished = True
        end: bytes = lz4.frame.compress_flush(self._context)
        return self._emit(self._take_header() + end)

    def _take_header(self) -> bytes:
        header, self._header = self._header, b""
        return header


class BlockWriter(_Frame):
    """Writes one frame whose blocks are packed elsewhere, in any threads; holds no data.

    ::

        for block in blocks:
            writer.content(block)
            packed = pack_block(block)
            yield writer.take(len(block), packed)
            yield packed
        yield writer.finish()
        yield writer.seal(stamp)

    `content` may be some blocks ahead of `take`, in another thread: each of the two is called in the blocks' order.
    """

    def __init__(self) -> None:
        import xxhash  # python-lz4 has it inside only

        super().__init__()
        self._checksum = xxhash.xxh32()
        self._content = 0
        self._begun = False

    def content(self, data: Buffer) -> None:
        """The next bytes of what the frame will hold, in pieces of any size: cheapest just after they were read."""
        self._checksum.update(data)
        self._content += len(data)

    def take(self, size: int, packed: bytes) -> bytes:
        """What stands before the `packed` bytes of the next block, which are of `size` bytes, at most `BLOCK_SIZE`."""
        self._open()
        if not 0 < len(packed) <= size <= BLOCK_SIZE:
            raise ValueError(f"{len(packed)} bytes are no block of {size}")
        before = self._take_header() + (len(packed) | (_STORED if len(packed) == size else 0)).to_bytes(4, "little")
        self._hash.update(before)
        self._hash.update(packed)
        self.length += size
        return before

    def finish(self) -> bytes:
        """The frame's last bytes. Once."""
        self._open()
        if self._content != self.length:
            raise ValueError(f"{self._content} bytes of content, {self.length} in blocks")
        self._finished = True
        return self._emit(self._take_header() + bytes(4) + self._checksum.intdigest().to_bytes(4, "little"))

    def _take_header(self) -> bytes:
        begun, self._begun = self._begun, True
        return b"" if begun else FRAME_HEADER


def pack_block(block: Buffer) -> bytes:
    """One block's bytes as they stand in a frame: compressed, or as they are if that saves nothing. Any thread."""
    packed: bytes = lz4.block.compress(block, store_size=False)
    return packed if len(packed) < len(block) else bytes(block)


def read_stamp(tail: Buffer, key: str = "") -> Stamp | None:
    """The stamp that ends `tail`, the last bytes of an object; None if there is none.

    The frame before it is not looked at. Raises `CorruptObjectError` (with `key`) for a damaged one.
    """
    try:
        return Stamp.unpack(bytes(tail[-STAMP_SIZE:]))
    except CorruptObjectError as exc:
        raise CorruptObjectError(exc.reason, key=key) from exc


class ObjectReader:
    """Reads one object in chunks of any size; holds one chunk and one block.

    ::

        for chunk in chunks:
            for data in reader.feed(chunk): ...
        stamp = reader.finish()

    What comes out is proved only when `finish()` has returned.

    Args:
        key: the object's key, for errors.
        limit: greatest content in bytes; of what is larger no more than a block is unpacked. None: no limit.
        buffers: pieces may be views of so many buffers that are used in turn: for large objects, where fresh memory for
            each block costs as much as unpacking it. Read them with `views`. 0: each piece is new.
        beside: threads, of which one must be free while `feed` is iterated: a large block's hash for the stamp is
            computed there while it is unpacked. None: the caller's thread does all.
    """

    def __init__(
        self, *, key: str = "", limit: int | None = None, beside: Executor | None = None, buffers: int = 0
    ) -> None:
        self.key = key
        self.limit = limit
        self.length = 0
        """Uncompressed bytes given out so far."""
        self._beside = beside
        self._buffers = buffers
        self._hash = hashlib.sha256()
        self._head = b""
        self._frame: _Blocks | _AnyFrame | None = None  # None: the head is not there yet
        self._input = memoryview(b"")
        self._tail = b""

    def feed(self, chunk: Buffer) -> Iterator[bytes]:
        """Take `chunk` in; pieces of content of at most 4 MiB.

        It is an iterator because a small chunk may unpack to 255 times its size; what is left in it comes out of
        the next one. `chunk` must not change before. Raises `CorruptObjectError`, also while it is iterated.
        """
        return cast("Iterator[bytes]", self.views(chunk))

    def views(self, chunk: Buffer) -> Iterator[Buffer]:
        """`feed` for a reader with `buffers`: what comes out is valid until so many further pieces have."""
        view = memoryview(chunk).cast("B")
        self._input = memoryview(bytes(self._input) + bytes(view)) if self._input else view
        if self._frame is None:
            self._frame = self._take_head()
        return self._drain()

    def finish(self) -> Stamp | None:
        """The object's end was fed: the verified stamp, or None if it has none.

        Raises `CorruptObjectError` for a frame cut short, or a stamp that does not fit it.
        """
        if self._input:
            raise ValueError("content is left: iterate over what feed() gave")
        if self._frame is None or not self._frame.ended:
            raise self._corrupt("the object is cut short")
        if not self._tail:
            return None
        stamp = read_stamp(self._tail, self.key) if len(self._tail) == STAMP_SIZE else None
        if stamp is None:
            raise self._corrupt("foreign bytes behind the frame")
        if stamp.frame_hash != self._hash.digest():
            raise self._corrupt("the content does not fit the stamp's hash")
        if stamp.length != self.length:
            raise self._corrupt(f"the content has {self.length} bytes, the stamp says {stamp.length}")
        return stamp

    def _take_head(self) -> _Blocks | _AnyFrame | None:
        """Magic and flags decide whether this is for us at all; the LZ4 library would skip skippable frames."""
        view = memoryview(self._head + bytes(self._input)) if self._head else self._input
        self._head = bytes(view[: len(FRAME_HEADER)])
        if len(view) >= len(_MAGIC) and AGE_MAGIC.startswith(bytes(view[: len(AGE_MAGIC)])):
            raise EncryptionError("is encrypted with age: set age.identities of this replica", key=self.key)
        if not _MAGIC.startswith(self._head[:4]):
            raise self._corrupt("not an LZ4 frame")
        if len(self._head) >= _HEAD_SIZE and not self._head[4] & _CONTENT_CHECKSUM:
            raise self._corrupt("the LZ4 frame has no content checksum")
        if len(self._head) < len(FRAME_HEADER):
            self._input = memoryview(b"")
            return None
        self._input = view
        return _Blocks(self._hash, self._beside, self._buffers) if self._head == FRAME_HEADER else _AnyFrame(self._hash)

    def _drain(self) -> Iterator[Buffer]:
        while self._frame is not None and not self._frame.ended and self._input:
            data = self._unpack(self._frame)
            if data:
                yield data
        if self._input:  # behind the frame; never held beyond the size of a stamp
            self._tail += bytes(self._input[: STAMP_SIZE + 1])
            self._input = memoryview(b"")
            if len(self._tail) > STAMP_SIZE:
                raise self._corrupt("foreign bytes behind the frame")

    def _unpack(self, frame: _Blocks | _AnyFrame) -> Buffer:
        """One step: at most one block."""
        room = BLOCK_SIZE if self.limit is None else min(BLOCK_SIZE, self.limit - self.length + 1)
        try:
            data, used = frame.unpack(self._input, room)
        except (RuntimeError, lz4.block.LZ4BlockError) as exc:
            raise self._corrupt(f"the LZ4 frame is damaged ({exc})") from exc
        self._input = self._input[used:]
        self.length += len(data)
        if self.limit is not None and self.length > self.limit:
            raise self._corrupt(f"the content is larger than the {self.limit} bytes allowed")
        return data

    def _corrupt(self, reason: str) -> CorruptObjectError:
        return CorruptObjectError(reason, key=self.key)


class _AnyFrame:
    """A frame of any kind, read by the LZ4 library."""

    def __init__(self, digest: hashlib._Hash) -> None:
        self.ended = False
        self._hash = digest
        self._context: object = lz4.frame.create_decompression_context()

    def unpack(self, data: memoryview, room: int) -> tuple[bytes, int]:
        """At most `room` bytes of content, and how many of the bytes of `data` were taken. `RuntimeError`: damaged."""
        content, used, self.ended = lz4.frame.decompress_chunk(self._context, data, max_length=room)
        self._hash.update(data[:used])
        return bytes(content), used


class _Blocks:
    """A frame with our header, taken apart here: each block is unpacked from where it lies, in one step.

    The library's own reader copies every block twice more, and cannot share the work with a second thread.
    """

    def __init__(self, digest: hashlib._Hash, beside: Executor | None, buffers: int) -> None:
        import xxhash  # python-lz4 has it inside only

        self.ended = False
        self._hash = digest
        self._beside = beside
        self._checksum = xxhash.xxh32()
        self._unpacker = _Unpacker(buffers) if buffers else None
        self._part = bytearray()  # an item that came in several chunks; used again for the next
        self._filled = 0
        self._wanted = len(FRAME_HEADER)
        self._item: Callable[[memoryview], Buffer] = self._header

    def unpack(self, data: memoryview, _room: int) -> tuple[Buffer, int]:
        """The content of the next item of the frame (most often none), and how many of the bytes of `data` were taken.

        A block is unpacked whole. Raises `RuntimeError` or `LZ4BlockError` for a damaged frame.
        """
        item, used = self._take(data)
        if not item:
            return b"", used
        if self._beside is None or len(item) < _LARGE:
            self._hash.update(item)
            return self._item(item), used
        hashing = self._beside.submit(self._hash.update, item)
        try:
            return self._item(item), used
        finally:
            hashing.result()

    def _take(self, data: memoryview) -> tuple[memoryview, int]:
        """The item that is wanted, or nothing if there is not all of it yet; it is valid until the next one."""
        missing = self._wanted - self._filled
        if not self._filled and len(data) >= missing:
            return data[:missing], missing
        if len(self._part) < self._wanted:
            self._part = bytearray(_LARGE if self._wanted <= _LARGE else BLOCK_SIZE)
        used = min(missing, len(data))
        self._part[self._filled : self._filled + used] = data[:used]
        self._filled += used
        if self._filled < self._wanted:
            return memoryview(b""), used
        self._filled = 0
        return memoryview(self._part)[: self._wanted], used

    def _header(self, _item: memoryview) -> bytes:
        self._wanted, self._item = 4, self._size
        return b""

    def _size(self, item: memoryview) -> bytes:
        word = int.from_bytes(item, "little")
        size = word & 0x7FFFFFFF
        if not word:
            self._item = self._end
        elif 0 < size <= BLOCK_SIZE:
            self._wanted, self._item = size, self._stored if word >> 31 else self._compressed
        else:
            raise RuntimeError(f"a block of {size} bytes")
        return b""

    def _stored(self, item: memoryview) -> Buffer:
        return self._content(bytes(item))

    def _compressed(self, item: memoryview) -> Buffer:
        unpack = _unpack_block if self._unpacker is None else self._unpacker.unpack
        return self._content(unpack(item))

    def _content(self, content: Buffer) -> Buffer:
        self._checksum.update(content)
        self._wanted, self._item = 4, self._size
        return content

    def _end(self, item: memoryview) -> bytes:
        if int.from_bytes(item, "little") != self._checksum.intdigest():
            raise RuntimeError("content checksum")
        self.ended = True
        return b""


class _Unpacker:
    """Unpacks blocks into a few buffers in turn, each at the beginning of a page of memory.

    python-lz4 has no such function: it makes new memory for each block and copies the content once more. The one of
    the LZ4 library is taken that is inside of it, or that it is linked to; where there is none to be found, as always.
    """

    def __init__(self, buffers: int) -> None:
        import ctypes

        self._first_byte = ctypes.c_char.from_buffer
        self._address = ctypes.addressof
        self._buffers = [memoryview(mmap.mmap(-1, BLOCK_SIZE)) for _ in range(buffers)]
        self._turn = 0
        self._function: Callable[..., int] | None = None
        with suppress(AttributeError, OSError):
            function = ctypes.CDLL(lz4.block._block.__file__).LZ4_decompress_safe
            function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
            self._function = function

    def unpack(self, item: memoryview) -> Buffer:
        """The block's content. Raises `LZ4BlockError` for a damaged one."""
        if self._function is None or item.readonly:  # the address of what is read-only cannot be had
            return _unpack_block(item)
        self._turn = (self._turn + 1) % len(self._buffers)
        buffer = self._buffers[self._turn]
        first, into = self._first_byte(item), self._first_byte(buffer)
        size = self._function(self._address(first), self._address(into), len(item), BLOCK_SIZE)
        return buffer[:size] if size >= 0 else _unpack_block(item)  # which says what is wrong


def _unpack_block(item: memoryview) -> bytes:
    content: bytes = lz4.block.decompress(item, uncompressed_size=min(BLOCK_SIZE, len(item) * _MAX_RATIO))
    return content


def open_object(obj: Buffer, *, key: str = "", limit: int | None = None) -> tuple[bytes, Stamp | None]:
    """The content of a whole object and its stamp (None: it has none), everything verified.

    Raises `CorruptObjectError` (with `key`) if the frame is damaged or cut short, anything but exactly one valid
    stamp follows it, the stamp does not fit it, or the content is larger than `limit` bytes (or than the stamp
    says): that is refused before it is unpacked.
    """
    stamp = read_stamp(memoryview(obj)[-STAMP_SIZE:], key)
    if stamp is not None:
        limit = stamp.length if limit is None else min(limit, stamp.length)
    reader = ObjectReader(key=key, limit=limit)
    data = b"".join(reader.feed(obj))
    return data, reader.finish()


def join_segments(objects: Sequence[Buffer]) -> bytes:
    """Stamped WAL segments of one index, each where the one before ended, as one object; a single one as it is.

    The stamp is that of the whole: position, predecessor and first commit of the first, end and last commit of the
    last, and the last one's writer. Memory: the objects, and the content of one.

    Raises `PositionError` where they do not follow each other, `CorruptObjectError` for a damaged or unstamped one.
    """
    if len(objects) == 1:
        return bytes(objects[0])
    writer = FrameWriter()
    frame: list[bytes] = []
    whole: Stamp | None = None
    for obj in objects:
        data, stamp = open_object(obj)
        if stamp is None:
            raise CorruptObjectError("a segment to be joined has no stamp")
        whole = stamp if whole is None else _joined(whole, stamp)
        frame.append(writer.write(data))
    if whole is None:
        raise ValueError("no segments to join")
    frame.append(writer.finish())
    frame.append(writer.seal(whole))
    return b"".join(frame)


def _joined(first: Stamp, then: Stamp) -> Stamp:
    """The stamp of the two segments' content put together."""
    end = Pos(first.pos.generation, first.pos.index, first.pos.offset + first.length)
    if then.pos != end:
        raise PositionError(f"non-contiguous segment: expected={end} current={then.pos}")
    if (then.kind, then.page_size, then.wal_header, then.prev_checksum) != (
        first.kind,
        first.page_size,
        first.wal_header,
        first.end_checksum,
    ):
        raise PositionError(f"segment does not continue the one before it: {then.pos}")
    return dataclasses.replace(
        then,
        pos=first.pos,
        prev=first.prev,
        prev_checksum=first.prev_checksum,
        length=first.length + then.length,
        # 0: a piece of a transaction too big for one segment holds no commit
        first_commit_ns=first.first_commit_ns or then.first_commit_ns,
        last_commit_ns=then.last_commit_ns or first.last_commit_ns,
    )
