"""`litestream config check` and `litestream config migrate`: what a configuration says, here and elsewhere."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from litestream.cli import stdout
from litestream.cli.common import CONFIG, LOG_LEVEL, NO_EXPAND_ENV
from litestream.cli.flags import Flag, FlagSet, Parsed
from litestream.cli.tables import write_json
from litestream.errors import ConfigError

if TYPE_CHECKING:
    from litestream.config import Config
    from litestream.config.effective import Setting

VERBS = ("check", "migrate")

FLAGS = FlagSet(
    verb="config",
    usage="config check [flags] [CONFIG_PATH]\nconfig migrate [flags] [CONFIG_PATH]",
    about=(
        "check: validates the configuration and prints what it means, each value with its source (a line of the file,\n"
        "a variable, a flag, the default), secrets masked. Exit code 1 if it cannot be used.\n\n"
        "migrate: turns a file of the official 0.3, 0.4 or 0.5 into one for here, or the reverse, on stdout. What has\n"
        "no equal there, or means something else, is named on stderr."
    ),
    flags=(
        CONFIG,
        NO_EXPAND_ENV,
        LOG_LEVEL,
        Flag("json", "check: print JSON."),
        Flag("to", "migrate: for which program.", "VERSION", choices=("here", "0.5", "0.3"), default="here"),
        Flag("o", "migrate: write this file, and not stdout.", "PATH"),
        Flag("force", "migrate: replace the file of -o if there is one."),
    ),
    min_args=1,
    max_args=2,
    missing="check or migrate required",
    words=VERBS,
    examples="""
litestream config check
litestream config migrate -to 0.5 -o /tmp/litestream.yml /etc/litestream.yml
""",
)

_OF_CHECK = frozenset({"json", "log-level"})
_OF_MIGRATE = frozenset({"to", "o", "force"})


def run(parsed: Parsed) -> int:
    verb = parsed.args[0]
    if verb not in VERBS:
        raise ConfigError(f"litestream config {verb}: unknown command (it is check or migrate)")
    if len(parsed.args) > 1 and parsed.given("config"):
        raise ConfigError("the configuration is named twice: leave -config out, or the argument")
    for name in sorted(_OF_MIGRATE if verb == "check" else _OF_CHECK):
        if parsed.given(name):
            raise ConfigError(f"litestream config {verb} has no flag -{name}")
    return _check(parsed) if verb == "check" else _migrate(parsed)


def _file(parsed: Parsed) -> str:
    """The path of the file that is meant."""
    from litestream.config.loader import find

    given = parsed.args[1] if len(parsed.args) > 1 else parsed.text("config")
    return find(given or None, os.environ)


# -- check


def _check(parsed: Parsed) -> int:
    try:
        return _checked(parsed)
    except ConfigError as error:
        if parsed.switch("json"):
            write_json({"ok": False, "errors": str(error).splitlines()})
            return 1
        raise


def _checked(parsed: Parsed) -> int:
    from litestream.cli import warn

    file = _file(parsed)
    from litestream.config.effective import Effective, as_yaml, flat
    from litestream.config.loader import read, read_text

    text, expand_env = read_text(file), not parsed.switch("no-expand-env")
    reading = read(text, name=file, expand_env=expand_env, environ=os.environ)
    warnings = [*reading.config.warnings, *asyncio.run(_tried(reading.config))]
    lines = text.splitlines() if expand_env else []
    tree = Effective(reading, lines, _overrides(parsed), os.environ).tree()
    if parsed.switch("json"):
        settings = [{"key": place, "value": setting.value, **_source(setting)} for place, setting in flat(tree)]
        write_json({"ok": True, "path": file, "settings": settings, "warnings": warnings})
        return 0
    from litestream.daemon.logs import safe

    stdout.write("".join(f"{safe(line)}\n" for line in [f"# {file}", *as_yaml(tree).splitlines()]))
    for warning in warnings:
        warn(warning)
    return 0


def _source(setting: Setting) -> dict[str, object]:
    source = setting.source
    found: dict[str, object] = {"source": source.kind}
    if source.line:
        found["line"] = source.line
    if source.names:
        found["names"] = list(source.names)
    return found


def _overrides(parsed: Parsed) -> dict[tuple[str | int, ...], Setting]:
    """What beats the file. Raises `ConfigError` for a level that there is not."""
    from litestream.config.effective import Setting, Source
    from litestream.daemon.logs import choose_level, level_name

    flag, variable = parsed.text("log-level"), os.environ.get("LOG_LEVEL", "")
    if not flag and not variable:
        return {}
    level = level_name(choose_level(flag, os.environ, "")).lower()
    source = Source("flag", names=("-log-level",)) if flag else Source("environment", names=("LOG_LEVEL",))
    return {("logging", "level"): Setting(level, source)}


async def _tried(config: Config) -> list[str]:
    """Warnings of what only a start would tell. Raises `ConfigError` for what would prevent it; contacts nobody."""
    if not config.databases and not config.directories:
        raise ConfigError(f"{config.source}: no databases specified in configuration: add them below dbs:")
    entries = [(database.path, database.replicas) for database in config.databases]
    entries += [(directory.dir, directory.replicas) for directory in config.directories]
    warnings = []
    for path, replicas in entries:
        for replica in replicas:
            client = replica.open()  # raises for a package that this machine does not have
            await client.close()
            if replica.lease and not client.store.conditional:
                raise ConfigError(f"{path}({replica.label}): lease cannot be on: the store has no conditional writes")
            if replica.age is not None and not replica.age.recipients:
                warnings.append(
                    f"{path}({replica.label}): age has identities only: it can be restored from, not replicated to"
                )
    return warnings


# -- migrate


def _migrate(parsed: Parsed) -> int:
    from litestream.cli import warn

    file = _file(parsed)
    from litestream.config import loads
    from litestream.config.loader import read_text
    from litestream.config.migrate import HERE, migrate

    to = parsed.text("to") or HERE
    result = migrate(read_text(file), to=to, name=file)
    for note in result.notes:
        warn(note)
    if to == HERE:
        expand_env = not parsed.switch("no-expand-env")
        loads(
            result.text, name="the new file", expand_env=expand_env
        )  # what the old one has wrong in itself is wrong here too
    if parsed.given("o"):
        _write(parsed.text("o"), result.text, force=parsed.switch("force"))
    else:
        stdout.write(result.text)
    return 0


def _write(path: str, text: str, *, force: bool) -> None:
    """Write the file for its owner alone: it may hold secrets. Raises `ConfigError` if there is one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if force else os.O_EXCL)
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        raise ConfigError(f"there is a file already: {path}: -force replaces it") from None
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
