"""`litestream demo`: everything that matters, shown on a small database in a new folder.

The programs are the real ones: a shop that writes in its own process, `litestream replicate` beside it, which is
killed with SIGKILL halfway and started again, `litestream restore`, and a comparison of every row.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from litestream.cli import stdout
from litestream.cli.demo_show import Screen, open_screen
from litestream.cli.demo_watch import ReplicaWatch, Writer
from litestream.cli.flags import Flag, FlagSet, Parsed
from litestream.cli.tables import write_json
from litestream.core.durations import parse_duration
from litestream.errors import ConfigError, FormatError, LitestreamError

FLAGS = FlagSet(
    verb="demo",
    usage="demo [flags]",
    about=(
        "See it work: makes a small shop database in a new folder, replicates it while it is written to, kills the\n"
        "replicator halfway and starts it again, restores the database and compares every row. Exit code 1 if\n"
        "anything differs."
    ),
    flags=(
        Flag("dir", "The folder to make; it must be new or empty.", "PATH", default="a new one for temporary files"),
        Flag("duration", "How long the shop is open, 2s to 1h.", "DURATION", default="8s"),
        Flag("json", "Show nothing meanwhile, and print the result as JSON."),
        Flag("log-level", "As for every command.", "LEVEL", default="info"),
    ),
)

_REFRESH = 0.1  # seconds between looks at the replica, and between pictures on the screen
_DOWN = 0.7  # seconds for which the killed replicator stays dead while the shop goes on writing


def run(parsed: Parsed) -> int:
    seconds = _duration(parsed.text("duration"))
    folder = _folder(parsed.text("dir"))
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Control-C: the processes of the demo end with it
        signal.signal(number, signal.default_int_handler)
    demo = Demo(folder, seconds)
    demo.prepare()
    as_json = parsed.switch("json")
    with open_screen(str(folder), quiet=as_json) as screen:
        demo.perform(screen)
    rows = demo.restore_and_compare()
    if as_json:
        write_json(demo.result(rows))
    else:
        demo.tell(rows)
    return 1 if demo.trouble else 0


def _duration(text: str) -> float:
    try:
        seconds = float(text) if text.isascii() and text.isdigit() else parse_duration(text or "8s")
    except FormatError as e:
        raise ConfigError(f"-duration: {e}") from e
    if not 2 <= seconds <= 3600:
        raise ConfigError(f'-duration: "{text}" is not between 2s and 1h')
    return seconds


def _folder(text: str) -> Path:
    if not text:
        return Path(tempfile.mkdtemp(prefix="litestream-demo-"))
    folder = Path(os.path.abspath(os.path.expanduser(text)))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"-dir: {folder} exists and is not an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Demo:
    """One performance in one folder."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.seconds = seconds
        self.database = folder / "shop.db"
        self.replica = folder / "replica"
        self.restored = folder / "restored.db"
        self.config = folder / "litestream.yml"
        self.log = folder / "replicate.log"
        self.watch = ReplicaWatch(self.replica)
        self.commits = 0
        self.alone = 0
        self.trouble: list[str] = []

    def prepare(self) -> None:
        """The database, and a configuration as one would write it by hand."""
        from litestream.sqlite import shop

        shop.create(str(self.database))
        # JSON strings are YAML strings, and need no rules of our own for spaces and quotes.
        self.config.write_text(
            f"dbs:\n  - path: {json.dumps(str(self.database))}\n    replicas:\n"
            f"      - type: file\n        path: {json.dumps(str(self.replica))}\n        sync-interval: 100ms\n"
        )

    def perform(self, screen: Screen) -> None:
        """Open the shop, replicate, kill, start again, close the shop, stop in order."""
        with ExitStack() as processes:
            replicator = self._replicate(processes)
            self._await_first_object(replicator)
            writer = processes.enter_context(Writer(self.database))
            screen.step("the shop is open, and litestream replicate runs beside it")
            began = time.monotonic()
            self._look(screen, writer, began, began + self.seconds / 2)
            replicator.kill()
            replicator.wait()
            self.watch.look(writer.commits)
            alone = len(writer.commits)
            screen.step("kill -9 to the replicator; the shop goes on")
            self._look(screen, writer, began, time.monotonic() + _DOWN)
            replicator = self._replicate(processes)
            self.watch.started_again()
            self.alone = len(writer.commits) - alone
            screen.step("the replicator has been started again")
            self._look(screen, writer, began, began + self.seconds)
            self._catch_up(screen, writer, began, replicator)
            writer.close()
            self.commits = len(writer.commits)
            screen.step(f"the shop is closed after {self.commits} commits")
            replicator.terminate()
            code = replicator.wait(30)
            self.watch.look(writer.commits)
            screen.update(self.watch, writer.commits, time.monotonic() - began)
            if code != 0:
                self.trouble.append(f"litestream replicate ended with exit code {code}: see {self.log}")

    def _replicate(self, processes: ExitStack) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "litestream", "replicate", "-config", str(self.config)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment())  # noqa: S603
        processes.callback(_end, process)
        return process

    def _await_first_object(self, replicator: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + 10
        while not self.watch.look({}):
            if replicator.poll() is not None or time.monotonic() > until:
                last = self.log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
                raise LitestreamError(f"litestream replicate stored nothing: {last[0]} (its log: {self.log})")
            time.sleep(0.01)

    def _catch_up(self, screen: Screen, writer: Writer, began: float, replicator: subprocess.Popen[bytes]) -> None:
        """On a busy machine the second start may take longer than the show: wait for it."""
        until = time.monotonic() + 10
        while self.watch.caught_up is None:
            if replicator.poll() is not None or time.monotonic() > until:
                raise LitestreamError(f"the replicator did not catch up after its second start (its log: {self.log})")
            self._look(screen, writer, began, time.monotonic() + _REFRESH)

    def _look(self, screen: Screen, writer: Writer, began: float, until: float) -> None:
        while (now := time.monotonic()) < until:
            if not writer.alive:
                raise LitestreamError("the shop's process ended by itself")
            self.watch.look(writer.commits)
            screen.update(self.watch, writer.commits, now - began)
            time.sleep(min(_REFRESH, max(0.0, until - now)))

    def result(self, rows: int) -> dict[str, object]:
        """What `-json` prints."""
        delays = self.watch.delays()
        return {
            "ok": not self.trouble,
            "trouble": self.trouble,
            "folder": str(self.folder),
            "commits": self.commits,
            "objects": self.watch.objects,
            "rows": rows,
            "delay_ms": None if delays is None else {"p50": round(delays[0], 1), "p95": round(delays[1], 1)},
            "commits_while_dead": self.alone,
            "caught_up_ms": None if self.watch.caught_up is None else round(self.watch.caught_up),
        }

    def tell(self, rows: int) -> None:
        """How it went, and how to go on."""
        delays = self.watch.delays()
        say = stdout.write
        say(f"\n{self.commits} commits, {self.watch.objects} objects in the replica.\n")
        if delays is not None:
            say(
                f"Replication delay, commit to durable in the replica: p50 {delays[0]:.0f} ms, p95 {delays[1]:.0f} ms "
                "(sync-interval is 100ms here).\n"
            )
        if self.watch.caught_up is not None:
            say(
                f"{self.alone} commits were made while there was no replicator; {self.watch.caught_up:.0f} ms after it "
                "was started again they were in the replica.\n"
            )
        for text in self.trouble:
            say(f"FAILED: {text}\n")
        if not self.trouble:
            say(f"Restored and compared: all {rows} rows are equal, integrity_check says ok.\n")
        say(_FAREWELL.format(folder=self.folder, program=_program()))

    def restore_and_compare(self) -> int:
        """Restore the database and compare it; the result is the number of rows, differences go into `trouble`."""
        from litestream.sqlite import shop
        from litestream.sqlite.check import integrity_check

        command = [sys.executable, "-m", "litestream", "restore", "-config", str(self.config)]
        command += ["-o", str(self.restored), str(self.database)]
        done = subprocess.run(  # noqa: S603 our own program
            command, capture_output=True, text=True, errors="replace", env=_environment(), check=False
        )
        if done.returncode != 0:
            self.trouble.append(f"litestream restore: {done.stderr.strip() or done.stdout.strip()}")
            return 0
        self.trouble += [f"integrity_check: {text}" for text in integrity_check(str(self.restored), full=True)]
        rows, differences = shop.compare(str(self.database), str(self.restored))
        self.trouble += differences
        return rows


_FAREWELL = """
Everything is in {folder}
    shop.db          the database            replica/        its replica
    restored.db      the restored copy       replicate.log   what the replicator said
    litestream.yml   the configuration

Your own database:
    {program} replicate /path/to/app.db file:///path/to/backup
    {program} restore -o /path/to/copy.db file:///path/to/backup
"""


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    """This program's environment without what would change what the demo shows."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LITESTREAM_")}


def _program() -> str:
    """How this program was called, as far as that works again in a shell."""
    called = sys.argv[0]
    if os.path.basename(called) != "litestream":
        return f"{sys.executable} -m litestream"
    if os.environ.get("UV_RUN_RECURSION_DEPTH"):
        return "uv run litestream"
    return "litestream" if shutil.which("litestream") == called else called
