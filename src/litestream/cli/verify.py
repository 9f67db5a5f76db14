"""`litestream verify`: is everything in a replica sound, and is what it restores the database?"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from litestream.cli.common import (
    COMMON,
    JSON,
    REPLICA,
    load_config,
    open_target,
    run_to_end,
    tell_warnings,
)
from litestream.cli.flags import Flag, FlagSet, Parsed
from litestream.core.durations import parse_duration
from litestream.core.position import is_generation
from litestream.errors import ConfigError

if TYPE_CHECKING:
    from litestream.client import ReplicaClient

FLAGS = FlagSet(
    verb="verify",
    usage="verify [flags]\nverify [flags] DB_PATH\nverify [flags] REPLICA_URL",
    about=(
        "Read every object of a replica and check it: by itself, with its neighbours, nothing missing between them.\n"
        "Restore the newest state to a scratch file (in $TMPDIR, else /tmp), run SQLite's integrity check on it and,\n"
        "where the live database is at hand, compare the two page by page at one position; writers go on meanwhile,\n"
        "and a replicator may be running. Says which states can be restored. Without an argument all databases of\n"
        "the configuration are verified.\n"
        "Exit code: 0 everything is proved, 1 a replica is proved to be bad, 2 something could not be told."
    ),
    flags=(
        *COMMON,
        REPLICA,
        Flag("generation", "Only this generation.", "NAME"),
        Flag(
            "sample",
            "Read only a random share of the objects; what the newest state needs is always read.",
            "PERCENT",
            default="100%",
        ),
        Flag(
            "timeout",
            "How long to wait until the replica has what is in the live database now.",
            "DURATION",
            default="30s",
        ),
        JSON,
    ),
    max_args=1,
    examples="""
litestream verify
litestream verify -sample 10% /var/lib/app.db
litestream verify -json s3://backups/app
""",
)

ERROR_CODE = 2
"""Whatever keeps the command from doing its work proves nothing about a replica."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One replica that is to be verified."""

    database: str
    """Path of its database; empty where a URL was given."""
    name: str
    client: ReplicaClient | None
    error: str = ""
    """Why there is no client."""


def run(parsed: Parsed) -> int:
    from litestream.cli import fail

    generation = parsed.text("generation")
    if generation and not is_generation(generation):
        raise ConfigError(f'invalid generation "{generation}": it has 16 hex digits, lower case')
    share, timeout = _share(parsed.text("sample") or "100%"), _timeout(parsed)
    try:
        return run_to_end(_verify_all(parsed, generation, share, timeout))
    except KeyboardInterrupt:
        fail("interrupted")
        return ERROR_CODE


def _share(text: str) -> float:
    """`10%` as 0.1."""
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ConfigError(f'invalid sample "{text}": it is a percentage above 0% and up to 100%')
    return share


def _timeout(parsed: Parsed) -> float:
    timeout = parse_duration(parsed.text("timeout")) if parsed.given("timeout") else 30.0
    if timeout < 0:
        raise ConfigError("the -timeout flag must not be negative")
    return timeout


async def _verify_all(parsed: Parsed, generation: str, share: float, timeout: float) -> int:
    from litestream.cli import verify_show
    from litestream.verify.model import Report
    from litestream.verify.replica import VerifyOptions, verify

    results: list[verify_show.Verified] = []
    async with aclosing(_subjects(parsed)) as subjects:
        async for subject in subjects:
            if subject.client is None:
                report = Report(subject.name, "", unknown=[subject.error])
            else:
                options = VerifyOptions(
                    tempfile.gettempdir(),
                    generation=generation,
                    share=share,
                    timeout=timeout,
                    database=subject.database,
                )
                report = await verify(subject.name, subject.client, options)
            results.append(verify_show.Verified(subject.database, report))
            verify_show.tell(results[-1], quiet=parsed.switch("json"), first=len(results) == 1)
    if parsed.switch("json"):
        from litestream.cli.tables import write_json

        write_json([verify_show.document(result) for result in results])
    return verify_show.exit_code(results)


async def _subjects(parsed: Parsed) -> AsyncGenerator[Subject]:
    """The replicas that the argument means, all of the configuration without one. Each client is closed in its turn."""
    if parsed.args:
        async with open_target(parsed) as target:
            tell_warnings(target.config)
            path = target.database.path if target.database is not None else ""
            for name, client in target.replicas:
                yield Subject(path, name, client)
        return
    config, wanted = load_config(parsed), parsed.text("replica")
    tell_warnings(config)
    pairs = [(d.path, r) for d in config.all_databases() for r in d.replicas if wanted in ("", r.label)]
    if not pairs:
        missing = f'replica "{wanted}" not found' if wanted else "no databases specified"
        raise ConfigError(f"{missing} in configuration: {config.source}")
    for path, replica in pairs:
        try:
            client = replica.open()
        except ConfigError as error:  # a package that this machine does not have
            yield Subject(path, replica.label, None, str(error))
            continue
        try:
            yield Subject(path, replica.label, client)
        finally:
            await client.close()
