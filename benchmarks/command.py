"""The command: which lines, in which order, and what becomes of the results."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchmarks import commit_delay, costs, idle, plots, report, requests, restart, restore, results, snapshot, startup
from benchmarks import throughput as load
from benchmarks.lines import Bench, Line
from benchmarks.measure import Workspace
from benchmarks.programs import NAMES, OURS, BenchError, Program, programs

LINES = (
    *startup.LINES,
    *commit_delay.LINES,
    *load.LINES,
    load.COMPACT_LINE,
    *snapshot.LINES,
    *restore.LINES,
    *idle.LINES,
    *restart.LINES,
    *requests.LINES,
)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__.partition("\n")[0] if __doc__ else "")
    made.add_argument("--short", action="store_true", help="3 minutes: small sizes, the lines that a change moves")
    made.add_argument("--only", metavar="NAME[,NAME]", default="", help="only these lines: " + ", ".join(names()))
    made.add_argument("--programs", metavar="NAME[,NAME]", default=",".join(NAMES), help="default: %(default)s")
    made.add_argument("--command", default="", help="how ours is run; default: the litestream beside this Python")
    made.add_argument("--reps", type=int, default=0, help="repetitions; default: by line")
    made.add_argument("--results", type=Path, default=results.KEPT, metavar="DIR", help="where results are kept")
    made.add_argument("--work", metavar="DIR", help="for temporary files (5 GB); default: that of the system")
    made.add_argument(
        "--report", nargs="+", type=Path, metavar="FILE", help="measure nothing: write the page from these"
    )
    made.add_argument(
        "--scale", type=float, default=1.0, help="multiplies sizes and times: to try the benchmark itself"
    )
    return made


def names() -> list[str]:
    """Of all lines."""
    return [line.name for line in LINES]


def chosen(only: str, *, short: bool, reps: int = 0) -> list[tuple[Line, int]]:
    """The lines and how often each is measured.

    Raises:
        BenchError: there is no such line.
    """
    wanted = [name for name in only.split(",") if name]
    if unknown := sorted(set(wanted) - set(names())):
        raise BenchError(f"no such line: {', '.join(unknown)}; there are {', '.join(names())}")
    found = []
    for line in LINES:
        usual = line.reps[1 if short else 0]
        if line.name in wanted or (not wanted and usual):
            found.append((line, reps or max(1, usual)))
    return found


def measure_all(
    bench: Bench, compared: Sequence[Program], lines: Sequence[tuple[Line, int]]
) -> Iterator[results.Measurement]:
    """Every line, its programs in turn, A B C A B C; a line that fails is noted and the others go on."""
    began = time.monotonic()
    for line, count in lines:
        for repetition in range(count):
            for program in compared:
                if line.only and program.name not in line.only:
                    continue
                load_now, at = round(os.getloadavg()[0], 2), round(time.monotonic() - began, 1)
                yield _measured(
                    bench, line, program, results.Measurement(line.name, program.name, repetition, load_now, at)
                )


def _measured(bench: Bench, line: Line, program: Program, head: results.Measurement) -> results.Measurement:
    before = time.monotonic()
    try:
        made = replace(head, values=dict(line.measure(bench, program)))
        shown = "  ".join(f"{name} {report.number(value)}" for name, value in made.values.items())
    except BenchError as error:
        made = replace(head, error=str(error))
        shown = f"FAILED: {error}"
    seconds = time.monotonic() - before
    print(f"{head.at:6.0f} s  {line.name:12} {program.name:7} {seconds:5.1f} s  {shown}", flush=True)
    return made


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    raise SystemExit(128 + number)


def run(options: argparse.Namespace) -> int:
    """Measure, keep, and show or write; the exit code."""
    lines = chosen(options.only, short=options.short, reps=options.reps)
    compared = programs(options.programs.split(","), options.command)
    with Workspace(options.work) as space:
        bench = Bench(space, options.short, options.scale)
        takes = next((load.takes_compact(each, space.root) for each in compared if each.name == OURS), False)
        lines = [pair for pair in lines if takes or pair[0] is not load.COMPACT_LINE]
        head = results.this_run(
            results.SHORT if options.short else results.FULL, {each.name: each.version for each in compared}, space.root
        )
        before = results.newest(options.results, head.form)
        found, path = results.Results(head, []), results.path_of(head, options.results)
        for measurement in measure_all(bench, compared, lines):
            found = results.Results(head, [*found.measurements, measurement])
            results.save(path, found)  # each time: a run that is stopped keeps what it has
    print(f"\n{report.comparison(found, before)}\nkept in {path}")
    if not options.short and not options.only and len(compared) == len(NAMES):
        write_page(found)
    return 1 if found.errors else 0


def write_page(found: results.Results) -> None:
    """The table and the plots of docs/performance.md; of a full run also the memory of docs/costs.md."""
    images = plots.draw(found, report.IMAGES)
    report.write(found, images, {line.name: line.about for line in LINES})
    if found.run.form == results.FULL:
        costs.write(costs.Fleet(), found)
    print(f"written: {report.PAGE}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    options = parser().parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        if options.report:
            if found := results.together(results.load(path) for path in options.report):
                write_page(found)
            return 0
        return run(options)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
