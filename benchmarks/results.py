"""Results as they are kept: one file of JSON lines for each run, first what ran where, then each measurement."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "results"
FULL, SHORT = "full", "short"


@dataclass(frozen=True, slots=True)
class Run:
    """What ran, where and when.

    Attributes:
        form: `FULL` or `SHORT`.
        commit: of this project, with `+` if the working tree had changes.
        versions: of the programs, by their names.
    """

    form: str
    date: str
    commit: str
    versions: Mapping[str, str]
    cpu: str
    cores: int
    memory_gib: float
    system: str
    filesystem: str
    python: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement of one program: its values, or the error that says why there are none.

    Attributes:
        load: of the machine when it began, over a minute.
        at: seconds since the run began.
    """

    line: str
    program: str
    repetition: int
    load: float
    at: float
    values: Mapping[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Results:
    """A run and its measurements."""

    run: Run
    measurements: Sequence[Measurement]

    def median(self, line: str, program: str, value: str) -> float | None:
        """Over the repetitions; None if it was not measured."""
        found = [
            each.values[value]
            for each in self.measurements
            if each.line == line and each.program == program and value in each.values
        ]
        return statistics.median(found) if found else None

    def names(self, line: str) -> list[str]:
        """The values that a line has, in the order in which they were written."""
        names: dict[str, None] = {}
        for each in self.measurements:
            if each.line == line:
                names.update(dict.fromkeys(each.values))
        return list(names)

    @property
    def lines(self) -> list[str]:
        """The lines, in their order."""
        return list(dict.fromkeys(each.line for each in self.measurements))

    @property
    def errors(self) -> list[Measurement]:
        """Measurements that failed."""
        return [each for each in self.measurements if each.error]


def this_run(form: str, versions: Mapping[str, str], work: Path) -> Run:
    """The head of a run that begins now; `work` is where its files will be."""
    return Run(
        form=form,
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        commit=_commit(),
        versions=dict(versions),
        cpu=_field("/proc/cpuinfo", "model name") or platform.machine(),
        cores=os.cpu_count() or 1,
        memory_gib=round(int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]) / (1 << 20), 1),
        system=f"{platform.system()} {platform.release()}",
        filesystem=_filesystem(work),
        python=platform.python_version(),
    )


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "src")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def _filesystem(path: Path) -> str:
    """The type of the file system that a path is on, by the longest mount point above it."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, name = line.split()[:3]
        is_above = str(path) == mount or str(path).startswith(mount.rstrip("/") + "/")
        if is_above and len(mount) >= len(best):
            best, kind = mount, name
    return kind


def path_of(run: Run, folder: Path) -> Path:
    """Where a run's results are kept."""
    return folder / f"{run.form}-{run.date.replace(':', '').replace('-', '')}.jsonl"


def save(path: Path, results: Results) -> None:
    """Write a run down."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [asdict(results.run), *(_without_empty(each) for each in results.measurements)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _without_empty(measurement: Measurement) -> dict[str, object]:
    found = asdict(measurement)
    found["values"] = {name: _short(value) for name, value in measurement.values.items()}
    return {name: value for name, value in found.items() if value not in ("", {})}


def _short(value: float) -> float:
    """Four digits: more would be noise, and make the files large."""
    return float(f"{value:.4g}")


def load(path: Path) -> Results:
    """Read a run."""
    head, *rest = path.read_text(encoding="utf-8").splitlines()
    return Results(Run(**json.loads(head)), [Measurement(**json.loads(line)) for line in rest])


def newest(folder: Path, form: str) -> Results | None:
    """The last run of a form that is kept; None if there is none."""
    found = sorted(folder.glob(f"{form}-*.jsonl"))
    return load(found[-1]) if found else None


def together(results: Iterable[Results]) -> Results | None:
    """Several runs as one, with the head of the last: a long run may be made in parts."""
    found = list(results)
    if not found:
        return None
    return Results(found[-1].run, [each for part in found for each in part.measurements])
