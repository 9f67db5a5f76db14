"""Litestream programs as black boxes: ours, and the official ones, behind one interface."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from helpers import ledger, state

T = TypeVar("T")
Yaml = Any  # any value of a configuration


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment programs run in: nobody's configuration, log level or certificates leak in."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LITESTREAM_", "AWS_")) and k != "LOG_LEVEL"}
    return env | dict(extra or {})


def wait_until(
    condition: Callable[[], T], what: str | Callable[[], str], timeout: float = 20, pause: float = 0.02
) -> T:
    """The first true value of `condition`; an AssertionError that says `what` if `timeout` seconds pass without."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout:g} s: {what() if callable(what) else what}")
        time.sleep(pause)


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return (self.out + self.err).strip()


@dataclass
class Database:
    """One entry of `dbs:`."""

    path: Path
    replicas: list[Path | dict[str, Yaml]]
    options: dict[str, Yaml] = field(default_factory=dict)


def write_config(path: Path, databases: Iterable[Database], *, sync: str | None = "100ms", **top: Yaml) -> Path:
    """A configuration in the form that 0.3, 0.5 and we read. JSON is YAML, and needs no quoting rules."""
    dbs = []
    for db in databases:
        replicas = []
        for replica in db.replicas:
            entry = dict(replica) if isinstance(replica, dict) else {"type": "file", "path": str(replica)}
            if sync is not None:
                entry.setdefault("sync-interval", sync)
            replicas.append(entry)
        dbs.append({"path": str(db.path), **db.options, "replicas": replicas})
    settings = {name.replace("_", "-"): value for name, value in top.items()}
    path.write_text(json.dumps({**settings, "dbs": dbs}, indent=1) + "\n")
    return path


def objects(replica: Path) -> list[Path]:
    """The finished objects of a file replica, sorted by name."""
    return sorted(p for p in replica.rglob("*.lz4") if p.is_file())


def generations(replica: Path) -> list[str]:
    """The generations of a file replica that hold an object, the one that began last in the end."""
    began: dict[str, int] = {}
    for path in objects(replica):
        name = path.relative_to(replica).parts[1]
        try:
            time_ns = path.stat().st_mtime_ns
        except FileNotFoundError:
            continue  # deleted by retention since it was listed
        began[name] = min(time_ns, began.get(name, time_ns))
    return sorted(began, key=lambda name: began[name])


class Program:
    """An executable with Litestream's command line."""

    def __init__(self, binary: Path, name: str) -> None:
        self.binary = binary
        self.name = name

    def run(
        self,
        *args: str | Path,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        wrapper: Sequence[str] = (),
    ) -> Result:
        """Run a command to its end. A hang is a failure; so is a traceback in what it says."""
        command = [*wrapper, str(self.binary), *map(str, args)]
        with subprocess.Popen(
            command,
            env=environment(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
                raise AssertionError(f"{self.name} {' '.join(map(str, args))} hangs: {out}{err}") from None
        assert "Traceback (most recent call last)" not in err, err
        return Result(process.returncode, out, err)

    def restore(
        self, source: str | Path, out: Path, *flags: str | Path, config: Path | None = None, timeout: float = 60
    ) -> Result:
        """`restore` into `out`, which is removed first. `source` is a database of `config`, or a replica's URL."""
        for suffix in ("", "-wal", "-shm", "-journal", ".tmp", ".tmp-wal", ".tmp-shm"):
            out.with_name(out.name + suffix).unlink(missing_ok=True)
        chosen: list[str | Path] = ["-config", config] if config else []
        return self.run("restore", *chosen, "-o", out, *flags, source, timeout=timeout)

    def restored(self, source: str | Path, out: Path, *flags: str | Path, config: Path | None = None) -> state.State:
        """The state of what `restore` gives, which must succeed."""
        result = self.restore(source, out, *flags, config=config)
        assert result.code == 0, f"{self.name} restore {' '.join(map(str, flags))}: {result.text}"
        return state.read(out)

    def restored_n(self, source: str | Path, out: Path, *flags: str | Path, config: Path | None = None) -> int:
        """The ledger transaction after which a restored database stands; the restore must succeed."""
        result = self.restore(source, out, *flags, config=config)
        assert result.code == 0, f"{self.name} restore {' '.join(map(str, flags))}: {result.text}"
        return ledger.check(out)

    def converge(self, db: Path, replica: Path, out: Path, *, timeout: float = 20, pages: bool = True) -> state.State:
        """Restore until the result equals the database, which must be still. A damaged restore is a failure."""
        want = state.source(db)
        assert want.integrity == "ok", want
        end = time.monotonic() + timeout
        while True:
            result = self.restore(f"file://{replica}", out)
            got: state.State | None = None
            if result.code == 0:
                got = state.read(out)
                assert got.integrity == "ok", f"{self.name} restored a damaged database: {got}"
                if got == want or (not pages and got.without_pages() == want.without_pages()):
                    return got
            assert time.monotonic() < end, f"{self.name} did not reach the source: {result.text or got} want {want}"
            time.sleep(0.1)

    def reach(self, replica: Path, out: Path, n: int, *, timeout: float = 20, big: int = ledger.BIG) -> int:
        """Restore until ledger transaction `n` is there; each restore on the way must be a committed state."""
        end = time.monotonic() + timeout
        while True:
            result = self.restore(f"file://{replica}", out)
            got = ledger.check(out, big) if result.code == 0 else None
            if got is not None and got >= n:
                return got
            assert time.monotonic() < end, f"{self.name} restores transaction {got}, not {n}: {result.text}"
            time.sleep(0.1)


LITESTREAM = Path(sysconfig.get_path("scripts")) / "litestream"
OURS = Program(LITESTREAM, "litestream")


def run_state(pid: int) -> str:
    """What the kernel says a process is doing: R it runs, S it waits, T it is stopped, Z it is dead."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


class Daemon:
    """`replicate` in the background, with a log of its own. The `daemons` fixture ends it and reads the log."""

    def __init__(
        self, config: Path, *, program: Program = OURS, log: Path | None = None, args: Sequence[str] = ()
    ) -> None:
        self.config = config
        self.program = program
        self.log = log or config.with_suffix(".log")
        self.args = list(args)
        self.process: subprocess.Popen[bytes] | None = None
        self._began = 0

    def start(self, env: Mapping[str, str] | None = None) -> Daemon:
        assert not self.alive
        self._began = len(self.text())
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.program.binary), "replicate", "-config", str(self.config), *self.args],
                env=environment(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 20) -> int:
        """Its exit code; an AssertionError if it does not end."""
        assert self.process is not None
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.program.name} does not end: {self.text()[-2000:]}") from None

    def stop(self, number: int = signal.SIGTERM, timeout: float = 20) -> int:
        """Orderly stop: a signal, and its exit code."""
        assert self.alive, f"{self.program.name} has ended by itself: {self.text()[-2000:]}"
        self.send(number)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL to it and everything it started."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()

    def freeze(self) -> None:
        """SIGSTOP; returns when it really stands still."""
        self.send(signal.SIGSTOP)
        wait_until(lambda: run_state(self.pid) == "T", "it stops")

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def wait_for_log(self, pattern: str, *, timeout: float = 20, after: int = 0) -> re.Match[str]:
        """The first match of a regular expression in the log from character `after` on."""
        expression = re.compile(pattern)

        def find() -> re.Match[str] | None:
            assert self.alive or expression.search(self.text(), after), f"ended: {self.text()[-2000:]}"
            return expression.search(self.text(), after)

        found = wait_until(find, lambda: f"log line {pattern!r} in: {self.text()[-2000:]}", timeout)
        assert found is not None
        return found

    def wait_until_ready(self) -> None:
        """Wait until this start of it has begun to replicate."""
        self.wait_for_log("litestream initialization complete", after=self._began)

    def wait_for_objects(self, replica: Path, count: int = 1, *, timeout: float = 20) -> list[Path]:
        """Wait until a file replica holds `count` objects."""

        def enough() -> list[Path]:
            assert self.alive, f"ended: {self.text()[-2000:]}"
            found = objects(replica)
            return found if len(found) >= count else []

        return wait_until(enough, lambda: f"{count} objects in {replica}: {self.text()[-2000:]}", timeout)
