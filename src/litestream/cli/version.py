"""`litestream version`. The bare form is answered by `litestream.__main__` without importing this."""

from __future__ import annotations

from litestream.cli import stdout
from litestream.cli.flags import Flag, FlagSet, Parsed
from litestream.version import VERSION

FLAGS = FlagSet(
    verb="version",
    usage="version [flags]",
    about="Print the version of this program.",
    flags=(
        Flag("verbose", "Also print the versions of Python, SQLite and the platform."),
        Flag("json", "Print JSON."),
    ),
)


def run(parsed: Parsed) -> int:
    facts = {"version": VERSION}
    if parsed.switch("verbose"):
        facts.update(_facts())
    if parsed.switch("json"):
        from litestream.cli.tables import write_json

        write_json(facts)
    elif parsed.switch("verbose"):
        stdout.write("".join(f"{name}: {value}\n" for name, value in facts.items()))
    else:
        stdout.write(f"{VERSION}\n")
    return 0


def _facts() -> dict[str, str]:
    import platform

    from litestream.sqlite.connection import SQLITE_VERSION

    return {
        "python": platform.python_version(),
        "sqlite": SQLITE_VERSION,
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
