"""Generations, snapshots and WAL segments over any store: what an object *is*, written once.

Names are read in all three layouts, each generation in its own; what is no such name is foreign and ignored. Bodies
are objects as stored (compressed, stamped): `litestream.streams` opens them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple

from litestream.core.layout import GENERATIONS_PREFIX, LAYOUTS, V03, V04, Layout, WALName, detect, generation_of
from litestream.core.layout import is_ltx_key as _is_ltx_key
from litestream.core.position import Pos, SnapshotInfo, WALSegmentInfo
from litestream.core.stamp import STAMP_SIZE, Kind, Stamp
from litestream.errors import CorruptObjectError, MixedLayoutError
from litestream.storage import open_store
from litestream.storage.protocol import ObjectInfo, Store
from litestream.storage.reading import read_tail
from litestream.streams import read_stamp

_LTX_PREFIXES = ("ltx/", "0000/", "0009/")
"""Where 0.5 keeps its first and its last level; the second and third form is that of S3."""


class GenerationView(NamedTuple):
    """What one generation holds: snapshots by index, segments by index and offset."""

    layout: Layout
    snapshots: list[SnapshotInfo]
    segments: list[WALSegmentInfo]


class Overview(dict[str, GenerationView]):
    """What a replica holds, by generation (in order of their names).

    Attributes:
        has_ltx: whether there are files of the official 0.5's format beside, or instead.
    """

    has_ltx: bool = False


def open_client(url: str, *, layout: Layout = V03, **options: Any) -> ReplicaClient:  # noqa: ANN401 - see open_store
    """A client for the replica at a URL or bare path; see `litestream.storage.open_store`."""
    return ReplicaClient(open_store(url, **options), layout)


class ReplicaClient:
    """One replica: a store, and the layout in which new objects are named.

    All errors are `StorageError` and its kinds, `MixedLayoutError` for a generation with names of two layouts, and
    `InvalidNameError` for a generation, index or offset that is none. Every method may be cancelled. What a write
    returns is durable.
    """

    def __init__(self, store: Store, layout: Layout = V03) -> None:
        self.store = store
        self.layout = layout
        self._layouts: dict[str, Layout] = {}  # of generations whose names left no doubt

    @property
    def type(self) -> str:
        """The back end's name: file, memory, s3, …"""
        return self.store.type

    @property
    def readable(self) -> bool:
        """Whether objects can be read back: not where they are encrypted and there is no identity."""
        return getattr(self.store, "readable", True)

    async def close(self) -> None:
        """Let the store's connections go."""
        await self.store.close()

    async def generations(self) -> list[str]:
        """The names of all generations that hold at least one snapshot or segment, sorted."""
        found: set[str] = set()
        for info in await self.store.list(GENERATIONS_PREFIX):
            name = generation_of(info.key)
            if name and name not in found and any(layout.parse(info.key) for layout in LAYOUTS):
                found.add(name)
        return sorted(found)

    async def delete_generation(self, generation: str) -> None:
        """Delete everything below a generation's prefix. An absent generation is no error."""
        infos = await self.store.list(self.layout.generation_prefix(generation))
        first = self.layout.snapshots_prefix(generation)
        # Snapshots first: what an interrupted deletion leaves does not look like a backup.
        await self.store.delete([info.key for info in infos if info.key.startswith(first)])
        await self.store.delete([info.key for info in infos if not info.key.startswith(first)])
        self._layouts.pop(generation, None)

    async def snapshots(self, generation: str) -> list[SnapshotInfo]:
        """The snapshots of a generation by index; empty if there is none, or no such generation."""
        infos = await self.store.list(self.layout.snapshots_prefix(generation))
        return self._view(generation, infos).snapshots

    async def write_snapshot(self, generation: str, index: int, body: bytes | AsyncIterator[bytes]) -> SnapshotInfo:
        """Store a snapshot; one of the same index is replaced."""
        key = self.layout.snapshot_key(generation, index)
        self._remember(generation, self.layout)
        info = await self.store.put(key, body)
        return SnapshotInfo(generation, index, info.size, info.modified)

    async def delete_snapshot(self, generation: str, index: int) -> None:
        """Delete a snapshot. An absent one is no error."""
        await self.store.delete([await self._snapshot_key(generation, index)])

    async def snapshot_reader(self, generation: str, index: int) -> AsyncIterator[bytes]:
        """A snapshot's bytes in chunks. `ObjectNotFoundError`."""
        async for chunk in self.store.get(await self._snapshot_key(generation, index)):
            yield chunk

    async def wal_segments(self, generation: str) -> list[WALSegmentInfo]:
        """The segments of a generation by index and offset; empty if there is none, or no such generation."""
        infos = await self.store.list(self.layout.wal_prefix(generation))
        return self._view(generation, infos).segments

    async def write_wal_segment(self, pos: Pos, body: bytes | AsyncIterator[bytes]) -> WALSegmentInfo:
        """Store a segment that begins at `pos`.

        One that is there already with the same content is success; other content is `ObjectExistsError`: another
        writer was here.
        """
        key = self.layout.wal_key(pos.generation, pos.index, pos.offset)
        self._remember(pos.generation, self.layout)
        info = await self.store.put(key, body, create_only=True)
        return WALSegmentInfo(pos.generation, pos.index, pos.offset, info.size, info.modified)

    async def delete_wal_segments(self, positions: Iterable[Pos]) -> None:
        """Delete segments. Absent ones are no error."""
        positions = list(positions)
        layouts = {name: await self._layout_to_read(name) for name in {pos.generation for pos in positions}}
        keys = [layouts[pos.generation].wal_key(pos.generation, pos.index, pos.offset) for pos in positions]
        await self.store.delete(keys)

    async def wal_segment_reader(self, pos: Pos) -> AsyncIterator[bytes]:
        """A segment's bytes in chunks. `ObjectNotFoundError`."""
        async for chunk in self.store.get(await self._wal_key(pos)):
            yield chunk

    async def read_wal_segment(self, pos: Pos) -> bytes:
        """A whole segment, as stored. `ObjectNotFoundError`."""
        return b"".join([chunk async for chunk in self.wal_segment_reader(pos)])

    async def stamp_of(self, info: SnapshotInfo | WALSegmentInfo) -> Stamp | None:
        """The stamp of a listed object, from its last bytes alone; None if it has none. An encrypted one is read whole.

        `CorruptObjectError` if the stamp is damaged or says another kind, generation, index or offset than the name.
        """
        if isinstance(info, SnapshotInfo):
            kind, pos = Kind.SNAPSHOT, Pos(info.generation, info.index)
            key = await self._snapshot_key(info.generation, info.index)
        else:
            kind, pos = Kind.WAL, info.pos
            key = await self._wal_key(info.pos)
        stamp = read_stamp(await read_tail(self.store, key, info.size, STAMP_SIZE), key)
        if stamp is not None and (stamp.kind, stamp.pos) != (kind, pos):
            raise CorruptObjectError(f"holds the {stamp.kind.name.lower()} object of {stamp.pos}", key=key)
        return stamp

    async def overview(self) -> Overview:
        """Everything in the replica, from one listing of the generations (and a look for LTX files)."""
        by_generation: dict[str, list[ObjectInfo]] = {}
        for info in await self.store.list(GENERATIONS_PREFIX):
            if name := generation_of(info.key):
                by_generation.setdefault(name, []).append(info)
        overview = Overview()
        for name in sorted(by_generation):
            view = self._view(name, by_generation[name])
            if view.snapshots or view.segments:
                overview[name] = view
        overview.has_ltx = await self.has_ltx()
        return overview

    async def has_ltx(self) -> bool:
        """Whether files of the official 0.5's format are there. An empty level is none."""
        for prefix in _LTX_PREFIXES:
            if any(_is_ltx_key(info.key) for info in await self.store.list(prefix)):
                return True
        return False

    def _view(self, generation: str, infos: Sequence[ObjectInfo]) -> GenerationView:
        """Names to values. All of `infos` are below the generation's prefix."""
        layout = detect(info.key for info in infos)
        view = GenerationView(layout, [], [])
        for info in infos:
            match layout.parse(info.key):
                case None:
                    continue
                case WALName(_, index, offset):
                    view.segments.append(WALSegmentInfo(generation, index, offset, info.size, info.modified))
                case name:
                    view.snapshots.append(SnapshotInfo(generation, name.index, info.size, info.modified))
        view.segments.sort(key=lambda segment: (segment.index, segment.offset))
        view.snapshots.sort(key=lambda snapshot: snapshot.index)
        if view.segments or (view.snapshots and layout == V04):  # v0.3 and seed name snapshots alike
            self._remember(generation, layout)
        return view

    def _remember(self, generation: str, layout: Layout) -> None:
        known = self._layouts.setdefault(generation, layout)
        if known != layout:
            raise MixedLayoutError(f"names of two layouts ({known} and {layout}) in generation {generation}")

    async def _layout_to_read(self, generation: str) -> Layout:
        if generation not in self._layouts:
            view = self._view(generation, await self.store.list(self.layout.generation_prefix(generation)))
            return self._layouts.get(generation, view.layout if view.snapshots else self.layout)
        return self._layouts[generation]

    async def _snapshot_key(self, generation: str, index: int) -> str:
        return (await self._layout_to_read(generation)).snapshot_key(generation, index)

    async def _wal_key(self, pos: Pos) -> str:
        return (await self._layout_to_read(pos.generation)).wal_key(pos.generation, pos.index, pos.offset)
