"""Replicas that the official programs wrote are restored at every time at which their content is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import golden, state
from helpers.cli import OURS


@pytest.mark.parametrize("version", ["v0.3.13", "v0.4.0-beta.2"])
def test_golden_replica_restores_at_every_mark(tmp_path: Path, version: str) -> None:
    """The newest state and each marked one are what the official program's database said then."""
    archive = golden.unpack(version, tmp_path)
    url, out = f"file://{archive.replica}", tmp_path / "out.db"
    assert OURS.restored(url, out, "-integrity-check", "full").integrity == "ok"
    assert state.dump_sha256(out) == archive.final.dump_sha256
    assert len(archive.marks) >= 5
    for mark in archive.marks:
        OURS.restored(url, out, "-timestamp", mark.time)
        assert state.dump_sha256(out) == mark.dump_sha256, mark.time


def test_golden_ltx_replica_is_refused(tmp_path: Path) -> None:
    """A replica of 0.5 is refused in one line that says what it is, and no file is left."""
    archive = golden.unpack("v0.5.16", tmp_path)
    result = OURS.restore(f"file://{archive.replica}", tmp_path / "out.db")
    assert result.code == 1
    assert "LTX" in result.err
    assert not list(tmp_path.glob("out.db*"))
