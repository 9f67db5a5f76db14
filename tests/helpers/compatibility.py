"""What the official releases have, and docs/compatibility.md made of it: `python -m helpers.compatibility` in tests/
writes its tables.

The lists are those of the releases themselves, written down by hand. The page's claims are checked one by one by
test_compatibility.py, which feeds each flag, key, request and so on to the program.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from litestream.cli import ELSEWHERE as OTHER_VERBS
from litestream.cli import VERBS as OUR_VERBS
from litestream.cli import load_verb
from litestream.cli.flags import ELSEWHERE as OTHER_FLAGS
from litestream.config.key import Fate, Key, Kind
from litestream.config.known_keys import (
    DATABASE,
    LEVELS,
    LOGGING,
    REPLICA,
    RETENTION,
    SECTIONS,
    SNAPSHOT,
    SOCKET,
    UPSTREAM,
    VALIDATION,
)
from litestream.config.store_keys import AGE, BY_NAME, MAX_REQUESTS
from litestream.metrics import DEFAULT

PAGE = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"

WORKS, ACCEPTED, REFUSED = "works", "accepted without effect", "refused"

OLD, ALL, V03, V04, V05 = "0.3 0.4", "0.3 0.4 0.5", "0.3", "0.4", "0.5"

VERBS = {
    "databases": ALL, "generations": OLD, "help": ALL, "info": V05, "list": V05, "ltx": V05, "register": V05,
    "replicate": ALL, "reset": V05, "restore": ALL, "snapshots": OLD, "start": V05, "status": V05, "stop": V05,
    "sync": V05, "unregister": V05, "version": ALL, "wal": ALL,
}  # fmt: skip

_FILE = {"config": ALL, "no-expand-env": ALL}
_SOCKET = {"timeout": V05, "socket": V05, "json": V05}
FLAGS: dict[str, dict[str, str]] = {
    "databases": {**_FILE, "json": V05},
    "generations": {"config": OLD, "no-expand-env": OLD, "replica": OLD},
    "snapshots": {"config": OLD, "no-expand-env": OLD, "replica": OLD},
    "wal": {**_FILE, "replica": OLD, "generation": OLD, "level": V05, "json": V05},
    "replicate": {
        **_FILE, "exec": ALL, "addr": V04, "log-level": V05, "once": V05, "force-snapshot": V05,
        "enforce-retention": V05, "restore-if-db-not-exists": V05,
    },
    "restore": {
        **_FILE, "o": ALL, "replica": OLD, "generation": OLD, "index": OLD, "timestamp": "0.3 0.5", "txid": V05,
        "if-db-not-exists": ALL, "if-replica-exists": ALL, "parallelism": ALL, "v": OLD, "dry-run": V05, "force": V05,
        "json": V05, "f": V05, "follow-interval": V05, "integrity-check": V05,
    },
    "version": {"verbose": V05},
    "status": {"config": V05, "json": V05},
    "reset": {"config": V05, "dry-run": V05},
    "start": _SOCKET, "stop": _SOCKET, "sync": {"wait": V05, **_SOCKET}, "register": {"replica": V05, **_SOCKET},
    "unregister": {"dry-run": V05, **_SOCKET}, "list": _SOCKET, "info": _SOCKET,
}  # fmt: skip

VALUES = {
    "timeout": "30", "follow-interval": "1s", "index": "00000001", "parallelism": "8", "log-level": "trace",
    "integrity-check": "quick", "timestamp": "2026-01-02T15:04:05Z", "addr": ":9090", "level": "all",
}  # fmt: skip
"""Good values of flags; `x` for the others."""

METRICS: dict[str, tuple[str, str]] = {
    "db_size": (ALL, "db"), "wal_size": (ALL, "db"), "total_wal_bytes": (ALL, "db"),
    "shadow_wal_index": (OLD, "db"), "shadow_wal_size": (OLD, "db"),
    "sync_count": (ALL, "db"), "sync_error_count": (ALL, "db"), "sync_seconds": (ALL, "db"),
    "checkpoint_count": (ALL, "db mode"), "checkpoint_error_count": (ALL, "db mode"),
    "checkpoint_seconds": (ALL, "db mode"),
    "replica_wal_bytes": (OLD, "db name"), "replica_wal_index": (OLD, "db name"),
    "replica_wal_offset": (OLD, "db name"), "replica_snapshot_total": (V04, "db name"),
    "replica_validation_total": (V03, "db name status"),
    "replica_operation_total": (ALL, "replica_type operation"),
    "replica_operation_bytes": (ALL, "replica_type operation"),
    "replica_operation_duration_seconds": (V05, "replica_type operation"),
    "replica_operation_errors_total": (V05, "replica_type operation code"),
    "txid": (V05, "db"), "disk_full": (V05, "db"),
    "compaction_verify_error_count": (V05, "db"), "l0_retention_files_total": (V05, "db status"),
}  # fmt: skip
NO_METRIC = "there are no LTX files, so nothing is compacted"

REQUESTS = {
    "socket": {
        "POST /start": V05, "POST /stop": V05, "POST /sync": V05, "POST /register": V05, "POST /unregister": V05,
        "GET /txid": V05, "GET /list": V05, "GET /info": V05, "GET /debug/sync-status": V05, "GET /debug/pprof/": V05,
    },
    "addr": {"GET /metrics": ALL, "GET /stream": V04, "GET /debug/pprof/": ALL},
}  # fmt: skip
NO_PPROF = "the profiler is one of Go programs"

VARIABLES = {
    "LITESTREAM_CONFIG": ALL, "LITESTREAM_ACCESS_KEY_ID": ALL, "LITESTREAM_SECRET_ACCESS_KEY": ALL,
    "LITESTREAM_AZURE_ACCOUNT_KEY": ALL, "LITESTREAM_AZURE_SAS_TOKEN": V05, "LITESTREAM_S3_ENDPOINT": V05,
    "LITESTREAM_S3_DEBUG": V05, "LOG_LEVEL": V05, "LITESTREAM_DB_PATH": V04,
}  # fmt: skip
NO_DEBUG = "requests are counted, by class, in the metrics"

SERVICES = (
    ("changes are noticed by events (inotify)", V04, WORKS, "with a look every second besides"),
    ("live read replicas over HTTP (`/stream`, `upstream`)", V04, WORKS, "[followers](followers.md)"),
    ("the control socket", V05, WORKS, "[control](control.md)"),
    ("directories that are watched", V05, WORKS, "[directories](config.md#directories-of-databases)"),
    ("the heartbeat", V05, WORKS, "[operations](operations.md#heartbeat)"),
    ("validation: a restored copy compared with the database", V03, WORKS, "[verify](verify.md)"),
    ("encryption with age", V03, WORKS, "[encryption](stores/encryption.md)"),
    ("restore when there is no database", V05, WORKS, "[running](running.md)"),
    ("leases", V05, WORKS, "in 0.5 for its library only; [exclusive](exclusive.md)"),
    ("MCP server (`mcp-addr`)", V05, REFUSED, "the key is an error; `-json` of every command is for programs"),
    ("VFS read replica, its SQL functions and pragmas, hydration", V05, REFUSED,
     "it is an extension for the SQLite of an application, and reads LTX files"),
    ("reading and writing LTX replicas", V05, REFUSED, "they are recognised, and an error says so"),
    ("Windows service", "0.3 0.5", REFUSED, "POSIX only: locks and inotify are what replication is built on"),
)  # fmt: skip


def claim(state: str, reason: str = "") -> str:
    return f"{state}: {reason}" if reason else state


def of_flag(verb: str, flag: str) -> str:
    if (verb, flag) in OTHER_FLAGS:
        return claim(REFUSED, OTHER_FLAGS[verb, flag])
    return claim(WORKS if flag in {known.name for known in load_verb(verb).FLAGS.flags} else "missing")


def of_key(key: Key) -> str:
    return {Fate.WORKS: WORKS, Fate.WARNING: claim(ACCEPTED, key.note), Fate.REFUSED: claim(REFUSED, key.note)}[
        key.fate
    ]


def official_keys() -> Iterator[tuple[str, Key]]:
    """Every key that a release knows, with its section."""
    for section, keys in SECTIONS.items():
        if section != MAX_REQUESTS:
            yield from ((section, key) for key in keys.values() if key.versions)


# -- a file for a key

_TYPES: dict[str, dict[str, Any]] = {
    "file": {"path": "/b"},
    "s3": {"bucket": "bucket"},
    "gs": {"bucket": "bucket"},
    "abs": {"bucket": "container", "account-name": "account"},
    "sftp": {"host": "host.example", "user": "me"},
    "webdav": {"webdav-url": "https://dav.example/r"},
    "nats": {"url": "nats://nats.example/bucket"},
}
_AGE = "age1gqhz4zdmkddhke65wq2p6c4lpg0naw7vxlypj0aarvfadej8pvfqh2crw6"
_IDENTITY = "AGE-SECRET-KEY-1UU59HTWUXZVRAHT8WJFVW66DHFTT3FXGXDXSZX57AKAER5ZZCMDSJZY8W6"
_CUSTOMER = "aHVzaC1odXNoLWh1c2gtaHVzaC1odXNoLWh1c2gtaHU="
_PAIRS: dict[str, dict[str, Any]] = {
    "access-key-id": {"secret-access-key": "x"}, "secret-access-key": {"access-key-id": "x"},
    "sse-customer-algorithm": {"sse-customer-key": _CUSTOMER}, "jwt": {"seed": "x"}, "nkey": {"seed": "x"},
    "seed": {"jwt": "x"}, "username": {"password": "x"}, "identities": {"recipients": [_AGE]},
}  # fmt: skip
"""What a key is nothing without."""
_FILES = {"key-path", "creds", "client-cert", "client-key", "sse-customer-key-path"}
_GOOD: dict[str, Any] = {
    "endpoint": "https://store.example", "part-size": "16MiB", "sse-customer-algorithm": "AES256",
    "sse-customer-key": _CUSTOMER, "account-key": "aHVzaC1odXNo", "webdav-url": "https://other.example/r",
    "sas-token": "sv=2021-12-02&sig=x", "age": {"recipients": [_AGE]}, "recipients": [_AGE],
    "identities": [_IDENTITY], "addr": ":1", "heartbeat-url": "https://example.com/p", "permissions": "0640",
    "level": "warn", "max-checkpoint-page-count": 2000, "max-sync-wal-bytes": "64MiB", "path": "/p", "dir": "/d",
    "pattern": "*.db", "levels": [{"interval": "30s"}], "upstream": {"url": "http://h:1"}, "exec": "app",
}  # fmt: skip
_KINDS: dict[Kind, Any] = {
    Kind.DURATION: "2m", Kind.COUNT: 7, Kind.SIZE: "1MiB", Kind.FLAG: True, Kind.TEXT: "text", Kind.SECTION: {},
    Kind.LIST: [],
}  # fmt: skip


def file_with(section: str, key: Key, file: Path) -> str:
    """A good configuration with the key in it; `file` is one that is there, with an SSE-C key."""
    name = key.name
    value = _GOOD.get(name, _KINDS[key.kind])
    if name in _FILES:
        value = str(file)
    if name == "root-cas":
        value = [str(file)]
    given = {name: value, **_PAIRS.get(name, {})}
    if name in {"client-cert", "client-key"}:
        given = {"client-cert": str(file), "client-key": str(file)}
    return json.dumps(_placed(section, key, given))


def _placed(section: str, key: Key, given: dict[str, Any]) -> dict[str, Any]:
    top: dict[str, Any] = {}
    kind = next((one for one in key.types if one in _TYPES), "file") if key.name in BY_NAME else "file"
    replica: dict[str, Any] = {"type": kind, **_TYPES[kind]}
    if kind == "nats" and key.name == "password":
        given = {**given, "username": "me"}
    database: dict[str, Any] = {"path": "/a"}
    if section == REPLICA:
        replica = _replica(replica, key, given)
    elif section == DATABASE:
        return _database(key, given)
    elif section == AGE:
        replica["age"] = given
    elif section == UPSTREAM:
        return {"dbs": [{"path": "/a", "upstream": {**given, "url": "http://h:1"}}]}
    elif section == LEVELS:
        top = {"levels": [given]}
    elif section in {LOGGING, SOCKET, SNAPSHOT, RETENTION, VALIDATION}:
        top = {section: {**given, **({"type": "json"} if (section, key.name) == (LOGGING, "type") else {})}}
    elif key.name == "heartbeat-interval":
        top = {"heartbeat-url": "https://example.com/p", **given}
    elif key.name != "dbs":
        top = given
        replica = {name: value for name, value in replica.items() if name not in given}
    return {**top, "dbs": [{**database, "replicas": [replica]}]}


def _replica(replica: dict[str, Any], key: Key, given: dict[str, Any]) -> dict[str, Any]:
    if key.name == "url":
        return {"url": "file:///b"}
    if key.name == "type":
        return {"type": "file", "path": "/b"}
    if key.name == "bucket":
        return {"type": "s3", "bucket": "bucket"}
    return {**replica, **given}


def _database(key: Key, given: dict[str, Any]) -> dict[str, Any]:
    replicas = {"replicas": [{"path": "/b"}]}
    if key.name in {"dir", "pattern", "recursive", "watch", "meta-dir"}:
        return {"dbs": [{"dir": "/d", "pattern": "*.db", **given, **replicas}]}
    if key.name == "upstream":
        return {"dbs": [{"path": "/a", **given}]}
    if key.name in {"replica", "replicas"}:
        return {"dbs": [{"path": "/a", key.name: {"path": "/b"} if key.name == "replica" else [{"path": "/b"}]}]}
    return {"dbs": [{"path": "/a", **given, **replicas}]}


# -- the page


BEGIN, END = "<!-- keys: begin -->", "<!-- keys: end -->"


def page(text: str) -> str:
    """The text of docs/compatibility.md with its tables anew."""
    return "\n".join([text.partition(BEGIN)[0] + BEGIN, "", *_tables(), END + text.partition(END)[2]])


def _tables() -> list[str]:
    lines: list[str] = []

    def table(title: str, first: str, rows: list[tuple[str, str, str]]) -> None:
        lines.extend([f"## {title}", "", f"| {first} | releases | here |", "|---|---|---|"])
        lines.extend(f"| {name} | {versions} | {here} |" for name, versions, here in rows)
        lines.append("")

    table("Verbs", "verb", [
        (f"`{verb}`", versions, claim(REFUSED, OTHER_VERBS[verb]) if verb in OTHER_VERBS
         else claim(WORKS if verb in {*OUR_VERBS, "help"} else "missing"))
        for verb, versions in VERBS.items()
    ])  # fmt: skip
    table("Flags", "flag", [
        (f"`{verb} -{flag}`", versions, of_flag(verb, flag))
        for verb, flags in FLAGS.items() for flag, versions in flags.items()
    ])  # fmt: skip
    for section, keys in SECTIONS.items():
        rows = [(f"`{key.name}`", key.versions, of_key(key)) for key in keys.values() if key.versions]
        if rows:
            table(f"Keys: {section}", "key", rows)
    table("Environment variables", "variable", [
        (f"`{name}`", versions, claim(ACCEPTED, NO_DEBUG) if name == "LITESTREAM_S3_DEBUG" else WORKS)
        for name, versions in VARIABLES.items()
    ])  # fmt: skip
    names = {family.name for family in DEFAULT.families()}
    table("Metrics", "metric", [
        (f"`litestream_{name}`", versions, WORKS if f"litestream_{name}" in names else claim(REFUSED, NO_METRIC))
        for name, (versions, _) in METRICS.items()
    ])  # fmt: skip
    for where, requests in REQUESTS.items():
        table(f"Requests at the {where}", "request", [
            (f"`{request}`", versions, claim(REFUSED, NO_PPROF) if "pprof" in request else WORKS)
            for request, versions in requests.items()
        ])  # fmt: skip
    table("Services", "service", [(what, versions, claim(state, why)) for what, versions, state, why in SERVICES])
    return lines


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
