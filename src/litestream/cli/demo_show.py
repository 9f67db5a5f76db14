"""How the demo looks: a live picture on a terminal, one line a second elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from litestream.cli import stdout

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from litestream.cli.demo_watch import ReplicaWatch


class Screen(Protocol):
    """Where the demo shows itself."""

    def step(self, text: str) -> None:
        """Something happened that the viewer should know of."""
        ...

    def update(self, watch: ReplicaWatch, commits: dict[int, int], elapsed: float) -> None:
        """The state right now; `elapsed` in seconds since the shop opened."""
        ...


@contextmanager
def open_screen(folder: str, *, quiet: bool = False) -> Iterator[Screen]:
    """A live screen if stdout is a terminal, else plain lines; nothing at all if `quiet`."""
    if quiet:
        yield NoScreen()
        return
    if not sys.stdout.isatty():
        stdout.write(f"litestream demo in {folder}\n")
        yield PlainScreen()
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    console.print(f"litestream demo in {folder}", markup=False)
    with Live(console=console, refresh_per_second=10) as live:
        yield LiveScreen(live)


def _figures(watch: ReplicaWatch, commits: dict[int, int], elapsed: float) -> list[tuple[str, str]]:
    delays = watch.delays()
    return [
        ("commits", f"{len(commits)}, {len(commits) / max(elapsed, 0.001):.0f} a second"),
        ("replication delay", "-" if delays is None else f"p50 {delays[0]:.0f} ms, p95 {delays[1]:.0f} ms"),
        ("replica position", str(watch.pos) or "-"),
    ]


class NoScreen:
    """Shows nothing: the result alone is wanted."""

    def step(self, text: str) -> None:
        pass

    def update(self, watch: ReplicaWatch, commits: dict[int, int], elapsed: float) -> None:
        pass


class PlainScreen:
    """One line a second."""

    def __init__(self) -> None:
        self._next = 0.0

    def step(self, text: str) -> None:
        stdout.write(f"* {text}\n")
        stdout.flush()

    def update(self, watch: ReplicaWatch, commits: dict[int, int], elapsed: float) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 1
        figures = "; ".join(f"{name} {value}" for name, value in _figures(watch, commits, elapsed))
        stdout.write(f"{elapsed:5.1f} s  {figures}\n")
        stdout.flush()


class LiveScreen:
    """The figures in place, the steps above them."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def step(self, text: str) -> None:
        self._live.console.print(f"* {text}", markup=False)

    def update(self, watch: ReplicaWatch, commits: dict[int, int], elapsed: float) -> None:
        self._live.update(self._table([("time", f"{elapsed:.1f} s"), *_figures(watch, commits, elapsed)]))

    def _table(self, rows: list[tuple[str, str]]) -> Table:
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold cyan")
        table.add_column()
        for row in rows:
            table.add_row(*row)
        return table
