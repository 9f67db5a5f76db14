"""Prometheus' own checker, out of Debian's package `prometheus`. The package is unpacked and not installed: it would
start a server."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from functools import cache as once
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from helpers.official import cache


@once
def promtool() -> Path:
    """Where it is; fetched at first use, otherwise a skip that says why."""
    if found := shutil.which("promtool"):
        return Path(found)
    binary = cache() / "promtool"
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "promtool.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _fetch(binary)
    return binary


def _fetch(binary: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip("promtool is not here, and neither is apt-get, which would fetch Debian's package prometheus")
    with TemporaryDirectory() as folder:
        download = ["apt-get", "download", "-o", "APT::Sandbox::User=root", "prometheus"]
        done = subprocess.run(download, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
        if done.returncode and os.geteuid() == 0:  # no package lists yet
            subprocess.run(["apt-get", "update"], capture_output=True, timeout=240, check=False)
            done = subprocess.run(download, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
        if done.returncode:
            pytest.skip(f"needs promtool of Debian's package prometheus: {done.stderr.strip()[-300:]}")
        package = next(Path(folder).glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True, timeout=120)
        shutil.move(Path(folder) / "usr" / "bin" / "promtool", binary.with_suffix(".new"))
        binary.with_suffix(".new").rename(binary)


def check(*args: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool to its end."""
    command = [str(promtool()), *map(str, args)]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
