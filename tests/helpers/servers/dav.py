"""What the tests need to know of a WebDAV server: where it is, and the directory that it serves."""

from __future__ import annotations

import base64
import itertools
import os
import signal
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

USER, PASSWORD = "backup", "a secret: of/WebDAV"
"""Who may do everything; with characters that are special in URLs and in Basic authentication."""


@dataclass
class DAVServer:
    """A running server. `folder` is what it serves under `/`; `pid` is set if it has to be told of changes in it."""

    name: str
    port: int
    folder: Path
    version: str = ""
    pid: int = 0
    _count: itertools.count[int] = field(default_factory=itertools.count, repr=False)

    def new_place(self) -> Path:
        """A directory of its own for a test. The server makes it: some remember what they saw in a directory."""
        name = f"test {next(self._count)} é%25"
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        address = f"http://127.0.0.1:{self.port}/{quote(name)}/"
        make = urllib.request.Request(address, method="MKCOL", headers={"Authorization": f"Basic {pair}"})
        with urllib.request.urlopen(make, timeout=10) as answer:
            assert answer.status == 201
        return self.folder / name

    def forget(self) -> None:
        """Make a server that remembers directories (rclone, told so by SIGHUP) look at them anew."""
        if self.pid:
            os.kill(self.pid, signal.SIGHUP)
            time.sleep(0.2)
