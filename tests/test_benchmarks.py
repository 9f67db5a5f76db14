"""The benchmarks run, and judge what they measured correctly."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the benchmarks are no part of the package, and of no test folder

from benchmarks import command, report, results  # noqa: E402  # after the line above
from benchmarks.costs import Fleet, by_provider  # noqa: E402
from benchmarks.goals import GOALS, Goal, Limit, Verdict, judge  # noqa: E402
from benchmarks.programs import NAMES, OURS, V03, V05  # noqa: E402
from benchmarks.requests import predicted_puts  # noqa: E402

MODULES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem != "__init__")
RUN = results.Run("full", "2026-01-02T03:04:05Z", "abc", {OURS: "0.1.0"}, "a cpu", 2, 4.0, "Linux", "ext4", "3.11")


def made(**lines: tuple[float, ...]) -> results.Results:
    """A run with the value `ms` of each line for the three programs; one number is ours alone."""
    found = [
        results.Measurement(line, name, 0, 0.5, 1.0, {"ms": value})
        for line, values in lines.items()
        for name, value in zip(NAMES, values, strict=False)
    ]
    return results.Results(RUN, found)


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, str(ROOT / "benchmarks" / "run.py"), *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)


def test_measuring_needs_no_matplotlib() -> None:
    """Every module is imported in the environment of the tests; only drawing needs more."""
    lines = [f"import benchmarks.{module}" for module in MODULES]
    program = "\n".join([*lines, "import sys", "assert 'matplotlib' not in sys.modules"])
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


def test_help_names_every_line() -> None:
    """The command says what there is to measure."""
    done = benchmark("--help")
    assert done.returncode == 0
    assert all(name in done.stdout.replace("\n", "").replace(" ", "") for name in command.names())


def test_a_line_that_is_not_there_is_one_line_of_error() -> None:
    """A name with a mistake measures nothing."""
    done = benchmark("--only", "nope")
    assert done.returncode == 1
    assert done.stderr.startswith("no such line: nope;") and done.stderr.count("\n") == 1


def test_a_real_line_counts_what_the_formula_says(tmp_path: Path) -> None:
    """Transactions denser than the interval, to a real S3 server: as many uploads as `core.costs` reckons, give or take
    the one at either end; nothing else is asked, and nothing is left behind."""
    kept, work = tmp_path / "kept", tmp_path / "work"
    work.mkdir()
    line = ["--only", "requests", "--programs", OURS, "--scale", "0.2"]
    done = benchmark(*line, "--results", str(kept), "--work", str(work))
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = kept.glob("full-*.jsonl")
    (measured,) = results.load(path).measurements
    assert abs(measured.values["puts"] - measured.values["predicted_puts"]) <= 1
    assert measured.values["puts"] < measured.values["transactions"]
    assert measured.values["lists"] <= 1  # the lease's, once in 20 s
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(("seconds", "change", "puts"), [(10, 0.2, 10), (10, 1, 10), (60, 10, 6), (0, 1, 0)])
def test_predicted_uploads_by_hand(seconds: float, change: float, puts: int) -> None:
    """One upload an interval, or one a transaction if those are rarer."""
    assert predicted_puts(seconds, change) == puts


@pytest.mark.parametrize(
    ("limits", "numbers", "verdict"),
    [
        ((Limit(1 / 3, V03),), (1.0, 3.0, 9.0), Verdict.MET),
        ((Limit(1 / 3, V03),), (1.01, 3.0, 9.0), Verdict.MISSED),
        ((Limit(1 / 3, V03), Limit(0.1, V05)), (1.0, 3.0, 9.0), Verdict.MISSED),
        ((Limit(0.95, V05, at_least=True),), (95.0, 1.0, 100.0), Verdict.MET),
        ((Limit(0.95, V05, at_least=True),), (94.0, 1.0, 100.0), Verdict.MISSED),
        ((Limit(25),), (25.0,), Verdict.MET),
        ((Limit(0),), (1.0, 1.0, 1.0), Verdict.MISSED),
        ((Limit(0.5, V05),), (1.0, 3.0), Verdict.UNKNOWN),
        ((Limit(0.5, V03),), (0.0, 0.0, 0.0), Verdict.MET),
        ((), (1.0, 1.0, 1.0), Verdict.REPORTED),
    ],
)
def test_goals_by_hand(limits: tuple[Limit, ...], numbers: tuple[float, ...], verdict: Verdict) -> None:
    """A goal is met if every limit holds; without the other's number nothing is claimed."""
    assert judge(Goal(1, "x", "line", "ms", " ms", limits), made(line=numbers)).verdict is verdict


def test_goals_are_about_lines_that_there_are() -> None:
    """Each goal names a line of the command, all 17 goals are there, and what was not measured is not judged."""
    assert {goal.line for goal in GOALS} | {goal.peers_line for goal in GOALS} <= {*command.names(), ""}
    assert {goal.number for goal in GOALS} == set(range(1, 18))
    assert all(judge(goal, made()).verdict is Verdict.UNKNOWN for goal in GOALS)


def test_medians_leave_failures_out() -> None:
    """A measurement with a wrong result has no say, and is shown."""
    good = [results.Measurement("line", OURS, n, 0.1, 1.0, {"ms": value}) for n, value in enumerate((1.0, 2.0, 9.0))]
    run = results.Results(RUN, [*good, results.Measurement("line", OURS, 3, 0.1, 1.0, error="it was wrong")])
    assert run.median("line", OURS, "ms") == 2.0
    assert run.median("line", V05, "ms") is None
    assert "* line, ours: it was wrong" in report.every_value(run, {})


def test_results_are_kept_as_they_are(tmp_path: Path) -> None:
    """What is written is what is read; the newest of a form is found."""
    old, new = made(line=(1.0,)), results.Results(RUN, [results.Measurement("line", OURS, 0, 0.1, 1.0, error="no")])
    results.save(tmp_path / "full-20260101T000000Z.jsonl", old)
    results.save(tmp_path / "full-20260102T000000Z.jsonl", new)
    results.save(tmp_path / "short-20260103T000000Z.jsonl", old)
    assert results.newest(tmp_path, results.FULL) == new
    assert results.newest(tmp_path, results.SHORT) == old
    assert results.newest(tmp_path, "other") is None


def test_the_page_keeps_its_prose(tmp_path: Path) -> None:
    """Only what is between markers is made anew, however often; verdict, ratio and unit are in the table."""
    page = tmp_path / "page.md"
    marks = "".join(
        f"by hand {name}\n<!-- generated: {name} -->\nold\n<!-- end of generated: {name} -->\n"
        for name in ("goals", "plots", "values")
    )
    page.write_text(marks + "the end\n", encoding="utf-8")
    version = [
        results.Measurement("version", name, 0, 0.1, 1.0, {"wall_ms": 20.0 * n}) for n, name in enumerate(NAMES, 1)
    ]
    for _ in range(2):
        report.write(results.Results(RUN, version), [("A plot", "plot.svg")], {"version": "how long"}, page)
    text = page.read_text(encoding="utf-8")
    assert "| 13 | `litestream version` | 20 ms | 40 ms | 60 ms | 0.5 | 1/3 | <= 25 ms | met |" in text
    assert "![A plot](images/plot.svg)" in text and "old" not in text and text.endswith("the end\n")
    assert text.count("by hand") == 3 and text.count("`litestream version`") == 1


def test_the_pages_have_their_markers() -> None:
    """A full run finds where to write."""
    page = report.PAGE.read_text(encoding="utf-8")
    for name in ("goals", "plots", "values"):
        assert report.replaced(page, name, "new").count("\nnew\n") == 1
    with pytest.raises(ValueError, match="no markers"):
        report.replaced(page, "nope", "")


def test_monthly_prices_by_hand() -> None:
    """A thousand databases that are written to once an hour, without the lease: requests, and what is stored."""
    fleet = Fleet(databases=1000, change=3600, size=1e9, wal=1e4, lease=False)
    assert fleet.requests.put == 1000 * (720 + 30)
    assert fleet.stored == pytest.approx(1000 * (2 * 0.7e9 + 24 * 0.65e4))
    (row,) = (line for line in by_provider(fleet).splitlines() if "R2" in line)
    requests = (fleet.requests.put + fleet.requests.list) / 1000 * 0.0045 + fleet.requests.get / 1000 * 0.00036
    assert f"| ${requests:,.2f} | ${fleet.stored / 1e9 * 0.015:,.2f} |" in row


def test_plots_are_the_same_for_the_same_numbers(tmp_path: Path) -> None:
    """A plot is made of what was measured, and a second time it is the same file."""
    pytest.importorskip("matplotlib", reason="of the group `bench`")
    plots = importlib.import_module("benchmarks.plots")
    values = [
        results.Measurement("version", name, 0, 0.1, 1.0, {"wall_ms": 20.0 * n}) for n, name in enumerate(NAMES, 1)
    ]
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        assert plots.draw(results.Results(RUN, values), folder) == [("Start, rest and restart", "performance-rest.svg")]
    name = "performance-rest.svg"
    assert (first / name).read_bytes() == (second / name).read_bytes()
