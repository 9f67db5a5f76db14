"""Replicas written by the official programs, where the shared folder is at hand."""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Mark:
    """What the database said at a moment when its writer had been idle."""

    time: str
    rows: int
    dump_sha256: str


@dataclass(frozen=True)
class Golden:
    """An unpacked archive; `final` is what the official restore of the same version gives."""

    replica: Path
    final: Mark
    marks: list[Mark]


def shared() -> Path:
    """LITESTREAM_SHARED, or the folder `shared` beside the project."""
    return Path(os.environ.get("LITESTREAM_SHARED") or Path(__file__).resolve().parents[3] / "shared")


def unpack(version: str, target: Path) -> Golden:
    """Unpack an archive with its modification times, which are the objects' times of creation."""
    archive = shared() / "golden" / f"{version}.tar.gz"
    if not archive.exists():
        pytest.skip(f"no golden replica: {archive} is absent (LITESTREAM_SHARED names the folder)")
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    expected = json.loads((target / "expected.json").read_text())
    marks = [Mark(**mark) for mark in expected["marks"]]
    final = Mark("", expected["final"]["rows"], expected["final"]["dump_sha256"])
    return Golden(target / "replica", final, marks)
