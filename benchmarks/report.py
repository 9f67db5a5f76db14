"""Tables of a run: into docs/performance.md between its markers, and to the terminal beside an earlier run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.goals import Judged, Verdict, judge_all
from benchmarks.programs import NAMES, OURS
from benchmarks.results import ROOT, SHORT, Results, Run

PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
_BEGIN, _END = "<!-- generated: {} -->", "<!-- end of generated: {} -->"


def number(value: float | None) -> str:
    """Three digits, as a person reads them."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def ratio(value: float | None) -> str:
    """A quotient; small ones as a fraction."""
    if value is None:
        return "-"
    return f"1/{number(1 / value)}" if 0 < value < 0.4 else number(value)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def goals_table(results: Results) -> str:
    """Every goal with its numbers and its verdict."""
    head = ["#", "what", OURS, *NAMES[1:], f"ours / {NAMES[1]}", f"ours / {NAMES[2]}", "goal", "verdict"]
    return table(head, [_goal_row(each) for each in judge_all(results)])


def _goal_row(judged: Judged) -> list[str]:
    goal = judged.goal
    numbers = [number(value) + (goal.unit if value is not None else "") for value in judged.numbers]
    return [str(goal.number), goal.what, *numbers, *map(ratio, judged.ratios), judged.bounds, judged.verdict.value]


def verdicts(results: Results) -> str:
    """One sentence: how many rows are met."""
    found = [each.verdict for each in judge_all(results)]
    counts = {verdict: found.count(verdict) for verdict in Verdict}
    return f"{counts[Verdict.MET]} rows met, {counts[Verdict.MISSED]} missed, {counts[Verdict.UNKNOWN]} not measured."


def machine(run: Run) -> str:
    """What ran where."""
    form = "**the short form (small sizes, one repetition): not the final numbers**" if run.form == SHORT else "full"
    versions = ", ".join(f"{name} {version}" if name == OURS else version for name, version in run.versions.items())
    return (
        f"Run of {run.date}, {form}. {run.cores} cores of {run.cpu}, {run.memory_gib:g} GiB, {run.system}, "
        f"{run.filesystem}, Python {run.python}; {versions}; commit {run.commit}.\n"
    )


def every_value(results: Results, abouts: dict[str, str]) -> str:
    """All medians, a table for each line."""
    parts = []
    for line in results.lines:
        rows = [
            [name, *(number(results.median(line, program, name)) for program in NAMES)] for name in results.names(line)
        ]
        loads = [each.load for each in results.measurements if each.line == line]
        head = f"**{line}**: {abouts.get(line, '')} (load of the machine {min(loads):.1f} to {max(loads):.1f})\n\n"
        parts.append(head + table(["median", *NAMES], rows))
    return "\n".join(parts) + _errors(results)


def _errors(results: Results) -> str:
    if not results.errors:
        return ""
    lines = [f"* {each.line}, {each.program}: {each.error}" for each in results.errors]
    return "\nFailed measurements:\n\n" + "\n".join(lines) + "\n"


def replaced(text: str, name: str, content: str) -> str:
    """A page with what is between the markers of this name made anew.

    Raises:
        ValueError: the page has no such markers.
    """
    begin, end = _BEGIN.format(name), _END.format(name)
    pattern = re.compile(f"(?<={re.escape(begin)}\n).*(?={re.escape(end)})", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the page has no markers {begin} and {end}")
    return pattern.sub(lambda _: f"\n{content}\n", text)


def write(results: Results, images: Sequence[tuple[str, str]], abouts: dict[str, str], page: Path = PAGE) -> None:
    """Make the generated parts of the page anew; the prose around them stays. `images` are titles and file names."""
    plots = "\n".join(f"![{title}](images/{name})" for title, name in images) + "\n"
    parts = {
        "goals": f"{machine(results.run)}\n{goals_table(results)}\n{verdicts(results)}\n",
        "plots": plots,
        "values": every_value(results, abouts),
    }
    text = page.read_text(encoding="utf-8")
    for name, content in parts.items():
        text = replaced(text, name, content)
    page.write_text(text, encoding="utf-8")


def comparison(results: Results, before: Results | None) -> str:
    """Our medians beside those of an earlier run, and the peers' of this one: for the terminal."""
    earlier = f"before ({before.run.commit})" if before else "before"
    head = ["line", "value", OURS, earlier, "now / before", *NAMES[1:]]
    rows = [head]
    for line in results.lines:
        for name in results.names(line):
            now, *peers = (results.median(line, program, name) for program in NAMES)
            old = before.median(line, OURS, name) if before else None
            change = now / old if now is not None and old else None
            rows.append([line, name, number(now), number(old), number(change), *map(number, peers)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + "\n" for row in rows)
