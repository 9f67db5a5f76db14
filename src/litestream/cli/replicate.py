"""`litestream replicate`: the daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from litestream.cli.common import COMMON, import_config, load_config
from litestream.cli.flags import Flag, FlagSet, Parsed
from litestream.daemon import logs
from litestream.daemon.parent import ParentLink
from litestream.daemon.signals import StopSignals
from litestream.errors import ConfigError, LitestreamError
from litestream.version import VERSION

if TYPE_CHECKING:
    from litestream.config import Config
    from litestream.daemon.reload import Source
    from litestream.daemon.server import Outcome

FLAGS = FlagSet(
    verb="replicate",
    usage="replicate [flags]\nreplicate [flags] DB_PATH REPLICA_URL...",
    about=(
        "Replicate databases until stopped. SIGINT or SIGTERM: a last sync, then the end (exit code 0 if everything\n"
        "is in the replicas); a second signal ends it at once."
    ),
    flags=(
        *COMMON,
        Flag("exec", "Run an application beside the replication: the end of either ends both.", "COMMAND"),
        Flag(
            "addr",
            "Serve /metrics at this address; beats addr of the configuration, also when empty (nothing is served).",
            "HOST:PORT",
            may_be_empty=True,
        ),
        Flag("json", "Write the log as JSON, one object a line; beats logging.type of the configuration."),
    ),
    max_args=None,
    examples="""
litestream replicate                                      (what the configuration file says)
litestream replicate /var/lib/app.db file:///backup/app
""",
)


def run(parsed: Parsed) -> int:
    parent = ParentLink.from_environ(os.environ)
    with StopSignals(hold_hangups=True) as signals:
        try:
            config = _config(parsed)
            if config.source is None:
                signals.stop_on_hangup()  # nothing to read again: the terminal has gone
            logger = _set_up_log(parsed, config)
            logger.info("litestream %s", VERSION)
            for warning in config.warnings:
                logger.warning("%s", warning)
            addr = parsed.text("addr") if parsed.given("addr") else config.addr or ""
            command = parsed.text("exec") if parsed.given("exec") else config.exec or ""
            source = _source(parsed, config)
            outcome = asyncio.run(_serve(config, addr, command, signals, parent, logger, source))
        except LitestreamError as e:
            parent.failed(str(e))
            raise
    return _ended(outcome, logger)


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
    from litestream.daemon.reload import Source

    path = os.path.abspath(config.source)  # the file in use, wherever another one may be found later

    def read() -> Config:
        return _checked(load(path, expand_env=not parsed.switch("no-expand-env")))

    def adopt(again: Config) -> None:
        _set_up_log(parsed, again)

    return Source(read, adopt)


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
    import_config()
    from litestream.config import Config

    if parsed.given("config"):
        raise ConfigError("cannot specify a replica URL and the -config flag: what to replicate is said in one place")
    return Config.for_command_line(parsed.args[0], list(parsed.args[1:]))


async def _serve(
    config: Config,
    addr: str,
    command: str,
    signals: StopSignals,
    parent: ParentLink,
    logger: logging.Logger,
    source: Source | None,
) -> Outcome:
    from litestream.daemon.build import build
    from litestream.daemon.notify import Notifier

    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    notifier = Notifier.from_environ(os.environ, logger)
    if parent:
        notifier.close()  # it is not this process that the service manager means
    signals.on_stop_in(loop, stop.set)

    def orphaned() -> None:
        logger.info("the program that started litestream has ended")
        stop.set()

    parent.watch(loop, orphaned)
    async with build(config, logger, addr=addr, command=command, notifier=notifier, source=source) as server:

        def ready() -> None:
            if server.on_hangup is not None:
                signals.reload_in(loop, server.on_hangup)
            parent.ready()

        return await server.run(stop, ready, lambda: signals.received or signal.SIGTERM, on_stopping=notifier.stopping)


def _ended(outcome: Outcome, logger: logging.Logger) -> int:
    from litestream.cli import fail

    code = outcome.child
    if outcome.missing:
        code = fail(f"not everything reached the replicas: {', '.join(outcome.missing)}") and (code or 1)
    if outcome.stuck:
        # A thread still waits for a disk or a network that does not answer; the interpreter would wait for it too.
        sys.stdout.flush()
        os._exit(code)
    return code
