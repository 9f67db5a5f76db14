"""The programs that are compared, and the configuration files that each of them understands."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.official import install

OURS = "ours"
V03 = "0.3.13"
V05 = "0.5.17"
NAMES = (OURS, V03, V05)


class BenchError(Exception):
    """A measurement that could not be made, or whose result was wrong; one line."""


@dataclass(frozen=True, slots=True)
class Program:
    """A command with the command line of Litestream.

    Attributes:
        name: one of `NAMES`.
        version: what it says of itself.
        unchecked: flags with which `restore` leaves SQLite's check of the result out; 0.3.13 has no such check.
        checked: flags with which it makes the quick one; None where there is no such flag.
    """

    name: str
    argv: tuple[str, ...]
    version: str
    unchecked: tuple[str, ...] = ()
    checked: tuple[str, ...] | None = None


def ours(command: str = "") -> Program:
    """The program of this project: a command, or the `litestream` beside the running Python."""
    argv = tuple(shlex.split(command)) or (str(Path(sys.executable).parent / "litestream"),)
    none, quick = ("-integrity-check", "none"), ("-integrity-check", "quick")
    return Program(OURS, argv, version_of(argv), none, quick)


def official(version: str) -> Program:
    """An official program, installed at first use."""
    argv = (str(install(version)),)
    if version == V03:
        return Program(version, argv, version_of(argv))
    return Program(version, argv, version_of(argv), ("-integrity-check", "none"), ("-integrity-check", "quick"))


def programs(names: Sequence[str], command: str = "") -> list[Program]:
    """Those of these names, in the order of `NAMES`."""
    return [ours(command) if name == OURS else official(name) for name in NAMES if name in names]


def version_of(argv: Sequence[str]) -> str:
    """What `version` says.

    Raises:
        BenchError: it cannot be run.
    """
    try:
        done = subprocess.run([*argv, "version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise BenchError(f"cannot run {shlex.join(argv)} version: {error}") from error
    return done.stdout.strip().removeprefix("v")


@dataclass(frozen=True, slots=True)
class Database:
    """A database and where it is replicated to.

    Attributes:
        interval: sync-interval and monitor-interval; empty for the program's defaults.
        keys: more keys of the database, as YAML writes their values.
        bucket: if given, the replica is in an S3 server on loopback and not in a directory: endpoint, bucket.
    """

    path: Path
    replica: Path
    interval: str = ""
    keys: Mapping[str, str] | None = None
    bucket: tuple[str, str] | None = None


S3_KEY, S3_SECRET = "benchmark", "benchmark-secret"


def write_config(path: Path, databases: Sequence[Database]) -> None:
    """A configuration that all three programs read: one `replicas` of one entry for each database."""
    lines = ["dbs:"]
    for database in databases:
        lines.append(f"  - path: {database.path}")
        lines += [f"    {key}: {value}" for key, value in (database.keys or {}).items()]
        if database.interval:
            lines.append(f"    monitor-interval: {database.interval}")
        lines += ["    replicas:", *_replica(database)]
        if database.interval:
            lines.append(f"        sync-interval: {database.interval}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _replica(database: Database) -> list[str]:
    if database.bucket is None:
        return ["      - type: file", f"        path: {database.replica}"]
    endpoint, bucket = database.bucket
    return [
        "      - type: s3",
        f"        bucket: {bucket}",
        "        path: db",
        f"        endpoint: {endpoint}",
        "        region: us-east-1",
        "        force-path-style: true",
        f"        access-key-id: {S3_KEY}",
        f"        secret-access-key: {S3_SECRET}",
    ]
