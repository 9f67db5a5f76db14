"""What a process costs: CPU, memory, time, bytes written. Linux only: it is read from /proc and from clocks."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from benchmarks.programs import BenchError, Database, Program, write_config

MIB = 1 << 20
SECOND = 1_000_000_000
"""Nanoseconds."""
_TICKS = os.sysconf("SC_CLK_TCK")
_SCHED = 2
"""The kind of a process's CPU clock that counts what the scheduler saw, to the nanosecond (CPUCLOCK_SCHED)."""

Found = TypeVar("Found")


def now() -> int:
    """Nanoseconds of the clock that all processes share."""
    return time.monotonic_ns()


def wait_for(what: str, look: Callable[[], Found | None], timeout: float, step: float = 0.02) -> Found:
    """The first answer that is true.

    Raises:
        BenchError: there was none in time.
    """
    until = time.monotonic() + timeout
    while not (found := look()):
        if time.monotonic() > until:
            raise BenchError(f"waited {timeout:g} s for {what}")
        time.sleep(step)
    return found


def percentile(numbers: Sequence[float], part: float) -> float:
    """The number below which `part` percent are; NaN of nothing."""
    ordered = sorted(numbers)
    return ordered[round(part / 100 * (len(ordered) - 1))] if ordered else math.nan


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    found, at = [pid], 0
    while at < len(found):
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{found[at]}/task"):
                text = Path(f"/proc/{found[at]}/task/{task}/children").read_text(encoding="ascii")
                found += [int(word) for word in text.split()]
        at += 1
    return found


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process, its ended children and all below it took so far."""
    total = 0.0
    for each in descendants(pid):
        with contextlib.suppress(OSError, IndexError):
            total += time.clock_gettime(~each << 3 | _SCHED)
            fields = Path(f"/proc/{each}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
            total += (int(fields[13]) + int(fields[14])) / _TICKS
    return total


def memory_of(pid: int, key: str = "VmHWM") -> float:
    """MiB of resident memory of a process and all below it: the peak, or with `VmRSS` what it is now."""
    return sum(_memory(each, key) for each in descendants(pid)) / 1024


def _memory(pid: int, key: str) -> int:
    with contextlib.suppress(OSError):
        if found := re.search(key + r":\s+(\d+)", Path(f"/proc/{pid}/status").read_text(encoding="utf-8")):
            return int(found[1])
    return 0


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ran to its end: seconds, seconds, MiB at the peak, exit code."""

    wall: float
    cpu: float
    memory: float
    code: int


def environment() -> dict[str, str]:
    """That of this process, without what would change how a replicator reaches its store."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "LITESTREAM_"))}


def timed_run(argv: Sequence[str], log: Path) -> Ran:
    """Run a command to its end.

    The memory is sampled: the kernel's own peak of an ended child (ru_maxrss) begins with that of its large parent.
    """
    peak, ended = [0.0], threading.Event()
    with log.open("wb") as out:
        began = now()
        process = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT, env=environment())

        def sample() -> None:
            step = 0.002
            while not ended.wait(step):
                peak[0] = max(peak[0], _memory(process.pid, "VmHWM") / 1024)
                step = min(0.02, step * 1.2)

        sampler = threading.Thread(target=sample, daemon=True)
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = (now() - began) / SECOND
        ended.set()
        sampler.join()
        process.returncode = os.waitstatus_to_exitcode(status)
    return Ran(wall, usage.ru_utime + usage.ru_stime, peak[0], process.returncode)


class Replicator:
    """A running `replicate`; a context manager that stops it with SIGINT, as a terminal does.

    Attributes:
        began: when it was started, on the clock of `now`.
    """

    def __init__(self, program: Program, folder: Path, databases: Sequence[Database]) -> None:
        self.config = folder / "litestream.yml"
        write_config(self.config, databases)
        self._log = (folder / "replicate.log").open("ab")
        self.began = now()
        argv = [*program.argv, "replicate", "-config", str(self.config)]
        self._process = subprocess.Popen(argv, stdout=self._log, stderr=subprocess.STDOUT, env=environment())
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        has_ended = self._process.poll() is not None
        self.stop()
        if isinstance(error, BenchError) and has_ended:
            said = self.config.with_name("replicate.log").read_text(encoding="utf-8", errors="replace").strip()
            raise BenchError(f"{error}; replicate had ended: {said[-300:]}") from error

    def stop(self, timeout: float = 120) -> None:
        """End it, after its last sync; a second time does nothing."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()

    @property
    def cpu(self) -> float:
        return cpu_of(self.pid)

    @property
    def peak(self) -> float:
        """MiB."""
        return memory_of(self.pid)

    @property
    def resident(self) -> float:
        """MiB."""
        return memory_of(self.pid, "VmRSS")

    @property
    def written(self) -> int:
        """Bytes that it passed to write calls."""
        with contextlib.suppress(OSError):
            if found := re.search(r"wchar: (\d+)", Path(f"/proc/{self.pid}/io").read_text(encoding="ascii")):
                return int(found[1])
        return 0

    def settle(self, timeout: float, quiet: float = 2.0) -> None:
        """Wait until it takes less than 2 % of a core for `quiet` seconds, but not for ever.

        Ours has then done what it leaves to quiet moments. 0.5 may never rest: it compacts what it has stored.
        """
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            before = self.cpu
            time.sleep(quiet)
            if self.cpu - before < 0.02 * quiet:
                return


class Workspace:
    """A temporary folder; a context manager that leaves neither the folder nor any process that was started."""

    def __init__(self, parent: str | None = None) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="litestream-bench-", dir=parent))
        self._before = set(descendants(os.getpid()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end_children(self._before)
        shutil.rmtree(self.root, ignore_errors=True)

    def fresh(self, name: str) -> Path:
        """An empty folder."""
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def end_children(spared: Collection[int]) -> None:
    """Kill every process below this one but those: what an error or Ctrl-C left behind."""
    for _ in range(100):
        left = [pid for pid in descendants(os.getpid())[1:] if pid not in spared and _is_ours_to_end(pid)]
        if not left:
            return
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.03)


def _is_ours_to_end(pid: int) -> bool:
    """Not what has ended already, and not multiprocessing's own helper, which ends with this process."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()[0]
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return state not in "ZX" and b"resource_tracker" not in command
