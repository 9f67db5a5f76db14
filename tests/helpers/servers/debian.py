"""Debian packages of servers: installed where a machine may be changed, otherwise a skip that says how."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from functools import cache as once
from pathlib import Path

import pytest

from helpers.official import cache


@once
def need(*packages: str, test: Path) -> None:
    """Make sure that `packages` are installed, which `test` (a file of theirs) tells."""
    if test.exists():
        return
    command = ["apt-get", "install", "-y", *packages]
    allowed = os.environ.get("CI") == "true" or os.environ.get("LITESTREAM_APT") == "1"
    if not (allowed and os.geteuid() == 0 and shutil.which("apt-get")):
        pytest.skip(f"needs Debian packages: {' '.join(command)} (or run the tests as root with LITESTREAM_APT=1)")
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for step in (["apt-get", "update"], command):
            done = subprocess.run(step, env=env, capture_output=True, text=True, timeout=240, check=False)
    if not test.exists():
        pytest.skip(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")
