"""Replication from inside a Python program: `litestream.start` runs the replicator as a child process.

A child process and not a thread: two SQLite libraries in one process drop each other's POSIX locks, and the program has
its own. The child ends when the program ends, however that happens, with a last sync.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from litestream.daemon.parent import VARIABLE
from litestream.errors import ConfigError, LitestreamError
from litestream.storage import split_scheme

_log = logging.getLogger("litestream.embed")
_FIRST_PAUSE = 1.0  # seconds before a replicator that died is started again; doubled each time
_LONGEST_PAUSE = 30.0
_HEALTHY_AFTER = 60.0  # one that lived this long was well: the pause begins anew

Destination = str | Sequence[str]
PathLike = str | os.PathLike[str]


class Replicator:
    """A running replicator; made by `start`. A context manager: leaving it calls `stop`.

    A child that dies by itself is started again (after 1 s, then longer, at most 30 s), and a warning is logged.
    """

    def __init__(self, command: Sequence[str], document: str | None, *, ready_timeout: float) -> None:
        self._command = list(command)
        self._document = document
        self._ready_timeout = ready_timeout
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._child, self._link = self._spawn()
        self._supervisor = threading.Thread(target=self._supervise, name="litestream-supervisor", daemon=True)
        self._supervisor.start()

    @property
    def pid(self) -> int:
        """Process id of the child that runs now, or ran last."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the child is alive."""
        return self._child.poll() is None

    def stop(self, timeout: float = 40.0) -> int:
        """End the replicator after a last sync; returns its exit code: 0 if everything is in the replicas.

        It is killed after `timeout` seconds; the configuration's `shutdown-sync-timeout` (30 s) should be shorter.
        May be called twice. In a fork of the program that called `start` it does nothing and returns 0.
        """
        if os.getpid() != self._owner:
            return 0
        self._stopping.set()
        with self._lock:
            child = self._child
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
            try:
                child.wait(timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._supervisor.join()
        self._link.close()
        return child.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _spawn(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """Start a child and wait until it says that it is ready. Raises `LitestreamError` with its own words."""
        ours, theirs = socket.socketpair()
        command, written = list(self._command), ""
        try:
            if self._document is not None:
                written = _private_file(self._document)
                command += ["-config", written, "-no-expand-env"]
            with theirs:
                child = subprocess.Popen(  # noqa: S603 our own program
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=sys.__stderr__ if sys.__stderr__ is not None else subprocess.DEVNULL,
                    env={**os.environ, VARIABLE: str(theirs.fileno())},
                    pass_fds=[theirs.fileno()],
                )
            try:
                self._await_ready(child, ours)
            except BaseException:
                child.kill()
                child.wait()
                raise
        except BaseException:
            ours.close()
            raise
        finally:
            if written:
                os.unlink(written)  # it may hold secrets, and has been read
        return child, ours

    def _await_ready(self, child: subprocess.Popen[bytes], link: socket.socket) -> None:
        line, until = b"", time.monotonic() + self._ready_timeout
        while not line.endswith(b"\n"):
            link.settimeout(max(0.001, until - time.monotonic()))
            try:
                chunk = link.recv(4096)
            except TimeoutError as e:
                raise LitestreamError(f"the replicator was not ready within {self._ready_timeout:g} s") from e
            if not chunk:
                raise LitestreamError(f"the replicator ended at its start with exit code {child.wait()}")
            line += chunk
        verdict, _, reason = line.decode("utf-8", "replace").strip().partition(" ")
        if verdict != "ready":
            raise ConfigError(reason)

    def _supervise(self) -> None:
        pause, started = _FIRST_PAUSE, time.monotonic()
        while True:
            self._child.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - started > _HEALTHY_AFTER:
                pause = _FIRST_PAUSE
            code = self._child.returncode
            _log.warning("the replicator ended with exit code %d; starting it again in %g s", code, pause)
            if self._stopping.wait(pause):
                return
            pause, started = min(2 * pause, _LONGEST_PAUSE), time.monotonic()
            with self._lock:
                if self._stopping.is_set():
                    return
                self._respawn()

    def _respawn(self) -> None:
        self._link.close()
        try:
            self._child, self._link = self._spawn()
        except (LitestreamError, OSError) as e:
            _log.warning("the replicator could not be started again: %s", e)


def start(
    databases: Mapping[PathLike, Destination] | None = None,
    *,
    config: PathLike | Mapping[str, Any] | None = None,
    ready_timeout: float = 30.0,
) -> Replicator:
    """Replicate databases for as long as this program runs, in a child process.

    Args:
        databases: database path to replica URL, or URLs: `{"app.db": "file:///backup/app"}`.
        config: instead of `databases`, the path of a `litestream.yml`, or its content as a mapping.
        ready_timeout: seconds to wait for the child to be ready.

    Returns when the replicator has been started; its log lines go to this program's stderr. Raises `ConfigError`
    when the configuration is wrong, `LitestreamError` when the child does not start.
    """
    if (databases is None) == (config is None):
        raise ConfigError("give either databases or config to litestream.start")
    command = [sys.executable, "-m", "litestream", "replicate"]
    if isinstance(config, str | os.PathLike):
        return Replicator([*command, "-config", os.fspath(config)], None, ready_timeout=ready_timeout)
    document = config if config is not None else _document(databases or {})
    return Replicator(command, json.dumps(document), ready_timeout=ready_timeout)


def _document(databases: Mapping[PathLike, Destination]) -> dict[str, Any]:
    """The configuration; replicas are named by their type, as `litestream replicate DB_PATH REPLICA_URL...` does."""
    entries = []
    for path, destination in databases.items():
        replicas: list[dict[str, str]] = []
        for url in [destination] if isinstance(destination, str) else destination:
            kind = split_scheme(url) or "file"
            taken = sum(replica["name"].partition("-")[0] == kind for replica in replicas)
            replicas.append({"name": f"{kind}-{taken + 1}" if taken else kind, "url": url})
        entries.append({"path": os.path.abspath(path), "replicas": replicas})
    return {"dbs": entries}


def _private_file(text: str) -> str:
    """A new temporary file that only this user can read (mkstemp makes it 0600)."""
    fd, path = tempfile.mkstemp(prefix="litestream-", suffix=".yml")
    with open(fd, "w", encoding="utf-8") as f:
        f.write(text)
    return path
