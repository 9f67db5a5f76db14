"""What a line of the benchmark is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import data
from benchmarks.measure import MIB, Ran, Workspace, timed_run
from benchmarks.programs import BenchError, Program

Values = Mapping[str, float]
"""What was measured, by name; the unit is in the name or in the goal that judges it."""


@dataclass
class Bench:
    """What all lines share: the temporary folder, whether this is the short form, and databases built once."""

    space: Workspace
    short: bool
    scale: float = 1.0
    _built: dict[float, Path] = field(default_factory=dict)

    def size(self, full: float, short: float) -> float:
        """A number of the full or of the short form; tests scale it down."""
        return (short if self.short else full) * self.scale

    def database(self, mib: float) -> Path:
        """A database of this size, to be copied; built at first use."""
        if mib not in self._built:
            folder = self.space.root / "built"
            folder.mkdir(exist_ok=True)
            path = folder / f"{mib:g}.db"
            data.build(path, mib)
            self._built[mib] = path
        return self._built[mib]


@dataclass(frozen=True, slots=True)
class Line:
    """One line: what is measured of each program, and how often.

    Attributes:
        measure: measures one program once. Raises `BenchError` if the program's result is wrong.
        reps: repetitions of the full and of the short form; 0 leaves the line out.
        only: names of the programs that are measured; empty for all.
    """

    name: str
    about: str
    measure: Callable[[Bench, Program], Values]
    reps: tuple[int, int]
    only: Sequence[str] = ()


def restored(
    program: Program, replica: Path, folder: Path, expected: tuple[int, ...], flags: Sequence[str] | None = None
) -> Ran:
    """Restore from a directory with the time taken, and see that the content is right.

    Raises:
        BenchError: it failed, or gave something else.
    """
    out = folder / "restored.db"
    for name in ("restored.db", "restored.db-wal", "restored.db-shm"):
        (folder / name).unlink(missing_ok=True)
    flags = program.unchecked if flags is None else flags
    log = folder / "restore.log"
    ran = timed_run([*program.argv, "restore", *flags, "-o", str(out), f"file://{replica}"], log)
    if ran.code:
        said = log.read_text(encoding="utf-8", errors="replace").strip()[-300:]
        raise BenchError(f"restore of {program.name} failed with {ran.code}: {said}")
    if (found := data.fingerprint(out)) != expected:
        raise BenchError(f"{program.name} restored something else: {found} instead of {expected}")
    out.unlink()
    return ran


def mib(count: float) -> float:
    """MiB of bytes."""
    return count / MIB
