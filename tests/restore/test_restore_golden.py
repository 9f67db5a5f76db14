"""Replicas that the official programs wrote: every state they recorded, in each layout."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from helpers.golden import unpack
from helpers.state import dump_sha256
from litestream.client import open_client
from litestream.core.timestamps import parse_rfc3339
from litestream.errors import LTXReplicaError
from litestream.restore import RestoreOptions, restore

VERSIONS = ["v0.3.13", "v0.4.0-beta.2"]


def _integrity(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


@pytest.mark.parametrize("version", VERSIONS)
async def test_latest_state_is_the_official_one(version: str, tmp_path: Path) -> None:
    """Without limits, the result is what the official restore of that version gives."""
    replica = unpack(version, tmp_path)
    out = tmp_path / "out.db"

    await restore([("file", open_client(str(replica.replica)))], str(out))

    assert (_integrity(out), dump_sha256(out)) == ("ok", replica.final.dump_sha256)


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_recorded_mark(version: str, tmp_path: Path) -> None:
    """A timestamp at which the writer was idle gives the rows of that moment."""
    replica = unpack(version, tmp_path)
    for number, mark in enumerate(replica.marks):
        out = tmp_path / f"{number}.db"
        options = RestoreOptions(timestamp_ns=parse_rfc3339(mark.time), integrity_check="full")

        await restore([("file", open_client(str(replica.replica)))], str(out), options=options)

        assert (number, _integrity(out), dump_sha256(out)) == (number, "ok", mark.dump_sha256)


async def test_ltx_replica_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """A replica of 0.5 is named as what it is."""
    replica = unpack("v0.5.16", tmp_path)

    with pytest.raises(LTXReplicaError, match=r"LTX format of the official Litestream 0\.5"):
        await restore([("file", open_client(str(replica.replica)))], str(tmp_path / "out.db"))

    assert not (tmp_path / "out.db").exists()
