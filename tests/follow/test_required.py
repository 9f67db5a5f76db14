"""Both ways to follow hold back what readers may have seen already."""

from __future__ import annotations

from pathlib import Path

from litestream.client import ReplicaClient
from litestream.core.position import Pos
from litestream.follow.assemble import Assembler
from litestream.follow.copy import Copy
from litestream.follow.follower import Follower
from litestream.follow.link import Upstream
from litestream.follow.note import Place
from litestream.follow.store import StoreFollower
from litestream.restore import RestoreOptions
from litestream.storage.memory import MemoryStore

G = "0123456789abcdef"
AT, SHOWN = Pos(G, 0, 4152), Pos(G, 0, 12392)


class Known(Copy):
    """A copy that is at AT at least, while its readers may have seen SHOWN."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), str(path.parent))
        self.place, self.shown = Place(AT), SHOWN

    @property
    def page_size(self) -> int:
        return 4096


def holds_back(batch: Assembler | None) -> None:
    assert batch is not None
    batch.held, batch.db_pages = 4120, 1
    assert not batch.ready
    batch.at = SHOWN
    assert batch.ready
    batch.close()


def test_a_stream(tmp_path: Path) -> None:
    """Nothing of a stream is applied before the later of the two states that the copy may be in."""
    follower = Follower(str(tmp_path / "copy.db"), Upstream("http://127.0.0.1:9", "/app.db"))
    follower._copy = Known(tmp_path / "copy.db")
    holds_back(follower._assembler(AT))


async def test_a_replica(tmp_path: Path) -> None:
    """The same of segments from a store."""
    client = ReplicaClient(MemoryStore())
    follower = StoreFollower([("file", client)], str(tmp_path / "copy.db"), RestoreOptions(), 1.0)
    follower._copy = Known(tmp_path / "copy.db")
    follower._client = client
    await follower._apply_new()
    holds_back(follower._batch)
    await client.close()
