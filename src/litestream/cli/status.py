"""`litestream status`: how safe every database is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from litestream.cli.common import COMMON, JSON, find_database, load_config, run_to_end, tell_warnings
from litestream.cli.control import NotConnectedError, absolute, ask
from litestream.cli.flags import Flag, FlagSet, Parsed
from litestream.cli.tables import table, write_json
from litestream.core.durations import parse_duration
from litestream.errors import ConfigError, FormatError

if TYPE_CHECKING:
    from litestream.config import DatabaseConfig
    from litestream.daemon.status import DatabaseStatus

TIMEOUT = 30.0

FLAGS = FlagSet(
    verb="status",
    usage="status [flags] [DB_PATH]",
    about=(
        "Show every database, or one, and how far each replica is behind. The exit code is 0 only if everything that\n"
        "was committed longer ago than -within is durable in every replica.\n"
        "The running replicator is asked, by the control socket of the configuration or of -socket. Without one the\n"
        "database and its replicas are compared; while a replicator runs they have the time of -within for that."
    ),
    flags=(
        *COMMON,
        Flag("within", "How old the oldest commit may be that a replica lacks.", "DURATION", default="60s"),
        Flag("socket", "Ask the replicator at this control socket, and nobody else.", "PATH"),
        JSON,
    ),
    max_args=1,
    examples="litestream status -within 10s /var/lib/app.db",
)

_HEADER = ("database", "status", "local", "replica", "lag", "wal size")


def run(parsed: Parsed) -> int:
    from litestream.cli import fail

    within = _within(parsed)
    found = _asked(parsed, within)
    if parsed.switch("json"):
        write_json([_entry(database, within) for database in found])
    else:
        from litestream.cli import stdout

        stdout.write(table(_HEADER, [row for database in found for row in _rows(database)]))
        for name, error in _errors(found):
            fail(f"{name}: {error}")
    return 0 if all(database.within(within) for database in found) else 1


def _within(parsed: Parsed) -> float:
    text = parsed.text("within")
    try:
        return parse_duration(text) if text else 60.0
    except FormatError as error:
        raise ConfigError(f"-within: {error}") from None


def _asked(parsed: Parsed, within: float) -> list[DatabaseStatus]:
    """From the running replicator if there is one to ask, else by looking."""
    from litestream.cli import warn

    if parsed.given("socket"):
        return _from_socket(parsed.text("socket"), parsed.args[0] if parsed.args else "", within)
    config = load_config(parsed)
    tell_warnings(config)
    wanted = [find_database(config, parsed.args[0])] if parsed.args else config.all_databases()
    if config.socket.enabled:
        try:
            return _of_configuration(_from_socket(config.socket.path, "", within), wanted)
        except NotConnectedError as error:
            if not error.absent:
                warn(f"{error}: comparing database and replica instead")
    return _looked(wanted, within)


def _from_socket(socket: str, path: str, within: float) -> list[DatabaseStatus]:
    from urllib.parse import quote

    from litestream.daemon.status import DatabaseStatus

    named = f"&path={quote(absolute(path), errors='surrogateescape')}" if path else ""
    answer: dict[str, Any] = ask(socket, "GET", f"/status?within={within:g}{named}", timeout=TIMEOUT)
    return [DatabaseStatus.from_json(entry) for entry in answer["databases"]]


def _of_configuration(found: list[DatabaseStatus], wanted: list[DatabaseConfig]) -> list[DatabaseStatus]:
    """What the replicator said of these databases; one that it does not have is not safe."""
    from litestream.daemon.status import UNKNOWN, DatabaseStatus

    by_path = {status.path: status for status in found}
    error = "the running replicator does not have it: it was started with another configuration"
    return [by_path.get(config.path) or DatabaseStatus(config.path, UNKNOWN, error=error) for config in wanted]


def _looked(wanted: list[DatabaseConfig], within: float) -> list[DatabaseStatus]:
    from litestream.daemon.offline import look

    async def all_of_them() -> list[DatabaseStatus]:
        turns = asyncio.Semaphore(32)  # a thousand databases must not mean a thousand connections

        async def one(config: DatabaseConfig) -> DatabaseStatus:
            async with turns:
                return await look(config, within)

        return list(await asyncio.gather(*(one(config) for config in wanted)))

    return run_to_end(all_of_them())


def _rows(database: DatabaseStatus) -> list[list[str]]:
    from litestream.cli.generations import shown_lag
    from litestream.daemon.status import OK

    size = shown_size(database.wal_size)
    if not database.replicas:
        return [[database.path, database.status, str(database.pos) or "-", "-", "-", size]]
    return [
        [
            database.path,
            replica.status if database.status == OK else database.status,
            str(database.pos) or "-",
            replica.name,
            shown_lag(replica.lag_seconds) if replica.lag_seconds or replica.status == OK else "-",
            size,
        ]
        for replica in database.replicas
    ]


def _errors(found: list[DatabaseStatus]) -> list[tuple[str, str]]:
    own = [(database.path, database.error) for database in found if database.error]
    return own + [
        (f"{database.path}({replica.name})", replica.error)
        for database in found
        for replica in database.replicas
        if replica.error
    ]


def _entry(database: DatabaseStatus, within: float) -> dict[str, Any]:
    """The official keys, and everything else."""
    entry = database.to_json()
    size = entry.pop("wal_size")
    return {
        "database": entry.pop("path"),
        "status": entry.pop("status"),
        "local_txid": f"{database.pos.index << 32 | database.pos.offset:016x}",
        "wal_size": shown_size(size),
        "ok": database.within(within),
        "wal_bytes": size,
        **entry,
    }


def shown_size(size: int) -> str:
    """Bytes as the official table has them: `812 B`, `1.5 kB`, `16 kB`."""
    number, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if number < 1000 or unit == "PB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if number >= 10 or unit == "B" else f"{number:.1f} {unit}"
