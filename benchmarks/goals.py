"""The goals, and whether a run meets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from benchmarks.programs import OURS, V03, V05
from benchmarks.results import Results

_ROUNDING = 1e-9


class Verdict(Enum):
    """What became of a goal."""

    MET = "met"
    MISSED = "**missed**"
    UNKNOWN = "not measured"
    REPORTED = "-"


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound for our number: `factor` times that of a program, or of nobody (an absolute number)."""

    factor: float
    against: str = ""
    at_least: bool = False

    def holds(self, mine: float, theirs: float) -> bool:
        """Whether the bound is kept; compared as a product, so that a peer's zero is no special case."""
        bound = self.factor * theirs
        return mine >= bound - _ROUNDING if self.at_least else mine <= bound + _ROUNDING

    def text(self, unit: str, against: str = "") -> str:
        """As it stands in the table."""
        sign = ">=" if self.at_least else "<="
        if not self.against:
            return f"{sign} {self.factor:.3g}{unit}"
        return f"{sign} {_factor(self.factor)} of {against or self.against}"


def _factor(factor: float) -> str:
    return f"1/{1 / factor:g}" if 0 < factor < 0.4 else f"{factor:g}"


@dataclass(frozen=True, slots=True)
class Goal:
    """A number that is judged.

    Attributes:
        number: of the goal; several rows may belong to one.
        unit: behind the numbers, with its space.
        peers_line: where the peers' number is from; empty for the same line.
    """

    number: int
    what: str
    line: str
    value: str
    unit: str
    limits: Sequence[Limit] = ()
    peers_line: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """A goal with the numbers of a run, in the order ours, 0.3.13, 0.5.17."""

    goal: Goal
    numbers: tuple[float | None, float | None, float | None]
    verdict: Verdict

    @property
    def bounds(self) -> str:
        """The limits in words."""
        if not self.goal.limits:
            return "-"
        first, *rest = self.goal.limits
        if rest and rest[0] == Limit(first.factor, V05, first.at_least):
            return first.text("", "both")
        return "; ".join(limit.text(self.goal.unit) for limit in self.goal.limits)

    @property
    def ratios(self) -> tuple[float | None, float | None]:
        """Ours to 0.3.13, and to 0.5.17."""
        mine, *theirs = self.numbers
        first, second = (None if mine is None or not other else mine / other for other in theirs)
        return first, second


def _both(third: float, fifth: float, *, at_least: bool = False) -> tuple[Limit, Limit]:
    return Limit(third, V03, at_least), Limit(fifth, V05, at_least)


GOALS = (
    Goal(1, "sparse commits: delay, p50", "delay-sparse", "p50_ms", " ms", _both(1 / 200, 1 / 200)),
    Goal(1, "the same, p95", "delay-sparse", "p95_ms", " ms", _both(1 / 50, 1 / 50)),
    Goal(1, "PUTs per commit", "delay-sparse", "puts_per_commit", "", (Limit(1),)),
    Goal(2, "dense commits: PUTs per commit", "delay-dense", "puts_per_commit", "", _both(1, 1)),
    Goal(2, "the same: mean delay", "delay-dense", "mean_ms", " ms", _both(1, 1)),
    Goal(3, "intervals of 1 ms: delay, p50", "delay-1ms", "p50_ms", " ms", _both(1 / 2, 1 / 2)),
    Goal(3, "the same: CPU", "delay-1ms", "cpu_percent", " %", _both(1 / 20, 1 / 20)),
    Goal(4, "unpaced writer: CPU per MiB of WAL", "load", "cpu_ms_per_mib", " ms", _both(1 / 3, 0.6)),
    Goal(5, "the same: until caught up, per MiB", "load", "lag_ms_per_mib", " ms", _both(1 / 9, 1 / 3)),
    Goal(6, "the same: the writer's WAL", "load", "wal_mib_per_s", " MiB/s", _both(0.95, 0.95, at_least=True)),
    Goal(6, "the same: its slowest commit", "load", "commit_max_ms", " ms", _both(1, 1)),
    Goal(7, "20 MiB/s: CPU per MiB of WAL", "load-paced", "cpu_ms_per_mib", " ms", _both(0.45, 0.6)),
    Goal(7, "the same: PUTs a second", "load-paced", "puts_per_s", "", (Limit(10),)),
    Goal(8, "first snapshot of 1 GiB", "snapshot", "wall_s", " s", (Limit(1 / 3, V03),)),
    Goal(8, "the same: CPU", "snapshot", "cpu_s", " s", (Limit(0.45, V03),)),
    Goal(8, "the same: memory", "snapshot", "memory_mib", " MiB", (Limit(64),)),
    Goal(9, "restore of that snapshot", "snapshot", "restore_s", " s", _both(1 / 3, 1 / 12)),
    Goal(9, "the same: CPU", "snapshot", "restore_cpu_s", " s", _both(1 / 5, 1 / 25)),
    Goal(10, "restore of 300 MiB of WAL", "restore-wal", "restore_s", " s", (Limit(1 / 2.5, V03),)),
    Goal(10, "the same: CPU", "restore-wal", "restore_cpu_s", " s", (Limit(0.5, V03),)),
    Goal(10, "the same: memory", "restore-wal", "restore_memory_mib", " MiB", (Limit(0.65, V03),)),
    Goal(11, "1,000 databases at rest: CPU", "idle-1000", "cpu_percent", " %", (Limit(0.2),)),
    Goal(11, "the same: memory", "idle-1000", "memory_mib", " MiB", (Limit(0.5, V05),)),
    Goal(12, "50 of them active: CPU", "idle-1000", "active_cpu_percent", " %", (Limit(1 / 5, V05),)),
    Goal(12, "the same: delay, p50", "idle-1000", "active_p50_ms", " ms", (Limit(1 / 200, V05),)),
    Goal(13, "`litestream version`", "version", "wall_ms", " ms", (Limit(25),)),
    Goal(13, "first replicated byte", "first-byte", "first_byte_ms", " ms", _both(1 / 4, 1 / 4)),
    Goal(14, "one database at rest: memory", "idle-1", "memory_mib", " MiB", _both(1.5, 1.5)),
    Goal(15, "catch-up: bytes, of a snapshot's", "catch-up", "uploaded_per_snapshot", "", (Limit(0.02),)),
    Goal(15, "the same: time, of a snapshot's", "catch-up", "wall_per_snapshot", "", (Limit(1 / 3),)),
    Goal(16, "restart with nothing changed: objects written", "at-rest", "writes", "", (Limit(0),)),
    Goal(16, "the same: bytes", "at-rest", "bytes", "", (Limit(0),)),
    Goal(16, "the same: requests of the start", "at-rest", "start_requests", ""),
    Goal(16, "at rest afterwards: requests", "at-rest", "later_requests", "", (Limit(0),)),
    Goal(17, "hot pages: bytes stored per byte of WAL", "hot", "stored_per_wal", ""),
    Goal(17, "with `compact: true`", "hot-compact", "stored_per_wal", "", (Limit(1.2, V05),), "hot"),
)


def judge(goal: Goal, results: Results) -> Judged:
    """A goal by the medians of a run."""
    mine = results.median(goal.line, OURS, goal.value)
    third, fifth = (results.median(goal.peers_line or goal.line, name, goal.value) for name in (V03, V05))
    theirs = {V03: third, V05: fifth, "": 1.0}
    verdict = Verdict.MET
    for limit in goal.limits:
        other = theirs[limit.against]
        if mine is None or other is None:
            verdict = Verdict.UNKNOWN
        elif not limit.holds(mine, other):
            verdict = Verdict.MISSED
            break
    if not goal.limits:
        verdict = Verdict.UNKNOWN if mine is None else Verdict.REPORTED
    return Judged(goal, (mine, third, fifth), verdict)


def judge_all(results: Results) -> list[Judged]:
    """Every goal."""
    return [judge(goal, results) for goal in GOALS]
