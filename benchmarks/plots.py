"""Plots of a run, as SVG: bars of the three programs, and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.programs import NAMES, OURS, V03, V05
from benchmarks.report import number
from benchmarks.results import Results

_SPREAD = 30
"""From this ratio on the axis is logarithmic; below it, bars begin at zero so that their lengths can be compared."""
COLOURS = {OURS: "#2563eb", V03: "#9ca3af", V05: "#4b5563"}


@dataclass(frozen=True, slots=True)
class Panel:
    """A group of bars: one value of a line, of each program."""

    title: str
    line: str
    value: str
    unit: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture: panels side by side."""

    name: str
    title: str
    panels: Sequence[Panel]


PLOTS = (
    Plot(
        "performance-delay",
        "From commit to replica",
        (
            Panel("sparse, p50", "delay-sparse", "p50_ms", "ms"),
            Panel("sparse, p95", "delay-sparse", "p95_ms", "ms"),
            Panel("dense, mean", "delay-dense", "mean_ms", "ms"),
            Panel("1 ms, p50", "delay-1ms", "p50_ms", "ms"),
            Panel("1 ms, CPU", "delay-1ms", "cpu_percent", "%"),
        ),
    ),
    Plot(
        "performance-load",
        "An application that writes much",
        (
            Panel("unpaced, CPU per MiB", "load", "cpu_ms_per_mib", "ms"),
            Panel("until caught up, per MiB", "load", "lag_ms_per_mib", "ms"),
            Panel("slowest commit", "load", "commit_max_ms", "ms"),
            Panel("20 MiB/s, CPU per MiB", "load-paced", "cpu_ms_per_mib", "ms"),
        ),
    ),
    Plot(
        "performance-copies",
        "Snapshot and restore",
        (
            Panel("snapshot", "snapshot", "wall_s", "s"),
            Panel("its CPU", "snapshot", "cpu_s", "s"),
            Panel("restore", "snapshot", "restore_s", "s"),
            Panel("its CPU", "snapshot", "restore_cpu_s", "s"),
            Panel("restore of WAL", "restore-wal", "restore_s", "s"),
        ),
    ),
    Plot(
        "performance-rest",
        "Start, rest and restart",
        (
            Panel("version", "version", "wall_ms", "ms"),
            Panel("first byte", "first-byte", "first_byte_ms", "ms"),
            Panel("1,000 at rest, CPU", "idle-1000", "cpu_percent", "%"),
            Panel("1,000 at rest, memory", "idle-1000", "memory_mib", "MiB"),
            Panel("catch-up, bytes sent", "catch-up", "uploaded_mib", "MiB"),
        ),
    ),
)


def pyplot() -> Any:
    """matplotlib, set up to write the same file for the same numbers."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update(
        {"svg.hashsalt": "litestream", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False}
    )
    mpl.rcParams["axes.spines.right"] = False
    from matplotlib import pyplot as plt

    return plt


def save(figure: Any, path: Path) -> None:
    """Write a figure as SVG, with a white ground so that it is readable on dark pages."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None}, facecolor="white", bbox_inches="tight")
    text = path.read_text(encoding="utf-8")
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")


def draw(results: Results, folder: Path) -> list[tuple[str, str]]:
    """Draw what the run has numbers for; titles and file names."""
    made = []
    for plot in PLOTS:
        panels = [panel for panel in plot.panels if results.median(panel.line, OURS, panel.value) is not None]
        if panels:
            name = f"{plot.name}.svg"
            _bars(plot.title, panels, results, folder / name)
            made.append((plot.title, name))
    return made


def _bars(title: str, panels: Sequence[Panel], results: Results, path: Path) -> None:
    plotting = pyplot()
    figure, axes = plotting.subplots(1, len(panels), figsize=(2.1 * len(panels) + 0.4, 2.6), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        values = [results.median(panel.line, name, panel.value) or 0.0 for name in NAMES]
        bars = axis.bar(NAMES, values, color=[COLOURS[name] for name in NAMES])
        axis.bar_label(bars, [number(value) for value in values], fontsize=8)
        axis.set_title(f"{panel.title}, {panel.unit}", fontsize=9)
        axis.tick_params(axis="x", labelsize=8)
        axis.margins(y=0.15)
        least = min((value for value in values if value > 0), default=0.0)
        if least and max(values) > _SPREAD * least:
            axis.set_yscale("log")
            axis.set_ylim(bottom=least / 3)
    figure.suptitle(title)
    figure.tight_layout()
    save(figure, path)
    plotting.close(figure)


def curves(path: Path, title: str, axes: tuple[str, str], lines: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Draw named curves on logarithmic axes."""
    plotting = pyplot()
    figure, axis = plotting.subplots(figsize=(6.4, 3.4))
    for name, points in lines.items():
        across, up = zip(*points, strict=True)
        axis.loglog(across, up, marker="o", markersize=3, label=name, color=COLOURS.get(name))
    axis.set_xlabel(axes[0])
    axis.set_ylabel(axes[1])
    axis.set_title(title)
    axis.grid(visible=True, which="major", alpha=0.3)
    axis.legend(fontsize=8)
    save(figure, path)
    plotting.close(figure)
