"""`litestream restore`: a database from a replica, at its latest or an earlier state."""

from __future__ import annotations

import gc
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from litestream.cli import stdout
from litestream.cli.common import COMMON, REPLICA, TARGET_MISSING, Target, is_url, open_target, run_to_end
from litestream.cli.flags import Flag, FlagSet, Parsed
from litestream.cli.followed import follow_interval
from litestream.core.durations import format_duration
from litestream.core.position import is_generation
from litestream.core.timestamps import format_rfc3339, parse_rfc3339
from litestream.daemon import logs
from litestream.errors import ConfigError, NoBackupError
from litestream.heap import keep_buffers

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestream.config import LoggingConfig
    from litestream.restore import RestoreOptions, RestoreResult

FLAGS = FlagSet(
    verb="restore",
    usage="restore [flags] DB_PATH\nrestore [flags] -o OUTPUT_PATH REPLICA_URL",
    about=(
        "Restore a database from its replica: the latest state, unless -index or -timestamp ask for an earlier one.\n"
        "Everything is verified; on any failure nothing is left behind, but what -resume keeps."
    ),
    flags=(
        *COMMON,
        Flag("o", "Where to write the database.", "PATH", default="DB_PATH; needed with a URL"),
        REPLICA,
        Flag("generation", "Restore from this generation.", "NAME", default="the newest"),
        Flag("index", "Restore up to the end of the WAL of this index (hex, as `litestream wal` shows it).", "HEX"),
        Flag("timestamp", "Restore the latest state at or before this time.", "2006-01-02T15:04:05Z"),
        Flag("if-db-not-exists", "Do nothing, with exit code 0, if the database exists already."),
        Flag(
            "if-replica-exists",
            "Do nothing, with exit code 0, if there is no backup.\nA replica that cannot be read is an error anyway.",
        ),
        Flag("parallelism", "How many objects are fetched at a time.", "N", default="8", number=True),
        Flag("force", "Replace an existing database, once its copy has been restored and checked."),
        Flag("resume", "Keep what is fetched until the restore has succeeded, and use what an interrupted one kept."),
        Flag(
            "update",
            "Bring a copy that was made with -update to the newest state, by the WAL since then if that is possible.\n"
            "A file that was made otherwise, or changed, is refused; -force replaces it.",
        ),
        Flag("dry-run", "Show what would be restored from which objects, and stop."),
        Flag(
            "integrity-check",
            "SQLite's check of the restored database; a failure leaves no output.",
            "KIND",
            choices=("none", "quick", "full"),
            default="quick",
        ),
        Flag("f", "Go on applying what comes to the replica, until stopped; what was followed before is continued."),
        Flag("follow-interval", "With -f: how often to look.", "DURATION", default="1s"),
        Flag("json", "Print the result (or, with -dry-run, the plan) as JSON."),
    ),
    min_args=1,
    max_args=1,
    missing=TARGET_MISSING,
    examples="""
litestream restore /var/lib/app.db
litestream restore -o /tmp/copy.db -timestamp 2026-01-02T15:04:05Z /var/lib/app.db
litestream restore -o /tmp/copy.db file:///backup/app
""",
)

_GARBAGE = 50_000
"""Objects that are made before cycles among them are looked for."""
_INDEX = re.compile(r"[0-9A-Fa-f]{1,16}")


def run(parsed: Parsed) -> int:
    as_json = parsed.switch("json")
    logger = _log(parsed, None)
    options = _options(parsed)
    interval = follow_interval(parsed)
    output = parsed.text("o")
    if not output:
        if is_url(parsed.args[0]):
            raise ConfigError("output path required: give it with -o")
        output = parsed.args[0]
    output = os.path.abspath(os.path.expanduser(output.removeprefix("sqlite3://").removeprefix("sqlite://")))
    if parsed.switch("f"):
        return run_to_end(_follow(parsed, output, options, interval))
    if parsed.switch("if-db-not-exists") and parsed.switch("update"):
        raise ConfigError("the -if-db-not-exists flag does not go with -update, which is for a database that exists")
    if parsed.switch("if-db-not-exists") and os.path.lexists(output):
        return _skip(logger, "database already exists, skipping", as_json)
    _live_short()
    try:
        result = run_to_end(_restore(parsed, output, options))
    except NoBackupError:
        if not parsed.switch("if-replica-exists"):
            raise
        return _skip(logger, "no matching backups found, skipping", as_json)
    for warning in result.warnings:
        logger.warning("%s", warning)
    _tell(result, parsed, logger)
    return 0


def _live_short() -> None:
    """Leave out what only pays in programs that live long. Before numpy is imported."""
    keep_buffers()
    gc.set_threshold(_GARBAGE)
    # Its threads would wait, spinning, for matrices to multiply: as much work as importing it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _log(parsed: Parsed, config: LoggingConfig | None) -> logging.Logger:
    """Log as the configuration says. With `-json`, stdout is the document alone, and what it says is not logged."""
    as_json = parsed.switch("json")
    level = logs.choose_level(parsed.text("log-level"), os.environ, config.level if config is not None else "")
    if as_json and not (parsed.given("log-level") or os.environ.get("LOG_LEVEL")):
        level = max(level, logging.WARNING)
    return logs.setup(
        level,
        json=config is not None and config.type == "json",
        stderr=as_json or (config is not None and config.stderr),
    )


def _options(parsed: Parsed) -> RestoreOptions:
    from litestream.restore import RestoreOptions

    generation, index, timestamp = (parsed.text(name) for name in ("generation", "index", "timestamp"))
    if generation and not is_generation(generation):
        raise ConfigError(f'invalid generation "{generation}": it has 16 hex digits, lower case')
    if index and not _INDEX.fullmatch(index):
        raise ConfigError(f'invalid index "{index}": it is a hex number, as `litestream wal` shows it')
    return RestoreOptions(
        generation=generation,
        index=int(index, 16) if index else None,
        timestamp_ns=parse_rfc3339(timestamp) if parsed.given("timestamp") else None,
        parallelism=parsed.number("parallelism", 8),
        force=parsed.switch("force"),
        dry_run=parsed.switch("dry-run"),
        resume=parsed.switch("resume"),
        update=parsed.switch("update"),
        integrity_check=parsed.text("integrity-check") or "quick",  # type: ignore[arg-type]  # one of its choices
    )


async def _follow(parsed: Parsed, output: str, options: RestoreOptions, interval: float) -> int:
    from litestream.follow.store import StoreFollower

    async with open_target(parsed) as target:
        logger = _log(parsed, target.config.logging if target.config is not None else None)
        for warning in target.config.warnings if target.config is not None else ():
            logger.warning("%s", warning)
        await StoreFollower(target.replicas, output, options, interval).run()
    return 0


async def _restore(parsed: Parsed, output: str, options: RestoreOptions) -> RestoreResult:
    from dataclasses import replace

    from litestream.restore import restore

    async with open_target(parsed) as target:
        if target.config is not None:
            logger = _log(parsed, target.config.logging)
            for warning in target.config.warnings:
                logger.warning("%s", warning)
        if target.database is not None:
            options = replace(options, source_path=target.database.path)
        with _progress(target, options) as progress:
            return await restore(target.replicas, output, options=options, progress=progress)


@contextmanager
def _progress(target: Target, options: RestoreOptions) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal, nothing elsewhere."""
    if options.dry_run or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("restoring"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("restoring", total=None)

    def show(fetched: int, total: int) -> None:
        # Only while there is something to fetch: the log lines before and after it may go to the same terminal.
        bar.start()
        bar.update(task, completed=fetched, total=total)
        if fetched >= total:
            bar.stop()

    try:
        yield show
    finally:
        bar.stop()


def _skip(logger: logging.Logger, reason: str, as_json: bool) -> int:
    if as_json:
        from litestream.cli.tables import write_json

        write_json({"skipped": reason})
    else:
        logger.info(reason)
    return 0


def _tell(result: RestoreResult, parsed: Parsed, logger: logging.Logger) -> None:
    if parsed.switch("json"):
        from litestream.cli.tables import write_json

        write_json(document(result))
    elif result.dry_run:
        _tell_plan(result)
    else:
        logger.info(
            "database restored: %s",
            result.db_path,
            extra={
                "fields": {
                    "replica": result.replica,
                    "pos": result.pos,
                    "segments": result.segments,
                    "size": result.size,
                    "fetched": result.fetched,
                    "integrity_check": result.integrity_check,
                    "elapsed": format_duration(result.duration_ms / 1000),
                }
            },
        )


def _tell_plan(result: RestoreResult) -> None:
    from litestream.cli.tables import table

    rows = [[file.key, str(file.size), format_rfc3339(float(file.created_at))] for file in result.files]
    objects = "1 object" if len(rows) == 1 else f"{len(rows)} objects"
    verb = "update" if result.updated else "restore"
    stdout.write(
        f"would {verb} {logs.safe(result.db_path)} from replica {logs.safe(result.replica)}, "
        f"generation {result.generation}:\n{objects}, {result.fetched} bytes\n\n"
        + table(["object", "size", "created"], rows)
    )


def document(result: RestoreResult) -> dict[str, object]:
    """The JSON form of a result, or of a plan."""
    shared: dict[str, object] = {
        "db_path": result.db_path,
        "replica": result.replica,
        "generation": result.generation,
        "snapshot_index": f"{result.snapshot_index:08x}",
        "index": f"{result.index:08x}",
        "offset": f"{result.offset:08x}",
        "pos": str(result.pos),
        "segments": result.segments,
        "fetched": result.fetched,
        "updated": result.updated,
        "warnings": list(result.warnings),
    }
    if result.dry_run:
        files = [
            {"key": f.key, "pos": str(f.pos), "size": f.size, "created": format_rfc3339(float(f.created_at))}
            for f in result.files
        ]
        return {**shared, "dry_run": True, "files": files}
    last = result.timestamp_ns
    return {
        **shared,
        "timestamp": None if last is None else format_rfc3339(last, fraction=True),
        "page_size": result.page_size,
        "size": result.size,
        "integrity_check": result.integrity_check,
        "duration_ms": result.duration_ms,
    }
