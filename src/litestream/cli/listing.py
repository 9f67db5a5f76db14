"""What the verbs that list a replica's content share. A replica that fails does not hide the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from litestream.cli.common import open_target, run_to_end, tell_warnings
from litestream.cli.flags import Parsed
from litestream.core.timestamps import format_rfc3339
from litestream.errors import LitestreamError, LTXReplicaError

if TYPE_CHECKING:
    from litestream.client import Overview, ReplicaClient
    from litestream.config import DatabaseConfig

R = TypeVar("R")


def collect(parsed: Parsed, rows_of: Callable[[DatabaseConfig | None, str, Overview], list[R]]) -> tuple[list[R], int]:
    """The rows of all chosen replicas, and the exit code: 1 if a replica could not be read (told on stderr).

    `rows_of` gets the database (None for a URL), the replica's name and what is in it.
    """
    from litestream.cli import fail

    async def read() -> tuple[list[R], int]:
        rows: list[R] = []
        code = 0
        async with open_target(parsed) as target:
            tell_warnings(target.config)
            for name, client in target.replicas:
                try:
                    rows += rows_of(target.database, name, await read_overview(client))
                except LitestreamError as e:
                    code = fail(f"replica {name}: {e}")
        return rows, code

    return run_to_end(read())


async def read_overview(client: ReplicaClient) -> Overview:
    """What is in a replica. `LTXReplicaError` where that is nothing but files of the official 0.5."""
    overview = await client.overview()
    if overview.has_ltx and not overview:
        raise LTXReplicaError(
            f"{client.store.url} holds a replica in the LTX format of the official 0.5, which this version cannot read"
        )
    return overview


def shown_time(seconds: float) -> str:
    """A store's time as tables and JSON have it."""
    return format_rfc3339(float(seconds))
