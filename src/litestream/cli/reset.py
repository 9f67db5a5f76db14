"""`litestream reset`: forget the local state of a database, so that it begins anew with a snapshot."""

from __future__ import annotations

import os
import shutil

from litestream.cli import stdout
from litestream.cli.common import COMMON, find_database, load_config, tell_warnings
from litestream.cli.control import PATH_MISSING
from litestream.cli.flags import Flag, FlagSet, Parsed
from litestream.errors import LocalStateError

FLAGS = FlagSet(
    verb="reset",
    usage="reset [flags] DB_PATH",
    about=(
        "Delete the local state of a database. The next replication, also one that is running, begins a new\n"
        "generation with a snapshot. The database and what is in its replicas stay as they are."
    ),
    flags=(*COMMON, Flag("dry-run", "Show what would be deleted.")),
    min_args=1,
    max_args=1,
    missing=PATH_MISSING,
)

_OURS = ("state.json", "generations", "replicas")
"""Whatever else is there belongs to others, or is the lock of a replicator that runs."""


def run(parsed: Parsed) -> int:
    config = load_config(parsed)
    from litestream.config.paths import shown
    from litestream.config.rules import default_meta_path

    tell_warnings(config)
    database = find_database(config, parsed.args[0])
    meta = database.meta_path or default_meta_path(os.path.realpath(database.path))
    there = [path for path in (os.path.join(meta, name) for name in _OURS) if os.path.lexists(path)]
    path = shown(database.path)
    if not there:
        stdout.write(f"No local state to reset for {path}\n")
        return 0
    if parsed.switch("dry-run"):
        stdout.write(f"Dry run: local Litestream state would be reset for: {path}\n")
        stdout.write("".join(f"Would remove: {shown(name)}\n" for name in there))
        return 0
    stdout.write(f"Resetting local Litestream state for: {path}\n")
    for name in there:
        stdout.write(f"Removing: {shown(name)}\n")
        _remove(name)
    stdout.write("Reset complete. Next replication sync will create a fresh snapshot.\n")
    return 0


def _remove(path: str) -> None:
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass  # a replicator that runs was faster
    except OSError as error:
        raise LocalStateError(f"cannot remove {error.filename or path}: {error.strerror}") from error
