"""The commands that restore a database, as a person would type them."""

from __future__ import annotations

import os
import re
import shlex
import string
from urllib.parse import quote

from litestream.config import Config, DatabaseConfig, ReplicaConfig
from litestream.config.loader import replica_at
from litestream.config.replica import ReplicaDefaults
from litestream.errors import ConfigError

_SPECIAL = re.compile("[%?#\udc80-\udcff]")
_PLAIN = frozenset(string.ascii_letters + string.digits + "/._-+:=@%, ")


def restore_commands(config: Config, database: DatabaseConfig, replica: ReplicaConfig) -> list[str]:
    """Commands that restore to a new file in the current directory, each of which works: by the configuration first,
    and from the replica's URL, if that is all it takes besides credentials in the environment. No secrets."""
    out = f"./{os.path.basename(database.path)}.restored"
    found = []
    if config.source is not None and config.database(database.path) is not None:
        named = ["-replica", replica.label] if len(database.replicas) > 1 else []
        source = os.path.abspath(config.source)
        found.append(_line("-config", source, *named, "-o", out, database.path))
    url = _url(replica)
    if url:
        found.append(_line("-o", out, url))
    return found


def _url(replica: ReplicaConfig) -> str:
    """A URL that leads to the replica; empty if there is more to it than a URL can say."""
    if replica.age is not None:
        return ""
    location = replica.location
    if replica.type == "file":
        location = "file://" + (quote(os.fsencode(location)) if _SPECIAL.search(location) else location)
    elif replica.type == "s3":
        region = getattr(replica.backend, "region", "")
        options = [f"region={quote(region)}"] if region else []
        options += ["forcePathStyle=true"] if getattr(replica.backend, "force_path_style", None) else []
        location += ("&" if "?" in location else "?") + "&".join(options) if options else ""
    try:
        found = replica_at(location, ReplicaDefaults())
    except ConfigError:
        return ""
    same = found.path == replica.path if replica.type == "file" else found.place == replica.place
    return location if same and found.type == replica.type else ""


def _line(*words: str) -> str:
    return " ".join(["litestream restore", *map(_quoted, words)])


def _quoted(word: str) -> str:
    """For a shell; what cannot be shown is written as bash, zsh and ksh have it."""
    if word.isprintable():
        return shlex.quote(word)
    raw = word.encode("utf-8", "surrogateescape")
    return "$'" + "".join(chr(b) if chr(b) in _PLAIN else f"\\x{b:02x}" for b in raw) + "'"
