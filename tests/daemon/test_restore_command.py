"""The restore commands of the status page, as a shell reads them."""

from __future__ import annotations

import os
import subprocess

import pytest

from litestream.config import Config, DatabaseConfig, ReplicaConfig
from litestream.config.paths import destination
from litestream.daemon.restorecommand import restore_commands


def commands(database: str, **replica: object) -> list[list[bytes]]:
    """The words of each command, by bash."""
    entry = DatabaseConfig(path=database, replicas=(ReplicaConfig.model_validate(replica),))
    found = restore_commands(Config(databases=(entry,), source="/etc/l s.yml"), entry, entry.replicas[0])
    words = []
    for line in found:
        assert line.startswith("litestream restore ")
        assert line.isprintable()
        script = "printf '%s\\0' " + line.removeprefix("litestream ")
        done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
        words.append(done.stdout.split(b"\0")[:-1])
    return words


NAMES = (
    "app.db",
    "a b.db",
    'it\'s "$(x)" `y`.db',
    "50%.db",
    "a?#b.db",
    "é漢😀.db",
    "n\nl.db",
    "r\udcff.db",
    "r\u202ed.db",
)


@pytest.mark.parametrize("name", NAMES)
def test_any_name(name: str) -> None:
    """Both commands name the very database and directory, whatever bytes are in their names, and are one line."""
    by_config, by_url = commands(f"/db/{name}", path=f"/backup/{name}")
    raw = os.fsencode(name)
    out = b"./" + raw + b".restored"
    assert by_config == [b"restore", b"-config", b"/etc/l s.yml", b"-o", out, b"/db/" + raw]
    assert by_url[:3] == [b"restore", b"-o", out]
    assert destination(None, None, os.fsdecode(by_url[3])) == ("file", f"/backup/{name}")


def test_what_a_url_cannot_say() -> None:
    """Encryption, and an endpoint that its URLs do not have, are in the configuration: that command alone is shown."""
    age = {"recipients": ["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"]}
    for replica in (
        {"path": "/backup", "age": age},
        {"type": "gs", "bucket": "backups", "endpoint": "http://127.0.0.1:9"},
    ):
        assert [words[1] for words in commands("/db/app.db", **replica)] == [b"-config"]


def test_options_of_an_s3_url() -> None:
    """What finds the bucket goes along, and no key does."""
    keys = {"access-key-id": "k", "secret-access-key": "secret"}
    place = {"type": "s3", "bucket": "backups", "path": "app", "endpoint": "http://127.0.0.1:9", "region": "eu"}
    _, by_url = commands("/db/app.db", **place, **{"force-path-style": True}, **keys)
    assert by_url[3] == b"s3://backups/app?endpoint=http://127.0.0.1:9&region=eu&forcePathStyle=true"
