"""OpenSSH's sshd, from Debian. Run as root it lets root log in with a key, and nobody with a password.

Where it is not installed, it is in CI and with LITESTREAM_APT=1; otherwise the tests that need it are skipped.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache as once
from pathlib import Path

import pytest

from helpers.servers.base import Server, free_port, listening

KINDS = ("ed25519", "ecdsa", "rsa")
_INSTALL = "apt-get install -y openssh-server"


@once
def _program() -> str:
    """The path of sshd."""
    path = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None and os.geteuid() == 0 and (os.environ.get("CI") == "true" or os.environ.get("LITESTREAM_APT")):
        for command in ("apt-get update", _INSTALL):
            env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(command.split(), capture_output=True, timeout=240, check=False, env=env)
        path = shutil.which("sshd", path="/usr/sbin")
    if path is None:
        pytest.skip(f"sshd is not installed: {_INSTALL}, or run the tests as root with LITESTREAM_APT=1")
    if os.geteuid() != 0:
        pytest.skip("sshd lets only root log in here: run the tests as root")
    return path


def keygen(path: Path, kind: str = "ed25519", passphrase: str = "") -> str:
    """Make a key pair; the public key as one line."""
    bits = ["-b", "2048"] if kind == "rsa" else []
    command = ["ssh-keygen", "-q", "-t", kind, *bits, "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


class SSHD:
    """A running server.

    Attributes:
        port: where it listens.
        host_keys: its public keys by kind, as in known_hosts without the host.
        key: the private key of a user who may log in, `stranger` of one who may not.
    """

    user = "root"

    def __init__(self, folder: Path, *, subsystem: str = "sftp internal-sftp", kinds: Sequence[str] = KINDS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._sshd = _program()
        self._folder = folder
        self.port = free_port()
        self.key, self.stranger = folder / "key", folder / "stranger"
        self.host_keys = {kind: keygen(folder / f"host_{kind}", kind) for kind in kinds}
        (folder / "authorized_keys").write_text(keygen(self.key) + "\n")
        keygen(self.stranger)
        Path("/run/sshd").mkdir(exist_ok=True)
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            *(f"HostKey {folder}/host_{kind}" for kind in kinds),
            f"PidFile {folder}/pid",
            f"AuthorizedKeysFile {folder}/authorized_keys",
            "PasswordAuthentication no",
            "UsePAM no",
            "StrictModes no",
            "PermitRootLogin prohibit-password",
            "MaxStartups 200",
            *([f"Subsystem {subsystem}"] if subsystem else []),
        ]
        (folder / "sshd_config").write_text("\n".join(lines) + "\n")
        self._server: Server | None = None

    @property
    def host_key(self) -> str:
        """One of its public keys, as in known_hosts without the host."""
        return next(iter(self.host_keys.values()))

    def start(self) -> None:
        """Start it."""
        command = [self._sshd, "-D", "-e", "-f", str(self._folder / "sshd_config")]
        self._server = Server(command, self._folder).wait_until(listening(self.port))

    def stop(self) -> None:
        """End it, and every session with it."""
        if self._server is not None:
            for pid in _children(self._server.process.pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._server.stop()

    def folder(self) -> Path:
        """A path at which nothing is yet."""
        return self._folder / "data" / secrets.token_hex(8)

    def version(self) -> str:
        """What it calls itself."""
        done = subprocess.run(["ssh", "-V"], capture_output=True, text=True, timeout=10, check=False)
        return done.stderr.strip()


def _children(pid: int) -> list[int]:
    """All processes below one: sessions are in process groups of their own."""
    found: list[int] = []
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(entry.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    level = [pid]
    while level:
        level = [child for child, parent in parents.items() if parent in level]
        found += level
    return found


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHD]:
    """One server for all tests of the process."""
    server = SSHD(tmp_path_factory.mktemp("sshd"))
    server.start()
    yield server
    server.stop()
