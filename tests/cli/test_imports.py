"""What is imported, and when: start-up and memory are made of it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.cli import Database, environment, write_config

PACKAGES = {"numpy", "obstore", "prometheus_client", "starlette", "uvicorn", "rich", "pydantic", "asyncssh", "nats"}
SLOW = {*PACKAGES, "argparse", "asyncio", "logging", "yaml", "lz4", "apsw", "ssl", "socket", "subprocess"}

LATER = {
    *(f"litestream.daemon.{name}" for name in ("control", "directories", "reload", "difference", "exchange", "sight")),
    *(f"litestream.{name}" for name in ("web", "verify", "follow", "restore", "core.costs", "storage.obs")),
}
"""Parts of ours that nobody needs before the first upload of a plain configuration."""

UPLOADING = """
import os, signal, sys
from litestream.storage.file import FileStore

put, seen = FileStore.put, []

async def watched(self, *args, **options):
    stored = await put(self, *args, **options)
    if not seen:
        seen.extend(sys.modules)
        os.kill(os.getpid(), signal.SIGTERM)
    return stored

FileStore.put = watched
from litestream.cli import run

code = run(["replicate", "-config", sys.argv[1]])
print("", *seen, sep="\\n")
sys.exit(code)
"""


def loaded(code: str, *args: str) -> set[str]:
    """The modules that such a process says it has."""
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=True, env=environment()
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "argv", [["version"], ["help"], ["replicate", "-h"], ["completion", "bash"], ["completion", "zsh"]]
)
def test_a_command_that_only_prints_imports_no_package(argv: list[str]) -> None:
    """Version, help and completion are asked for by shells and scripts all the time."""
    code = f"import sys; sys.argv = ['litestream', *{argv!r}]; import litestream.__main__ as main\n"
    code += "try: main.main()\nexcept SystemExit as e: assert not e.code\nprint('', *sys.modules, sep='\\n')"
    found = loaded(code)
    assert not (PACKAGES if argv == ["replicate", "-h"] else SLOW) & found


def test_the_first_upload_waits_for_no_package_that_it_does_not_need(tmp_path: Path) -> None:
    """Up to the first object of a file replica, neither packages for bulk, services and pages nor our parts for
    them are imported."""
    with sqlite3.connect(tmp_path / "app.db") as app:
        app.executescript("PRAGMA journal_mode=wal; CREATE TABLE t(x); INSERT INTO t VALUES (1);")
    app.close()
    config = write_config(tmp_path / "litestream.yml", [Database(tmp_path / "app.db", [tmp_path / "replica"])])
    found = loaded(UPLOADING, str(config))
    assert "litestream.daemon.database" in found
    assert not (PACKAGES | LATER) & found
