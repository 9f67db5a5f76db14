"""versitygw: a second full S3 server, in Go, objects as files. Built from the module proxy at first use."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache as once
from pathlib import Path

import pytest

from helpers.servers.base import Server, cache, free_port, wait_for_http
from helpers.servers.s3 import KEY, SECRET, S3Server

VERSION = "v1.8.0"
_MODULE = "github.com/versity/versitygw/cmd/versitygw"


@once
def _program() -> Path:
    """The program, built once per machine; a few minutes on a slow one."""
    folder = cache() / f"versitygw-{VERSION}"
    binary = folder / "versitygw"
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"versitygw-{VERSION}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if binary.exists():
            return binary
        go = shutil.which("go")
        if go is None:
            pytest.skip("versitygw needs Go to be built, which is not installed")
        building = folder.with_suffix(".building")
        env = {**os.environ, "GOBIN": str(building), "GOFLAGS": "-buildvcs=false"}
        command = [go, "install", f"{_MODULE}@{VERSION}"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            pytest.skip(f"versitygw {VERSION} cannot be built: {done.stderr.strip()[-300:]}")
        building.rename(folder)
    return binary


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for all tests of the process."""
    binary = _program()
    folder = tmp_path_factory.mktemp("versitygw")
    (folder / "data").mkdir()
    port = free_port()
    command = [str(binary), "--port", f"127.0.0.1:{port}", "--health", "/health", "posix", str(folder / "data")]
    process = Server(command, folder, {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET})
    process.wait_until(wait_for_http(f"http://127.0.0.1:{port}/health"))
    yield S3Server(port, VERSION)
    process.stop()
    shutil.rmtree(folder, ignore_errors=True)
