"""`litestream check`: proves a replica's store before it is needed, and says what it will cost."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from litestream.cli import stdout
from litestream.cli.common import (
    COMMON,
    JSON,
    REPLICA,
    find_database,
    is_url,
    load_config,
    run_to_end,
    tell_warnings,
)
from litestream.cli.flags import Flag, FlagSet, Parsed
from litestream.core.durations import parse_duration
from litestream.errors import ConfigError, LitestreamError

if TYPE_CHECKING:
    from litestream.cli.check_show import Checked
    from litestream.config import Config, DatabaseConfig, ReplicaConfig

FLAGS = FlagSet(
    verb="check",
    usage="check [flags]\ncheck [flags] CONFIG_PATH\ncheck [flags] DB_PATH\ncheck [flags] REPLICA_URL",
    about=(
        "Try everything that a replica's store has to do, with a small object below the replica's path that is\n"
        "deleted again: write, read, list, create only, overwrite, delete. Says how long each takes, what is missing\n"
        "and which right or setting that needs, and for the databases of a configuration how many requests a month\n"
        "makes, and what they cost. CONFIG_PATH ends with .yml, .yaml or .json; without an argument all databases of\n"
        "the configuration are tried. The exit code is 0 if everything works that replicating and restoring need."
    ),
    flags=(
        *COMMON,
        REPLICA,
        Flag("timeout", "Longest time without an answer.", "DURATION", default="as configured, else 15s"),
        JSON,
    ),
    max_args=1,
    examples="""
litestream check
litestream check -config /etc/litestream.yml -replica s3 /var/lib/app.db
litestream check s3://backups/app
""",
)

_CONFIG_FILES = (".yml", ".yaml", ".json")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is tried: a replica, and the database that it is of (None for a URL)."""

    database: DatabaseConfig | None
    replica: ReplicaConfig

    @property
    def name(self) -> str:
        """For messages."""
        return self.replica.label if self.database is None else f"{self.database.path}({self.replica.label})"


def run(parsed: Parsed) -> int:
    timeout = parse_duration(parsed.text("timeout")) if parsed.given("timeout") else None
    if timeout is not None and timeout <= 0:
        raise ConfigError("the -timeout flag must be longer than 0s")
    subjects = _subjects(parsed)
    return run_to_end(_check_all(parsed, subjects, timeout))


def _subjects(parsed: Parsed) -> list[Subject]:
    argument, wanted = (parsed.args[0] if parsed.args else ""), parsed.text("replica")
    if argument and is_url(argument):
        if wanted:
            raise ConfigError("the -replica flag needs a database path: a replica URL names the replica itself")
        return [_at_url(parsed, argument)]
    if argument.endswith(_CONFIG_FILES):
        config, argument = _config_at(parsed, argument), ""
    else:
        config = load_config(parsed)
    tell_warnings(config)
    if argument and os.path.isdir(argument):
        raise ConfigError(
            f"{argument} is a directory: write a replica that is one as file://{os.path.abspath(argument)}"
        )
    databases = [find_database(config, argument)] if argument else config.databases
    found = [Subject(database, replica) for database in databases for replica in database.replicas]
    if not argument:  # of a directory the place above those of its databases
        found += [Subject(None, replica) for directory in config.directories for replica in directory.replicas]
    chosen = [subject for subject in found if wanted in ("", subject.replica.label)]
    if not found:
        raise ConfigError(f"there is no database in {config.source or 'the configuration'}: nothing to check")
    if not chosen:
        names = ", ".join(sorted({subject.replica.label for subject in found}))
        raise ConfigError(f'replica "{wanted}" not found: the configuration has {names}')
    return chosen


def _at_url(parsed: Parsed, url: str) -> Subject:
    from litestream.cli import warn
    from litestream.storage import VISIBLE, shows_secret, store_type

    if store_type(url) == "memory":
        raise ConfigError('unknown replica type in config: "memory"')
    if shows_secret(url):
        warn(f"the replica URL: {VISIBLE}")
    from litestream.config import Config

    config = load_config(parsed) if parsed.given("config") else Config()
    tell_warnings(config)
    return Subject(None, config.replica_at(url))


def _config_at(parsed: Parsed, path: str) -> Config:
    if parsed.given("config"):
        raise ConfigError("the configuration is named twice: with -config and as the argument")
    from litestream.config import load

    return load(path, expand_env=not parsed.switch("no-expand-env"))


async def _check_all(parsed: Parsed, subjects: list[Subject], timeout: float | None) -> int:
    from litestream.cli import fail
    from litestream.cli.check_show import document, text

    documents = []
    code = 0
    for subject in subjects:
        try:
            checked = await _check(subject, timeout)
        except LitestreamError as e:  # it cannot even be opened: a package, a key file
            code = fail(f"replica {subject.name}: {e}")
            continue
        documents.append(document(checked))
        if not parsed.switch("json"):
            stdout.write(("\n" if len(documents) > 1 else "") + text(checked))
            stdout.flush()
        if not checked.is_usable:
            code = 1
    if parsed.switch("json"):
        from litestream.cli.tables import write_json

        write_json(documents)
    return code


async def _check(subject: Subject, timeout: float | None) -> Checked:
    from litestream.cli.check_show import Checked
    from litestream.storage.probe import probe

    # Neither the pace nor the cap of the replicator holds up a few requests that prove something.
    changes: dict[str, object] = {"max_requests": None}
    if timeout is not None:
        changes["timeout"] = timeout
    replica = subject.replica.model_copy(update=changes)
    client = replica.open()
    conditional = None
    try:
        if replica.type == "s3" and replica.conditional is None and not client.store.conditional:
            plain = replica.model_copy(update={"conditional": True, "age": None})
            conditional = plain.open()
        findings = await probe(client.store, conditional=conditional.store if conditional is not None else None)
        return Checked(subject.database, subject.replica, client.store, findings)
    finally:
        await client.close()
        if conditional is not None:
            await conditional.close()
