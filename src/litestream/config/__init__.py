"""Configuration: `litestream.yml` to a typed, frozen, resolved value.

::

    from litestream.config import load
    config = load("/etc/litestream.yml")            # or load(None): -config > LITESTREAM_CONFIG > ./ > /etc/
    for line in config.warnings: ...                # accepted without effect; to be logged
    config.addr                                     # "127.0.0.1:9090" | ":9090" | None
    config.logging.level, .type, .stderr            # "info", "text" | "json", False
    config.socket.enabled, .path, .permissions      # False, "/var/run/litestream.sock", 0o600
    config.heartbeat_url, .heartbeat_interval       # a secret text or None, seconds
    config.shutdown_sync_timeout, .shutdown_sync_interval       # seconds
    for database in config.databases:
        database.path, database.meta_path           # absolute; meta_path None: beside the database
        database.monitor_interval, .checkpoint_interval, .busy_timeout      # seconds
        database.min_checkpoint_page_count, .max_checkpoint_page_count      # pages
        for replica in database.replicas:
            replica.name, replica.label, replica.type       # label: the name, or the type
            replica.open()                          # a ReplicaClient; contacts nothing yet
            replica.location                        # the directory, or the URL without secrets
            replica.sync_interval, .snapshot_interval, .retention, .retention_check_interval    # seconds, resolved
    for directory in config.directories:
        directory.dir, directory.pattern, directory.recursive, directory.watch      # absolute; names; flags
        directory.database("sub/app.db")            # a DatabaseConfig for what is there
    config.all_databases()                          # with those that the directories have now
    config.database("app.db")                       # the one of that path, or None
    config.replica_at("s3://bucket/x")              # one that is not in the file, with the file's defaults
    Config.for_command_line("app.db", ["file:///backup"])       # replicate DB URL...

Everything raises `litestream.errors.ConfigError`; for a file its text has one line per problem,
`FILE:LINE: dbs[0].replicas[0].sync-intervall: unknown key (did you mean "sync-interval"?)`, all of them at once.
No text shows a value that came from the environment, nor the value of a key that may hold a secret; neither does a
repr or a dump.

`loads(text)` is the same for a text at hand.
Import this package where a configuration is read, not at the top of a module.
"""

from __future__ import annotations

from litestream.config.loader import find, for_command_line, load, loads
from litestream.config.models import Config, DatabaseConfig, DirectoryConfig, LoggingConfig, ReplicaConfig

__all__ = [
    "load",
    "loads",
    "find",
    "for_command_line",
    "Config",
    "DatabaseConfig",
    "DirectoryConfig",
    "LoggingConfig",
    "ReplicaConfig",
]
