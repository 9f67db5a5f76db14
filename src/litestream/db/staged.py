"""A whole index of the shadow WAL that nobody sees before all of it is there."""

from __future__ import annotations

import os
import shutil
from typing import Self

from litestream import fsutil
from litestream.core.stamp import Stamp
from litestream.streams import stamped

PREFIX = ".staged-"
"""What the directory's name begins with until it is published; leftovers of a killed process are removed at a load."""


class StagedIndex:
    """Segments on their way into `ShadowWAL.publish`. Blocking. A context manager: what was not published is removed.

    Attributes:
        segments: each segment's stamp and stored bytes, in order.
    """

    def __init__(self, root: str, index: int, access: fsutil.Access) -> None:
        self.index = index
        self.segments: list[tuple[Stamp, int]] = []
        self.path = os.path.join(root, f"{PREFIX}{index:08x}")
        self._access = access
        shutil.rmtree(self.path, ignore_errors=True)
        fsutil.make_dirs(self.path, mode=access.dir_mode, owner=access.owner)

    def append(self, frame: bytes, stamp: Stamp) -> None:
        """Store the next segment. Raises `OSError`."""
        body = stamped(frame, stamp)
        path = os.path.join(self.path, f"{stamp.pos.offset:08x}.wal.lz4")
        with fsutil.AtomicFile(path, mode=self._access.file_mode, owner=self._access.owner) as file:
            file.write(body)
            file.publish(durable=False)
        self.segments.append((stamp, len(body)))

    def move(self, directory: str) -> None:
        """Give the index its name. What stands under it is no part of the shadow WAL. Raises `OSError`."""
        shutil.rmtree(directory, ignore_errors=True)
        os.rename(self.path, directory)
        fsutil.fsync_dir(os.path.dirname(directory))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def remove_leftovers(root: str) -> None:
    """Remove what killed processes have staged below a shadow WAL's root."""
    try:
        names = os.listdir(root)
    except OSError:
        return  # there is none yet
    for name in names:
        if name.startswith(PREFIX):
            shutil.rmtree(os.path.join(root, name), ignore_errors=True)
