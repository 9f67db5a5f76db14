"""Every official key is fed to the loader, and answered as the table says."""

from __future__ import annotations

import pytest

from litestream.config import loads
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
    TOP,
    UPSTREAM,
    VALIDATION,
)
from litestream.config.schema import NOT_IN_FILE, _fields
from litestream.config.store_keys import AGE, BY_NAME, MAX_REQUESTS
from litestream.errors import ConfigError

OFFICIAL = {
    TOP: "addr exec access-key-id secret-access-key logging mcp-addr socket levels snapshot l0-retention "
    "l0-retention-check-interval retention verify-compaction validation heartbeat-url heartbeat-interval "
    "shutdown-sync-timeout shutdown-sync-interval dbs sync-interval validation-interval region bucket endpoint",
    LOGGING: "level type stderr source",
    SOCKET: "enabled path permissions",
    LEVELS: "interval",
    SNAPSHOT: "interval retention",
    RETENTION: "enabled",
    VALIDATION: "interval",
    DATABASE: "path dir pattern recursive watch meta-dir meta-path monitor-interval monitor-delay-interval "
    "checkpoint-interval min-checkpoint-page-count max-checkpoint-page-count truncate-page-n shadow-retention-count "
    "busy-timeout max-sync-wal-bytes restore-if-db-not-exists upstream replicas replica snapshot",
    UPSTREAM: "url path",
    REPLICA: "type name path url retention retention-check-interval snapshot-interval sync-interval "
    "validation-interval age region bucket endpoint force-path-style skip-verify sign-payload require-content-md5 "
    "storage-class part-size concurrency sse-customer-algorithm sse-customer-key sse-customer-key-path sse-kms-key-id "
    "account-name account-key sas-token host user password key-path host-key concurrent-writes webdav-url "
    "webdav-username webdav-password jwt seed creds nkey username token tls root-cas client-cert client-key "
    "max-reconnects reconnect-wait timeout auto-recover max-sync-ltx-files access-key-id secret-access-key",
    AGE: "identities recipients",
}
"""The list of peer-features.md section 2, written down a second time on purpose."""

ALL = [(section, key) for section, keys in SECTIONS.items() for key in keys.values()]
CASES = [(section, key) for section, key in ALL if key.name not in BY_NAME and section not in {AGE, MAX_REQUESTS}]
"""Without the keys of stores, which test_config_stores.py feeds to each type of replica."""
PLACES = {
    TOP: ("", ""),
    LOGGING: ("logging", ""),
    SOCKET: ("socket", ""),
    SNAPSHOT: ("snapshot", ""),
    RETENTION: ("retention", ""),
    VALIDATION: ("validation", ""),
    LEVELS: ("levels", ""),
    DATABASE: ("dbs[0]", ""),
    REPLICA: ("dbs[0].replica", ""),
    UPSTREAM: ("dbs[0].upstream", ""),
}
SAMPLES = {
    Kind.DURATION: "1m",
    Kind.COUNT: "7",
    Kind.FLAG: "true",
    Kind.TEXT: "hush",
    Kind.SECTION: "{}",
    Kind.LIST: "[]",
}
SPECIAL = {
    "addr": ":1",
    "level": "warn",
    "type": "text",
    "retention": "1m",
    "url": "file:///b",
    "max-checkpoint-page-count": "2000",
    "permissions": "0640",
    "heartbeat-url": "https://example.com/ping",
}


def text_with(section: str, key: Key) -> str:
    """A good file with the key put into its section."""
    sample = SAMPLES[key.kind] if key.fate is not Fate.WORKS else SPECIAL.get(key.name, SAMPLES[key.kind])
    if section == REPLICA and key.name == "type" and key.fate is Fate.WORKS:
        sample = "file"
    pair = f"{key.name}: {sample}"
    top = {TOP: pair, LEVELS: f"levels: [{{{pair}}}]"}.get(section, "")
    if section in {LOGGING, SOCKET, SNAPSHOT, RETENTION, VALIDATION}:
        top = f"{section}: {{{pair}}}"
    if section == UPSTREAM or (section == DATABASE and key.name == "upstream"):
        pair = {"upstream": "", "url": "", "path": ", path: /b"}.get(key.name, f", {pair}")
        return f"dbs: [{{path: /a, upstream: {{url: 'http://h:1'{pair}}}}}]"
    if key.name in {"tls-cert", "tls-key"}:
        top = "tls-cert: /c\ntls-key: /k"
    database = {DATABASE: f", {pair}"}.get(section, "")
    replica = {REPLICA: f", {pair}"}.get(section, "")
    if section == REPLICA and key.name in {"path", "url"}:
        return f"dbs: [{{path: /a, replica: {{{pair.replace('hush', '/b')}}}}}]"
    if section == DATABASE and key.name in {"dir", "pattern", "recursive", "watch", "meta-dir"}:
        others = [] if key.name == "dir" else ["dir: /a"]
        others += [] if key.name == "pattern" else ["pattern: '*.db'"]
        return f"dbs: [{{{', '.join([pair, *others])}, replica: {{path: /b}}}}]"
    if section == DATABASE and key.name == "path":
        return f"dbs: [{{{pair}, replica: {{path: /b}}}}]"
    if section == DATABASE and key.name in {"replica", "replicas"}:
        value = "{path: /b}" if key.name == "replica" else "[{path: /b}]"
        return f"dbs: [{{path: /a, {key.name}: {value}}}]"
    if key.name == "heartbeat-interval":
        top = f"heartbeat-url: https://example.com/ping\n{pair}"
    if section == TOP and key.name == "dbs":
        top = ""
    return f"{top}\ndbs: [{{path: /a{database}, replica: {{path: /b{replica}}}}}]"


def test_the_table_is_complete() -> None:
    """No official key is missing, and none is there that no release knows, except those that are marked."""
    for section, names in OFFICIAL.items():
        assert set(names.split()) <= set(SECTIONS[section]), section
    shared = set(OFFICIAL[REPLICA].split()) | set(OFFICIAL[TOP].split())
    ours = set()
    for section, key in ALL:
        known = shared if section in {TOP, REPLICA} else set(OFFICIAL.get(section, "").split())
        if key.name not in known or not key.versions:
            ours.add(key.name)
            assert not key.versions or section == TOP, f"{section} {key.name}"
    assert ours == {
        "snapshot-interval", "retention-check-interval", "session-token", "sse", "conditional", "credential-path",
        "max-requests", "per-second", "per-month", "stream", "stream-token", "tls-cert", "tls-key", "token", "ca",
        "lease", "compact",
    }  # fmt: skip


@pytest.mark.parametrize(("section", "key"), CASES, ids=[f"{section}/{key.name}" for section, key in CASES])
def test_each_key_is_answered_as_the_table_says(section: str, key: Key) -> None:
    """A key works silently, or is warned about, or is refused; the answer names its place and gives the reason."""
    text = text_with(section, key)
    place, answered_at = PLACES[section]
    where = answered_at or (f"{place}.{key.name}" if place else key.name)
    if section == LEVELS:
        where = "levels"
    if key.fate is Fate.REFUSED:
        with pytest.raises(ConfigError) as caught:
            loads(text, name="f", expand_env=False)
        message = str(caught.value)
        assert message.partition(": ")[2] == f"{where}: {key.note}"
        assert "hush" not in message
        return
    warnings = [warning.partition(": ")[2] for warning in loads(text, name="f", expand_env=False).warnings]
    assert warnings == ([f"{where}: {key.note}"] if key.fate is Fate.WARNING else [])


@pytest.mark.parametrize(
    ("section", "key"), [case for case in CASES if case[1].off], ids=lambda case: getattr(case, "name", case)
)
def test_asking_for_nothing_is_silent(section: str, key: Key) -> None:
    """A key that is switched off explicitly is accepted without a word."""
    for value in ("false", "off") if "false" in key.off else ("0s", "0"):
        text = text_with(section, key).replace(f"{key.name}: {SAMPLES[key.kind]}", f"{key.name}: {value}")
        assert f"{key.name}: {value}" in text
        assert loads(text).warnings == ()


def test_reasons_read_well() -> None:
    """Each note is one line, a clause without a full stop, and works in a Markdown table."""
    for _, key in ALL:
        assert key.note
        assert key.note.isprintable()
        assert not key.note.endswith(".")
        assert "|" not in key.note


@pytest.mark.parametrize("section", [TOP, LOGGING, SOCKET, SNAPSHOT, VALIDATION, DATABASE, REPLICA])
def test_what_works_is_what_the_models_have(section: str) -> None:
    """A key of the table that works has a field in a model, and the reverse."""
    plain = {key.name for key in SECTIONS[section].values() if key.fate is Fate.WORKS and key.kind is not Kind.SECTION}
    sections = {key.name for key in SECTIONS[section].values() if key.kind in (Kind.SECTION, Kind.LIST)}
    fields = set(_fields(section))
    assert plain - sections == fields - sections
    assert not fields & NOT_IN_FILE
