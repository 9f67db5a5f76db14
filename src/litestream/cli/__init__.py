"""The command line: finds the verb, runs it, and turns every failure into one line on stderr and exit code 1."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol

from litestream.cli import stdout
from litestream.cli.flags import FlagSet, HelpRequestedError, Parsed, closest
from litestream.errors import ConfigError, LitestreamError

VERBS = {
    "check": "prove that a replica can be written and read, before it is needed",
    "completion": "print a script with which bash, zsh or fish completes commands and flags",
    "config": "check a configuration and show what it means; turn one of another version into one for here",
    "databases": "list databases of the configuration",
    "demo": "see it work: a small database, replicated, killed, restored and compared",
    "generations": "list available generations of a database",
    "info": "show version, process and age of a running replicator",
    "list": "list the databases of a running replicator",
    "prune": "delete what is older than the retention, for a replicator that must not",
    "register": "have a running replicator replicate one more database",
    "reload": "have a running replicator read its configuration again",
    "replicate": "replicate databases continuously",
    "reset": "forget the local state of a database, so that it begins anew",
    "restore": "restore a database from a replica",
    "snapshots": "list available snapshots of a database",
    "start": "go on replicating a database that was stopped",
    "status": "show how safe every database is, with exit code 0 if all are",
    "stop": "stop replicating a database of a running replicator",
    "sync": "copy, and upload, what is committed now",
    "unregister": "have a running replicator replicate a database no more",
    "verify": "prove that a replica is sound, and that it restores the database",
    "version": "print the version",
    "wait": "return when what is committed now is durable in a replica",
    "wal": "list available WAL segments of a database",
}

ELSEWHERE = {
    "ltx": "replicas hold snapshots and WAL segments here, and no LTX files: see snapshots and wal",
}
"""Verbs of official releases that there cannot be here, and why."""

_MODULES = {"list": "list_"}
"""Where a verb's module cannot have its name: it would be `list` in here as well."""


class Verb(Protocol):
    """What a verb's module has. `ERROR_CODE`, if it has one, is the exit code of errors; else that is 1."""

    FLAGS: FlagSet

    def run(self, parsed: Parsed) -> int:
        """Do it; the result is the exit code."""
        ...


def load_verb(name: str) -> Verb:
    """Import a verb's module: only the one that is used."""
    verb: Verb = import_module(f"litestream.cli.{_MODULES.get(name, name)}")
    return verb


def usage() -> str:
    """The text of `litestream help`."""
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"    {name:{width}}{about}" for name, about in VERBS.items())
    return (
        "litestream replicates SQLite databases continuously, and restores them.\n\n"
        "Usage:\n\n    litestream <command> [flags] [arguments]\n\n"
        f"Commands:\n\n{verbs}\n\n"
        "`litestream <command> -h` explains a command. `litestream demo` shows all of it in 15 seconds.\n"
    )


def run(argv: Sequence[str]) -> int:
    """Run the command line `argv` (without the program's name) and return the exit code."""
    try:
        code = _dispatch(list(argv))
        stdout.flush()
        return code
    except stdout.OutputError as e:
        stdout.give_up()
        if isinstance(e.cause, BrokenPipeError):
            return 1  # the reader has gone (`litestream wal … | head`): nothing to say to anybody
        return fail(f"cannot write the output: {e.cause.strerror or e.cause}")
    except KeyboardInterrupt:
        return fail("interrupted")


def fail(message: str, *more: str) -> int:
    """Print one line of error on stderr (and `more` lines); the result is the exit code 1."""
    _say(f"Error: {message}", *more)
    return 1


def warn(message: str) -> None:
    """Print one line of warning on stderr."""
    _say(f"Warning: {message}")


def _say(*lines: str) -> None:
    from litestream.daemon.logs import safe

    try:
        sys.stderr.write("".join(f"{safe(line)}\n" for line in lines))
        sys.stderr.flush()
    except OSError:
        pass  # stderr cannot be written: the exit code has to do


def _dispatch(argv: list[str]) -> int:
    if not argv:
        stdout.write(usage())
        return 1  # as the official program: nothing was asked for
    name, rest = argv[0], argv[1:]
    if name in ("-h", "-help", "--help", "help"):
        if not rest or rest[0].startswith("-"):
            stdout.write(usage())
            return 0
        name, rest = rest[0], ["-h"]
    if name in ELSEWHERE:
        return fail(f"litestream {name}: unknown command: {ELSEWHERE[name]}")
    if name not in VERBS:
        guess = closest(name, list(VERBS))
        hint = f"did you mean {guess}?" if guess else "see: litestream help"
        return fail(f"litestream {name}: unknown command ({hint})")
    return _run_verb(name, rest)


def _run_verb(name: str, rest: list[str]) -> int:
    verb = load_verb(name)
    parsed: Parsed | None = None
    try:
        parsed = verb.FLAGS.parse(rest)
        return verb.run(parsed)
    except HelpRequestedError:
        stdout.write(verb.FLAGS.help_text())
        return 0
    except stdout.OutputError:
        raise
    except ConfigError as e:
        fail(*str(e).splitlines())  # everything that is wrong in a file, one line each
    except LitestreamError as e:
        _traceback(parsed)
        fail(str(e))
    except OSError as e:
        _traceback(parsed)
        where = f": {os.fsdecode(e.filename)}" if isinstance(e.filename, str | bytes) else ""
        fail(f"{e.strerror or str(e) or type(e).__name__}{where}")
    except MemoryError:
        fail("out of memory")
    except Exception as e:
        hint = "" if _traceback(parsed) else " (run it again with -log-level debug to see where, and report it please)"
        fail(f"internal error: {type(e).__name__}: {e}{hint}")
    return getattr(verb, "ERROR_CODE", 1)


def _traceback(parsed: Parsed | None) -> bool:
    """Print the traceback of the exception being handled where the level asks for it."""
    level = (parsed.text("log-level") if parsed else "") or os.environ.get("LOG_LEVEL", "")
    if level.lower() not in ("debug", "trace"):
        return False
    from traceback import print_exc

    print_exc()
    return True


__all__ = ["VERBS", "ConfigError", "fail", "run", "usage", "warn"]
