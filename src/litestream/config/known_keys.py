"""Every key of `litestream.yml` that an official release knows (0.3, 0.4 beta, 0.5), and what it does here.

The rule behind the fates: a key is *refused* when going on without it would leave something undone that its owner
counts on (data not copied, not encrypted, a program not started, an alarm not raised); it is accepted with a *warning*
when it only tunes a thing that works differently here, so that no data and no duty depends on it.

`docs/config.md` and `docs/litestream.schema.json` are written from this table (`litestream.config.schema`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Fate(Enum):
    """What becomes of a key."""

    WORKS = "works"
    WARNING = "warning"
    REFUSED = "refused"


class Kind(Enum):
    """What is written behind a key."""

    DURATION = "duration"
    COUNT = "number"
    FLAG = "true or false"
    TEXT = "text"
    SECTION = "section"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Key:
    """One key of one section."""

    name: str
    fate: Fate
    kind: Kind
    versions: str
    """Official releases that know the key."""
    note: str
    """WORKS: what it does. Otherwise the reason, in words that stand behind "KEY: " in an error or a warning."""
    off: frozenset[str] = frozenset()
    """Values that ask for nothing, so that nothing has to be said: the key is then accepted silently."""
    section: str = ""
    """SECTION and LIST: the section that is checked inside; empty where nothing inside matters."""
    cloud: bool = False
    """Belongs to a replica type other than `file`."""


FALSE = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N"})
TRUE = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"})
ZERO = frozenset({"0", "0s", "0m", "0h"})

_ALL = "0.3 0.4 0.5"
_NEXT = "not in this version yet"


def _works(name: str, kind: Kind, versions: str, note: str, section: str = "") -> Key:
    return Key(name, Fate.WORKS, kind, versions, note, section=section)


def _warned(name: str, kind: Kind, versions: str, note: str, off: frozenset[str] = frozenset()) -> Key:
    return Key(name, Fate.WARNING, kind, versions, note, off)


def _refused(name: str, kind: Kind, versions: str, note: str, off: frozenset[str] = frozenset()) -> Key:
    return Key(name, Fate.REFUSED, kind, versions, note, off)


def _table(*keys: Key) -> dict[str, Key]:
    return {key.name: key for key in keys}


_NO_LTX = "has no effect: replicas are written in the format of 0.3, which has no LTX files and no compaction levels"
_NO_CLOUD = "has no effect: it belongs to a replica type that is not supported by this version"
_NO_DIR = f"whole directories are {_NEXT}: list each database with 'path'"
_NO_AGE = f"age encryption is {_NEXT}; nothing is replicated, so that nothing is stored unencrypted"
_NO_SSE = f"server-side encryption is {_NEXT}; nothing is replicated, so that nothing is stored unencrypted"
_NO_SOCKET = f"the control socket is {_NEXT}"
_NO_UPSTREAM = f"following another server is {_NEXT}"
_NO_VALIDATION = (
    "has no effect yet: replicas are not validated in the background; `litestream restore` checks everything"
)


def _cloud(name: str, kind: Kind = Kind.TEXT, versions: str = "0.5") -> Key:
    return Key(name, Fate.WARNING, kind, versions, _NO_CLOUD, cloud=True)


def _sse(name: str) -> Key:
    return Key(name, Fate.REFUSED, Kind.TEXT, "0.5", _NO_SSE, cloud=True)


_SHARED = (
    _works(
        "sync-interval",
        Kind.DURATION,
        _ALL,
        "shortest time between two uploads; a change after a pause goes at once (1s)",
    ),
    _warned("validation-interval", Kind.DURATION, _ALL, _NO_VALIDATION, ZERO),
    _warned(
        "auto-recover",
        Kind.FLAG,
        "0.5",
        "has no effect: a new generation is always started when local state is lost",
        FALSE,
    ),
    _warned("max-sync-ltx-files", Kind.COUNT, "0.5", _NO_LTX),
    Key("age", Fate.REFUSED, Kind.SECTION, "0.3 0.5", _NO_AGE),
    # S3, also OSS
    _cloud("access-key-id", versions=_ALL),
    _cloud("secret-access-key", versions=_ALL),
    _cloud("region", versions=_ALL),
    _cloud("bucket", versions=_ALL),
    _cloud("endpoint", versions=_ALL),
    _cloud("force-path-style", Kind.FLAG, _ALL),
    _cloud("skip-verify", Kind.FLAG, _ALL),
    _cloud("sign-payload", Kind.FLAG),
    _cloud("require-content-md5", Kind.FLAG),
    _cloud("storage-class"),
    _cloud("part-size"),
    _cloud("concurrency", Kind.COUNT),
    _sse("sse-customer-algorithm"),
    _sse("sse-customer-key"),
    _sse("sse-customer-key-path"),
    _sse("sse-kms-key-id"),
    # Azure
    _cloud("account-name", versions=_ALL),
    _cloud("account-key", versions=_ALL),
    _cloud("sas-token"),
    # SFTP
    _cloud("host", versions=_ALL),
    _cloud("user", versions=_ALL),
    _cloud("password", versions=_ALL),
    _cloud("key-path", versions=_ALL),
    _cloud("host-key"),
    _cloud("concurrent-writes", Kind.FLAG),
    # WebDAV
    _cloud("webdav-url"),
    _cloud("webdav-username"),
    _cloud("webdav-password"),
    # NATS
    _cloud("jwt"),
    _cloud("seed"),
    _cloud("creds"),
    _cloud("nkey"),
    _cloud("username"),
    _cloud("token"),
    _cloud("tls", Kind.FLAG),
    _cloud("root-cas", Kind.LIST),
    _cloud("client-cert"),
    _cloud("client-key"),
    _cloud("max-reconnects", Kind.COUNT),
    _cloud("reconnect-wait", Kind.DURATION),
    _cloud("timeout", Kind.DURATION),
)
"""Settings of a replica that 0.5 also takes at the top of the file, as defaults for all replicas."""

TOP = "top of the file"
LOGGING = "logging"
SOCKET = "socket"
SNAPSHOT = "snapshot"
RETENTION = "retention"
VALIDATION = "validation"
DATABASE = "dbs[]"
REPLICA = "dbs[].replicas[]"
AGE = "age"
LEVELS = "levels[]"
UPSTREAM = "dbs[].upstream"

SECTIONS: dict[str, dict[str, Key]] = {
    TOP: _table(
        _works("addr", Kind.TEXT, _ALL, "address that serves /metrics, as HOST:PORT or :PORT (off)"),
        _works("dbs", Kind.LIST, _ALL, "the databases", section=DATABASE),
        _works("logging", Kind.SECTION, "0.3 0.5", "what is logged, and how", section=LOGGING),
        _works("snapshot", Kind.SECTION, "0.5", "defaults of all replicas", section=SNAPSHOT),
        _works(
            "shutdown-sync-timeout",
            Kind.DURATION,
            "0.5",
            "longest time that the last sync of a shutdown may take (30s)",
        ),
        _works("shutdown-sync-interval", Kind.DURATION, "0.5", "time between two tries of the last sync (500ms)"),
        _works(
            "retention",
            Kind.SECTION,
            "0.5",
            "`retention.enabled` as in 0.5, or a duration: the default of all replicas",
            section=RETENTION,
        ),
        _works("snapshot-interval", Kind.DURATION, "", "the default of all replicas"),
        _works("retention-check-interval", Kind.DURATION, "", "the default of all replicas"),
        _works("exec", Kind.TEXT, _ALL, "application to run beside the replication; `-exec` beats it"),
        _works("socket", Kind.SECTION, "0.5", "`enabled: false` only", section=SOCKET),
        _works("validation", Kind.SECTION, "0.5", "known, see below", section=VALIDATION),
        _refused("mcp-addr", Kind.TEXT, "0.5", f"the MCP server is {_NEXT}"),
        _refused("heartbeat-url", Kind.TEXT, "0.5", f"heartbeats are {_NEXT}: whoever waits for them would be alarmed"),
        _warned("heartbeat-interval", Kind.DURATION, "0.5", f"has no effect: heartbeats are {_NEXT}"),
        _warned("levels", Kind.LIST, "0.5", _NO_LTX),
        _warned("l0-retention", Kind.DURATION, "0.5", _NO_LTX),
        _warned("l0-retention-check-interval", Kind.DURATION, "0.5", _NO_LTX),
        _warned("verify-compaction", Kind.FLAG, "0.5", _NO_LTX, FALSE),
        *_SHARED,
    ),
    LOGGING: _table(
        _works("level", Kind.TEXT, "0.3 0.5", "trace, debug, info, warn or error (info)"),
        _works("type", Kind.TEXT, "0.3 0.5", "text or json (text); `pretty` of 0.5 is taken as text, with a warning"),
        _works("stderr", Kind.FLAG, "0.3 0.5", "log to standard error instead of standard output (false)"),
        _warned("source", Kind.FLAG, "0.5", "has no effect: log lines never name a place in the source", FALSE),
    ),
    SNAPSHOT: _table(
        _works("interval", Kind.DURATION, "0.5", "the default of `snapshot-interval` (0s: off)"),
        _works("retention", Kind.DURATION, "0.5", "the default of `retention` (24h)"),
    ),
    RETENTION: _table(
        _works("enabled", Kind.FLAG, "0.5", "`false`: nothing is ever deleted from a replica (true)"),
    ),
    SOCKET: _table(
        _refused("enabled", Kind.FLAG, "0.5", _NO_SOCKET, FALSE),
        _warned("path", Kind.TEXT, "0.5", f"has no effect: {_NO_SOCKET}"),
        _warned("permissions", Kind.TEXT, "0.5", f"has no effect: {_NO_SOCKET}"),
    ),
    VALIDATION: _table(_warned("interval", Kind.DURATION, "0.5", _NO_VALIDATION, ZERO)),
    LEVELS: _table(_warned("interval", Kind.DURATION, "0.5", _NO_LTX)),
    DATABASE: _table(
        _works("path", Kind.TEXT, _ALL, "the database file; `~/`, relative paths and `sqlite://` work"),
        _works(
            "meta-path", Kind.TEXT, "0.3 0.5", "directory of our local state (`.FILE-litestream` beside the database)"
        ),
        _works("monitor-interval", Kind.DURATION, "0.3 0.5", "how often to look for changes that no event told (1s)"),
        _works("checkpoint-interval", Kind.DURATION, _ALL, "longest time between two checkpoints (1m; 0s: off)"),
        _works("min-checkpoint-page-count", Kind.COUNT, _ALL, "pages in the WAL from which it is checkpointed (1000)"),
        _works(
            "max-checkpoint-page-count",
            Kind.COUNT,
            "0.3 0.4",
            "pages in the WAL from which writers are held for a moment so that it can start over (10000; 0: never)",
        ),
        _works("busy-timeout", Kind.DURATION, "0.5", "longest wait for a lock of the database (1s)"),
        _works("snapshot", Kind.SECTION, "0.5", "defaults of this database's replicas", section=SNAPSHOT),
        _works("replicas", Kind.LIST, _ALL, "where the copies go", section=REPLICA),
        _works("replica", Kind.SECTION, "0.5", "the same for a single replica", section=REPLICA),
        _refused("dir", Kind.TEXT, "0.5", _NO_DIR),
        _refused("pattern", Kind.TEXT, "0.5", _NO_DIR),
        _refused("recursive", Kind.FLAG, "0.5", _NO_DIR, FALSE),
        _refused("watch", Kind.FLAG, "0.5", _NO_DIR, FALSE),
        _refused("meta-dir", Kind.TEXT, "0.5", _NO_DIR),
        _refused(
            "restore-if-db-not-exists",
            Kind.FLAG,
            "0.5",
            f"restoring at start is {_NEXT}: run `litestream restore -if-db-not-exists -if-replica-exists DB` first",
            FALSE,
        ),
        _refused("upstream", Kind.SECTION, "0.4", _NO_UPSTREAM),
        _warned("monitor-delay-interval", Kind.DURATION, "0.4", "has no effect: a change is copied at once"),
        _warned(
            "shadow-retention-count",
            Kind.COUNT,
            "0.4",
            "has no effect: local copies are kept until every replica has them",
        ),
        _warned("truncate-page-n", Kind.COUNT, "0.5", "has no effect: see max-checkpoint-page-count"),
        _warned("max-sync-wal-bytes", Kind.TEXT, "0.5", "has no effect: segments hold at most 4 MiB"),
    ),
    REPLICA: _table(
        _works("type", Kind.TEXT, _ALL, "`file` is the one supported by this version (file)"),
        _works(
            "name", Kind.TEXT, "0.3 0.4", "name in logs, tables and `-replica` (the type); unique within a database"
        ),
        _works("path", Kind.TEXT, _ALL, "directory of the replica"),
        _works("url", Kind.TEXT, _ALL, "`file:///DIRECTORY`, instead of type and path"),
        _works("snapshot-interval", Kind.DURATION, "0.3 0.4", "time between two snapshots (0s: only when needed)"),
        _works("retention", Kind.DURATION, "0.3 0.4", "how long a past state can be restored (24h; 0s: for ever)"),
        _works(
            "retention-check-interval", Kind.DURATION, "0.3 0.4", "how often to delete what is older (1h; 0s: never)"
        ),
        *_SHARED,
    ),
    AGE: _table(
        _refused("identities", Kind.LIST, "0.3 0.5", _NO_AGE),
        _refused("recipients", Kind.LIST, "0.3 0.5", _NO_AGE),
    ),
    UPSTREAM: _table(
        _refused("url", Kind.TEXT, "0.4", _NO_UPSTREAM),
        _refused("path", Kind.TEXT, "0.4", _NO_UPSTREAM),
    ),
}
"""Section to key name to key. The sections age, levels[] and dbs[].upstream are listed but not looked into: the key
that opens them is answered as a whole."""


def suggestion(name: str, section: str) -> str:
    """What somebody who wrote the unknown key `name` may have meant, as a clause in brackets; empty if nothing fits."""
    import difflib

    plain = name.strip().lower().replace("_", "-")
    here = SECTIONS[section]
    homes = [other for other, keys in SECTIONS.items() if plain in keys]
    if homes and plain not in here:
        return f" (it belongs to {' or '.join(homes)})"
    close = difflib.get_close_matches(plain, here, n=1, cutoff=0.75)
    if close:
        return f' (did you mean "{close[0]}"?)'
    every = {key: other for other, keys in SECTIONS.items() for key in keys}
    close = difflib.get_close_matches(plain, every, n=1, cutoff=0.8)
    return f' (did you mean "{close[0]}" of {every[close[0]]}?)' if close else ""
