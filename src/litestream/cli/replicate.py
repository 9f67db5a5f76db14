"""`litestream replicate`: the daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from litestream.cli.common import COMMON, load_config
from litestream.cli.flags import Flag, FlagSet, Parsed
from litestream.daemon import logs
from litestream.daemon.parent import ParentLink
from litestream.daemon.signals import StopSignals
from litestream.errors import ConfigError, LitestreamError
from litestream.version import VERSION

if TYPE_CHECKING:
    from litestream.config import Config, DatabaseConfig
    from litestream.daemon.notify import Notifier
    from litestream.daemon.once import Wishes
    from litestream.daemon.server import Outcome
    from litestream.daemon.workshop import Source

FLAGS = FlagSet(
    verb="replicate",
    usage="replicate [flags]\nreplicate [flags] DB_PATH REPLICA_URL...",
    about=(
        "Replicate databases until stopped. SIGINT or SIGTERM: a last sync, then the end (exit code 0 if everything\n"
        "is in the replicas); a second signal ends it at once. SIGHUP: the configuration file is read again."
    ),
    flags=(
        *COMMON,
        Flag("exec", "Run an application beside the replication: the end of either ends both.", "COMMAND"),
        Flag(
            "addr",
            "Serve /metrics and a status page there; beats addr of the file, also when empty (nothing is served).",
            "HOST:PORT",
            may_be_empty=True,
        ),
        Flag("once", "Bring everything that is committed now into the replicas, and exit."),
        Flag("force-snapshot", "With -once: take a snapshot of every database."),
        Flag("enforce-retention", "With -once: then delete what is older than the retention."),
        Flag(
            "restore-if-db-not-exists",
            "First restore databases that are missing; where there is no backup, go on without.",
        ),
        Flag("takeover", "While another process replicates one of the databases, wait for its end, then go on."),
        Flag("json", "Write the log as JSON, one object a line; beats logging.type of the configuration."),
    ),
    max_args=None,
    examples="""
litestream replicate                                      (what the configuration file says)
litestream replicate /var/lib/app.db file:///backup/app
litestream replicate -restore-if-db-not-exists -exec "myapp -port 80"
litestream replicate -once -force-snapshot
""",
)


def run(parsed: Parsed) -> int:
    parent = ParentLink.from_environ(os.environ)
    with StopSignals(hold_hangups=True) as signals:
        try:
            wishes = _wishes(parsed)
            config = _config(parsed)
            if config.source is None or wishes is not None:
                signals.stop_on_hangup()  # nothing to read again: the terminal has gone
            logger = _set_up_log(parsed, config)
            logger.info("litestream %s", VERSION)
            for warning in config.warnings:
                logger.warning("%s", warning)
            addr = parsed.text("addr") if parsed.given("addr") else config.addr or ""
            command = parsed.text("exec") if parsed.given("exec") else config.exec or ""
            missing = _missing(parsed, config, logger)
            if wishes is not None:
                if command:
                    raise ConfigError(f"{_ONCE_EXEC}: exec is set in {config.source}")
                outcome = asyncio.run(_once(config, missing, wishes, signals, logger))
            else:
                source, takeover = _source(parsed, config), parsed.switch("takeover")
                outcome = asyncio.run(_serve(config, addr, command, missing, signals, parent, logger, source, takeover))
        except LitestreamError as e:
            parent.failed(str(e))
            raise
    return _ended(outcome, logger)


_NAMED = 5
"""Replicas that the last line names."""

_ONCE_EXEC = "cannot specify -once flag with -exec"


def _wishes(parsed: Parsed) -> Wishes | None:
    """What -once and the flags that need it ask for; None without it. Raises `ConfigError` for what does not fit."""
    snapshot, retention = parsed.switch("force-snapshot"), parsed.switch("enforce-retention")
    if not parsed.switch("once"):
        for name, given in (("force-snapshot", snapshot), ("enforce-retention", retention)):
            if given:
                raise ConfigError(f"cannot specify -{name} flag without -once")
        return None
    if parsed.given("exec"):
        raise ConfigError(_ONCE_EXEC)
    if parsed.text("addr"):
        raise ConfigError("cannot specify -once flag with -addr")
    if parsed.switch("takeover"):
        raise ConfigError("cannot specify -once flag with -takeover")
    from litestream.daemon.once import Wishes

    return Wishes(snapshot, retention)


def _missing(parsed: Parsed, config: Config, logger: logging.Logger) -> list[DatabaseConfig]:
    """The databases that are to be restored first."""
    from litestream.daemon.missing import is_missing

    every = parsed.switch("restore-if-db-not-exists")
    if every and config.directories:
        logger.warning(
            "-restore-if-db-not-exists is for databases with a path: which are missing in a directory is not known"
        )
    wanted = [database for database in config.databases if every or database.restore_if_db_not_exists]
    return [database for database in wanted if database.upstream is None and is_missing(database)]


def _set_up_log(parsed: Parsed, config: Config) -> logging.Logger:
    """The log as flags, environment and configuration want it."""
    level = logs.choose_level(parsed.text("log-level"), os.environ, config.logging.level)
    as_json = parsed.switch("json") if parsed.given("json") else config.logging.type == "json"
    return logs.setup(level, json=as_json, stderr=config.logging.stderr)


def _source(parsed: Parsed, config: Config) -> Source | None:
    """How the configuration is read again; None where it came from arguments."""
    if config.source is None:
        return None
    from litestream.config import load
    from litestream.daemon.workshop import Source

    path = os.path.abspath(config.source)  # the file in use, wherever another one may be found later

    def read() -> Config:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for without an end
            raise ConfigError(f"config file {path} is no regular file: it cannot be read a second time")
        return _checked(load(path, expand_env=not parsed.switch("no-expand-env")))

    def adopt(again: Config) -> None:
        _set_up_log(parsed, again)

    return Source(read, adopt, restores=parsed.switch("restore-if-db-not-exists"))


def _config(parsed: Parsed) -> Config:
    """The configuration that flags and arguments mean."""
    return _checked(_from_arguments(parsed) if parsed.args else load_config(parsed))


def _checked(config: Config) -> Config:
    if not config.databases and not config.directories:
        raise ConfigError(
            f"no databases specified in configuration: add them below dbs: in {config.source}, or name one here: "
            "litestream replicate DB_PATH REPLICA_URL"
        )
    return config


def _from_arguments(parsed: Parsed) -> Config:
    from litestream.config import Config

    if parsed.given("config"):
        raise ConfigError("cannot specify a replica URL and the -config flag: what to replicate is said in one place")
    return Config.for_command_line(parsed.args[0], list(parsed.args[1:]))


async def _serve(
    config: Config,
    addr: str,
    command: str,
    missing: list[DatabaseConfig],
    signals: StopSignals,
    parent: ParentLink,
    logger: logging.Logger,
    source: Source | None,
    takeover: bool,
) -> Outcome:
    from litestream.daemon.build import build
    from litestream.daemon.notify import Notifier
    from litestream.daemon.server import Outcome
    from litestream.sqlite.connection import be_thrifty

    be_thrifty()
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    notifier = Notifier.from_environ(os.environ, logger)
    if parent:
        notifier.close()  # it is not this process that the service manager means
    signals.on_stop_in(loop, stop.set)

    def orphaned() -> None:
        logger.info("the program that started litestream has ended")
        stop.set()

    parent.watch(loop, orphaned)
    if takeover and not await _freed(config, stop, notifier, logger, web=bool(addr) or config.socket.enabled):
        return Outcome({database.path: "not begun" for database in config.databases})
    if missing and not await _restored(missing, stop, notifier, logger):
        return Outcome()
    settings = {"addr": addr, "command": command}
    async with build(config, logger, **settings, notifier=notifier, source=source, takeover=takeover) as server:

        def ready() -> None:
            if server.on_hangup is not None:
                signals.reload_in(loop, server.on_hangup)
            parent.ready()

        if server.child is not None:
            signals.before_end(server.child.kill)
        return await server.run(stop, ready, lambda: signals.received or signal.SIGTERM, on_stopping=notifier.stopping)


async def _once(
    config: Config, missing: list[DatabaseConfig], wishes: Wishes, signals: StopSignals, logger: logging.Logger
) -> Outcome:
    from litestream.daemon.build import entries_of
    from litestream.daemon.notify import Notifier
    from litestream.daemon.once import Once
    from litestream.daemon.server import Outcome

    stop = asyncio.Event()
    signals.on_stop_in(asyncio.get_running_loop(), stop.set)
    if missing and not await _restored(missing, stop, Notifier(), logger):
        return Outcome({database.path: "not begun" for database in config.databases})
    async with entries_of(config) as entries:
        return await Once(entries, wishes, patience=config.shutdown_sync_timeout, logger=logger).run(stop)


async def _freed(config: Config, stop: asyncio.Event, notifier: Notifier, logger: logging.Logger, *, web: bool) -> bool:
    """Wait for the end of the process that has the databases; False if we were told to stop first."""
    from litestream.daemon.takeover import until_free

    extending = asyncio.create_task(notifier.starting())
    try:
        return await until_free(config.databases, stop, logger, web=web)
    finally:
        extending.cancel()
        await asyncio.gather(extending, return_exceptions=True)


async def _restored(
    databases: list[DatabaseConfig], stop: asyncio.Event, notifier: Notifier, logger: logging.Logger
) -> bool:
    """Restore them; False if we were told to stop first. The service manager gives it the time."""
    from litestream.daemon.missing import restored

    extending = asyncio.create_task(notifier.starting())
    try:
        if await restored(databases, stop, logger):
            return True
        logger.info("signal received, litestream shutting down")
        return False
    finally:
        extending.cancel()
        await asyncio.gather(extending, return_exceptions=True)


def _some(names: list[str]) -> str:
    """The first of them, and how many more there are: the log has a line for each."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _ended(outcome: Outcome, logger: logging.Logger) -> int:
    from litestream.cli import fail

    code = outcome.child
    if outcome.missing:
        code = fail(f"not everything reached the replicas: {_some(list(outcome.missing))}") and (code or 1)
    if outcome.stuck:
        # A thread still waits for a disk or a network that does not answer; the interpreter would wait for it too.
        sys.stdout.flush()
        os._exit(code)
    return code
