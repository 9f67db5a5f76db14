"""Applies a WAL to a followed copy and dies at its n-th write: `python -m helpers.copycrash COPY META WAL N`.

N 0: does not die. Prints the position that the copy was opened at, and "applied" when it was.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from litestream.core.position import Pos
from litestream.follow.assemble import Assembler
from litestream.follow.copy import Copy

GENERATION = "0123456789abcdef"


def main(path: str, meta: str, wal: Path, last: int) -> None:
    copy = Copy(path, meta)
    copy.open()
    print(copy.place.pos, flush=True)
    batch = Assembler(copy.place.pos, copy.page_size, required=copy.shown, directory=meta)
    batch.feed(Pos(GENERATION), wal.read_bytes(), None)
    write, done = os.pwrite, 0

    def dying(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal done
        done += 1
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(descriptor, data, offset)

    os.pwrite = dying  # type: ignore[assignment]
    if batch.ready:
        copy.apply(batch)
    print("applied", flush=True)
    os.pwrite = write
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
