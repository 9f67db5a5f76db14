"""Every key of `litestream.yml` that an official release knows (0.3, 0.4 beta, 0.5), and what it does here.

The rule behind the fates: a key is *refused* when going on without it would leave something undone that its owner
counts on (data not copied, not encrypted, a program not started, an alarm not raised); it is accepted with a *warning*
when it only tunes a thing that works differently here, so that no data and no duty depends on it.

`docs/config.md` and `docs/litestream.schema.json` are written from this table (`litestream.config.schema`).
"""

from __future__ import annotations

from litestream.config.key import ALL, FALSE, Key, Kind, refused, table, warned, works
from litestream.config.store_keys import AGE, INSIDE, MAX_REQUESTS, STORE_KEYS

_NEXT = "not in this version yet"

_NO_LTX = "has no effect: replicas are written in the format of 0.3, which has no LTX files and no compaction levels"

_SHARED = (
    works(
        "sync-interval",
        Kind.DURATION,
        ALL,
        "shortest time between two uploads; a change after a pause goes at once (1s)",
    ),
    works(
        "validation-interval",
        Kind.DURATION,
        ALL,
        "how often the replica is restored beside the local state and compared with the database (0s: never)",
    ),
    works(
        "lease",
        Kind.FLAG,
        "",
        "whether the replica is claimed before it is written to, so that a second host is found out (where the store "
        "has conditional writes)",
    ),
    warned(
        "auto-recover",
        Kind.FLAG,
        "0.5",
        "has no effect: a new generation is always started when local state is lost",
        FALSE,
    ),
    warned("max-sync-ltx-files", Kind.COUNT, "0.5", _NO_LTX),
    *STORE_KEYS,
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
LEVELS = "levels[]"
UPSTREAM = "dbs[].upstream"

SECTIONS: dict[str, dict[str, Key]] = {
    TOP: table(
        works("addr", Kind.TEXT, ALL, "address that serves /metrics, as HOST:PORT or :PORT (off)"),
        works("dbs", Kind.LIST, ALL, "the databases", section=DATABASE),
        works("logging", Kind.SECTION, "0.3 0.5", "what is logged, and how", section=LOGGING),
        works("snapshot", Kind.SECTION, "0.5", "defaults of all replicas", section=SNAPSHOT),
        works(
            "shutdown-sync-timeout",
            Kind.DURATION,
            "0.5",
            "longest time that the last sync of a shutdown may take (30s)",
        ),
        works("shutdown-sync-interval", Kind.DURATION, "0.5", "time between two tries of the last sync (500ms)"),
        works(
            "retention",
            Kind.SECTION,
            "0.5",
            "`retention.enabled` as in 0.5, or a duration: the default of all replicas",
            section=RETENTION,
        ),
        works("snapshot-interval", Kind.DURATION, "", "the default of all replicas"),
        works("retention-check-interval", Kind.DURATION, "", "the default of all replicas"),
        works("exec", Kind.TEXT, ALL, "application to run beside the replication; `-exec` beats it"),
        works(
            "stream-token", Kind.TEXT, "", "bearer token with which others may follow every database (`GET /stream`)"
        ),
        works("stream", Kind.FLAG, "", "whether they may without one, if `addr` is of this host alone (false)"),
        works(
            "tls-cert", Kind.TEXT, "", "file with the certificate, and those between it and its authority, of `addr`"
        ),
        works("tls-key", Kind.TEXT, "", "file with its key; both: `addr` speaks TLS alone"),
        works("socket", Kind.SECTION, "0.5", "the control socket", section=SOCKET),
        works("validation", Kind.SECTION, "0.5", "defaults of all replicas", section=VALIDATION),
        refused("mcp-addr", Kind.TEXT, "0.5", f"the MCP server is {_NEXT}"),
        works("heartbeat-url", Kind.TEXT, "0.5", "address that is asked for (GET) while every database is safe (off)"),
        works(
            "heartbeat-interval", Kind.DURATION, "0.5", "how often, and how far behind a replica may be (5m, min 1m)"
        ),
        warned("levels", Kind.LIST, "0.5", _NO_LTX),
        warned("l0-retention", Kind.DURATION, "0.5", _NO_LTX),
        warned("l0-retention-check-interval", Kind.DURATION, "0.5", _NO_LTX),
        warned("verify-compaction", Kind.FLAG, "0.5", _NO_LTX, FALSE),
        *_SHARED,
    ),
    LOGGING: table(
        works("level", Kind.TEXT, "0.3 0.5", "trace, debug, info, warn or error (info)"),
        works("type", Kind.TEXT, "0.3 0.5", "text or json (text); `pretty` of 0.5 is taken as text, with a warning"),
        works("stderr", Kind.FLAG, "0.3 0.5", "log to standard error instead of standard output (false)"),
        warned("source", Kind.FLAG, "0.5", "has no effect: log lines never name a place in the source", FALSE),
    ),
    SNAPSHOT: table(
        works("interval", Kind.DURATION, "0.5", "the default of `snapshot-interval` (0s: off)"),
        works("retention", Kind.DURATION, "0.5", "the default of `retention` (24h)"),
    ),
    RETENTION: table(
        works("enabled", Kind.FLAG, "0.5", "`false`: nothing is ever deleted from a replica (true)"),
    ),
    SOCKET: table(
        works("enabled", Kind.FLAG, "0.5", "whether there is one (false)"),
        works("path", Kind.TEXT, "0.5", "where it is (/var/run/litestream.sock)"),
        works("permissions", Kind.TEXT, "0.5", "its mode (0600); only root and our own user are served whatever it is"),
    ),
    VALIDATION: table(works("interval", Kind.DURATION, "0.5", "the default of `validation-interval` (0s: off)")),
    LEVELS: table(warned("interval", Kind.DURATION, "0.5", _NO_LTX)),
    DATABASE: table(
        works("path", Kind.TEXT, ALL, "the database file; `~/`, relative paths and `sqlite://` work"),
        works(
            "meta-path", Kind.TEXT, "0.3 0.5", "directory of our local state (`.FILE-litestream` beside the database)"
        ),
        works("monitor-interval", Kind.DURATION, "0.3 0.5", "how often to look for changes that no event told (1s)"),
        works("checkpoint-interval", Kind.DURATION, ALL, "longest time between two checkpoints (1m; 0s: off)"),
        works("min-checkpoint-page-count", Kind.COUNT, ALL, "pages in the WAL from which it is checkpointed (1000)"),
        works(
            "max-checkpoint-page-count",
            Kind.COUNT,
            "0.3 0.4",
            "pages in the WAL from which writers are held for a moment so that it can start over (10000; 0: never)",
        ),
        works("busy-timeout", Kind.DURATION, "0.5", "longest wait for a lock of the database (1s)"),
        works("compact", Kind.FLAG, "", "each page of what is copied at a time is stored once, see compact.md (false)"),
        works("snapshot", Kind.SECTION, "0.5", "defaults of this database's replicas", section=SNAPSHOT),
        works("replicas", Kind.LIST, ALL, "where the copies go", section=REPLICA),
        works("replica", Kind.SECTION, "0.5", "the same for a single replica", section=REPLICA),
        works(
            "dir",
            Kind.TEXT,
            "0.5",
            "a directory of databases, instead of `path`; each has a place of its own",
        ),
        works("pattern", Kind.TEXT, "0.5", "with `dir`: names of its databases, with `*`, `?` and `[a-z]`; required"),
        works("recursive", Kind.FLAG, "0.5", "with `dir`: whether to look into subdirectories (false)"),
        works("watch", Kind.FLAG, "0.5", "with `dir`: whether databases may come and go while we run (false)"),
        works(
            "meta-dir",
            Kind.TEXT,
            "0.5",
            "with `dir`: directory of the local state of its databases, below it as they are below theirs",
        ),
        works(
            "restore-if-db-not-exists",
            Kind.FLAG,
            "0.5",
            "whether a database that is missing when it comes in is restored first (false); not with `dir`",
        ),
        works("upstream", Kind.SECTION, "0.4", "what the database follows, instead of replicas", section=UPSTREAM),
        warned("monitor-delay-interval", Kind.DURATION, "0.4", "has no effect: a change is copied at once"),
        warned(
            "shadow-retention-count",
            Kind.COUNT,
            "0.4",
            "has no effect: local copies are kept until every replica has them",
        ),
        warned("truncate-page-n", Kind.COUNT, "0.5", "has no effect: see max-checkpoint-page-count"),
        warned("max-sync-wal-bytes", Kind.TEXT, "0.5", "has no effect: segments hold at most 4 MiB"),
    ),
    REPLICA: table(
        works("type", Kind.TEXT, ALL, "file, s3, gs, abs, sftp, webdav, nats or oss (file, or what the URL says)"),
        works("name", Kind.TEXT, "0.3 0.4", "name in logs, tables and `-replica` (the type); unique within a database"),
        works("path", Kind.TEXT, ALL, "directory of the replica; in a bucket what all names begin with"),
        works("url", Kind.TEXT, ALL, "type and place in one: `s3://BUCKET/PATH`, `file:///DIRECTORY`"),
        works("snapshot-interval", Kind.DURATION, "0.3 0.4", "time between two snapshots (0s: only when needed)"),
        works("retention", Kind.DURATION, "0.3 0.4", "how long a past state can be restored (24h; 0s: for ever)"),
        works(
            "retention-check-interval", Kind.DURATION, "0.3 0.4", "how often to delete what is older (1h; 0s: never)"
        ),
        *_SHARED,
    ),
    AGE: table(*INSIDE[AGE]),
    MAX_REQUESTS: table(*INSIDE[MAX_REQUESTS]),
    UPSTREAM: table(
        works("url", Kind.TEXT, "0.4", "`http://HOST:PORT` or `https://HOST:PORT` of the other replicator's `addr`"),
        works("path", Kind.TEXT, "0.4", "path of the database on that host (the same as here)"),
        works("token", Kind.TEXT, "", "its `stream-token`"),
        works("ca", Kind.TEXT, "", "file with the authorities that vouch for its certificate (the system's)"),
    ),
}
"""Section to key name to key. The section levels[] is listed but not looked into: the key that opens it is answered as
a whole."""


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
